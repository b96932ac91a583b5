"""One decoded image, and the step from its stored values to RGB."""

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
class Picture:
    """One decoded image: stored values and their meaning."""

    values: NDArray[Any]  # (H, W) or (H, W, 3), in the machine's byte order
    #: The meaning of ``intensity="auto"``. A tone is given the values in their unit, an
    #: error is raised, None shows uint8 values as they are.
    auto: Intensity | Tone | ImageReadError | None
    format: str  # "PNG", "DICOM", "array", ...
    modality: str | None = None
    #: Stored values to the unit of windows; None if that is the same.
    in_unit: Callable[[NDArray[Any]], NDArray[Any]] | None = None
    inverted: bool = False  # low values are bright (MONOCHROME1)
    padding: tuple[float, float] | None = None  # first and last stored value of padding
    alpha: NDArray[np.uint8] | None = None  # opacity (H, W)
    voi: tuple[Tone, ...] = ()  # the file's own tables and windows
    #: The tone of Google's container; None is that of "auto".
    serving: Callable[[GoogleServing], Tone] | None = None
    #: Black and white of percentiles over the whole series; None asks its own values.
    limits: Callable[[Percentiles], tuple[float, float]] | None = None


def render(picture: Picture, intensity: Intensity | str) -> NDArray[np.uint8]:
    """Return the picture as uint8 RGB of shape (H, W, 3), C-contiguous."""
    show = _brightness(picture, intensity)
    shown = picture.values
    if show is not None:
        shown = _by_table(show, shown, shown.size)(shown)
    pixels = _as_rgb(shown)
    if picture.alpha is not None:
        # On black, which is also what the padding of ``pad=True`` is.
        opacity = picture.alpha[..., None].astype(np.uint16)
        pixels = ((pixels * opacity + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def render_resized(
    picture: Picture, intensity: Intensity | str, size: int, *, pad: bool = False
) -> NDArray[np.uint8]:
    """Return the same bytes as ``resize_bilinear(render(...))``, for less work.

    Each pixel of the result comes from four: only those are brightened, and the result
    is exact for every window, which windowing after the resize is not.
    """
    values, show = picture.values, _brightness(picture, intensity)
    if picture.alpha is not None or (show and values.size <= 4 * size**2):
        resized = resize_bilinear(render(picture, intensity), size, pad=pad)
    else:
        if show is not None:
            show = _by_table(show, values, 4 * size**2)
        resized = resize_bilinear(values, size, pad=pad, show=show)
    return _as_rgb(resized)


def refuse_too_large(height: int, width: int, max_pixels: int) -> None:
    """Raise before anything of that size is allocated."""
    if height * width > max_pixels:
        raise ImageReadError(
            f"it has {height} x {width} = {height * width} pixels, "
            f"more than max_pixels={max_pixels}",
            "If the file can be trusted, raise max_pixels; a slide must be cut into "
            "tiles.",
        )


def choose_frame(frame: int | str | None, n_frames: int) -> int:
    """Return the index of the frame to read from a file of ``n_frames``."""
    if n_frames == 1 and frame in (None, "middle"):
        return 0
    if frame is None:
        raise ImageReadError(
            f"it holds {n_frames} frames, and one image is needed",
            'Say which: frame=0, ..., or frame="middle".',
        )
    index = n_frames // 2 if frame == "middle" else int(frame)
    if index >= n_frames:
        raise ImageReadError(
            f"frame={index} is asked for, and it holds {n_frames}",
            f'Use an index below {n_frames}, or frame="middle".',
        )
    return index


def _brightness(picture: Picture, intensity: Intensity | str) -> Tone | None:
    """Return the map from stored values to uint8; None where they are it already."""
    named = intensity if intensity == "auto" else resolve_intensity(intensity)
    wanted: Intensity | Tone | ImageReadError | None = picture.auto
    if isinstance(named, GoogleServing):
        wanted = picture.serving(named) if picture.serving else wanted
    elif not isinstance(named, str):
        wanted = named
    if isinstance(wanted, ImageReadError):
        raise wanted
    if wanted is None:
        return _negative if picture.inverted else None
    tone = _tone(wanted, picture)

    def show(stored: NDArray[Any]) -> NDArray[np.uint8]:
        in_unit = stored if picture.in_unit is None else picture.in_unit(stored)
        return _negative(tone(in_unit)) if picture.inverted else tone(in_unit)

    return show


def _negative(shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return 255 - shown


def _tone(wanted: Intensity | Tone, picture: Picture) -> Tone:
    if isinstance(wanted, Window):
        return ramp(wanted.center - wanted.width / 2, wanted.center + wanted.width / 2)
    if isinstance(wanted, Percentiles):
        return ramp(*percentile_limits(wanted, picture))
    if isinstance(wanted, VOI):
        return _own_voi(wanted, picture)
    if isinstance(wanted, CTWindows):
        if picture.values.ndim == 3:
            raise ImageReadError(
                "it is a colour image, and CT windows need one grey value a pixel",
                'Read it with intensity="auto".',
            )
        tones = [ramp(*pair) for pair in (wanted.red, wanted.green, wanted.blue)]
        return lambda values: np.stack([tone(values) for tone in tones], axis=-1)
    return wanted


def _own_voi(wanted: VOI, picture: Picture) -> Tone:
    if not picture.voi:
        raise ImageReadError(
            "it holds no window and no lookup table of its own",
            'Read it with intensity="auto", or say Window(center, width).',
        )
    if wanted.index >= len(picture.voi):
        raise ImageReadError(
            f"VOI(index={wanted.index}) is asked for, and it holds {len(picture.voi)}",
            f"Use an index below {len(picture.voi)}.",
        )
    return picture.voi[wanted.index]


def grey_values(picture: Picture) -> NDArray[Any]:
    """Return the values of a picture in their unit, without padding."""
    values = picture.values
    if picture.padding is not None:
        first, last = picture.padding
        values = values[(values < first) | (values > last)]
    return values if picture.in_unit is None else picture.in_unit(values)


def percentile_limits(wanted: Percentiles, picture: Picture) -> tuple[float, float]:
    """Return black and white of a picture, in its unit."""
    if picture.limits is not None:
        return picture.limits(wanted)
    sample = grey_values(picture)
    if not sample.size:
        sample = grey_values(replace(picture, padding=None))
    if (wanted.low, wanted.high) == (0, 100):
        return float(sample.min()), float(sample.max())
    # float64, since float16 overflows on the way
    low, high = np.percentile(sample.astype(np.float64), [wanted.low, wanted.high])
    return float(low), float(high)


def _by_table(show: Tone, values: NDArray[Any], n_pixels: int) -> Tone:
    """Return ``show``, or a table of its results where that is less work."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize > 2:
        return show
    levels = 256**values.dtype.itemsize
    if n_pixels <= levels:
        return show
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    # The bit patterns in rising order, read as what the values are: a negative value
    # finds its entry under the same bits.
    table = show(np.arange(levels, dtype=unsigned).view(values.dtype))

    def look_up(values: NDArray[Any]) -> NDArray[np.uint8]:
        # ``take`` is several times faster than indexing where an entry is three
        # colours.
        return table.take(np.ascontiguousarray(values).view(unsigned), axis=0)

    return look_up


def _as_rgb(shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if shown.ndim == 3:
        return shown
    pixels = np.empty((*shown.shape, 3), np.uint8)
    for channel in range(3):  # three passes: a broadcast copy takes thrice as long
        pixels[..., channel] = shown
    return pixels
