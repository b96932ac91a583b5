"""Metrics of the whole order: average precision, NDCG, rank of the first match."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sk_medsiglip.retrieval.metrics._ranking import Floats, Ranked, divide, mean_metric

#: The highest grade for which sums of ``2**grade`` stay finite.
_HIGHEST_GRADE = 1000


def mean_average_precision(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    k: int | None = None,
    n_relevant: ArrayLike | None = None,
    without_relevant: str = "warn",
    per_query: bool = False,
) -> Any:
    """Return the mean over queries of the average precision.

    A query's average precision is the mean, over its relevant items, of the precision
    down to that item.

    Parameters
    ----------
    y_true, y_score, n_relevant, without_relevant, per_query
        As for :func:`recall_at_k`.
    k : int, default=None
        Number of items to consider; a relevant item after them counts with a precision
        of 0. By default, all items are considered.

    Returns
    -------
    average_precision : float, or ndarray of shape (n_queries,)
        Between 0 and 1.

    Raises
    ------
    ValueError
        For the same reasons as :func:`recall_at_k`.

    Warns
    -----
    sklearn.exceptions.UndefinedMetricWarning
        If queries are left out.

    Notes
    -----
    Without ties, the metric of a query is its
    :func:`sklearn.metrics.average_precision_score`. With ties, that function counts all
    tied items at once, as one threshold.

    Examples
    --------
    >>> from sk_medsiglip.retrieval import metrics
    >>> y_true = [[1, 0, 1, 0], [0, 1, 0, 0]]
    >>> y_score = [[0.9, 0.8, 0.1, 0.2], [0.1, 0.9, 0.3, 0.2]]
    >>> metrics.mean_average_precision(y_true, y_score)
    0.875
    """

    def metric(ranked: Ranked) -> Floats:
        place = np.arange(ranked.share.shape[1])
        # Relevant items up to a relevant item: itself, those of earlier groups, and the
        # expected number of those that come before it in its own group.
        others = divide(ranked.relevant - 1, ranked.size - 1, or_else=0.0)
        so_far = ranked.relevant_before + 1 + (place - ranked.before) * others
        precision = ranked.share * so_far / (place + 1)
        return divide(precision[:, :k].sum(axis=1), ranked.n_relevant)

    return mean_metric(
        metric, y_true, y_score, k, n_relevant, without_relevant, per_query
    )


def ndcg(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    k: int | None = None,
    gain: str = "linear",
    without_relevant: str = "warn",
    per_query: bool = False,
) -> Any:
    """Return the normalised discounted cumulative gain.

    Sum over the first ``k`` items of each grade divided by the binary logarithm of its
    place plus 1, over the same sum for the best order.

    Parameters
    ----------
    y_true : array-like of shape (n_queries, n_items) or (n_queries,)
        Grades, 0 for not relevant, or columns as for :func:`recall_at_k`.
    y_score, without_relevant, per_query
        As for :func:`recall_at_k`.
    k : int, default=None
        Number of items to consider. By default, all.
    gain : {"linear", "exponential"}, default="linear"
        Gain of a grade ``g``: ``g`` ("linear"), as in scikit-learn, or ``2**g - 1``,
        which gives the highest grades more weight.

    Returns
    -------
    ndcg : float, or ndarray of shape (n_queries,)
        Between 0 and 1.

    Raises
    ------
    ValueError
        For the same reasons as :func:`recall_at_k`, or if ``gain`` is unknown.

    Warns
    -----
    sklearn.exceptions.UndefinedMetricWarning
        If queries are left out. :func:`sklearn.metrics.ndcg_score` counts them as 0.

    References
    ----------
    .. [1] Järvelin and Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques",
       ACM Transactions on Information Systems 2002.

    Examples
    --------
    >>> from sk_medsiglip.retrieval import metrics
    >>> y_true = [[3, 2, 0, 1]]
    >>> round(metrics.ndcg(y_true, [[0.9, 0.1, 0.8, 0.2]]), 3)
    0.916
    """
    if gain not in ("linear", "exponential"):
        raise ValueError(f"gain must be 'linear' or 'exponential', got {gain!r}.")

    def metric(ranked: Ranked) -> Floats:
        discount = 1 / np.log2(np.arange(2, ranked.grade.shape[1] + 2))[:k]
        worth = ranked.grade if gain == "linear" else _exponential(ranked.grade)
        mean_worth = ranked.group_sums(worth) / ranked.size
        best = np.sort(worth, axis=1)[:, ::-1]
        return divide(mean_worth[:, :k] @ discount, best[:, :k] @ discount)

    return mean_metric(metric, y_true, y_score, k, None, without_relevant, per_query)


def mean_reciprocal_rank(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    k: int | None = None,
    without_relevant: str = "warn",
    per_query: bool = False,
) -> Any:
    """Return the mean over queries of 1 over the place of the first relevant item.

    Parameters
    ----------
    y_true, y_score, without_relevant, per_query
        As for :func:`recall_at_k`.
    k : int, default=None
        Number of items to consider; a first relevant item after them counts 0. By
        default, all.

    Returns
    -------
    reciprocal_rank : float, or ndarray of shape (n_queries,)
        Between 0 and 1: 1 where a relevant item always comes first, 0.5 where it always
        comes second.

    Raises
    ------
    ValueError
        For the same reasons as :func:`recall_at_k`.

    Warns
    -----
    sklearn.exceptions.UndefinedMetricWarning
        If queries are left out.

    Notes
    -----
    Queries whose relevant item comes first make up most of the mean;
    :func:`median_rank` tells how far one usually has to look.

    References
    ----------
    .. [1] Voorhees, "The TREC-8 Question Answering Track Report", TREC 1999.

    Examples
    --------
    The relevant items of three queries come first, second and first:

    >>> import numpy as np
    >>> from sk_medsiglip.retrieval import metrics
    >>> y_score = [[0.9, 0.1, 0.2], [0.6, 0.5, 0.1], [0.2, 0.1, 0.7]]
    >>> round(metrics.mean_reciprocal_rank(np.arange(3), y_score), 3)
    0.833
    """

    def metric(ranked: Ranked) -> Floats:
        place = np.arange(ranked.grade.shape[1])
        in_first = (ranked.relevant > 0) & (ranked.relevant_before == 0)
        # All orders of tied items are equally likely. The probability that the first
        # relevant item is at a place if there was none before it:
        chance = np.where(in_first, ranked.relevant / (ranked.end - place), 0).clip(
            0, 1
        )
        none_so_far = np.cumprod(1 - chance, axis=1)
        none_so_far = np.roll(none_so_far, 1, axis=1)
        none_so_far[:, 0] = 1
        rank = (chance * none_so_far / (place + 1))[:, :k].sum(axis=1)
        return np.where(ranked.n_relevant > 0, rank, np.nan)

    return mean_metric(metric, y_true, y_score, k, None, without_relevant, per_query)


def median_rank(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    without_relevant: str = "warn",
    per_query: bool = False,
) -> Any:
    """Return the median over queries of the place of the first relevant item.

    Parameters
    ----------
    y_true, y_score, without_relevant
        As for :func:`recall_at_k`.
    per_query : bool, default=False
        Whether to return the place of the first relevant item of each query, NaN for
        queries without one, instead of the median.

    Returns
    -------
    rank : float, or ndarray of shape (n_queries,)
        1 or more. For tied items it is the expected place, which may be a fraction.

    Raises
    ------
    ValueError
        For the same reasons as :func:`recall_at_k`.

    Warns
    -----
    sklearn.exceptions.UndefinedMetricWarning
        If queries are left out.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_medsiglip.retrieval import metrics
    >>> y_score = [[0.9, 0.1, 0.2], [0.6, 0.5, 0.1], [0.2, 0.1, 0.7]]
    >>> metrics.median_rank(np.arange(3), y_score)
    1.0
    """

    def metric(ranked: Ranked) -> Floats:
        first = np.argmax(ranked.relevant > 0, axis=1)[:, np.newaxis]
        before, size, relevant = (
            np.take_along_axis(part, first, axis=1)[:, 0]
            for part in (ranked.before, ranked.size, ranked.relevant)
        )
        rank = before + (size + 1) / (relevant + 1)
        return np.where(ranked.n_relevant > 0, rank, np.nan)

    return mean_metric(
        metric, y_true, y_score, None, None, without_relevant, per_query, np.median
    )


def _exponential(grade: Floats) -> Floats:
    if grade.max() > _HIGHEST_GRADE:
        raise ValueError(
            f"gain='exponential' takes grades up to {_HIGHEST_GRADE}, got "
            f"{grade.max():g}."
        )
    return np.exp2(grade) - 1
