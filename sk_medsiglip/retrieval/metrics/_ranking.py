"""Relevance of items, their order by score, and the metric of each query."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import UndefinedMetricWarning

from sk_medsiglip._warning import warn_user

#: Number of scores that are ranked at a time: 4 MB of float64.
_SCORES = 2**19
_WITHOUT = ("warn", "skip", "raise")
Floats = NDArray[np.float64]


def relevance_of_labels(
    query_labels: ArrayLike, item_labels: ArrayLike
) -> NDArray[np.int64]:
    """Return the relevance of items to queries: the number of labels that they share.

    Parameters
    ----------
    query_labels : array-like of shape (n_queries,) or (n_queries, n_labels)
        One class for each query, or 1 for findings that are present and 0 for others.
    item_labels : array-like of shape (n_items,) or (n_items, n_labels)
        Labels of the same kind.

    Returns
    -------
    relevance : ndarray of shape (n_queries, n_items), int64
        0 or 1 for classes; the number of shared findings otherwise. Images without any
        finding share none, even with each other.

    Raises
    ------
    ValueError
        If the labels are of different kinds, or findings are not 0 and 1.

    Examples
    --------
    >>> from sk_medsiglip.retrieval import metrics
    >>> metrics.relevance_of_labels(["benign"], ["benign", "malignant"])
    array([[1, 0]])
    >>> metrics.relevance_of_labels([[1, 1, 0]], [[1, 1, 0], [0, 1, 1], [0, 0, 1]])
    array([[2, 1, 0]])
    """
    ours, theirs = np.asarray(query_labels), np.asarray(item_labels)
    if ours.ndim != theirs.ndim or ours.ndim not in (1, 2):
        raise ValueError(
            "query_labels and item_labels must both hold classes, or both rows of "
            f"findings, got shapes {ours.shape} and {theirs.shape}."
        )
    if ours.ndim == 1:
        return (ours[:, np.newaxis] == theirs).astype(np.int64)
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(
            f"query_labels have {ours.shape[1]} findings and item_labels "
            f"{theirs.shape[1]}."
        )
    for name, labels in (("query_labels", ours), ("item_labels", theirs)):
        if not np.isin(labels, (0, 1)).all():
            raise ValueError(
                f"{name} must be 0 and 1. Replace other values, such as those of "
                "uncertain or missing labels, first."
            )
    return ours.astype(np.int64) @ theirs.astype(np.int64).T


def chance_level(
    metric: Callable[..., Any],
    y_true: ArrayLike,
    *,
    n_items: int | None = None,
    **options: Any,
) -> Any:
    """Return the mean of a metric over random orders of the items.

    Parameters
    ----------
    metric : callable
        A function of this module.
    y_true : array-like of shape (n_queries, n_items) or (n_queries,)
        As for the metric.
    n_items : int, default=None
        Number of items, if ``y_true`` is one-dimensional.
    **options
        Options of the metric, such as ``k``.

    Returns
    -------
    chance : float, or ndarray of shape (n_queries,)
        Exact mean over all orders. For :func:`median_rank`, the median of the mean
        ranks of the queries.

    Raises
    ------
    ValueError
        For the reasons of the metric, or if ``n_items`` is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_medsiglip.retrieval import metrics
    >>> pairs = np.arange(200)
    >>> chance = metrics.chance_level(metrics.hit_rate_at_k, pairs, n_items=200, k=5)
    >>> round(chance, 3)
    0.025
    >>> by_finding = [[1, 1, 0, 0, 0], [0, 0, 1, 1, 1]]
    >>> metrics.chance_level(metrics.precision_at_k, by_finding, k=2)
    0.5
    """
    shape = np.shape(y_true)
    if len(shape) == 1 and n_items is None:
        raise ValueError(
            "y_true is one-dimensional, so n_items is needed: the number of items "
            "that are searched."
        )
    if len(shape) == 2 and n_items not in (None, shape[1]):
        raise ValueError(f"n_items is {n_items}, and y_true has {shape[1]} columns.")
    all_alike = np.zeros((shape[0], shape[1] if n_items is None else n_items))
    return metric(y_true, all_alike, **options)


class Ranked(NamedTuple):
    """Items of each query in the order of their scores, in groups of equal scores.

    For each place, ``grade`` is that of its item. The other fields belong to the group
    of that item: its first place, the place after its last one, and the numbers of
    relevant items in it and before it.
    """

    grade: Floats
    before: NDArray[np.intp]
    end: NDArray[np.intp]
    relevant: Floats
    relevant_before: Floats
    n_relevant: Floats

    @property
    def size(self) -> NDArray[np.intp]:
        """Number of items in the group of each place."""
        return self.end - self.before

    @property
    def share(self) -> Floats:
        """Probability that a place has a relevant item: their share in its group."""
        return self.relevant / self.size

    def group_sums(self, values: Floats) -> Floats:
        """Return the sum of values over the group of each place."""
        sums = _running_sums(values)
        until_end = np.take_along_axis(sums, self.end, axis=1)
        return until_end - np.take_along_axis(sums, self.before, axis=1)


def mean_metric(
    metric: Callable[[Ranked], Floats],
    y_true: ArrayLike,
    y_score: ArrayLike,
    k: int | None,
    n_relevant: ArrayLike | None,
    without_relevant: str,
    per_query: bool,
    summary: Callable[[Floats], Any] = np.mean,
) -> Any:
    """Return a metric of each query, or its summary over queries."""
    grades, scores = _check_arrays(y_true, y_score)
    n_queries, n_items = scores.shape
    if k is not None and not (isinstance(k, Integral) and 1 <= k <= n_items):
        raise ValueError(
            f"k must be a whole number from 1 to the number of items, {n_items}, "
            f"got {k!r}."
        )
    if without_relevant not in _WITHOUT:
        raise ValueError(
            f"without_relevant must be one of {_WITHOUT}, got {without_relevant!r}."
        )
    totals = None if n_relevant is None else _check_totals(n_relevant, n_queries)
    found = np.empty(n_queries)
    step = max(1, _SCORES // n_items)
    for start in range(0, n_queries, step):
        some = slice(start, start + step)
        ranked = _rank(_grades(grades[some], n_items), scores[some])
        if totals is not None:
            if (ranked.n_relevant > totals[some]).any():
                raise ValueError(
                    "n_relevant must be the number of all relevant items, and some "
                    "queries have more in y_true."
                )
            ranked = ranked._replace(n_relevant=totals[some])
        found[some] = metric(ranked)
    _tell_of_empty(np.isnan(found), without_relevant)
    if per_query:
        return found
    return float(summary(found[~np.isnan(found)]))


def _check_arrays(
    y_true: ArrayLike, y_score: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any]]:
    grades, scores = np.asarray(y_true), np.asarray(y_score)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(
            "y_score must be of shape (n_queries, n_items), got "
            f"{scores.shape}; use y_score[np.newaxis] for one query."
        )
    if scores.dtype.kind not in "biuf" or np.isnan(scores).any():
        raise ValueError("y_score must be numbers, without NaN.")
    if grades.ndim == 1 and len(grades) == len(scores):
        if grades.dtype.kind not in "iu":
            raise ValueError(
                "a one-dimensional y_true holds the column of the relevant item of "
                f"each query, as whole numbers, got {grades.dtype}."
            )
        if grades.min() < 0 or grades.max() >= scores.shape[1]:
            raise ValueError(
                f"y_true names columns from {grades.min()} to {grades.max()}, and "
                f"there are {scores.shape[1]} items."
            )
        return grades, scores
    if grades.shape != scores.shape:
        raise ValueError(
            f"y_true must be of shape {scores.shape}, as y_score, or "
            f"({len(scores)},), got {grades.shape}."
        )
    if grades.dtype.kind not in "biuf" or not (
        np.isfinite(grades).all() and grades.min() >= 0
    ):
        raise ValueError("y_true must be numbers from 0 on, without NaN.")
    return grades, scores


def _check_totals(n_relevant: ArrayLike, n_queries: int) -> Floats:
    totals = np.asarray(n_relevant, float)
    if totals.shape != (n_queries,):
        raise ValueError(
            f"n_relevant must be of shape ({n_queries},), got {totals.shape}."
        )
    return totals


def _grades(grades: NDArray[Any], n_items: int) -> Floats:
    if grades.ndim == 2:
        return grades.astype(float)
    return (grades[:, np.newaxis] == np.arange(n_items)).astype(float)


def _rank(grades: Floats, scores: NDArray[Any]) -> Ranked:
    order = np.argsort(scores, axis=1)[:, ::-1]
    scores = np.take_along_axis(scores, order, axis=1)
    grades = np.take_along_axis(grades, order, axis=1)
    place = np.arange(scores.shape[1])
    changes = scores[:, 1:] != scores[:, :-1]
    edge = np.ones((len(scores), 1), bool)
    before = np.where(np.hstack([edge, changes]), place, 0)
    before = np.maximum.accumulate(before, axis=1)
    end = np.where(np.hstack([changes, edge]), place + 1, len(place))
    end = np.minimum.accumulate(end[:, ::-1], axis=1)[:, ::-1]
    sums = _running_sums(grades > 0)
    relevant_before = np.take_along_axis(sums, before, axis=1)
    return Ranked(
        grade=grades,
        before=before,
        end=end,
        relevant=np.take_along_axis(sums, end, axis=1) - relevant_before,
        relevant_before=relevant_before,
        n_relevant=sums[:, -1],
    )


def _running_sums(values: NDArray[Any]) -> Floats:
    """Return the sums of the first 0, 1, 2, ... values of each row."""
    sums = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def _tell_of_empty(empty: NDArray[np.bool_], without_relevant: str) -> None:
    if not empty.any():
        return
    said = f"{empty.sum()} of {len(empty)} queries have no relevant item"
    if empty.all() or without_relevant == "raise":
        raise ValueError(f"{said}, so their metric is not defined.")
    if without_relevant == "warn":
        warn_user(
            f"{said}; they are left out. without_relevant='skip' leaves them out "
            "silently.",
            UndefinedMetricWarning,
        )


def divide(top: Floats, bottom: NDArray[Any], or_else: float = np.nan) -> Floats:
    """Divide; the result is ``or_else`` where the divisor is 0."""
    return np.divide(top, bottom, out=np.full(top.shape, or_else), where=bottom > 0)
