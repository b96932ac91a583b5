"""Confidence intervals of metrics by patient, and of their means and differences.

An :class:`Estimate` knows its value, how each patient moved it, and its bounds at any
level. Sums of estimates are again estimates, whose intervals are as wide as their parts
make them (MOVER); the p-value of a difference is the level at which its interval just
reaches 0, so that the two never contradict each other.

References
----------
.. [1] Newcombe, "Confidence intervals for an effect size measure based on the
   Mann-Whitney statistic", parts 1 and 2, Statistics in Medicine 2006: area under the
   ROC curve.
.. [2] Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics
   1997: its variance where patients have several images.
.. [3] Wilson, "Probable inference, the law of succession, and statistical inference",
   Journal of the American Statistical Association 1927: shares.
.. [4] Zou and Donner, "Construction of confidence limits about effect measures",
   Statistics in Medicine 2008: sums and differences (MOVER).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit
from scipy.stats import rankdata

_ROUNDING = 1e-9  # intervals below this width are of metrics that did not vary
_LEAST_P = 1e-12
# Patients that Newcombe's variance of an area counts as. 0, 3, 5 and 10 were tried in
# 44 settings, some with a kind of disease that is missed: 0 covers .94 or more and is
# the widest, 3 covers .93 to .995, 10 covers .905.
_WORTH = 3

Levels = NDArray[np.float64]


class Bounds(NamedTuple):
    """An interval, or NaN and the reason why there is none."""

    low: float
    high: float
    note: str


@dataclass(frozen=True, eq=False)
class Estimate:
    """A metric with all its intervals.

    ``influence`` is how much each patient moved it, scaled so that the squares sum to
    its variance; it is empty for resampled metrics, which have ``draws``. Estimates
    that are combined have the same patients. ``bounds`` takes probabilities outside the
    interval and returns lower and upper bounds.
    """

    value: float
    influence: NDArray[np.float64]
    bounds: Callable[[Levels], tuple[Levels, Levels]]
    note: str = ""
    draws: NDArray[np.float64] | None = None

    def interval(self, level: float = 0.95) -> Bounds:
        """Return the interval at a level, or the reason why there is none."""
        if np.isnan(self.value):
            return Bounds(np.nan, np.nan, "")
        (low,), (high,) = self.bounds(np.array([1 - level]))
        if np.isnan(low) or np.isnan(high):
            return Bounds(np.nan, np.nan, self.note or "too few resamples")
        if high - low < _ROUNDING:
            return Bounds(np.nan, np.nan, "all resamples are alike")
        return Bounds(float(low), float(high), "")

    def p_value(self) -> float:
        """Return the probability outside the interval that just reaches 0."""
        if np.isnan(self.interval(0.5).low):
            return np.nan
        high, low = 0.0, float(np.log(_LEAST_P))
        for _ in range(3):  # 128 levels at once, three times: to five digits
            tried = np.linspace(low, high, 128)
            below, above = self.bounds(np.exp(tried))
            # The widest intervals may not be known, of few resamples.
            holds = ~((below > 0) | (above < 0))
            if holds.all():
                return float(np.exp(high))
            last = int(np.flatnonzero(~holds)[0])
            if not last:
                return float(np.exp(low))
            low, high = tried[last - 1], tried[last]
        return float(np.exp(low))

    def mapped(self, function: Callable[[Any], Any]) -> Estimate:
        """Return the estimate of an increasing function of this metric."""

        def bounds(outside: Levels) -> tuple[Levels, Levels]:
            low, high = self.bounds(outside)
            return function(low), function(high)

        return Estimate(function(self.value), self.influence, bounds, self.note)


def share_estimate(hits: NDArray[Any], base: NDArray[Any]) -> Estimate:
    """Return a share, with Wilson's interval for the effective number of patients.

    ``hits`` and ``base`` are numerators and denominators, one a patient. Shares of 0
    and 1 have the bound of Clopper and Pearson for as many patients.
    """
    total, m = base.sum(), int((base > 0).sum())
    value = hits.sum() / total if total else np.nan
    if m < 2:
        return _without(value, len(base), _of_patients(m))
    influence = np.sqrt(m / (m - 1)) * (hits - value * base) / total
    variance = (influence**2).sum()
    # Where patients are alike inside, they are worth their images at most.
    n = min(total, value * (1 - value) / variance) if variance else total

    def bounds(outside: Levels) -> tuple[Levels, Levels]:
        if value in (0, 1):
            return _exact(value, m, outside)
        q = stdtrit(m - 1, 1 - outside / 2) ** 2
        middle = (value + q / (2 * n)) / (1 + q / n)
        half = np.sqrt(q * (value * (1 - value) / n + q / (4 * n**2))) / (1 + q / n)
        return middle - half, middle + half

    return Estimate(float(value), influence, bounds)


def area_estimate(
    ill: NDArray[np.bool_],
    score: NDArray[np.float64],
    patients: NDArray[np.intp],
    n_patients: int,
) -> Estimate:
    """Return the area under the ROC curve, with Newcombe's interval by patient.

    Newcombe's variance is that of scores of one shape. Where Obuchowski's, which takes
    them as they are, is larger (a kind of disease that is missed, images of one patient
    that are alike), it counts, with Student's t.
    """
    m, n = (len(np.unique(patients[side])) for side in (ill, ~ill))
    fewer = min(m, n)
    if not fewer:
        return _without(np.nan, n_patients, "")
    of_ill, of_well = placements(ill, score)
    value = float(of_ill.mean())
    if fewer < 2:
        return _without(value, n_patients, _of_patients(fewer))
    influence = sum(
        np.bincount(patients[side], placed - value, n_patients)
        * (np.sqrt(k / (k - 1)) / len(placed))
        for side, placed, k in ((ill, of_ill, m), (~ill, of_well, n))
    )
    variance = (influence**2).sum()
    half = (m + n) / 2 - 1

    def spread(area: Any) -> Any:
        more = half * (1 - area) / (2 - area) + half * area / (1 + area)
        return area * (1 - area) * (1 + more) / (m * n)

    def bounds(outside: Levels) -> tuple[Levels, Levels]:
        if value in (0, 1):
            return _exact(value, fewer, outside)
        # With few patients the variance is uncertain; Newcombe's is worth some more.
        df = _WORTH + fewer - 1
        larger = (_WORTH + (fewer - 1) * variance / spread(value)) / df
        normal, student = ndtri(outside / 2), stdtrit(df, outside / 2)
        q = np.maximum(normal**2, student**2 * larger)
        found = []
        for end in (0.0, 1.0):
            inside, beyond = np.full(len(q), value), np.full(len(q), end)
            for _ in range(30):
                tried = (inside + beyond) / 2
                out = (tried - value) ** 2 > q * spread(tried)
                inside = np.where(out, inside, tried)
                beyond = np.where(out, tried, beyond)
            found.append(beyond)
        return found[0], found[1]

    return Estimate(value, influence, bounds)


def resampled_estimate(
    value: float, draws: NDArray[np.float64], note: str = ""
) -> Estimate:
    """Return a metric whose intervals are percentiles of its values in resamples."""
    known = np.sort(draws[~np.isnan(draws)])

    def bounds(outside: Levels) -> tuple[Levels, Levels]:
        # The sample is one of them: 39 resamples have no interval of 95 %.
        place = np.ceil(outside / 2 * (1 + len(known)) - _ROUNDING).astype(int) - 2
        if note or not len(known):
            place = np.full(len(outside), -1)
        inside = np.clip(place, 0, max(0, len(known) - 1))
        padded = known if len(known) else np.array([np.nan])
        low, high = padded[inside], padded[::-1][inside]
        return np.where(place < 0, np.nan, low), np.where(place < 0, np.nan, high)

    return Estimate(float(value), np.empty(0), bounds, note, draws)


def combine(estimates: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """Return a weighted sum of estimates; weights of 1 and -1 give a difference.

    All are resampled in the same resamples, or none is. The interval is that of MOVER,
    with the correlation of the contributions of patients to the parts.
    """
    weight = np.asarray(weights, dtype=np.float64)
    value = float(weight @ [one.value for one in estimates])
    note = next((one.note for one in estimates if one.note), "")
    draws = [one.draws for one in estimates if one.draws is not None]
    if draws:
        return resampled_estimate(value, weight @ np.array(draws), note)
    moved = weight[:, None] * [one.influence for one in estimates]
    products = moved @ moved.T
    size = np.sqrt(np.diag(products))
    if size.any() and np.abs(moved.sum(axis=0)).max() < _ROUNDING:
        # Not that of two perfect classifiers: those may differ elsewhere.
        return _without(value, moved.shape[1], "both answer alike")
    scale = np.outer(size, size)
    alike = np.divide(products, scale, out=np.eye(len(size)), where=scale > 0)

    def bounds(outside: Levels) -> tuple[Levels, Levels]:
        sides = []  # how far each part may pull the sum down, and up
        for one, part in zip(estimates, weight, strict=True):
            down, up = (part * (end - one.value) for end in one.bounds(outside))
            sides.append((up, down) if part < 0 else (down, up))
        low, high = (
            np.sqrt(np.maximum(0, np.einsum("il,ij,jl->l", side, alike, side)))
            for side in np.transpose(sides, (1, 0, 2))
        )
        return value - low, value + high

    return Estimate(value, moved.sum(axis=0), bounds, note)


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values adjusted for their number by Holm's method; NaN stays."""
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(p_values), np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted


def placements(
    ill: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of well below each ill, and of ill above each well.

    Ties count half. The mean of either is the area under the ROC curve.
    """
    among_all = rankdata(scores)
    n_ill, n_well = int(ill.sum()), int((~ill).sum())
    of_ill = (among_all[ill] - rankdata(scores[ill])) / n_well
    of_well = 1 - (among_all[~ill] - rankdata(scores[~ill])) / n_ill
    return of_ill, of_well


def _without(value: float, n_patients: int, note: str) -> Estimate:
    """Return an estimate without intervals."""

    def bounds(outside: Levels) -> tuple[Levels, Levels]:
        return np.full(len(outside), np.nan), np.full(len(outside), np.nan)

    return Estimate(float(value), np.zeros(n_patients), bounds, note)


def _of_patients(n: int) -> str:
    return f"{n} patient{'s' * (n != 1)} of a kind"


def _exact(value: float, n: int, outside: Levels) -> tuple[Levels, Levels]:
    """Return Clopper and Pearson's bounds for a share of 0, or of 1, of n."""
    far = (outside / 2) ** (1 / n)
    whole = np.full(len(outside), float(value))
    return (far, whole) if value else (whole, 1 - far)
