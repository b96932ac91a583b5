"""Bags are arrays of three axes, which no data frame holds."""

from __future__ import annotations

from typing import Any

from sk_medsiglip._validation import _get_output_config


def refuse_data_frames(transformer: Any, way_out: str) -> None:
    """Raise before any work if scikit-learn is to put bags into a data frame."""
    container = _get_output_config("transform", transformer)["dense"]
    if container != "default":
        name = type(transformer).__name__
        raise ValueError(
            f"{name} makes bags, arrays of shape (n_samples, n_instances, width), and "
            f'set_output(transform="{container}") asks for a data frame, which has '
            f'two axes. Call set_output(transform="default") on it, or get one row per '
            f"sample: {way_out}."
        )
