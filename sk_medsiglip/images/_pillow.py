"""PNG, JPEG, TIFF, WebP and BMP files, and images that are open in Pillow.

Pillow has no mode for colours of 16 bits, but it can extract one byte of each number.
So such an image is decoded twice.
"""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._arrays import load_array, meaning_of_values
from sk_medsiglip.images._decoded_image import (
    DecodedImage,
    choose_frame,
    refuse_too_large,
)
from sk_medsiglip.images._decoding import decoding
from sk_medsiglip.images._sources import content_of_file_object
from sk_medsiglip.images._tiles import count_directories, read_page

_ORIENTATION = 0x0112
_BITS, _PHOTOMETRIC, _SAMPLES, _PLANES, _FORMAT = 258, 262, 277, 284, 339
_SEPARATE = 2

#: Values of the TIFF tag SampleFormat.
_KINDS = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex"}

_NATIVE, _OTHER = ("L", "B") if sys.byteorder == "little" else ("B", "L")

_AS_ARRAY = "Read it with tifffile.imread(path) and pass the array."

_AGAIN = "Copy or download it again; if a viewer opens it, save it from there as PNG."


class _OtherPixels(ImageReadError):
    """The type of the pixels is not supported by Pillow."""


def load_image_file(
    stream: BinaryIO, *, format: str, frame: int | str | None, max_pixels: int
) -> DecodedImage:
    """Decode one file whose first bytes say ``format``."""
    try:
        return _load_by_pillow(stream, format, frame, max_pixels)
    except _OtherPixels:
        values = read_page(stream, frame, max_pixels) if format == "TIFF" else None
        if values is None:
            raise
        return replace(load_array(values, max_pixels=max_pixels), format=format)


def _load_by_pillow(
    stream: BinaryIO, format: str, frame: int | str | None, max_pixels: int
) -> DecodedImage:
    with decoding(f"its {format} header cannot be read", _AGAIN):
        try:
            # Pillow needs n * n steps to count n pages.
            n_pages = count_directories(stream) if format == "TIFF" else 0
            image = Image.open(stream, formats=[format])
        except Image.DecompressionBombError as error:
            raise ImageReadError(
                "it has more pixels than the limit of Pillow",
                "If the file can be trusted, raise PIL.Image.MAX_IMAGE_PIXELS and "
                "max_pixels.",
            ) from error
        except UnidentifiedImageError:
            known = unread(stream) if format == "TIFF" else None
            if known is None:
                raise
            raise known from None
    with image:
        with decoding("its frames cannot be counted", _AGAIN):
            # Phones append previews to a JPEG; the first frame is the image.
            n_frames = 1
            if format != "JPEG":
                n_frames = n_pages or int(getattr(image, "n_frames", 1))
            index = choose_frame(frame, n_frames)
            if index:
                image.seek(index)
        return load_pil(image, format=format, max_pixels=max_pixels)


def load_pil(
    image: Image.Image, *, max_pixels: int, format: str = "PIL image"
) -> DecodedImage:
    """Decode an open Pillow image, at its present frame."""
    if not image.width or not image.height:
        raise ImageReadError("it has no pixels", "Remove it from X.")
    refuse_too_large(image.height, image.width, max_pixels)
    with decoding("it is damaged or cut short", _AGAIN):
        deep = deep_values(image)
        if deep is not None:
            decoded = load_array(deep, max_pixels=max_pixels)
            alpha = _opacity_by_colour(deep, image.info.get("transparency"))
            return replace(
                decoded, format=format, alpha=decoded.alpha if alpha is None else alpha
            )
        negative = _is_negative_tiff(image)
        keep_byte_order(image)
        image.load()
        if image.getexif().get(_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        values, alpha = _values_of(image)
    return DecodedImage(
        values, meaning_of_values(values), format, inverted=negative, alpha=alpha
    )


def _is_negative_tiff(image: Image.Image) -> bool:
    """Whether low 16-bit values are bright; Pillow itself inverts 8-bit values."""
    tags = getattr(image, "tag_v2", {})
    return image.mode.startswith("I;16") and tags.get(_PHOTOMETRIC) == 0


def _values_of(image: Image.Image) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Return grey or RGB values, and the opacity if there is one."""
    mode = image.mode
    if mode.startswith("I"):
        values = np.asarray(image)
        # Some Pillow versions open 16-bit PNG files in this 32-bit mode.
        if mode != "I" or image.format == "PNG":
            values = values.astype(np.uint16, copy=False)
        transparent = image.info.get("transparency")
        return signed(values, image), _opacity_by_colour(values, transparent)
    if mode in ("L", "F") and "transparency" not in image.info:
        return signed(np.asarray(image), image), None
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        with_alpha = np.asarray(image.convert("RGBA"))
        return with_alpha[..., :3], with_alpha[..., 3]
    if mode == "1":
        return np.asarray(image.convert("L")), None
    # The other modes are RGB or another colour space: CMYK, YCbCr, palette.
    return np.asarray(image if mode == "RGB" else image.convert("RGB")), None


def _opacity_by_colour(
    values: NDArray[Any], transparent: Any
) -> NDArray[np.uint8] | None:
    """Return the opacity of an image in which one colour or grey is transparent."""
    if not isinstance(transparent, int | tuple):
        return None
    is_there = values != np.array(transparent)
    is_there = is_there if values.ndim == 2 else is_there.any(axis=-1)
    return is_there.astype(np.uint8) * 255


def deep_values(image: Image.Image) -> NDArray[np.uint16] | None:
    """Return the 16-bit channels of an image, (H, W, 3) or (H, W, 4), else None.

    Premultiplied colours are returned without opacity: they are already on black.
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
        raise _OtherPixels(
            "its pixels are colours of 16 bits in CMYK, in planes or in a later frame "
            "of a PNG file, which is not supported",
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

    if channels == "LA":  # four bytes, as in RGBA
        bytes = decoded("RGBA")
        grey, alpha = (bytes[..., i] << 8 | bytes[..., i + 1] for i in (0, 2))
        return np.dstack([grey, grey, grey, alpha])
    # Read as stored, since Pillow would divide the colours by their opacity.
    raw = channels.replace("a", "A")
    high = decoded(f"{raw};16{order}")
    low = decoded(f"{raw};16{_OTHER if order == _NATIVE else _NATIVE}")
    values = high << 8 | low
    return values[..., :3] if channels == "RGBa" else values


def keep_byte_order(image: Image.Image) -> None:
    """Prevent Pillow from swapping bytes that libtiff has already swapped."""
    if getattr(image, "tile", None) and image.tile[0][0] == "libtiff":  # type: ignore[attr-defined]
        rawmode = _rawmode(image)
        native = re.sub(r";(16|32)B([SF])$", r";\1N\2", rawmode)
        if native != rawmode:
            _change_rawmode(image, native)


def signed(values: NDArray[Any], image: Image.Image) -> NDArray[Any]:
    """Return TIFF values in their own type, if that of Pillow's mode differs."""
    if not hasattr(image, "tag_v2"):
        return values
    kind = image.tag_v2.get(_FORMAT, (1,))[0]
    if kind == 2 and values.dtype == np.uint8:
        return values.view(np.int8)
    if kind == 1 and values.dtype == np.int32:
        return values.view(np.uint32)
    return values


def unread(stream: BinaryIO) -> ImageReadError | None:
    """Return the error for a TIFF file whose pixel type is unknown to Pillow."""
    stream.seek(0)
    try:
        header = stream.read(8)
        header += stream.read(8 if 43 in header[2:4] else 0)  # BigTIFF
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        stream.seek(tags.next)
        tags.load(stream)
        bits, samples = tags.get(_BITS, (1,)), int(tags.get(_SAMPLES, 1))
        kind = _KINDS.get(tags.get(_FORMAT, (1,))[0], "unknown")
    except Exception:  # damaged: parsing raises errors of many types
        return None
    if _PHOTOMETRIC not in tags or not bits:
        return None
    each = "values" if samples == 1 else f"{samples} values"
    return _OtherPixels(
        f"its pixels are {each} of {bits[0]} bits ({kind}), which is not supported in "
        "TIFF files",
        f"{_AS_ARRAY} Or save it as 8 or 16-bit grey or RGB.",
    )


def _rawmode(image: Image.Image) -> str:
    """Return the mode in which Pillow unpacks the first tile; "" if none is left."""
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
