"""Scores of the parts of an image or study, arranged as a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Largest side of a slice in a sheet, in pixels.
_SLICE = 128


def as_grid(scores: Any) -> NDArray[np.floating]:
    """Return the scores of cells as a square, without the score of a pooled row."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim == 2 and values.shape[0] == values.shape[1]:
        return values
    side = int(np.sqrt(values.size))
    if values.ndim != 1 or values.size not in (side**2, side**2 + 1) or not side:
        raise ValueError(
            f"scores of shape {values.shape} are not those of a square grid of cells: "
            "the shape must be (grid, grid), (grid**2,), or (grid**2 + 1,) with the "
            "pooled row at the end. For the slices of a study use "
            "HeatmapDisplay.from_slices."
        )
    return values[: side**2].reshape(side, side)


def check_slices(slices: Sequence[Any], scores: Any) -> NDArray[np.float64]:
    """Return one score per slice, without those of padding."""
    values = np.asarray(scores, dtype=np.float64)
    n = len(slices)
    if values.ndim != 1 or len(values) < n or not np.isnan(values[n:]).all():
        raise ValueError(
            f"scores of shape {values.shape} do not fit {n} slices: pass one number "
            "per slice, and NaN beyond the last, as in instance_scores(X)[i]."
        )
    if np.isnan(values[:n]).all():
        raise ValueError("the scores of all slices are NaN; pass at least one number.")
    return values[:n]


def make_sheet(
    slices: Sequence[NDArray[Any]], scores: NDArray[np.float64], n_columns: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return the slices side by side on black, and their scores in the same grid."""
    small = []
    for one in map(np.asarray, slices):
        step = -(-max(one.shape[:2]) // _SLICE)
        colour = one if one.ndim == 3 else np.repeat(one[..., None], 3, axis=2)
        small.append(colour[::step, ::step])
    height = max(one.shape[0] for one in small)
    width = max(one.shape[1] for one in small)
    n_columns = min(n_columns, len(small))
    n_rows = -(-len(small) // n_columns)
    sheet = np.zeros((n_rows * height, n_columns * width, 3), np.uint8)
    grid = np.full((n_rows, n_columns), np.nan)
    for i, one in enumerate(small):
        row, column = divmod(i, n_columns)
        top = row * height + (height - one.shape[0]) // 2
        left = column * width + (width - one.shape[1]) // 2
        sheet[top : top + one.shape[0], left : left + one.shape[1]] = one
        grid[row, column] = scores[i]
    return sheet, grid
