"""Black and white for a whole series: statistics over all its slices."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.images._intensity import Percentiles
from sk_medsiglip.images._picture import Picture

__all__ = ["GreyRange"]

#: Bits of a float32's mantissa that are dropped: what is left holds every integer up
#: to 131,072, and other values to one part in that many.
_DROPPED_BITS = 7

#: Distinct values that may wait to be merged; with it the memory is some megabytes.
_MERGE_AT = 2**18


class GreyRange:
    """Limits of all the grey values of a series, found at the first question.

    Slices are decoded one at a time, so memory does not grow with the series. The
    slices of one series may ask from several threads; one of them does the work.

    Parameters
    ----------
    pictures : callable
        Returns the pictures of all slices, one after the other. Slices that cannot be
        read are to be left out: reading them says why.
    """

    def __init__(self, pictures: Callable[[], Iterable[Picture]]) -> None:
        self._pictures = pictures
        self._lock = threading.Lock()
        self._histogram: _Histogram | None = None

    @property
    def is_known(self) -> bool:
        """Whether the work was done already."""
        return self._histogram is not None

    def limits(self, wanted: Percentiles) -> tuple[float, float]:
        """Return black and white in the unit of the image, as ``Picture.limits`` is."""
        histogram = self._all_values()
        return histogram.percentile(wanted.low), histogram.percentile(wanted.high)

    def extremes(self) -> tuple[float, float]:
        """Return the smallest and the largest value, exactly."""
        histogram = self._all_values()
        return histogram.lowest, histogram.highest

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
        self.lowest, self.highest = 0.0, 0.0
        self._values = np.empty(0)
        self._counts = np.empty(0, np.int64)
        self._waiting: list[tuple[NDArray[Any], NDArray[Any]]] = []
        self._n_waiting = 0
        self._is_empty = True

    def add(self, values: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if self._is_empty:
            self.lowest, self.highest = low, high
        self._is_empty = False
        self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)
        self._waiting.append((_rounded(values), counts))
        self._n_waiting += values.size
        # Merging costs as much as what is there already: wait until it pays.
        if self._n_waiting > max(_MERGE_AT, self._values.size):
            self.merge()

    def merge(self) -> None:
        parts = [(self._values, self._counts), *self._waiting]
        values = np.concatenate([part[0] for part in parts])
        counts = np.concatenate([part[1] for part in parts])
        order = np.argsort(values, kind="stable")
        values, counts = values[order], counts[order]
        first = np.flatnonzero(np.diff(values, prepend=np.nan))
        self._values = values[first]
        self._counts = np.add.reduceat(counts, first) if first.size else counts
        self._waiting, self._n_waiting = [], 0

    def percentile(self, percent: float) -> float:
        """Return what ``np.percentile`` would of all values, one for each count."""
        if percent in (0, 100) or self._is_empty:
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
