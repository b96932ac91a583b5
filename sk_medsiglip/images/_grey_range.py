"""The slices of a series, and black and white over all of them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._arrays import meaning_of_values
from sk_medsiglip.images._intensity import CTWindows, Percentiles
from sk_medsiglip.images._lazy import Part
from sk_medsiglip.images._picture import Picture
from sk_medsiglip.images._read import load_picture
from sk_medsiglip.images._sources import describe

#: Bits of a float32's mantissa that are dropped: the others hold every integer up
#: to 131,072, and other values to one part in that many.
_DROPPED_BITS = 7

#: Distinct values that may wait to be merged; with it the memory is some megabytes.
_MERGE_AT = 2**18


class GreyRange:
    """Limits of all the grey values of a series, computed by the first to ask.

    Slices are decoded one at a time, so memory does not grow with the series.
    """

    def __init__(self, pictures: Callable[[], Iterable[Picture]]) -> None:
        self._pictures = pictures
        self._lock = threading.Lock()
        self._histogram: _Histogram | None = None

    @property
    def is_known(self) -> bool:
        """Whether the slices have been read."""
        return self._histogram is not None

    def limits(self, wanted: Percentiles) -> tuple[float, float]:
        """Return black and white in the unit of the image."""
        histogram = self._all_values()
        return histogram.percentile(wanted.low), histogram.percentile(wanted.high)

    def extremes(self) -> tuple[float, float]:
        """Return the smallest and the largest value, exactly."""
        return self.limits(Percentiles(0, 100))

    def _all_values(self) -> _Histogram:
        with self._lock:
            if self._histogram is None:
                histogram = _Histogram()
                for picture in self._pictures():
                    histogram.add(*_values_and_counts(picture))
                histogram.merge()
                self._histogram = histogram
            return self._histogram


class _Histogram:
    """Distinct values and how often each occurs."""

    def __init__(self) -> None:
        self.lowest, self.highest = np.inf, -np.inf
        self._values = np.empty(0)
        self._counts = np.empty(0, np.int64)
        self._waiting: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def add(self, values: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
        if not values.size:
            return
        self.lowest = min(self.lowest, float(values.min()))
        self.highest = max(self.highest, float(values.max()))
        self._waiting.append((_rounded(values), counts))
        # The cost of merging grows with the values that are there: wait until it pays.
        n_waiting = sum(part[0].size for part in self._waiting)
        if n_waiting > max(_MERGE_AT, self._values.size):
            self.merge()

    def merge(self) -> None:
        parts = [(self._values, self._counts), *self._waiting]
        values, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
        self._values, places = np.unique(values, return_inverse=True)
        self._counts = np.bincount(places, counts).astype(np.int64)
        self._waiting = []
        if not self._values.size:
            self.lowest, self.highest = 0.0, 0.0

    def percentile(self, percent: float) -> float:
        """Return what ``np.percentile`` would of all values, one for each count."""
        if percent in (0, 100) or not self._values.size:
            return self.highest if percent == 100 else self.lowest
        ends = np.cumsum(self._counts)
        place = percent / 100 * (int(ends[-1]) - 1)
        below = int(place)
        above = min(below + 1, int(ends[-1]) - 1)
        low, high = self._values[np.searchsorted(ends, [below, above], side="right")]
        return float(low + (high - low) * (place - below))


def _values_and_counts(picture: Picture) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a picture's distinct values in their unit; padding and NaN left out."""
    values = picture.values
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
        unsigned = np.dtype(f"u{values.dtype.itemsize}")
        bits = np.ascontiguousarray(values).view(unsigned).ravel()
        n_of_each = np.bincount(bits)
        present = np.flatnonzero(n_of_each)
        distinct = present.astype(unsigned).view(values.dtype)
        counts = n_of_each[present]
    else:
        distinct, counts = np.unique(values, return_counts=True)
    kept = np.ones(distinct.shape, bool)
    if picture.padding is not None:
        first, last = picture.padding
        kept = (distinct < first) | (distinct > last)
    if picture.in_unit is not None:
        distinct = picture.in_unit(distinct)
    distinct = distinct.astype(np.float64)
    kept &= np.isfinite(distinct)
    return distinct[kept], counts[kept]


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values on a grid that bounds how many distinct ones there can be."""
    with np.errstate(over="ignore"):
        bits = values.astype(np.float32).view(np.uint32)
    half = np.uint32(1 << (_DROPPED_BITS - 1))
    mask = np.uint32(0xFFFF_FFFF ^ ((1 << _DROPPED_BITS) - 1))
    return ((bits + half) & mask).view(np.float32).astype(np.float64)


def series_of(
    parts: Sequence[tuple[Any, int | None]], max_pixels: int, *, is_alike: bool = True
) -> list[Any]:
    """Return the slices of (source, frame) pairs; a single file stays as it is.

    ``is_alike`` tells that the files' own tags show all of them on one scale.
    """
    if len(parts) == 1 and parts[0][1] is None:
        return [parts[0][0]]

    def pictures() -> Iterator[Picture]:
        for source, frame in parts:
            try:
                yield load_picture(source, frame=frame, max_pixels=max_pixels)
            except ImageReadError:
                # Left out here; reading the slice itself raises the error.
                continue

    grey_range = GreyRange(pictures)
    return [
        Part(
            _name(source, frame, place),
            functools.partial(_load_slice, source, frame, grey_range, is_alike),
        )
        for place, (source, frame) in enumerate(parts)
    ]


def _load_slice(
    source: Any,
    frame: int | None,
    grey_range: GreyRange,
    is_alike: bool,
    max_pixels: int,
) -> Picture:
    """Decode a slice, in the limits of its series."""
    picture = load_picture(source, frame=frame, max_pixels=max_pixels)
    auto = picture.auto
    is_judged = auto is not None and picture.format != "DICOM"
    if is_judged and np.isfinite(picture.values).all():
        # By the range of the series, or a slice of small values would be brighter
        # than its neighbours.
        extremes = np.array(grey_range.extremes(), picture.values.dtype)
        auto = meaning_of_values(extremes)
    is_grey = picture.values.ndim == 2 and picture.format == "DICOM"
    if is_grey and not is_alike and not isinstance(auto, CTWindows):
        # With a window for each slice, one value would have several greys.
        auto = Percentiles()
    return replace(picture, auto=auto, limits=grey_range.limits)


def _name(source: Any, frame: int | None, place: int) -> str:
    if isinstance(source, np.ndarray):
        return f"slice {place}, {describe(source)}"
    return describe(source) if frame is None else f"{describe(source)}, frame {frame}"
