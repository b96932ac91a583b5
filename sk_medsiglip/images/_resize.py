"""The resize with which the published results of MedSigLIP were obtained.

big_vision calls ``tf.image.resize(method="bilinear", antialias=False)``; Pillow,
OpenCV and torch each give a different image. This is TensorFlow's arithmetic, in the
same order and type, so that the bytes are equal.

Without antialiasing, each pixel comes from four pixels of the image, however large it
is, and only those are touched. They may be stored values, which ``show`` converts to
brightness here; the result equals that of converting the whole image first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.exceptions import ImageReadError

#: Numbers of the result computed at a time: few enough for the cache of the CPU.
_NUMBERS = 43_000


def resize_bilinear(
    values: NDArray[Any],
    size: int,
    *,
    pad: bool = False,
    show: Callable[[NDArray[Any]], NDArray[np.uint8]] | None = None,
) -> NDArray[np.uint8]:
    """Resize to a square as TensorFlow does: bilinear, half-pixel, no antialias.

    Parameters
    ----------
    values : ndarray of shape (H, W) or (H, W, 3)
        uint8 pixels, or stored values of any type together with ``show``.
    size : int
        Height and width of the result.
    pad : bool, default=False
        Whether to pad the shorter axis with black on both sides first, so that the
        proportions are kept, as in Google's serving container. The image stays in the
        middle; an odd row or column is added at the bottom or on the right.
    show : callable or None, default=None
        Function that converts values to uint8, element by element. It may add a last
        axis of three colours.

    Returns
    -------
    ndarray of shape (size, size) or (size, size, 3), uint8
        Resized image. Fractions are truncated, not rounded, as in TensorFlow's cast.
    """
    height, width = values.shape[:2]
    side = max(height, width) if pad else 0
    down, along = _Axis.of(height, size, side), _Axis.of(width, size, side)
    pixel = values[:1, :1]
    n_colours = (pixel if show is None else show(pixel)).size
    # Rows of numbers; a number is a grey value or one of three colours.
    numbers = values.reshape(height, width * pixel.size)
    along = along.of_channels(pixel.size, n_colours)

    def take(band: NDArray[Any], columns: _Side) -> NDArray[np.uint8]:
        taken = band.take(columns.at, axis=1, mode="clip")
        if show is not None:
            taken = show(taken).reshape(len(taken), -1)
        if columns.outside.any():
            taken[:, columns.outside] = 0
        return taken

    n_across = size * n_colours
    resized = np.empty((size, n_across), np.uint8)
    step = max(1, _NUMBERS // n_across)
    # Reuse buffers: allocating memory costs more than the arithmetic.
    between = np.empty((2 * step, n_across), np.float32)
    change = np.empty_like(between)
    for first in range(0, size, step):
        some = slice(first, first + step)
        n_rows = len(resized[some])
        between, change = between[: 2 * n_rows], change[: 2 * n_rows]
        band = numbers[np.concatenate([down.before.at[some], down.after.at[some]])]
        between[...] = take(band, along.before)
        np.subtract(take(band, along.after), between, out=change)
        change *= along.fraction
        between += change
        upper, lower = between[:n_rows], between[n_rows:]
        upper[down.before.outside[some]] = 0
        lower[down.after.outside[some]] = 0
        lower -= upper
        lower *= down.fraction[some, None]
        upper += lower
        resized[some] = upper
    grey = values.ndim == 2 and n_colours == 1
    return resized if grey else resized.reshape(size, size, -1)


def pad_to_square(
    pixels: NDArray[np.uint8], max_pixels: int | None = None
) -> NDArray[np.uint8]:
    """Return an image in the middle of a black square, or unchanged if it is square.

    Raises
    ------
    ImageReadError
        If the square has more than ``max_pixels`` pixels.
    """
    height, width = pixels.shape[:2]
    if height == width:
        return pixels
    side = max(height, width)
    if max_pixels is not None and side**2 > max_pixels:
        raise ImageReadError(
            f"it is {height} x {width}, but the square around it has more pixels than "
            f"max_pixels={max_pixels}",
            'Use resize="medsiglip" or pad=False, or cut it into parts.',
        )
    square = np.zeros((side, side, *pixels.shape[2:]), pixels.dtype)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


class _Side(NamedTuple):
    """One of the two input positions of each output position."""

    at: NDArray[np.intp]
    outside: NDArray[np.bool_]  # in the padding


class _Axis(NamedTuple):
    """The two inputs of each output position, and the fraction between them."""

    before: _Side
    after: _Side
    fraction: NDArray[np.float32]

    @classmethod
    def of(cls, n_in: int, n_out: int, side: int) -> _Axis:
        """Return an axis of an image, in the middle of a square if ``side`` is set."""
        n_padded = side or n_in
        scale = np.float32(n_padded) / np.float32(n_out)
        centre = np.arange(n_out, dtype=np.float32) + np.float32(0.5)
        position = centre * scale - np.float32(0.5)
        floor = np.floor(position)
        offset = (n_padded - n_in) // 2

        def side_at(nearest: NDArray[np.float32]) -> _Side:
            at = nearest.astype(np.intp) - offset
            return _Side(np.clip(at, 0, n_in - 1), (at < 0) | (at >= n_in))

        before = side_at(np.maximum(floor, 0))
        after = side_at(np.minimum(np.ceil(position), n_padded - 1))
        return cls(before, after, position - floor)

    def of_channels(self, n_channels: int, n_colours: int) -> _Axis:
        """Return the axis for pixels of ``n_channels`` numbers each.

        Each pixel becomes ``n_colours`` numbers: as many, or three from one grey value.
        """

        def spread(side: _Side) -> _Side:
            at = side.at[:, None] * n_channels + np.arange(n_channels)
            return _Side(at.ravel(), side.outside.repeat(n_colours))

        fraction = self.fraction.repeat(n_colours)
        return _Axis(spread(self.before), spread(self.after), fraction)
