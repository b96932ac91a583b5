"""One decoded image, and its conversion to RGB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._intensity import (
    VOI,
    CTWindows,
    GoogleServing,
    Intensity,
    Percentiles,
    Tone,
    Window,
    ramp,
    resolve_intensity,
)
from sk_medsiglip.images._resize import resize_bilinear


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """Stored values of one image, and their meaning."""

    values: NDArray[Any]  # (H, W) or (H, W, 3), in the machine's byte order
    #: Rule of ``intensity="auto"``. A tone is applied to the values in their unit, an
    #: error is raised, and None shows uint8 values as they are.
    auto: Intensity | Tone | ImageReadError | None
    format: str  # "PNG", "DICOM", "array", ...
    modality: str | None = None
    #: Function from stored values to the unit of windows; None if it is the same.
    in_unit: Callable[[NDArray[Any]], NDArray[Any]] | None = None
    inverted: bool = False  # low values are bright (MONOCHROME1)
    padding: tuple[float, float] | None = None  # first and last stored value of padding
    alpha: NDArray[np.uint8] | None = None  # opacity (H, W)
    voi: tuple[Tone, ...] = ()  # tables and windows of the file
    #: The tone of Google's container; None means that of "auto".
    serving: Callable[[GoogleServing], Tone] | None = None
    #: Black and white at percentiles of the whole series; None means of this image.
    limits: Callable[[Percentiles], tuple[float, float]] | None = None


def render(image: DecodedImage, intensity: Intensity | str) -> NDArray[np.uint8]:
    """Convert an image to uint8 RGB of shape (H, W, 3), C-contiguous."""
    show = _brightness(image, intensity)
    shown = image.values
    if show is not None:
        shown = _by_table(show, shown, shown.size)(shown)
    pixels = _as_rgb(shown)
    if image.alpha is not None:
        # Blend with black, the colour of the padding of ``pad=True`` too.
        opacity = image.alpha[..., None].astype(np.uint16)
        pixels = ((pixels * opacity + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def render_resized(
    image: DecodedImage, intensity: Intensity | str, size: int, *, pad: bool = False
) -> NDArray[np.uint8]:
    """Return the same bytes as ``resize_bilinear(render(...))``, at a lower cost.

    Each pixel of the result comes from four pixels, and only those are converted to
    brightness. Unlike windowing after the resize, this is exact for every window.
    """
    values, show = image.values, _brightness(image, intensity)
    if image.alpha is not None or (show and values.size <= 4 * size**2):
        resized = resize_bilinear(render(image, intensity), size, pad=pad)
    else:
        if show is not None:
            show = _by_table(show, values, 4 * size**2)
        resized = resize_bilinear(values, size, pad=pad, show=show)
    return _as_rgb(resized)


def refuse_too_large(height: int, width: int, max_pixels: int) -> None:
    """Raise ``ImageReadError`` before anything of that size is allocated."""
    if height * width > max_pixels:
        raise ImageReadError(
            f"it has {height} x {width} = {height * width} pixels, "
            f"more than max_pixels={max_pixels}",
            "If the file can be trusted, raise max_pixels; cut a slide into tiles.",
        )


def choose_frame(frame: int | str | None, n_frames: int) -> int:
    """Return the index of the frame to read from a file of ``n_frames``."""
    if n_frames == 1 and frame in (None, "middle"):
        return 0
    if frame is None:
        raise ImageReadError(
            f"it holds {n_frames} frames, but one image is needed",
            'Choose one: frame=0, ..., or frame="middle".',
        )
    index = n_frames // 2 if frame == "middle" else int(frame)
    if index >= n_frames:
        raise ImageReadError(
            f"frame={index} was requested, but it holds {n_frames} frames",
            f'Use an index below {n_frames}, or frame="middle".',
        )
    return index


def _brightness(image: DecodedImage, intensity: Intensity | str) -> Tone | None:
    """Return the map from stored values to uint8; None if they are shown as stored."""
    named = intensity if intensity == "auto" else resolve_intensity(intensity)
    wanted: Intensity | Tone | ImageReadError | None = image.auto
    if isinstance(named, GoogleServing):
        wanted = image.serving(named) if image.serving else wanted
    elif not isinstance(named, str):
        wanted = named
    if isinstance(wanted, ImageReadError):
        raise wanted
    if wanted is None:
        return _negative if image.inverted else None
    tone = _tone(wanted, image)

    def show(stored: NDArray[Any]) -> NDArray[np.uint8]:
        in_unit = stored if image.in_unit is None else image.in_unit(stored)
        return _negative(tone(in_unit)) if image.inverted else tone(in_unit)

    return show


def _negative(shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return 255 - shown


def _tone(wanted: Intensity | Tone, image: DecodedImage) -> Tone:
    if isinstance(wanted, Window):
        return ramp(wanted.center - wanted.width / 2, wanted.center + wanted.width / 2)
    if isinstance(wanted, Percentiles):
        return ramp(*percentile_limits(wanted, image))
    if isinstance(wanted, VOI):
        return _own_voi(wanted, image)
    if isinstance(wanted, CTWindows):
        if image.values.ndim == 3:
            raise ImageReadError(
                "it is a colour image, but CT windows need one grey value per pixel",
                'Read it with intensity="auto".',
            )
        tones = [ramp(*pair) for pair in (wanted.red, wanted.green, wanted.blue)]
        return lambda values: np.stack([tone(values) for tone in tones], axis=-1)
    return wanted


def _own_voi(wanted: VOI, image: DecodedImage) -> Tone:
    if not image.voi:
        raise ImageReadError(
            "it holds no window and no lookup table",
            'Read it with intensity="auto" or intensity=Window(center, width).',
        )
    if wanted.index >= len(image.voi):
        raise ImageReadError(
            f"VOI(index={wanted.index}) was requested, but it holds {len(image.voi)}",
            f"Use an index below {len(image.voi)}.",
        )
    return image.voi[wanted.index]


def grey_values(image: DecodedImage) -> NDArray[Any]:
    """Return the values of an image in their unit, without padding."""
    values = image.values
    if image.padding is not None:
        first, last = image.padding
        values = values[(values < first) | (values > last)]
    return values if image.in_unit is None else image.in_unit(values)


def percentile_limits(wanted: Percentiles, image: DecodedImage) -> tuple[float, float]:
    """Return black and white of an image at two percentiles, in its unit."""
    if image.limits is not None:
        return image.limits(wanted)
    sample = grey_values(image)
    if not sample.size:
        sample = grey_values(replace(image, padding=None))
    if (wanted.low, wanted.high) == (0, 100):
        return float(sample.min()), float(sample.max())
    # float64, since float16 may overflow
    low, high = np.percentile(sample.astype(np.float64), [wanted.low, wanted.high])
    return float(low), float(high)


def _by_table(show: Tone, values: NDArray[Any], n_pixels: int) -> Tone:
    """Return ``show``, or a table of its results if that is cheaper."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize > 2:
        return show
    levels = 256**values.dtype.itemsize
    if n_pixels <= levels:
        return show
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    # All bit patterns in order, viewed as the type of the values: a negative value has
    # its entry at the same bits.
    table = show(np.arange(levels, dtype=unsigned).view(values.dtype))

    def look_up(values: NDArray[Any]) -> NDArray[np.uint8]:
        # ``take`` is several times faster than indexing if an entry has three colours.
        return table.take(np.ascontiguousarray(values).view(unsigned), axis=0)

    return look_up


def _as_rgb(shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if shown.ndim == 3:
        return shown
    pixels = np.empty((*shown.shape, 3), np.uint8)
    for channel in range(3):  # a broadcast copy takes three times as long
        pixels[..., channel] = shown
    return pixels
