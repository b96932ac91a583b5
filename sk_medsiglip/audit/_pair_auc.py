"""Areas under ROC curves over some of the pairs of a positive and a negative."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]


def auc_within(ill: NDArray[np.intp], score: Scores, level: NDArray[np.intp]) -> float:
    """Return the share of pairs of one level in which the positive scores higher."""
    return _share_won(
        (score[(ill == 1) & (level == one)], score[(ill == 0) & (level == one)])
        for one in range(int(level.max(initial=-1)) + 1)
    )


def auc_conflicting(
    ill: NDArray[np.intp], score: Scores, level: NDArray[np.intp]
) -> float:
    """Return the same for pairs whose levels suggest the opposite.

    The positive is of a level with a lower share of positives than the negative's.
    """
    rate = np.bincount(level, ill) / np.maximum(np.bincount(level), 1)
    return _share_won(
        (
            score[(ill == 1) & (rate[level] < rate[one])],
            score[(ill == 0) & (level == one)],
        )
        for one in range(len(rate))
    )


def _share_won(sides: Iterable[tuple[Scores, Scores]]) -> float:
    """Return the share of pairs that positives win, ties counting half."""
    won = total = 0.0
    for positive, negative in sides:
        ordered = np.sort(negative)
        below = np.searchsorted(ordered, positive, "left")
        not_above = np.searchsorted(ordered, positive, "right")
        won += float((below + not_above).sum()) / 2
        total += len(positive) * len(negative)
    return won / total if total else np.nan
