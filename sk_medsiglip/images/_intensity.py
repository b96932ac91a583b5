"""How grey values become brightness: windows, percentiles, and their names."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: Part of the cache key: raise it whenever the same file would give other pixels.
_READING_VERSION = 3

#: Grey values to uint8; a last axis of 3 is added where the colours differ.
Tone: TypeAlias = Callable[[NDArray[Any]], NDArray[np.uint8]]


def _number(value: object, name: str) -> float:
    """Return a plain number, so that equal settings have equal texts."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return int(number) if number.is_integer() else number


@dataclass(frozen=True)
class Window:
    """One window of grey values: below it black, above it white, linear between.

    Parameters
    ----------
    center : float
        Middle of the window, in the unit of the image: Hounsfield units for CT, the
        stored values where there is no other unit. Also called level.
    width : float
        Distance from black to white; positive.

    Raises
    ------
    ValueError
        If a number is not finite or the width is not positive.

    Notes
    -----
    Black is ``center - width / 2`` and white ``center + width / 2`` (``LINEAR_EXACT``
    in DICOM). On a colour image each channel is windowed alike.

    Examples
    --------
    >>> from sk_medsiglip.images import Window, read_image
    >>> import numpy as np
    >>> hounsfield = np.array([[-1000.0, 0.0, 40.0, 400.0]])
    >>> read_image(hounsfield, intensity=Window(center=40, width=80))[..., 0]
    array([[  0,   0, 128, 255]], dtype=uint8)
    """

    center: float
    width: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "center", _number(self.center, "center"))
        object.__setattr__(self, "width", _number(self.width, "width"))
        if self.width <= 0:
            raise ValueError(f"width must be positive, got {self.width}")


@dataclass(frozen=True)
class CTWindows:
    """Three windows of a CT slice as the red, green and blue channel.

    Google gives CT slices to MedSigLIP in this form, and publishes two sets of numbers
    that differ in the first window.

    Parameters
    ----------
    red, green, blue : tuple of (float, float)
        Black and white of each channel, in Hounsfield units: all tissue, soft tissue,
        brain. The defaults are those of Google's notebook for CT.

    Raises
    ------
    ValueError
        If a pair is not two finite rising numbers.

    Notes
    -----
    Google's notebook on CT [1]_ takes these defaults. The technical report [2]_
    (section 2.1.2) names windows of width and level 2250/-100, 350/40 and 80/40, which
    are (-1225, 1025), (-135, 215) and (0, 80); their name as ``intensity`` is
    ``"ct-wide"``. The default is the set that published code runs, so that pixels can
    be compared with Google's own.

    References
    ----------
    .. [1] https://github.com/google-health/medgemma, notebook on CT of MedGemma 1.5
    .. [2] Sellergren et al., MedGemma Technical Report, arXiv:2507.05201

    Examples
    --------
    >>> from sk_medsiglip.images import CTWindows
    >>> CTWindows()
    CTWindows(red=(-1024, 1024), green=(-135, 215), blue=(0, 80))
    >>> CTWindows(red=(-1000, 1000)) == CTWindows()
    False
    """

    red: tuple[float, float] = (-1024, 1024)
    green: tuple[float, float] = (-135, 215)
    blue: tuple[float, float] = (0, 80)

    def __post_init__(self) -> None:
        for name in ("red", "green", "blue"):
            pair = getattr(self, name)
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise ValueError(f"{name} must be a pair (low, high), got {pair!r}")
            low, high = (_number(value, name) for value in pair)
            if low >= high:
                raise ValueError(f"{name} must have low < high, got {pair!r}")
            object.__setattr__(self, name, (low, high))


@dataclass(frozen=True)
class Percentiles:
    """Black and white at two percentiles of the image's own grey values.

    Parameters
    ----------
    low, high : float, default=1, 99
        Percentages from 0 to 100, ``low < high``. 0 and 100 are the whole range.

    Raises
    ------
    ValueError
        If they are not two rising numbers from 0 to 100.

    Notes
    -----
    DICOM padding values do not count. On a colour image the percentiles are those of
    all channels together. An image of one value becomes black.

    Examples
    --------
    >>> from sk_medsiglip.images import Percentiles, read_image
    >>> import numpy as np
    >>> signal = np.array([[0, 500, 1000]], dtype=np.int16)
    >>> read_image(signal, intensity=Percentiles(low=0, high=100))[..., 0]
    array([[  0, 128, 255]], dtype=uint8)
    """

    low: float = 1
    high: float = 99

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", _number(self.low, "low"))
        object.__setattr__(self, "high", _number(self.high, "high"))
        if not 0 <= self.low < self.high <= 100:
            raise ValueError(
                f"percentiles must be 0 <= low < high <= 100, "
                f"got low={self.low}, high={self.high}"
            )


@dataclass(frozen=True)
class VOI:
    """A window or lookup table that a DICOM file brings itself (value of interest).

    Parameters
    ----------
    index : int, default=0
        Index of the table or window, from 0. The file's lookup tables come first, then
        its windows. Windows without a width are not counted.

    Raises
    ------
    ValueError
        If the index is not an integer from 0.

    Notes
    -----
    An image that has no such choice is an ``ImageReadError``, which says how many it
    has. ``intensity="auto"`` takes the first one where the modality has no better
    rule; ``VOI()`` takes it for CT and MR too, which then look as in a viewer.

    Examples
    --------
    >>> from sk_medsiglip.images import VOI, read_image
    >>> VOI(index=1)
    VOI(index=1)
    >>> import numpy as np
    >>> read_image(np.zeros((2, 2)), intensity=VOI())
    Traceback (most recent call last):
    sk_medsiglip.exceptions.ImageReadError: array of shape (2, 2) and type float64: it
    holds no window and no lookup table of its own. ...
    """

    index: int = 0

    def __post_init__(self) -> None:
        is_index = isinstance(self.index, int | np.integer)
        if not is_index or isinstance(self.index, bool) or self.index < 0:
            raise ValueError(f"index must be an integer from 0, got {self.index!r}")
        object.__setattr__(self, "index", int(self.index))


@dataclass(frozen=True)
class GoogleServing:
    """The brightness of Google's serving container, under the name "google-serving".

    CT is one grey window, the file's first or ``width`` around ``center``; CR and DX
    are stretched from the smallest to the largest value that the file's window leaves.
    """

    center: int = 100
    width: int = 2500


Intensity: TypeAlias = Window | CTWindows | Percentiles | VOI

#: Names that ``intensity`` takes besides ``"auto"``; windows in Hounsfield units.
NAMED_INTENSITIES: dict[str, Intensity | GoogleServing] = {
    "ct": CTWindows(),
    "ct-wide": CTWindows(red=(-1225, 1025)),
    "google-serving": GoogleServing(),
    "lung": Window(center=-600, width=1500),
    "mediastinum": Window(center=40, width=350),
    "brain": Window(center=40, width=80),
    "bone": Window(center=400, width=1800),
}


def validate_intensity(intensity: object) -> None:
    """Raise ``ValueError`` with the accepted forms unless this is one of them."""
    if isinstance(intensity, Intensity):
        return
    if isinstance(intensity, str) and intensity in ("auto", *NAMED_INTENSITIES):
        return
    names = ", ".join(f'"{name}"' for name in ("auto", *NAMED_INTENSITIES))
    raise ValueError(
        f"intensity must be one of {names}, or Window(center, width), CTWindows(...), "
        f"Percentiles(low, high) or VOI(index) from sk_medsiglip.images; "
        f"got {intensity!r}"
    )


def validate_frame(frame: object) -> None:
    """Raise ``ValueError`` unless this is None, ``"middle"`` or an index."""
    if frame is None or (isinstance(frame, str) and frame == "middle"):
        return
    if isinstance(frame, int | np.integer) and not isinstance(frame, bool):
        if frame >= 0:
            return
    raise ValueError(f'frame must be None, "middle" or an index from 0, got {frame!r}')


def resolve_intensity(intensity: Intensity | str) -> Intensity | GoogleServing:
    """Return the value object behind a name."""
    return NAMED_INTENSITIES[intensity] if isinstance(intensity, str) else intensity


def recipe_key(intensity: Intensity | str, frame: int | str | None) -> str:
    """Return the text that stands for this way of reading in a cache key.

    A name and the value object that it stands for give the same text.
    """
    validate_intensity(intensity)
    validate_frame(frame)
    shown = intensity if intensity == "auto" else resolve_intensity(intensity)
    if isinstance(frame, np.integer):
        frame = int(frame)
    return f"read-{_READING_VERSION};intensity={shown};frame={frame}"


def ramp(low: float, high: float) -> Tone:
    """Return the map that is 0 at ``low``, 255 at ``high``, linear between.

    ``high`` below ``low`` gives the negative; equal limits give black.
    """

    def tone(values: NDArray[Any]) -> NDArray[np.uint8]:
        if abs(high - low) < 1e-30:
            return np.zeros(values.shape, np.uint8)
        # float32 where it holds every value exactly, which int32 needs float64 for
        scaled = values.astype(np.result_type(values.dtype, np.float32))
        np.clip(scaled, min(low, high), max(low, high), out=scaled)
        scaled -= low
        scaled *= 255 / (high - low)
        return np.rint(scaled, out=scaled).astype(np.uint8)

    return tone
