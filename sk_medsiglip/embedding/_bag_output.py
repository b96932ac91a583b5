"""An error for bags, arrays of three axes, that are requested as a data frame."""

from __future__ import annotations

from typing import Any

from sk_medsiglip._validation import _get_output_config


def refuse_data_frames(transformer: Any, alternative: str) -> None:
    """Raise before any work if ``set_output`` requests a data frame."""
    container = _get_output_config("transform", transformer)["dense"]
    if container != "default":
        name = type(transformer).__name__
        raise ValueError(
            f"{name} returns bags, arrays of shape (n_samples, n_instances, width), "
            f'but set_output(transform="{container}") requests a data frame, which has '
            'two axes. Call set_output(transform="default") on it, or use '
            f"{alternative} to get one row per sample."
        )
