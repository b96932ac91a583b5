"""Grey values to brightness: windows, percentiles, and their names."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: Part of the cache key: increase it whenever a file gives other pixels than before.
_READING_VERSION = 3

#: Grey values to uint8; a last axis of 3 is added where the colours differ.
Tone: TypeAlias = Callable[[NDArray[Any]], NDArray[np.uint8]]


def _number(value: object, name: str) -> float:
    """Return a plain number, so that equal settings have the same repr."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return int(number) if number.is_integer() else number


@dataclass(frozen=True)
class Window:
    """A window of grey values: black below it, white above it, linear in between.

    Parameters
    ----------
    center : float
        Middle of the window, also called level, in the unit of the image: Hounsfield
        units for CT, otherwise usually the stored values.
    width : float
        Distance from black to white; positive.

    Raises
    ------
    ValueError
        If a number is not finite or the width is not positive.

    Notes
    -----
    Black is ``center - width / 2`` and white ``center + width / 2`` (``LINEAR_EXACT``
    in DICOM). For a colour image the window is applied to each channel.

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

    Google passes CT slices to MedSigLIP in this form, and has published two sets of
    windows that differ in the first one.

    Parameters
    ----------
    red, green, blue : tuple of (float, float)
        Black and white of each channel, in Hounsfield units. By default, the channels
        show all tissue, soft tissue and brain.

    Raises
    ------
    ValueError
        If a pair is not two finite, increasing numbers.

    Notes
    -----
    The defaults are those of Google's notebook on CT [1]_, so that pixels can be
    compared with those of published code. The technical report [2]_ (section 2.1.2)
    gives windows of width and level 2250/-100, 350/40 and 80/40, which are
    (-1225, 1025), (-135, 215) and (0, 80); they are available as
    ``intensity="ct-wide"``.

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
        Percentages from 0 to 100, with ``low < high``. 0 and 100 give the whole range.

    Raises
    ------
    ValueError
        If they are not two increasing numbers from 0 to 100.

    Notes
    -----
    DICOM padding is ignored. For a colour image, percentiles are taken over all
    channels together. An image of a single value becomes black.

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
    """A window or lookup table that is stored in the DICOM file (value of interest).

    Parameters
    ----------
    index : int, default=0
        Index of the table or window. The lookup tables of the file come first, then
        its windows. Windows without a width are not counted.

    Raises
    ------
    ValueError
        If the index is not a non-negative integer.

    Notes
    -----
    Reading an image without such a table or window raises ``ImageReadError``, which
    says how many there are. ``intensity="auto"`` uses the first one unless the
    modality has a better rule. ``VOI()`` also uses it for CT and MR, which then look
    as in a viewer.

    Examples
    --------
    >>> from sk_medsiglip.images import VOI, read_image
    >>> VOI(index=1)
    VOI(index=1)
    >>> import numpy as np
    >>> read_image(np.zeros((2, 2)), intensity=VOI())
    Traceback (most recent call last):
    sk_medsiglip.exceptions.ImageReadError: array of shape (2, 2) and type float64: it
    holds no window and no lookup table. ...
    """

    index: int = 0

    def __post_init__(self) -> None:
        is_index = isinstance(self.index, int | np.integer)
        if not is_index or isinstance(self.index, bool) or self.index < 0:
            raise ValueError(f"index must be an integer from 0, got {self.index!r}")
        object.__setattr__(self, "index", int(self.index))


@dataclass(frozen=True)
class GoogleServing:
    """The brightness of Google's serving container, ``intensity="google-serving"``.

    CT is shown in one grey window: the first of the file, or ``width`` around
    ``center``. CR and DX are stretched over the range of values within the window of
    the file.
    """

    center: int = 100
    width: int = 2500


Intensity: TypeAlias = Window | CTWindows | Percentiles | VOI

#: Names accepted as ``intensity`` besides ``"auto"``; windows in Hounsfield units.
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
    """Raise ``ValueError`` unless this is an accepted value of ``intensity``."""
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
    """Return the part of a cache key that describes how images are read.

    A name and the object that it stands for give the same text.
    """
    validate_intensity(intensity)
    validate_frame(frame)
    shown = intensity if intensity == "auto" else resolve_intensity(intensity)
    if isinstance(frame, np.integer):
        frame = int(frame)
    return f"read-{_READING_VERSION};intensity={shown};frame={frame}"


def ramp(low: float, high: float) -> Tone:
    """Return the linear map from 0 at ``low`` to 255 at ``high``, clipped outside.

    ``high`` below ``low`` gives the negative; equal limits give black.
    """

    def tone(values: NDArray[Any]) -> NDArray[np.uint8]:
        if abs(high - low) < 1e-30:
            return np.zeros(values.shape, np.uint8)
        # float32 if it holds every value exactly, else float64, as for int32
        scaled = values.astype(np.result_type(values.dtype, np.float32))
        np.clip(scaled, min(low, high), max(low, high), out=scaled)
        scaled -= low
        scaled *= 255 / (high - low)
        return np.rint(scaled, out=scaled).astype(np.uint8)

    return tone
