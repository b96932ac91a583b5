"""Bootstrap of metrics over patients, who are drawn with replacement.

A resample is a row with the count of each sample, so that a metric with weights is
computed for thousands of resamples as one product or one cumulative sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip._splits import group_numbers

# Counts processed at a time: 1 MiB of float64, which fits into the cache of a CPU.
_BLOCK = 2**17


class Interval(NamedTuple):
    """Bounds, and the number of resamples without a value."""

    low: float
    high: float
    n_undefined: int


def draw_counts(
    n_samples: int,
    n_draws: int,
    *,
    groups: ArrayLike | None = None,
    random_state: int | np.random.Generator | None = None,
) -> NDArray[np.int32]:
    """Return the count of each sample in each resample, ``(n_draws, n_samples)``.

    The samples of a group are drawn together, since they are not independent.
    """
    rng = np.random.default_rng(random_state)
    if groups is None:
        member, n_groups = np.arange(n_samples), n_samples
    else:
        member = group_numbers(groups, n_samples)
        n_groups = int(member.max(initial=-1)) + 1
    counts = np.zeros((n_draws, n_groups), np.int32)
    for row in counts:
        row += np.bincount(rng.integers(0, n_groups, n_groups), minlength=n_groups)
    return counts if groups is None else counts[:, member]


def check_resampling(n_bootstrap: Any, level: Any) -> None:
    """Raise if the number of resamples or the level of intervals is invalid."""
    check_level(level)
    whole = isinstance(n_bootstrap, Integral) and not isinstance(n_bootstrap, bool)
    if not whole or n_bootstrap < 1:
        raise ValueError(
            f"n_bootstrap must be a positive integer, got {n_bootstrap!r}."
        )


def check_level(level: Any) -> None:
    """Raise if the confidence level is not between 0 and 1."""
    if not isinstance(level, Real) or not 0 < float(level) < 1:
        raise ValueError(
            f"level must be between 0 and 1, such as 0.95 for 95%; got {level!r}."
        )


def auc_of_resamples(
    y_true: NDArray[Any], y_score: NDArray[np.floating], counts: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return the area under the ROC curve of each resample, NaN if it has one class."""
    result = np.empty(len(counts))
    for some, ill, well in ranked_counts(y_true, y_score, counts):
        result[some] = area(ill, well)
    return result


def ranked_counts(
    y_true: NDArray[Any],
    y_score: NDArray[np.floating],
    counts: NDArray[np.integer],
    rows: NDArray[np.intp] | None = None,
) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64]]]:
    """Yield counts of positives and negatives at each score, for blocks of resamples.

    Scores are ranked once; the points of ROC and precision-recall curves are sums of
    these counts.
    """
    order = np.argsort(y_score, kind="stable")
    is_ill = np.asarray(y_true, dtype=bool)[order]
    scores = np.asarray(y_score)[order]
    columns = order if rows is None else rows[order]
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    step = max(1, _BLOCK // max(1, len(scores)))
    for start in range(0, len(counts), step):
        some = slice(start, start + step)
        drawn = counts[some, columns].astype(np.float64)
        ill = np.where(is_ill, drawn, 0.0)
        well = drawn - ill
        if len(starts) < len(scores):
            ill = np.add.reduceat(ill, starts, axis=1)
            well = np.add.reduceat(well, starts, axis=1)
        yield some, ill, well


def area(ill: NDArray[np.float64], well: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return areas under ROC curves from counts; NaN if there is only one class."""
    below = np.cumsum(well, axis=1)
    pairs = ill.sum(axis=1) * below[:, -1:].sum(axis=1)  # 0 without scores
    below -= well / 2  # ties count half
    wins = np.einsum("ij,ij->i", ill, below)
    result = np.full(len(ill), np.nan)
    return np.divide(wins, pairs, out=result, where=pairs > 0)


def interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Return the percentile interval of a metric over its resamples."""
    drawn = np.asarray(values, dtype=np.float64)
    known = drawn[~np.isnan(drawn)]
    if not known.size:
        return Interval(np.nan, np.nan, drawn.size)
    tail = (1 - level) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(float(low), float(high), drawn.size - known.size)
