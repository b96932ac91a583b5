"""The resize that MedSigLIP's published results were made with.

big_vision calls ``tf.image.resize(method="bilinear", antialias=False)``; Pillow,
OpenCV and torch each give another image. This is TensorFlow's arithmetic, in its
order and its type, so that the bytes are equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["pad_to_square", "resize_bilinear"]


def resize_bilinear(
    pixels: NDArray[np.uint8], size: int, *, pad: bool = False
) -> NDArray[np.uint8]:
    """Resize to a square as TensorFlow does: bilinear, half-pixel, no antialias.

    Parameters
    ----------
    pixels : ndarray of shape (H, W, 3), uint8
        RGB.
    size : int
        Height and width of the result.
    pad : bool, default=False
        Add black on both sides of the shorter axis first, so that the proportions
        are kept, as Google's serving container does. The picture stays in the
        middle; an odd pixel goes to the bottom or the right.

    Returns
    -------
    ndarray of shape (size, size, 3), uint8
        Fractions are cut off, not rounded, as TensorFlow's cast does.
    """
    if pad:
        pixels = pad_to_square(pixels)
    return _interpolate(pixels, size, size).astype(np.uint8)


def pad_to_square(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the picture in the middle of a black square; as given if it is square."""
    height, width = pixels.shape[:2]
    if height == width:
        return pixels
    side = max(height, width)
    square = np.zeros((side, side, *pixels.shape[2:]), pixels.dtype)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def _interpolate(values: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """Return values at the new size, as float32; any number of channels."""
    top, bottom, down = _neighbours(values.shape[0], height)
    left, right, along = _neighbours(values.shape[1], width)
    along = along.reshape(-1, *[1] * (values.ndim - 2))
    down = down.reshape(-1, *[1] * (values.ndim - 1))

    def between_columns(rows: NDArray[np.intp]) -> NDArray[np.float32]:
        # Only the pixels that take part are ever converted to float.
        band = values[rows]
        start = band.take(left, axis=1).astype(np.float32)
        change = band.take(right, axis=1) - start
        change *= along
        start += change
        return start

    upper = between_columns(top)
    change = between_columns(bottom)
    change -= upper
    change *= down
    upper += change
    return upper


def _neighbours(
    n_in: int, n_out: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return for each output position its two inputs and the way between them."""
    scale = np.float32(n_in) / np.float32(n_out)
    centre = np.arange(n_out, dtype=np.float32) + np.float32(0.5)
    position = centre * scale - np.float32(0.5)
    floor = np.floor(position)
    before = np.maximum(floor, 0).astype(np.intp)
    after = np.minimum(np.ceil(position), n_in - 1).astype(np.intp)
    return before, after, position - floor
