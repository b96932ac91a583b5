"""TIFF pages by tiles: only the tiles or strips that a box touches are decoded.

Slides have billions of pixels. Memory holds the box and one tile, and the result equals
that of Pillow for the whole page, bit by bit.
"""

from __future__ import annotations

import importlib.util
import io
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._decoded_image import choose_frame, refuse_too_large
from sk_medsiglip.images._decoding import decoding

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage


#: Compressions by their number in a file; JPEG 2000 within TIFF comes from Aperio.
_NONE, _LZW, _JPEG, _DEFLATE, _PACKBITS, _OLD_DEFLATE = 1, 5, 7, 8, 32773, 32946
_JPEG2000 = (33005, 34712)
_READ = {_NONE, _LZW, _JPEG, _DEFLATE, _PACKBITS, _OLD_DEFLATE, *_JPEG2000}

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR = 0, 1, 2, 6
_UNASSOCIATED_ALPHA = 2
_GREY_TYPES = {"uint8", "uint16", "float32"}
_ORIENTATION = 274

#: More pages than any stack of images has.
_MOST_DIRECTORIES = 10_000

_AGAIN = "Copy or download it again."


def can_read_tiles() -> bool:
    """Whether the libraries of the extra ``slides`` are installed."""
    names = ("tifffile", "imagecodecs")
    return all(importlib.util.find_spec(name) is not None for name in names)


def find_page(
    stream: BinaryIO, *, frame: int | str | None, level: int
) -> TiledPage | None:
    """Return the page that holds the image, if it can be read in parts."""
    import tifffile

    try:
        with decoding("its TIFF header cannot be read", _AGAIN):
            count_directories(stream)
            file = tifffile.TiffFile(stream)
            pages = _levels(file, frame)
    except ImageReadError as error:
        # Pillow may read a header that tifffile cannot parse, or else raise an error.
        if error.__cause__ is not None and level == 0:
            return None
        raise
    if level >= len(pages):
        raise ImageReadError(
            f"it has {len(pages)} level{'s' if len(pages) > 1 else ''} of "
            f"resolution, but level {level} was requested",
            f"Use a level below {len(pages)}, with coordinates in its pixels.",
        )
    with decoding("its TIFF header cannot be read", _AGAIN):
        page = pages[level].aspage()
        return TiledPage(stream, page) if _is_read(page) else None


class LevelSize(NamedTuple):
    """Width and height of one level of a slide."""

    width: int
    height: int


def level_sizes(stream: BinaryIO) -> list[LevelSize]:
    """Return the sizes of the levels that can be read in parts, the largest first."""
    import tifffile

    with decoding("its TIFF header cannot be read", _AGAIN):
        count_directories(stream)
        try:
            levels = _levels(tifffile.TiffFile(stream), None)
        except ImageReadError as error:  # it holds several images
            error.hint = (
                "Slides are read from pyramids of one image and from Aperio SVS. "
                "Convert others to a pyramid, for example with libvips."
            )
            raise
        pages = itertools.takewhile(_is_read, (level.aspage() for level in levels))
        return [LevelSize(page.imagewidth, page.imagelength) for page in pages]


def read_page(
    stream: BinaryIO, frame: int | str | None, max_pixels: int
) -> NDArray[Any] | None:
    """Return the values of a page that Pillow cannot read, or None."""
    if not can_read_tiles():
        return None
    import tifffile

    with decoding("its TIFF header cannot be read", _AGAIN):
        index = choose_frame(frame, count_directories(stream))
        page = tifffile.TiffFile(stream).pages[index].aspage()
        is_colour = page.photometric == _RGB
        if not _is_upright(page) or page.dtype is None or page.dtype.kind not in "uif":
            return None
        if page.extrasamples not in ((), (_UNASSOCIATED_ALPHA,)):
            return None
        if not is_colour and (page.photometric, page.samplesperpixel) != (1, 1):
            return None
    refuse_too_large(page.imagelength, page.imagewidth, max_pixels)
    size = page.imagewidth, page.imagelength
    return TiledPage(stream, page).read(0, 0, *size, max_pixels=max_pixels)


def count_directories(stream: BinaryIO) -> int:
    """Return the number of pages of a TIFF file, without reading their tags."""
    stream.seek(0)
    head = stream.read(16)
    order = "little" if head[:2] == b"II" else "big"
    is_big = 43 in head[2:4]
    n_count, n_entry, n_next = (8, 20, 8) if is_big else (2, 12, 4)

    def number(data: bytes) -> int:
        return int.from_bytes(data, order)  # type: ignore[arg-type]

    place = number(head[8:16] if is_big else head[4:8])
    seen: set[int] = set()
    while place and place not in seen:
        seen.add(place)
        if len(seen) > _MOST_DIRECTORIES:
            raise ImageReadError(
                f"it holds more than {_MOST_DIRECTORIES} pages",
                "Split it into files of fewer pages.",
            )
        stream.seek(place)
        n_entries = number(stream.read(n_count))
        if not n_entries:  # it points beyond the end of the file
            seen.discard(place)
            break
        stream.seek(place + n_count + n_entry * n_entries)
        place = number(stream.read(n_next))
    stream.seek(0)
    return len(seen)


def _levels(file: TiffFile, frame: int | str | None) -> list[Any]:
    """Return the pages of one image, from the largest to the smallest."""
    n_pages = len(file.pages)
    if frame is not None:
        return [file.pages[choose_frame(frame, n_pages)]]
    if n_pages == 1 and not file.pages.first.subifds:
        return [file.pages.first]
    first = file.series[0]
    n_levels = sum(len(level.pages) for level in first.levels)
    # Levels may also be attached to a page (SubIFDs), and are not pages of the file.
    others = n_pages - sum(
        len(page.treeindex) == 1
        for level in first.levels
        for page in level.pages
        if page is not None
    )
    is_several = len(first.pages) > 1 or n_levels > len(first.levels)
    if is_several or (others and not file.is_svs):
        choose_frame(None, n_pages)
    return [level.pages[0] for level in first.levels]


def _has_sizes(page: TiffPage) -> bool:
    """Whether all sizes and offsets are numbers, unlike in a damaged header."""
    sizes = [page.imagelength, page.imagewidth, page.samplesperpixel]
    if page.tilewidth or page.tilelength:
        sizes += [page.tilelength, page.tilewidth]
    else:
        sizes.append(page.rowsperstrip)
    places = [*page.dataoffsets, *page.databytecounts]
    return all(isinstance(size, int) and size > 0 for size in sizes) and all(
        isinstance(place, int) and place >= 0 for place in places
    )


def _is_upright(page: TiffPage) -> bool:
    """Whether the tiles can be decoded and placed side by side."""
    if not _has_sizes(page):
        return False
    if page.compression not in _READ or page.imagedepth != 1 or page.tiledepth > 1:
        return False
    return page.tags.valueof(_ORIENTATION, 1) == 1


def _is_read(page: TiffPage) -> bool:
    if not _is_upright(page) or page.dtype is None:
        return False
    kind, samples = page.photometric, page.samplesperpixel
    stored = page.dtype.name
    if kind in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        types = {"uint8", "uint16"} if kind == _WHITE_IS_ZERO else _GREY_TYPES
        return samples == 1 and page.bitspersample in (8, 16, 32) and stored in types
    if stored != "uint8" or page.bitspersample != 8:
        return False
    if kind == _YCBCR:
        # Only libjpeg converts these colours, as in Pillow.
        return samples == 3 and page.compression == _JPEG and page.planarconfig == 1
    if kind != _RGB:
        return False
    is_rgba = samples == 4 and page.extrasamples == (_UNASSOCIATED_ALPHA,)
    return (samples == 3 and not page.extrasamples) or is_rgba


@dataclass(frozen=True, eq=False)
class TiledPage:
    """One page of an open TIFF file."""

    stream: BinaryIO
    page: TiffPage

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.page.imagelength

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.page.imagewidth

    @property
    def is_inverted(self) -> bool:
        """Whether low values are bright."""
        return self.page.photometric == _WHITE_IS_ZERO

    def read(
        self, x: int, y: int, width: int, height: int, *, max_pixels: int
    ) -> NDArray[Any]:
        """Return the stored values of a box within the page."""
        page = self.page
        tile_height, tile_width = self._tile_shape()
        refuse_too_large(tile_height, tile_width, max_pixels)
        planes = page.samplesperpixel if page.planarconfig == 2 else 1
        across = math.ceil(self.width / tile_width)
        down = math.ceil(self.height / tile_height)
        values = np.zeros((height, width, page.samplesperpixel), page.dtype)
        rows = range(y // tile_height, (y + height - 1) // tile_height + 1)
        columns = range(x // tile_width, (x + width - 1) // tile_width + 1)
        for plane, row, column in itertools.product(range(planes), rows, columns):
            tile = self._decode((plane * down + row) * across + column)
            if tile is not None:
                channels = slice(plane, plane + 1) if planes > 1 else slice(None)
                top, left = row * tile_height - y, column * tile_width - x
                _paste(tile, values[..., channels], top, left)
        return values[..., 0] if page.samplesperpixel == 1 else values

    def _tile_shape(self) -> tuple[int, int]:
        page = self.page
        if page.is_tiled:
            return page.tilelength, page.tilewidth
        return min(page.rowsperstrip, page.imagelength), page.imagewidth

    def _decode(self, index: int) -> NDArray[Any] | None:
        """Return a tile (height, width, channels), or None if it is not stored."""
        page = self.page
        if index >= min(len(page.dataoffsets), len(page.databytecounts)):
            raise ImageReadError("its list of tiles is cut short", _AGAIN)
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if not count:
            return None
        encoded = self._read_bytes(offset, count)
        with decoding("a tile of it is damaged", _AGAIN):
            self._check_header(encoded)
            tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
            tile, _, _ = page.decode(encoded, index, **tables)
        return None if tile is None else tile[0]

    def _read_bytes(self, offset: int, count: int) -> bytes:
        end = self.stream.seek(0, io.SEEK_END)
        if offset + count > end:
            raise ImageReadError("it is cut short: a tile is missing", _AGAIN)
        with decoding("it cannot be read", "Check the disk or the network."):
            self.stream.seek(offset)
            encoded = self.stream.read(count)
        if len(encoded) < count:
            raise ImageReadError("it is cut short: a tile is missing", _AGAIN)
        return encoded

    def _check_header(self, encoded: bytes) -> None:
        """Raise if the header of a tile announces more pixels than a tile has."""
        format = {_JPEG: "JPEG", **dict.fromkeys(_JPEG2000, "JPEG2000")}.get(
            self.page.compression
        )
        if format is None:
            return
        with Image.open(io.BytesIO(encoded), formats=[format]) as tile:
            width, height = tile.size
        tile_height, tile_width = self._tile_shape()
        if width > tile_width or height > max(tile_height, 8):
            raise ImageReadError("a tile of it is larger than its tags say", _AGAIN)


def _paste(tile: NDArray[Any], values: NDArray[Any], top: int, left: int) -> None:
    """Copy the part of a tile that lies within the box."""
    tile = tile[max(-top, 0) :, max(-left, 0) :]
    top, left = max(top, 0), max(left, 0)
    target = values[top : top + tile.shape[0], left : left + tile.shape[1]]
    target[...] = tile[: target.shape[0], : target.shape[1]]
