"""PNG, JPEG, TIFF, WebP and BMP files, and images that are open in Pillow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._arrays import load_array, meaning_of_values
from sk_medsiglip.images._decoding import decoding
from sk_medsiglip.images._picture import Picture, choose_frame, refuse_too_large
from sk_medsiglip.images._pillow_bits import (
    count_directories,
    deep_values,
    keep_byte_order,
    signed,
    unread,
)

_ORIENTATION, _PHOTOMETRIC = 0x0112, 262

_AGAIN = "Copy or download it again; if a viewer opens it, save it from there as PNG."


def load_picture_file(
    stream: BinaryIO, *, format: str, frame: int | str | None, max_pixels: int
) -> Picture:
    """Decode one file that announces itself as ``format``."""
    with decoding(f"its {format} header cannot be read", _AGAIN):
        try:
            # Counted here, since Pillow's own way to the last of n pages takes n * n
            # steps.
            n_pages = count_directories(stream) if format == "TIFF" else 0
            image = Image.open(stream, formats=[format])
        except Image.DecompressionBombError as error:
            raise ImageReadError(
                "it has more pixels than Pillow's own limit",
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
            # Phones append previews to a JPEG; the picture is the first.
            n_frames = 1
            if format != "JPEG":
                n_frames = n_pages or int(getattr(image, "n_frames", 1))
            index = choose_frame(frame, n_frames)
            if index:
                image.seek(index)
        return load_pil(image, format=format, max_pixels=max_pixels)


def load_pil(
    image: Image.Image, *, max_pixels: int, format: str = "PIL image"
) -> Picture:
    """Return an open Pillow image, at the frame it stands at, as a picture."""
    if not image.width or not image.height:
        raise ImageReadError("it has no pixels", "Remove it from X.")
    refuse_too_large(image.height, image.width, max_pixels)
    with decoding("it is damaged or cut short", _AGAIN):
        deep = deep_values(image)
        if deep is not None:
            picture = load_array(deep, max_pixels=max_pixels)
            alpha = _opacity_by_colour(deep, image.info.get("transparency"))
            return replace(
                picture, format=format, alpha=picture.alpha if alpha is None else alpha
            )
        negative = _is_negative_tiff(image)
        keep_byte_order(image)
        image.load()
        if image.getexif().get(_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        values, alpha = _values_of(image)
    return Picture(
        values, meaning_of_values(values), format, inverted=negative, alpha=alpha
    )


def _is_negative_tiff(image: Image.Image) -> bool:
    """Whether low 16-bit values are bright; Pillow turns 8-bit ones by itself."""
    tags = getattr(image, "tag_v2", {})
    return image.mode.startswith("I;16") and tags.get(_PHOTOMETRIC) == 0


def _values_of(image: Image.Image) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Return grey or RGB values, and the opacity where there is one."""
    mode = image.mode
    if mode.startswith("I"):
        values = np.asarray(image)
        # PNG has no 32 bits: some Pillow versions open 16-bit files in this mode.
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
    # The rest is RGB or in another colour space: CMYK, YCbCr, palette.
    return np.asarray(image if mode == "RGB" else image.convert("RGB")), None


def _opacity_by_colour(
    values: NDArray[Any], transparent: Any
) -> NDArray[np.uint8] | None:
    """Return the opacity where one colour, a grey value or three, is transparent."""
    if not isinstance(transparent, int | tuple):
        return None
    is_there = values != np.array(transparent)
    is_there = is_there if values.ndim == 2 else is_there.any(axis=-1)
    return is_there.astype(np.uint8) * 255
