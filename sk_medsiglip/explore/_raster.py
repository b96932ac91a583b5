"""The map of a session, drawn by numpy as an image of one byte a pixel.

A browser is too slow for 100,000 circles; a picture costs the same for any number.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sk_medsiglip.explore._colours import INK, RING, Colouring, palette_bytes

#: Marks of rows: no label, or one that is drawn as a disc, a square or a diamond.
PLAIN, DISC, SQUARE, DIAMOND = range(4)
#: Share of the picture that all points together may cover.
_COVERED = 0.04
_LARGEST, _SMALLEST_MARK = 5, 3  # pixels
_MARGIN = 32  # pixels around the picture, so that points at its edges are whole

Area = tuple[float, float, float, float]  # x0, x1, y0, y1
Mask = NDArray[np.bool_]
Codes = NDArray[np.uint8]


def draw_map(
    points: NDArray[np.floating],
    colouring: Colouring,
    *,
    marks: Codes,
    selected: Mask,
    area: Area,
    size: tuple[int, int],
) -> bytes:
    """Return a PNG, ``size`` wide and high, of an area; its top row is at ``y1``.

    Labelled rows have a dark edge and a shape of their own, selected ones a ring.
    """
    rows, across, down = _places(points, area, size)
    width, height = (side + 2 * _MARGIN for side in size)
    canvas = np.zeros((height, width), dtype=np.uint8)

    def stamp(chosen: Mask, shape: Mask, codes: Codes | int) -> None:
        """Draw a shape at some points; later points cover earlier ones."""
        y, x = np.nonzero(shape)
        y, x = y - shape.shape[0] // 2, x - shape.shape[1] // 2
        places = (down[chosen, None] + y) * width + across[chosen, None] + x
        wide = codes if isinstance(codes, int) else np.repeat(codes[chosen], len(y))
        canvas.reshape(-1)[places.ravel()] = wide

    # High scores on top of low ones, which are more.
    order = np.argsort(colouring.codes[rows], kind="stable")
    rows, across, down = rows[order], across[order], down[order]
    codes, marks, is_selected = colouring.codes[rows], marks[rows], selected[rows]
    largest = max(_LARGEST, size[0] // 160)  # the pixels of some screens are small

    def side_of(n: int, smallest: int) -> int:
        """Return the size of ``n`` points that cover a share of the picture."""
        fitting = np.sqrt(_COVERED * size[0] * size[1] / max(1, n))
        return int(np.clip(round(fitting), smallest, largest))

    side = side_of(len(rows), 1)
    stamp((marks == PLAIN) & ~is_selected, _disc(side), codes)
    side = max(side, side_of(is_selected.sum(), 1))
    stamp(is_selected, _disc(side + (6 if side >= _LARGEST else 2)), RING)
    stamp(is_selected & (marks == PLAIN), _disc(side), codes)
    side = max(side, side_of((marks != PLAIN).sum(), _SMALLEST_MARK))
    stamp(is_selected & (marks != PLAIN), _disc(side + 6), RING)
    for mark, shape in ((DISC, _disc), (SQUARE, _square), (DIAMOND, _diamond)):
        stamp(marks == mark, shape(side + 2), INK)
        stamp(marks == mark, shape(side), codes)
    return _png(canvas[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN], colouring.palette)


def _places(
    points: NDArray[np.floating], area: Area, size: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows near a picture, and their pixels on a canvas with a margin."""
    x0, x1, y0, y1 = area
    across = (points[:, 0] - x0) * (size[0] / (x1 - x0)) + _MARGIN
    down = (y1 - points[:, 1]) * (size[1] / (y1 - y0)) + _MARGIN
    edge = _MARGIN // 2
    near = (across >= edge) & (across < size[0] + 2 * _MARGIN - edge)
    near &= (down >= edge) & (down < size[1] + 2 * _MARGIN - edge)
    rows = np.flatnonzero(near)
    return rows, across[rows].astype(np.intp), down[rows].astype(np.intp)


def _disc(side: int) -> Mask:
    y, x = _from_centre(side)
    return np.hypot(y, x) <= side / 2


def _square(side: int) -> Mask:
    return np.ones((side, side), dtype=bool)


def _diamond(side: int) -> Mask:
    y, x = _from_centre(side + 2)  # else it would look smaller than the others
    return np.abs(y) + np.abs(x) <= side / 2 + 1


def _from_centre(side: int) -> tuple[Any, Any]:
    along = np.arange(side) - (side - 1) / 2
    return along[:, None], along[None, :]


def _png(pixels: Codes, palette: tuple[str, ...]) -> bytes:
    image = Image.fromarray(pixels)
    image.putpalette(palette_bytes(palette))
    written = io.BytesIO()
    image.save(written, "PNG", compress_level=1)
    return written.getvalue()
