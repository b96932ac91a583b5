"""The queue of rows to label: uncertain ones, spread over their clusters.

Half of the first rows are those that the prompts score highest, since random rows may
hold no positive of a rare finding. Without prompts they are random: a classifier of few
labels is sure of the wrong things, and asks only about what it knows already.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

#: Answered rows up to which half of a queue comes from the prompts, or is random.
_FIRST_BY_PROMPTS, _FIRST_AT_RANDOM = 32, 64
#: Rows that are clustered, for each one that is taken.
_POOL = 8

Rows = NDArray[np.intp]


def choose_next(
    k: int,
    X: NDArray[np.floating],
    lengths: NDArray[np.floating],
    asked: NDArray[np.bool_],
    scores: NDArray[np.floating] | None,
    prompt_scores: NDArray[np.floating] | None,
    n_answered: int,
    random_state: int,
) -> Rows:
    """Return ``k`` rows, or as many as there are.

    ``asked`` is ``(n_rows, n_columns)``, the cells that may be labelled. Scores have
    those columns, or one for each of several classes; None where there is no trained
    classifier or no prompts.
    """
    rows = np.flatnonzero(asked.any(axis=1))
    rng = np.random.default_rng([random_state, n_answered])
    n_first = _FIRST_AT_RANDOM if prompt_scores is None else _FIRST_BY_PROMPTS
    n_half = (min(k, max(n_first - n_answered, 0)) + 1) // 2
    if prompt_scores is None:
        chosen = rng.permutation(len(rows))[:n_half]
    else:
        chosen = _likeliest(n_half, prompt_scores[rows], asked[rows])
    rest = np.setdiff1d(np.arange(len(rows)), chosen)
    margins = _margins(scores, rows, asked)[rest]
    # Equal margins, of all rows before anything is learned, are in random order.
    order = np.lexsort([rng.permutation(len(rest)), margins])
    pool = rest[order[: _POOL * (k - len(chosen))]]
    unit = X[rows[pool]] / lengths[rows[pool]][:, None]
    spread = pool[_one_of_each_cluster(unit, k - len(chosen), random_state)]
    return rows[np.concatenate([chosen, spread])]


def together(rows: Rows, groups: NDArray[np.generic] | None) -> Rows:
    """Return rows in order, with those of one patient next to each other."""
    if groups is None:
        return rows
    _, first, member = np.unique(groups[rows], return_index=True, return_inverse=True)
    return rows[np.argsort(first[member], kind="stable")]


def _likeliest(n: int, scores: NDArray[np.floating], asked: NDArray[np.bool_]) -> Rows:
    """Return rows of the highest scores, one column after the other in turn."""
    if asked.shape[1] == scores.shape[1]:
        scores = np.where(asked, scores, -np.inf)
    columns = np.argsort(-scores, axis=0, kind="stable")[:n]
    in_turn = columns.ravel()
    _, first = np.unique(in_turn, return_index=True)
    return in_turn[np.sort(first)[:n]]


def _margins(
    scores: NDArray[np.floating] | None, rows: Rows, asked: NDArray[np.bool_]
) -> NDArray[np.floating]:
    """Return how far each row is from the nearest decision that is still asked for."""
    if scores is None:
        return np.zeros(len(rows))
    found = scores[rows]
    if found.shape[1] != asked.shape[1]:  # classes: between the two likeliest
        # Classes that nothing was learned of are NaN.
        known = np.where(np.isnan(found), -np.inf, found)
        top = np.partition(known, -2, axis=1)
        return top[:, -1] - top[:, -2]
    margins = np.where(asked[rows] & ~np.isnan(found), np.abs(found), np.inf)
    return margins.min(axis=1)


def _one_of_each_cluster(pool: NDArray[np.floating], k: int, random_state: int) -> Rows:
    """Return places in the pool, which is in order: the first of each of k clusters."""
    if len(pool) <= k or k < 2:
        return np.arange(min(k, len(pool)))
    with warnings.catch_warnings():
        # Copies of one picture make fewer clusters; the pool fills the gaps.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(k, n_init=1, random_state=random_state).fit_predict(pool)
    _, first = np.unique(found, return_index=True)
    others = np.setdiff1d(np.arange(len(pool)), first)
    return np.sort(np.append(first, others[: k - len(first)]))
