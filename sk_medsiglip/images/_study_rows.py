"""The containers that ``X`` may be where every row is a study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sk_medsiglip.images._rows import image_rows

__all__ = ["study_rows"]

_CHANNELS = (1, 3, 4)


def study_rows(X: Any) -> Sequence[Any]:
    """Return the studies of ``X``, one a row.

    Parameters
    ----------
    X : sequence
        As for ``image_rows``, with a study where an image may be; or a numeric array
        of shape (n, n_slices, H, W) or (n, n_slices, H, W, channels).

    Returns
    -------
    sequence
        Items for ``open_study``. They are not looked at here.

    Raises
    ------
    TypeError
        If ``X`` is no such container.
    ValueError
        If it is empty, or one volume instead of several.
    """
    if not isinstance(X, np.ndarray) or X.dtype.kind not in "biufc" or not X.size:
        return image_rows(X)
    is_colour = X.ndim > 3 and X.shape[-1] in _CHANNELS
    if X.ndim == 3 or (X.ndim == 4 and is_colour):
        raise ValueError(
            f"X is an array of shape {X.shape}: one volume of {X.shape[0]} slices, or "
            f"{X.shape[0]} studies of one image? Pass one volume as X[None], studies "
            "of one image as list(X)."
        )
    if X.ndim == 4 or (X.ndim == 5 and is_colour):
        return list(X)
    return image_rows(X)
