"""How sure a figure is: it is computed again on patients drawn with replacement.

A resample is a row of counts, how often each sample was drawn, so that a metric that
takes weights computes thousands of resamples as one product or one running sum.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length

__all__ = ["Interval", "auc_of_resamples", "draw_counts", "group_numbers", "interval"]


class Interval(NamedTuple):
    """What a figure may as well have been.

    Parameters
    ----------
    low, high : float
        Bounds; NaN if no resample had a value.
    n_undefined : int
        Resamples without one, such as an AUC where nobody was ill.
    """

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
    """Draw with replacement, whole groups at a time, and count.

    Parameters
    ----------
    n_samples : int
        Samples to draw from.
    n_draws : int
        Resamples.
    groups : array-like of shape (n_samples,), default=None
        Patients: all samples of one are drawn together, since they are alike. None
        draws samples one by one.
    random_state : int, Generator or None, default=None
        Same number, same draws.

    Returns
    -------
    ndarray of shape (n_draws, n_samples), int32
        How often each sample is in each resample. Rows sum to ``n_samples`` without
        groups; with groups, to about that.
    """
    rng = np.random.default_rng(random_state)
    if groups is None:
        member, n_groups = np.arange(n_samples), n_samples
    else:
        member = group_numbers(groups)
        check_consistent_length(member, np.empty(n_samples))
        n_groups = int(member.max(initial=-1)) + 1
    counts = np.zeros((n_draws, n_groups), np.int32)
    for row in counts:
        row += np.bincount(rng.integers(0, n_groups, n_groups), minlength=n_groups)
    return counts[:, member]


def group_numbers(groups: ArrayLike) -> NDArray[np.intp]:
    """Give groups of any hashable type numbers from 0, in the order they come."""
    numbers: dict[Hashable, int] = {}
    values: Any = np.asarray(groups).tolist()
    return np.array([numbers.setdefault(one, len(numbers)) for one in values], np.intp)


def auc_of_resamples(
    y_true: NDArray[Any], y_score: NDArray[np.floating], counts: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return the area under the ROC curve of every resample.

    Parameters
    ----------
    y_true : ndarray of shape (n_samples,)
        True or 1 for ill.
    y_score : ndarray of shape (n_samples,)
        Higher means likelier ill; ties count half.
    counts : ndarray of shape (n_draws, n_samples)
        From :func:`draw_counts`; a row of ones is the sample itself.

    Returns
    -------
    ndarray of shape (n_draws,)
        NaN where a resample has only one class.

    Notes
    -----
    Scores are ranked once, and each resample is one running sum over them.
    """
    order = np.argsort(y_score, kind="stable")
    ill = np.asarray(y_true, dtype=bool)[order]
    scores = np.asarray(y_score)[order]
    # Of each score its first place and the one after its last, among equals.
    first = np.searchsorted(scores, scores[ill], side="left")
    after = np.searchsorted(scores, scores[ill], side="right")
    result = np.full(len(counts), np.nan)
    for start in range(0, len(counts), 256):  # a block stays in the processor's cache
        block = counts[start : start + 256, order].astype(np.float64)
        well = np.zeros((len(block), len(scores) + 1))
        np.cumsum(np.where(ill, 0.0, block), axis=1, out=well[:, 1:])
        below = (well[:, first] + well[:, after]) / 2
        positive = block[:, ill]
        pairs = positive.sum(axis=1) * well[:, -1]
        wins = (positive * below).sum(axis=1)
        part = result[start : start + 256]
        np.divide(wins, pairs, out=part, where=pairs > 0)
    return result


def interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Return the percentile interval of a figure over its resamples.

    Parameters
    ----------
    values : array-like of shape (n_draws,)
        NaN where it was undefined.
    level : float, default=0.95
        Share of the resamples within.

    Returns
    -------
    Interval
    """
    drawn = np.asarray(values, dtype=np.float64)
    known = drawn[~np.isnan(drawn)]
    if not known.size:
        return Interval(np.nan, np.nan, drawn.size)
    tail = (1 - level) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(float(low), float(high), drawn.size - known.size)
