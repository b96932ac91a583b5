"""Confidence intervals of metrics by patient, and of their means and differences.

An :class:`Estimate` has a value, the influence of each patient on it, and bounds at any
level. Sums of estimates are again estimates, whose intervals are derived from those of
the parts (MOVER). The p-value of a difference is the level at which its interval just
reaches 0, so that the two never contradict each other.

References
----------
.. [1] Newcombe, "Confidence intervals for an effect size measure based on the
   Mann-Whitney statistic", parts 1 and 2, Statistics in Medicine 2006: area under the
   ROC curve.
.. [2] Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics
   1997: its variance if patients have several images.
.. [3] Wilson, "Probable inference, the law of succession, and statistical inference",
   Journal of the American Statistical Association 1927: proportions.
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

_ROUNDING = 1e-9  # narrower intervals mean that the metric did not vary
_LEAST_P = 1e-12
# Weight of Newcombe's variance of an area, as a number of patients. 0, 3, 5 and 10 were
# tried in 44 settings, some with a kind of disease that is missed: the coverage is at
# least .94 for 0, which is the widest, .93 to .995 for 3, and .905 for 10.
_WORTH = 3

Levels = NDArray[np.float64]


class Bounds(NamedTuple):
    """An interval, or NaN with the reason why it is not defined."""

    low: float
    high: float
    note: str


@dataclass(frozen=True, eq=False)
class Estimate:
    """A metric with all its intervals.

    ``influence`` is the influence of each patient on it, scaled so that the squares sum
    to its variance; it is empty for resampled metrics, which have ``draws``. Estimates
    to be combined must have the same patients. ``bounds`` maps probabilities outside of
    the interval to lower and upper bounds.
    """

    value: float
    influence: NDArray[np.float64]
    bounds: Callable[[Levels], tuple[Levels, Levels]]
    note: str = ""
    draws: NDArray[np.float64] | None = None

    def interval(self, level: float = 0.95) -> Bounds:
        """Return the interval at a level, or the reason why it is not defined."""
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
        for _ in range(3):  # three grids of 128 levels give five digits
            tried = np.linspace(low, high, 128)
            below, above = self.bounds(np.exp(tried))
            # With few resamples, the widest intervals may be undefined.
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
    """Return a proportion, with Wilson's interval for the effective sample size.

    ``hits`` and ``base`` are the numerator and the denominator of each patient.
    Proportions of 0 and 1 have the bound of Clopper and Pearson for the number of
    patients.
    """
    total, m = base.sum(), int((base > 0).sum())
    value = hits.sum() / total if total else np.nan
    if m < 2:
        return _without(value, len(base), _of_patients(m))
    influence = np.sqrt(m / (m - 1)) * (hits - value * base) / total
    variance = (influence**2).sum()
    # The effective sample size is at most the number of images.
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

    Newcombe's variance assumes a shape of the distribution of scores; Obuchowski's does
    not. If the latter is larger (a kind of disease is missed, images of one patient are
    alike), it is used together with Student's t.
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
        # With few patients the variance is uncertain, so Newcombe's has some weight.
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
        # The sample counts as a resample: with 39 resamples, 95 % is undefined.
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

    Either all have draws from the same resamples, or none has. The interval is that of
    MOVER, with the correlation of the influences of patients on the parts.
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
        # This excludes two perfect classifiers, which may differ on other patients.
        return _without(value, moved.shape[1], "both answer alike")
    scale = np.outer(size, size)
    alike = np.divide(products, scale, out=np.eye(len(size)), where=scale > 0)

    def bounds(outside: Levels) -> tuple[Levels, Levels]:
        sides = []  # largest decrease and increase of the sum by each part
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
    """Return p-values adjusted for multiple tests by Holm's method; NaN stays."""
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(p_values), np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted


def placements(
    ill: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the fraction of negatives below each positive, and vice versa.

    Ties count half. The mean of either array is the area under the ROC curve.
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
    """Return Clopper and Pearson's bounds for a proportion of 0 or 1 among n."""
    far = (outside / 2) ** (1 / n)
    whole = np.full(len(outside), float(value))
    return (far, whole) if value else (whole, 1 - far)
