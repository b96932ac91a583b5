"""Arrays as images: accepted shapes and types, and the meaning of their values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._decoded_image import DecodedImage, refuse_too_large
from sk_medsiglip.images._intensity import Tone, ramp

#: Largest value of the bit depths that 16-bit files are known to hold.
_WHITES = (255, 4095, 65535)

#: Larger floats are not measurements, and overflow in arithmetic.
_HUGE = 1e30

#: Slack for float rounding around 0 and 1, in units of the white level.
_ROUNDING = 1e-5


def load_array(array: NDArray[Any], *, max_pixels: int) -> DecodedImage:
    """Return an array of shape (H, W) or (H, W, 1, 3 or 4) as a decoded image.

    Values mean the same as in a file of the same type. Booleans are refused: an array
    of them is usually a mask, while a file of one bit is a scan.
    """
    _check_shape(array)
    refuse_too_large(array.shape[0], array.shape[1], max_pixels)
    _check_type(array)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    alpha = None
    if array.ndim == 3:
        if array.shape[2] == 4:
            alpha = _opacity(array[..., 3])
        array = array[..., 0] if array.shape[2] == 1 else array[..., :3]
    return DecodedImage(array, meaning_of_values(array), format="array", alpha=alpha)


def meaning_of_values(values: NDArray[Any]) -> Tone | ImageReadError | None:
    """Return the rule of ``intensity="auto"`` for values of this type and range.

    White in uint16 is the smallest of 255, 4095 and 65535 that no value exceeds: 12-bit
    data in 16-bit files is common, and nearly black on the full scale.
    """
    if values.dtype == np.uint8:
        return None
    low, high = values.min().item(), values.max().item()
    if values.dtype == np.uint16:
        return ramp(0, white_of(high))
    if values.dtype.kind == "f":
        if not -_HUGE <= low <= high <= _HUGE:  # so NaN is refused too
            raise ImageReadError(
                "it holds NaN, infinite or huge values",
                "Replace them: np.nan_to_num(image, posinf=1, neginf=0).",
            )
        if -_ROUNDING <= low and high <= 1 + _ROUNDING:
            return ramp(0, 1)
        expected = "floats are expected in [0, 1]"
    else:
        expected = "integers are expected to be uint8 or uint16"
    as_bytes = (
        "Values from 0 to 255: image.astype(np.uint8). Others: "
        if 0 <= low and high <= 255
        else "Choose how they are displayed: "
    )
    return ImageReadError(
        f"its values are {values.dtype} from {low:g} to {high:g}, but {expected}",
        f"{as_bytes}intensity=Window(center, width) or Percentiles(1, 99); for CT in "
        "Hounsfield units CTWindows().",
    )


def white_of(high: float) -> int:
    """Return the white of ``intensity="auto"`` for uint16 values up to ``high``."""
    return next(white for white in _WHITES if high <= white)


def _check_shape(array: NDArray[Any]) -> None:
    shape = array.shape
    if array.size == 0:
        raise ImageReadError("it has no pixels", "Remove it from X.")
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4)):
        return
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        reason = "its first axis looks like the channels, which must be the last"
        hint = "Use np.moveaxis(image, 0, -1)."
    elif len(shape) == 3:
        reason = f"an image has 1, 3 or 4 channels, but this one has {shape[2]}"
        hint = "If these are slices of a volume, pass each slice as one image."
    elif len(shape) == 4:
        reason = "an image has 2 or 3 dimensions, but this one has 4"
        hint = "If it is a batch, pass its images: list(batch)."
    else:
        reason = f"an image has 2 or 3 dimensions, but this one has {len(shape)}"
        hint = "Pass arrays of shape (height, width) or (height, width, channels)."
    raise ImageReadError(reason, hint)


def _check_type(array: NDArray[Any]) -> None:
    if array.dtype.kind in "uif":
        return
    hint = "Pass uint8, uint16, or floats from 0 to 1."
    if array.dtype.kind == "b":
        hint = "Convert a mask with image.astype(np.uint8) * 255."
    elif array.dtype.kind == "c":
        hint = "Take its magnitude, np.abs(image), and set intensity=Percentiles()."
    elif array.dtype.kind == "O":
        hint = "Its pixels are objects: convert it with image.astype(np.uint8)."
    raise ImageReadError(f"pixels of type {array.dtype} are not grey values", hint)


def _opacity(alpha: NDArray[Any]) -> NDArray[np.uint8]:
    tone = meaning_of_values(alpha)
    if isinstance(tone, ImageReadError):
        raise ImageReadError(
            f"its fourth channel is {alpha.dtype} from {alpha.min():g} to "
            f"{alpha.max():g}, which is not an opacity",
            "Drop it: image[..., :3].",
        )
    return alpha if tone is None else tone(alpha)
