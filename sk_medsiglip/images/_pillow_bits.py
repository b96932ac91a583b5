"""All the bits of a picture, where Pillow would keep eight or mix them.

Pillow has no mode for colours of 16 bits, but it can be told which byte of each number
to take: such a picture is decoded twice.
"""

from __future__ import annotations

import io
import re
import sys
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._sources import content_of_file_object

_BITS, _PHOTOMETRIC, _SAMPLES, _PLANES, _FORMAT = 258, 262, 277, 284, 339
_SEPARATE = 2

#: Of the TIFF tag SampleFormat.
_KINDS = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex"}

_NATIVE, _OTHER = ("L", "B") if sys.byteorder == "little" else ("B", "L")

#: More than any stack of pictures has; each one costs a search through those before.
_MOST_DIRECTORIES = 10_000

_AS_ARRAY = "Read it with tifffile.imread(path) and pass the array."


def deep_values(image: Image.Image) -> NDArray[np.uint16] | None:
    """Return the 16-bit channels of an image, (H, W, 3) or 4; None of other kinds.

    Premultiplied colours come without their opacity: they are on black already.
    """
    rawmode = _rawmode(image)
    tags = getattr(image, "tag_v2", {})
    is_separate = (
        tags.get(_PLANES) == _SEPARATE
        and tags.get(_SAMPLES, 1) > 1
        and max(tags.get(_BITS, (1,))) > 8
    )
    match = re.fullmatch(r"(\w+);16([BLN])", rawmode)
    if not is_separate and (match is None or match[1] == "I"):
        return None
    channels, order = match.groups() if match else ("", "")
    order = order.replace("N", _NATIVE)
    frame = image.tell()
    if is_separate or channels == "CMYK" or (frame and image.format == "PNG"):
        raise ImageReadError(
            "its pixels are colours of 16 bits in CMYK, in planes or in a later frame "
            "of a PNG file, which are not read",
            _AS_ARRAY if image.format == "TIFF" else "Save the frame as a file.",
        )
    content = content_of_file_object(image.fp)  # type: ignore[attr-defined]

    def decoded(rawmode: str) -> NDArray[Any]:
        with Image.open(io.BytesIO(content), formats=[image.format or ""]) as copy:
            if frame:
                copy.seek(frame)
            _change_rawmode(copy, rawmode)
            copy.load()
            return np.asarray(ImageOps.exif_transpose(copy)).astype(np.uint16)

    if channels == "LA":  # four bytes, as those of RGBA are
        bytes = decoded("RGBA")
        grey, alpha = (bytes[..., i] << 8 | bytes[..., i + 1] for i in (0, 2))
        return np.dstack([grey, grey, grey, alpha])
    # As they are stored, since Pillow would divide the colours by their opacity.
    raw = channels.replace("a", "A")
    high = decoded(f"{raw};16{order}")
    low = decoded(f"{raw};16{_OTHER if order == _NATIVE else _NATIVE}")
    values = high << 8 | low
    return values[..., :3] if channels == "RGBa" else values


def keep_byte_order(image: Image.Image) -> None:
    """Keep Pillow from swapping bytes that libtiff has swapped already."""
    if getattr(image, "tile", None) and image.tile[0][0] == "libtiff":  # type: ignore[attr-defined]
        rawmode = _rawmode(image)
        native = re.sub(r";(16|32)B([SF])$", r";\1N\2", rawmode)
        if native != rawmode:
            _change_rawmode(image, native)


def signed(values: NDArray[Any], image: Image.Image) -> NDArray[Any]:
    """Return TIFF values in their own type, where Pillow's mode has another."""
    if not hasattr(image, "tag_v2"):
        return values
    kind = image.tag_v2.get(_FORMAT, (1,))[0]
    if kind == 2 and values.dtype == np.uint8:
        return values.view(np.int8)
    if kind == 1 and values.dtype == np.int32:
        return values.view(np.uint32)
    return values


def unread(stream: BinaryIO) -> ImageReadError | None:
    """Return the error for a TIFF file whose pixels are of a type Pillow has not."""
    stream.seek(0)
    try:
        header = stream.read(8)
        header += stream.read(8 if 43 in header[2:4] else 0)  # BigTIFF
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        stream.seek(tags.next)
        tags.load(stream)
        bits, samples = tags.get(_BITS, (1,)), int(tags.get(_SAMPLES, 1))
        kind = _KINDS.get(tags.get(_FORMAT, (1,))[0], "unknown")
    except Exception:  # damaged: whatever its parsing stumbles over
        return None
    if _PHOTOMETRIC not in tags or not bits:
        return None
    each = "values" if samples == 1 else f"{samples} values"
    return ImageReadError(
        f"its pixels are {each} of {bits[0]} bits ({kind}), which are not read from "
        "TIFF files",
        f"{_AS_ARRAY} Or save it as 8 or 16-bit grey or RGB.",
    )


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
        if not n_entries:  # it points behind the end
            seen.discard(place)
            break
        stream.seek(place + n_count + n_entry * n_entries)
        place = number(stream.read(n_next))
    stream.seek(0)
    return len(seen)


def _rawmode(image: Image.Image) -> str:
    """Return how Pillow is to unpack the first tile; "" if nothing is left to do."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    args = tiles[0][3]
    return str(args[0] if isinstance(args, tuple) and args else args)


def _change_rawmode(image: Image.Image, rawmode: str) -> None:
    def changed(args: Any) -> Any:
        return (rawmode, *args[1:]) if isinstance(args, tuple) else rawmode

    image.tile = [  # type: ignore[attr-defined]
        tile._replace(args=changed(tile.args))
        for tile in image.tile  # type: ignore[attr-defined]
    ]
