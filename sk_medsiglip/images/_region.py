"""A rectangle of an image: a tile of a slide, the box around a lesion."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._arrays import meaning_of_values
from sk_medsiglip.images._decoded_image import (
    DecodedImage,
    percentile_limits,
    refuse_too_large,
)
from sk_medsiglip.images._intensity import Tone
from sk_medsiglip.images._kinds import kind_of
from sk_medsiglip.images._lazy import LazyImage
from sk_medsiglip.images._read import load_image
from sk_medsiglip.images._sources import describe, is_readable_stream, open_source
from sk_medsiglip.images._tiles import TiledPage, can_read_tiles, find_page

_SLIDES = 'pip install "sk-medsiglip[slides]"'


@dataclass(frozen=True, eq=False)
class Region(LazyImage):
    """A rectangle of an image, read when it is needed.

    It can be used wherever a path can: as an item of ``X``, or in :func:`read_image`.
    A DataFrame with one column of images and the columns ``x``, ``y``, ``width``,
    ``height`` (and optionally ``level``) is a collection of regions.

    Parameters
    ----------
    source : path, URL, bytes, file object, PIL image or array
        The whole image.
    x, y : int
        Left and upper edge, in pixels from the upper left corner of the image as
        displayed, that is, after its EXIF orientation has been applied.
    width, height : int
        Width and height in pixels, at least 1. The rectangle must lie within the image.
    level : int, default=0
        Resolution level of a pyramidal TIFF file; 0 is the largest. The other numbers
        are in pixels of that level.

    Raises
    ------
    ImageReadError
        When the region is read, if a number is missing, not an integer, or outside of
        the image.

    Notes
    -----
    A region looks as it does in the whole image: percentiles, and the white of 16-bit
    files, are those of the whole image.

    From TIFF files, including whole-slide images (SVS), only the tiles that the region
    touches are read, if the extra ``slides`` is installed; ``max_pixels`` then limits
    the pixels of the region. For other files, and if the brightness depends on the
    whole image (16-bit grey files with ``intensity="auto"``, or ``Percentiles``), the
    whole image is decoded for each region, and ``max_pixels`` limits its pixels.

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

    def load(self, *, frame: int | str | None, max_pixels: int) -> DecodedImage:
        """Decode the region."""
        least = {"x": 0, "y": 0, "width": 1, "height": 1, "level": 0}
        numbers = {
            name: _integer(getattr(self, name), name, lowest)
            for name, lowest in least.items()
        }
        return replace(self, **numbers)._load(frame, max_pixels)

    def describe(self) -> str:
        """Return the rectangle and the name of the whole image."""
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

    def _load(self, frame: int | str | None, max_pixels: int) -> DecodedImage:
        refuse_too_large(self.height, self.width, max_pixels)
        if isinstance(self.source, np.ndarray):
            # It is already in memory, or in a memory map of which only a part is read.
            max_pixels = max(max_pixels, self.source.size)
        is_tiff = is_readable_stream(self.source) and _is_tiff(self.source)
        if is_tiff and can_read_tiles():
            image = self._from_tiles(frame, max_pixels)
            if image is not None:
                return image
        try:
            if self.level:
                raise ImageReadError(
                    f"level {self.level} was requested, but it is not a TIFF pyramid "
                    "that can be read in parts",
                    "Use level=0.",
                )
            whole = load_image(self.source, frame=frame, max_pixels=max_pixels)
        except ImageReadError as error:
            if is_tiff and not can_read_tiles():
                error.hint = (
                    f"{error.hint} To read only a part of a TIFF file, install the "
                    f"required libraries: {_SLIDES}"
                ).strip()
            raise
        self._refuse_outside(*whole.values.shape[:2])
        rows = slice(self.y, self.y + self.height)
        columns = slice(self.x, self.x + self.width)
        return replace(
            whole,
            values=whole.values[rows, columns],
            alpha=None if whole.alpha is None else whole.alpha[rows, columns],
            limits=functools.partial(percentile_limits, image=whole),
        )

    def _from_tiles(
        self, frame: int | str | None, max_pixels: int
    ) -> DecodedImage | None:
        with open_source(self.source, in_parts=True) as stream:
            page = find_page(stream, frame=frame, level=self.level)
            if page is None:
                return None
            self._refuse_outside(page.height, page.width)
            image = _decoded(page, self, max_pixels)

        @functools.cache
        def whole() -> DecodedImage:
            with open_source(self.source, in_parts=True) as stream:
                page = find_page(stream, frame=frame, level=self.level)
                assert page is not None  # since it was found above
                try:
                    refuse_too_large(page.height, page.width, max_pixels)
                except ImageReadError as error:
                    error.hint = (
                        "The brightness of this region depends on the values of the "
                        "whole image. Fix it: intensity=Window(center, width)."
                    )
                    raise
                size = {"width": page.width, "height": page.height}
                return _decoded(page, replace(self, x=0, y=0, **size), max_pixels)

        def auto(values: NDArray[Any]) -> NDArray[np.uint8]:
            meaning = meaning_of_values(whole().values)
            if isinstance(meaning, ImageReadError):
                raise meaning
            return values if meaning is None else meaning(values)

        tone: Tone | None = None if image.values.dtype == np.uint8 else auto
        return replace(
            image, auto=tone, limits=lambda wanted: percentile_limits(wanted, whole())
        )

    def _refuse_outside(self, height: int, width: int) -> None:
        right, lower = self.x + self.width, self.y + self.height
        if right > width or lower > height:
            raise ImageReadError(
                f"the region ends at x={right}, y={lower}, outside of the image, which "
                f"is {width} wide and {height} high",
                "Coordinates are pixels of the image as stored, not of a resized one; "
                "cut the region at the edge of the image.",
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
            f"It must be at least {least}.",
        )
    return int(value)


def _is_tiff(source: Any) -> bool:
    with open_source(source, in_parts=True) as stream:
        return kind_of(stream) == "TIFF"


def _decoded(page: TiledPage, box: Region, max_pixels: int) -> DecodedImage:
    values = page.read(box.x, box.y, box.width, box.height, max_pixels=max_pixels)
    alpha = None
    if values.ndim == 3 and values.shape[2] == 4:
        values, alpha = values[..., :3], values[..., 3]
    inverted = page.is_inverted
    if inverted and values.dtype == np.uint8:
        values, inverted = 255 - values, False  # as Pillow returns them
    return DecodedImage(values, None, "TIFF", inverted=inverted, alpha=alpha)
