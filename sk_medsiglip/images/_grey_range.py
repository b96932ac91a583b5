"""The slices of a series, with black and white taken over all of them."""

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
from sk_medsiglip.images._decoded_image import DecodedImage
from sk_medsiglip.images._intensity import CTWindows, Percentiles
from sk_medsiglip.images._lazy import Part
from sk_medsiglip.images._read import load_image
from sk_medsiglip.images._sources import describe

#: Bits of the float32 mantissa that are dropped: the rest represents every integer up
#: to 131,072, and other values to one part in 131,072.
_DROPPED_BITS = 7

#: Distinct values that may wait to be merged, which take a few megabytes.
_MERGE_AT = 2**18


class GreyRange:
    """Limits of the grey values of a series, computed at the first request.

    Slices are decoded one at a time, so memory does not grow with the series.
    """

    def __init__(self, images: Callable[[], Iterable[DecodedImage]]) -> None:
        self._images = images
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
                for image in self._images():
                    histogram.add(*_values_and_counts(image))
                histogram.merge()
                self._histogram = histogram
            return self._histogram


class _Histogram:
    """Distinct values and their counts."""

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
        # Merging costs as much as all distinct values so far: wait until it pays.
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
        """Return the percentile of all values, as ``np.percentile`` computes it."""
        if percent in (0, 100) or not self._values.size:
            return self.highest if percent == 100 else self.lowest
        ends = np.cumsum(self._counts)
        place = percent / 100 * (int(ends[-1]) - 1)
        below = int(place)
        above = min(below + 1, int(ends[-1]) - 1)
        low, high = self._values[np.searchsorted(ends, [below, above], side="right")]
        return float(low + (high - low) * (place - below))


def _values_and_counts(image: DecodedImage) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the distinct values of an image in their unit, without padding and NaN."""
    values = image.values
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
    if image.padding is not None:
        first, last = image.padding
        kept = (distinct < first) | (distinct > last)
    if image.in_unit is not None:
        distinct = image.in_unit(distinct)
    distinct = distinct.astype(np.float64)
    kept &= np.isfinite(distinct)
    return distinct[kept], counts[kept]


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round values to a grid, which bounds the number of distinct values."""
    with np.errstate(over="ignore"):
        bits = values.astype(np.float32).view(np.uint32)
    half = np.uint32(1 << (_DROPPED_BITS - 1))
    mask = np.uint32(0xFFFF_FFFF ^ ((1 << _DROPPED_BITS) - 1))
    return ((bits + half) & mask).view(np.float32).astype(np.float64)


def series_of(
    parts: Sequence[tuple[Any, int | None]], max_pixels: int, *, is_alike: bool = True
) -> list[Any]:
    """Return the slices of (source, frame) pairs; a single file stays as it is.

    ``is_alike`` means that the tags of the files show all of them on one grey scale.
    """
    if len(parts) == 1 and parts[0][1] is None:
        return [parts[0][0]]

    def images() -> Iterator[DecodedImage]:
        for source, frame in parts:
            try:
                yield load_image(source, frame=frame, max_pixels=max_pixels)
            except ImageReadError:
                # Skipped here; reading the slice itself raises the error.
                continue

    grey_range = GreyRange(images)
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
) -> DecodedImage:
    """Decode a slice, with the limits of its series."""
    image = load_image(source, frame=frame, max_pixels=max_pixels)
    auto = image.auto
    is_judged = auto is not None and image.format != "DICOM"
    if is_judged and np.isfinite(image.values).all():
        # Use the range of the series, or a slice of small values would be brighter than
        # its neighbours.
        extremes = np.array(grey_range.extremes(), image.values.dtype)
        auto = meaning_of_values(extremes)
    is_grey = image.values.ndim == 2 and image.format == "DICOM"
    if is_grey and not is_alike and not isinstance(auto, CTWindows):
        # With a window per slice, the same value would have several grey levels.
        auto = Percentiles()
    return replace(image, auto=auto, limits=grey_range.limits)


def _name(source: Any, frame: int | None, place: int) -> str:
    if isinstance(source, np.ndarray):
        return f"slice {place}, {describe(source)}"
    return describe(source) if frame is None else f"{describe(source)}, frame {frame}"
