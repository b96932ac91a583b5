"""Metrics of the first ``k`` items: recall, hit rate, precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip.retrieval.metrics._ranking import Floats, Ranked, divide, mean_metric


def recall_at_k(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    k: int = 10,
    n_relevant: ArrayLike | None = None,
    without_relevant: str = "warn",
    per_query: bool = False,
) -> Any:
    """Return the share of the relevant items that are among the first ``k``.

    Parameters
    ----------
    y_true : array-like of shape (n_queries, n_items) or (n_queries,)
        Whether an item is relevant to a query, as booleans or as grades, of which all
        above 0 count. A one-dimensional array holds the column of the only relevant
        item of each query, such as ``numpy.arange(n)`` for pairs in the same order.
    y_score : array-like of shape (n_queries, n_items)
        Scores; the highest comes first. To leave an item out for a query, such as the
        image that is the query, set its score to ``-numpy.inf`` and its relevance to 0.
    k : int, default=10
        Number of items to consider.
    n_relevant : array-like of shape (n_queries,), default=None
        Number of items that are relevant to each query, if the columns hold only the
        results of a search. By default, they are counted in ``y_true``.
    without_relevant : {"warn", "skip", "raise"}, default="warn"
        Treatment of queries without a relevant item: they are left out of the mean,
        with ("warn") or without ("skip") a warning, or raise an error.
    per_query : bool, default=False
        Whether to return the metric of each query, NaN for queries without a relevant
        item, instead of the mean.

    Returns
    -------
    recall : float, or ndarray of shape (n_queries,)
        Between 0 and 1.

    Raises
    ------
    ValueError
        If shapes do not match, there is a NaN or a negative grade, ``k`` is not between
        1 and the number of items, or no query has a relevant item.

    Warns
    -----
    sklearn.exceptions.UndefinedMetricWarning
        If queries are left out.

    See Also
    --------
    hit_rate_at_k : The recall@k of papers on CLIP.
    chance_level : The same metric for random scores.

    Examples
    --------
    >>> from sk_medsiglip.retrieval import metrics
    >>> y_true = [[1, 0, 1, 0], [0, 1, 0, 0]]
    >>> y_score = [[0.9, 0.8, 0.1, 0.2], [0.1, 0.9, 0.3, 0.2]]
    >>> metrics.recall_at_k(y_true, y_score, k=2)
    0.75
    """

    def metric(ranked: Ranked) -> Floats:
        found = ranked.share[:, :k].sum(axis=1)
        return divide(found, ranked.n_relevant)

    return mean_metric(
        metric, y_true, y_score, k, n_relevant, without_relevant, per_query
    )


def hit_rate_at_k(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    k: int = 10,
    without_relevant: str = "warn",
    per_query: bool = False,
) -> Any:
    """Return the share of queries with a relevant item among the first ``k``.

    Papers on CLIP, in which each image has one text or a few, call this recall@k.

    Parameters
    ----------
    y_true, y_score, k, without_relevant, per_query
        As for :func:`recall_at_k`.

    Returns
    -------
    hit_rate : float, or ndarray of shape (n_queries,)
        Between 0 and 1.

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
    Three images and their reports, in the same order:

    >>> import numpy as np
    >>> from sk_medsiglip.retrieval import metrics
    >>> y_score = [[0.9, 0.1, 0.2], [0.6, 0.5, 0.1], [0.2, 0.1, 0.7]]
    >>> round(metrics.hit_rate_at_k(np.arange(3), y_score, k=1), 3)
    0.667
    """

    def metric(ranked: Ranked) -> Floats:
        last = k - 1
        # The items up to place k are drawn from the group that place k is in.
        drawn = k - ranked.before[:, last]
        missed = _none_drawn(ranked.size[:, last], ranked.relevant[:, last], drawn)
        rate = np.where(ranked.relevant_before[:, last] > 0, 1.0, 1.0 - missed)
        return np.where(ranked.n_relevant > 0, rate, np.nan)

    return mean_metric(metric, y_true, y_score, k, None, without_relevant, per_query)


def precision_at_k(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    k: int = 10,
    without_relevant: str = "warn",
    per_query: bool = False,
) -> Any:
    """Return the share of the first ``k`` items that are relevant.

    Parameters
    ----------
    y_true, y_score, k, without_relevant, per_query
        As for :func:`recall_at_k`.

    Returns
    -------
    precision : float, or ndarray of shape (n_queries,)
        Between 0 and 1; below 1 for a query with fewer than ``k`` relevant items,
        however good the search.

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
    >>> from sk_medsiglip.retrieval import metrics
    >>> y_true = [[1, 0, 1, 0], [0, 1, 0, 0]]
    >>> y_score = [[0.9, 0.8, 0.1, 0.2], [0.1, 0.9, 0.3, 0.2]]
    >>> metrics.precision_at_k(y_true, y_score, k=2)
    0.5
    """

    def metric(ranked: Ranked) -> Floats:
        precision = ranked.share[:, :k].sum(axis=1) / k
        return np.where(ranked.n_relevant > 0, precision, np.nan)

    return mean_metric(metric, y_true, y_score, k, None, without_relevant, per_query)


def _none_drawn(
    size: NDArray[Any], relevant: NDArray[Any], drawn: NDArray[Any]
) -> Floats:
    """Return the probability that no relevant item of a group is drawn."""
    few, many = np.minimum(relevant, drawn), np.maximum(relevant, drawn)
    chance = np.ones(len(size))
    for done in range(int(few.max())):
        left = np.maximum(size - many - done, 0)
        chance *= np.where(done < few, left / np.maximum(size - done, 1), 1)
    return chance
