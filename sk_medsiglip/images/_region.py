"""A rectangle of an image: a tile of a slide, the box around a lesion."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._arrays import meaning_of_values
from sk_medsiglip.images._intensity import Tone
from sk_medsiglip.images._kinds import kind_of
from sk_medsiglip.images._lazy import LazyImage
from sk_medsiglip.images._picture import Picture, percentile_limits, refuse_too_large
from sk_medsiglip.images._read import load_picture
from sk_medsiglip.images._sources import describe, is_readable_stream, open_source
from sk_medsiglip.images._tiles import TiledPage, can_read_tiles, find_page

_SLIDES = 'pip install "sk-medsiglip[slides]"'


@dataclass(frozen=True, eq=False)
class Region(LazyImage):
    """A rectangle of an image, read when its turn comes.

    It stands wherever a path may stand: in the list that is ``X``, or in
    :func:`read_image`. A DataFrame of one column of images and the columns ``x``,
    ``y``, ``width``, ``height`` (and ``level``) is a collection of regions.

    Parameters
    ----------
    source : path, URL, bytes, file object, PIL image or array
        The whole image.
    x, y : int
        Left and upper edge, in pixels from the upper left corner of the image as it is
        shown: after the orientation of EXIF, which a phone may have written.
    width, height : int
        Width and height in pixels, 1 or more. The rectangle must lie within the image.
    level : int, default=0
        Resolution level of a pyramidal TIFF file; 0 is the largest. All numbers are in
        pixels of that level.

    Raises
    ------
    ImageReadError
        When it is read, if a number is missing, not an integer, or outside of the
        image.

    Notes
    -----
    A region looks as it does in the whole image: percentiles, and the white of 16-bit
    files, are those of the whole image.

    Only the tiles that it touches are read from TIFF files, including whole-slide
    images (SVS), if the extra ``slides`` is installed; ``max_pixels`` then counts the
    pixels of the region. If the grey values depend on the whole image (16-bit grey
    files under ``intensity="auto"``, or ``Percentiles``), or the file is of another
    kind, the whole image is decoded for each region, and its pixels count.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_medsiglip.images import Region, read_image
    >>> image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    >>> read_image(Region(image, x=2, y=1, width=3, height=2))[..., 0]
    array([[10, 11, 12],
           [18, 19, 20]], dtype=uint8)
    """

    source: Any
    x: int
    y: int
    width: int
    height: int
    level: int = 0

    def load(self, *, frame: int | str | None, max_pixels: int) -> Picture:
        """Decode it."""
        least = {"x": 0, "y": 0, "width": 1, "height": 1, "level": 0}
        numbers = {
            name: _integer(getattr(self, name), name, lowest)
            for name, lowest in least.items()
        }
        return replace(self, **numbers)._load(frame, max_pixels)

    def describe(self) -> str:
        """Return the rectangle and the name of the whole."""
        level = f", level {self.level}" if self.level else ""
        return (
            f"region x={self.x} y={self.y} width={self.width} height={self.height}"
            f"{level} of {describe(self.source)}"
        )

    def whole(self) -> object:
        """Return the whole image."""
        return self.source

    def part(self) -> str:
        """Return the rectangle."""
        box = (self.x, self.y, self.width, self.height, self.level)
        return ",".join(str(number) for number in box)

    def _load(self, frame: int | str | None, max_pixels: int) -> Picture:
        refuse_too_large(self.height, self.width, max_pixels)
        if isinstance(self.source, np.ndarray):
            # It is in memory, or in a memory map of which only a part is read.
            max_pixels = max(max_pixels, self.source.size)
        is_tiff = is_readable_stream(self.source) and _is_tiff(self.source)
        if is_tiff and can_read_tiles():
            picture = self._from_tiles(frame, max_pixels)
            if picture is not None:
                return picture
        try:
            if self.level:
                raise ImageReadError(
                    f"level {self.level} is asked for, and it is not a TIFF pyramid "
                    "that can be read in parts",
                    "Use level=0.",
                )
            whole = load_picture(self.source, frame=frame, max_pixels=max_pixels)
        except ImageReadError as error:
            if is_tiff and not can_read_tiles():
                error.hint = (
                    f"{error.hint} To read only a part of a TIFF file, install the "
                    f"libraries for it: {_SLIDES}"
                ).strip()
            raise
        self._refuse_outside(*whole.values.shape[:2])
        rows = slice(self.y, self.y + self.height)
        columns = slice(self.x, self.x + self.width)
        return replace(
            whole,
            values=whole.values[rows, columns],
            alpha=None if whole.alpha is None else whole.alpha[rows, columns],
            limits=functools.partial(percentile_limits, picture=whole),
        )

    def _from_tiles(self, frame: int | str | None, max_pixels: int) -> Picture | None:
        with open_source(self.source, in_parts=True) as stream:
            page = find_page(stream, frame=frame, level=self.level)
            if page is None:
                return None
            self._refuse_outside(page.height, page.width)
            picture = _picture(page, self, max_pixels)

        @functools.cache
        def whole() -> Picture:
            with open_source(self.source, in_parts=True) as stream:
                page = find_page(stream, frame=frame, level=self.level)
                assert page is not None  # as it was a moment ago
                try:
                    refuse_too_large(page.height, page.width, max_pixels)
                except ImageReadError as error:
                    error.hint = (
                        "The brightness of this region depends on the values of the "
                        "whole image. Fix it: intensity=Window(center, width)."
                    )
                    raise
                size = {"width": page.width, "height": page.height}
                return _picture(page, replace(self, x=0, y=0, **size), max_pixels)

        def auto(values: NDArray[Any]) -> NDArray[np.uint8]:
            meaning = meaning_of_values(whole().values)
            if isinstance(meaning, ImageReadError):
                raise meaning
            return values if meaning is None else meaning(values)

        tone: Tone | None = None if picture.values.dtype == np.uint8 else auto
        return replace(
            picture, auto=tone, limits=lambda wanted: percentile_limits(wanted, whole())
        )

    def _refuse_outside(self, height: int, width: int) -> None:
        right, lower = self.x + self.width, self.y + self.height
        if right > width or lower > height:
            raise ImageReadError(
                f"the region ends at x={right}, y={lower}, outside of the image, which "
                f"is {width} wide and {height} high",
                "Coordinates are pixels of the image as stored, not of a resized one; "
                "cut the region at the image's edge.",
            )


def _integer(value: Any, name: str, least: int) -> int:
    is_whole = (
        isinstance(value, int | float | np.integer | np.floating)
        and not isinstance(value, bool)
        and float(value).is_integer()
    )
    if not is_whole:
        raise ImageReadError(
            f"{name}={value} of the region is not an integer",
            "Positions and sizes are whole pixels; drop rows without them.",
        )
    if value < least:
        raise ImageReadError(
            f"{name}={value} of the region is too small",
            f"It is a number of pixels, from {least}.",
        )
    return int(value)


def _is_tiff(source: Any) -> bool:
    with open_source(source, in_parts=True) as stream:
        return kind_of(stream) == "TIFF"


def _picture(page: TiledPage, box: Region, max_pixels: int) -> Picture:
    values = page.read(box.x, box.y, box.width, box.height, max_pixels=max_pixels)
    alpha = None
    if values.ndim == 3 and values.shape[2] == 4:
        values, alpha = values[..., :3], values[..., 3]
    inverted = page.is_inverted
    if inverted and values.dtype == np.uint8:
        values, inverted = 255 - values, False  # as Pillow gives them
    return Picture(values, None, "TIFF", inverted=inverted, alpha=alpha)
