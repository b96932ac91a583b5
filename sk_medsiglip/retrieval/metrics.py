"""How good a search is: recall, hit rate, precision, average precision, NDCG, ranks.

Arguments are those of scikit-learn's ranking metrics: ``(y_true, y_score)``, a row a
query and a column an item. Equal scores are taken in no order: a figure is then its
mean over all orders of the tied items [1]_, as that of
:func:`sklearn.metrics.ndcg_score` is. It does not depend on how items happen to be
sorted, and a model that scores everything alike gets what chance gives.

CLIP's papers write recall@k for the share of queries with a mate among the first k.
That is :func:`hit_rate_at_k` here, and equals :func:`recall_at_k`, the share of the
relevant items that are found, only where each query has one mate.

References
----------
.. [1] McSherry and Najork, "Computing Information Retrieval Performance Measures
   Efficiently in the Presence of Tied Scores", ECIR 2008.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip.retrieval._ranking import Floats, Ranked, mean_figure
from sk_medsiglip.retrieval._relevance import relevance_of_labels

__all__ = [
    "chance_level",
    "hit_rate_at_k",
    "mean_average_precision",
    "mean_reciprocal_rank",
    "median_rank",
    "ndcg",
    "precision_at_k",
    "recall_at_k",
    "relevance_of_labels",
]

#: The highest grade of which ``2**grade`` is a number that sums stay numbers with.
_HIGHEST_GRADE = 1000


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
        Whether an item is relevant to a query: bool, or grades, of which all above 0
        count. One-dimensional: the number of the column that holds each query's one
        mate, ``numpy.arange(n)`` for pairs in the same order.
    y_score : array-like of shape (n_queries, n_items)
        The higher, the earlier an item comes. To leave an item out for a query, as
        an image that looks for others like itself, give it ``-numpy.inf`` and no
        relevance.
    k : int, default=10
        How many items are looked at.
    n_relevant : array-like of shape (n_queries,), default=None
        How many items are relevant to each query, where the columns are only the items
        that a search returned. None counts them in ``y_true``.
    without_relevant : {"warn", "skip", "raise"}, default="warn"
        What to do about queries to which nothing is relevant: they are left out of the
        mean, with a warning that counts them or without, or are an error.
    per_query : bool, default=False
        Whether to return a figure a query, NaN for those with nothing relevant, instead
        of the mean.

    Returns
    -------
    recall : float, or ndarray of shape (n_queries,)
        Between 0 and 1.

    Raises
    ------
    ValueError
        If shapes do not fit, there is a NaN or a negative grade, ``k`` is not between 1
        and the number of items, or no query has anything relevant.

    Warns
    -----
    sklearn.exceptions.UndefinedMetricWarning
        If queries are left out.

    See Also
    --------
    hit_rate_at_k : What CLIP's papers call recall.
    chance_level : What guessing gets.

    Examples
    --------
    >>> from sk_medsiglip.retrieval import metrics
    >>> y_true = [[1, 0, 1, 0], [0, 1, 0, 0]]
    >>> y_score = [[0.9, 0.8, 0.1, 0.2], [0.1, 0.9, 0.3, 0.2]]
    >>> metrics.recall_at_k(y_true, y_score, k=2)
    0.75
    """

    def figure(ranked: Ranked) -> Floats:
        found = ranked.share[:, :k].sum(axis=1)
        return _divide(found, ranked.n_relevant)

    return mean_figure(
        figure, y_true, y_score, k, n_relevant, without_relevant, per_query
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

    The recall@k of CLIP's papers, where each image has one text or a few.

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
        As :func:`recall_at_k`.

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

    def figure(ranked: Ranked) -> Floats:
        last = k - 1
        # Of the group that place k is in, as many items as go up to k are drawn.
        drawn = k - ranked.before[:, last]
        missed = _none_drawn(ranked.size[:, last], ranked.relevant[:, last], drawn)
        rate = np.where(ranked.relevant_before[:, last] > 0, 1.0, 1.0 - missed)
        return np.where(ranked.n_relevant > 0, rate, np.nan)

    return mean_figure(figure, y_true, y_score, k, None, without_relevant, per_query)


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
        As :func:`recall_at_k`.

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

    def figure(ranked: Ranked) -> Floats:
        precision = ranked.share[:, :k].sum(axis=1) / k
        return np.where(ranked.n_relevant > 0, precision, np.nan)

    return mean_figure(figure, y_true, y_score, k, None, without_relevant, per_query)


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
        How many items are looked at; relevant ones after them count as not found, with
        a precision of 0. None looks at all.

    Returns
    -------
    average_precision : float, or ndarray of shape (n_queries,)
        Between 0 and 1.

    Raises
    ------
    ValueError
        As :func:`recall_at_k`.

    Warns
    -----
    sklearn.exceptions.UndefinedMetricWarning
        If queries are left out.

    Notes
    -----
    Without ties each query's figure is :func:`sklearn.metrics.average_precision_score`.
    With ties that function counts all of the tied items at once, as one threshold.

    Examples
    --------
    >>> from sk_medsiglip.retrieval import metrics
    >>> y_true = [[1, 0, 1, 0], [0, 1, 0, 0]]
    >>> y_score = [[0.9, 0.8, 0.1, 0.2], [0.1, 0.9, 0.3, 0.2]]
    >>> metrics.mean_average_precision(y_true, y_score)
    0.875
    """

    def figure(ranked: Ranked) -> Floats:
        place = np.arange(ranked.share.shape[1])
        # At a relevant item: itself, those of earlier groups, and of the items of its
        # own group that happen to come before it the other relevant ones' share.
        others = _divide(ranked.relevant - 1, ranked.size - 1, or_else=0.0)
        so_far = ranked.relevant_before + 1 + (place - ranked.before) * others
        precision = ranked.share * so_far / (place + 1)
        return _divide(precision[:, :k].sum(axis=1), ranked.n_relevant)

    return mean_figure(
        figure, y_true, y_score, k, n_relevant, without_relevant, per_query
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

    What the first ``k`` items are worth, each grade divided by the binary logarithm of
    its place plus 1, over what the best order is worth.

    Parameters
    ----------
    y_true : array-like of shape (n_queries, n_items) or (n_queries,)
        Grades, 0 for not relevant; or the columns of mates, as for :func:`recall_at_k`.
    y_score, without_relevant, per_query
        As for :func:`recall_at_k`.
    k : int, default=None
        How many items are looked at. None looks at all.
    gain : {"linear", "exponential"}, default="linear"
        What a grade ``g`` is worth: ``g``, as in scikit-learn, or ``2**g - 1``, which
        makes the highest grades count most.

    Returns
    -------
    ndcg : float, or ndarray of shape (n_queries,)
        Between 0 and 1.

    Raises
    ------
    ValueError
        As :func:`recall_at_k`; if ``gain`` is another.

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

    def figure(ranked: Ranked) -> Floats:
        discount = 1 / np.log2(np.arange(2, ranked.grade.shape[1] + 2))[:k]
        worth = ranked.grade if gain == "linear" else _exponential(ranked.grade)
        mean_worth = ranked.group_sums(worth) / ranked.size
        best = np.sort(worth, axis=1)[:, ::-1]
        return _divide(mean_worth[:, :k] @ discount, best[:, :k] @ discount)

    return mean_figure(figure, y_true, y_score, k, None, without_relevant, per_query)


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
        Number of items that are looked at; a first relevant item after them counts 0.
        None looks at all.

    Returns
    -------
    reciprocal_rank : float, or ndarray of shape (n_queries,)
        Between 0 and 1: 1 where a relevant item always comes first, 0.5 where it always
        comes second.

    Raises
    ------
    ValueError
        As :func:`recall_at_k`.

    Warns
    -----
    sklearn.exceptions.UndefinedMetricWarning
        If queries are left out.

    Notes
    -----
    The largest part of the mean comes from first places; :func:`median_rank` says how
    far one usually has to look.

    References
    ----------
    .. [1] Voorhees, "The TREC-8 Question Answering Track Report", TREC 1999.

    Examples
    --------
    The mates of three queries come first, second and first:

    >>> import numpy as np
    >>> from sk_medsiglip.retrieval import metrics
    >>> y_score = [[0.9, 0.1, 0.2], [0.6, 0.5, 0.1], [0.2, 0.1, 0.7]]
    >>> round(metrics.mean_reciprocal_rank(np.arange(3), y_score), 3)
    0.833
    """

    def figure(ranked: Ranked) -> Floats:
        place = np.arange(ranked.grade.shape[1])
        in_first = (ranked.relevant > 0) & (ranked.relevant_before == 0)
        # Among tied items each order is as likely: the chance that the first relevant
        # one stands at a place if none stood before it.
        chance = np.where(in_first, ranked.relevant / (ranked.end - place), 0).clip(
            0, 1
        )
        none_so_far = np.cumprod(1 - chance, axis=1)
        none_so_far = np.roll(none_so_far, 1, axis=1)
        none_so_far[:, 0] = 1
        rank = (chance * none_so_far / (place + 1))[:, :k].sum(axis=1)
        return np.where(ranked.n_relevant > 0, rank, np.nan)

    return mean_figure(figure, y_true, y_score, k, None, without_relevant, per_query)


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
        Whether to return the place of each query's first relevant item, NaN for those
        with nothing relevant, instead of the median.

    Returns
    -------
    rank : float, or ndarray of shape (n_queries,)
        From 1. Among tied items the place that is expected, which may be a fraction.

    Raises
    ------
    ValueError
        As :func:`recall_at_k`.

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

    def figure(ranked: Ranked) -> Floats:
        first = np.argmax(ranked.relevant > 0, axis=1)[:, np.newaxis]
        before, size, relevant = (
            np.take_along_axis(part, first, axis=1)[:, 0]
            for part in (ranked.before, ranked.size, ranked.relevant)
        )
        rank = before + (size + 1) / (relevant + 1)
        return np.where(ranked.n_relevant > 0, rank, np.nan)

    return mean_figure(
        figure, y_true, y_score, None, None, without_relevant, per_query, np.median
    )


def chance_level(
    metric: Callable[..., Any],
    y_true: ArrayLike,
    *,
    n_items: int | None = None,
    **options: Any,
) -> Any:
    """Return what a metric gives on average if items come in random order.

    Parameters
    ----------
    metric : callable
        A function of this module.
    y_true : array-like of shape (n_queries, n_items) or (n_queries,)
        As for the metric.
    n_items : int, default=None
        How many items there are, where ``y_true`` holds the columns of mates.
    **options
        Of the metric, such as ``k``.

    Returns
    -------
    chance : float, or ndarray of shape (n_queries,)
        Not drawn but computed: the mean over all orders. Of :func:`median_rank` the
        median of the queries' mean ranks.

    Raises
    ------
    ValueError
        As the metric; if ``n_items`` is missing.

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
            "y_true holds a column for each query: n_items is needed, the number of "
            "items that are searched."
        )
    if len(shape) == 2 and n_items not in (None, shape[1]):
        raise ValueError(f"n_items is {n_items}, and y_true has {shape[1]} columns.")
    all_alike = np.zeros((shape[0], shape[1] if n_items is None else n_items))
    return metric(y_true, all_alike, **options)


def _exponential(grade: Floats) -> Floats:
    if grade.max() > _HIGHEST_GRADE:
        raise ValueError(
            f"gain='exponential' takes grades up to {_HIGHEST_GRADE}, got "
            f"{grade.max():g}."
        )
    return np.exp2(grade) - 1


def _none_drawn(
    size: NDArray[Any], relevant: NDArray[Any], drawn: NDArray[Any]
) -> Floats:
    """Return the probability that no relevant one is among some drawn of a group."""
    few, many = np.minimum(relevant, drawn), np.maximum(relevant, drawn)
    chance = np.ones(len(size))
    for done in range(int(few.max())):
        left = np.maximum(size - many - done, 0)
        chance *= np.where(done < few, left / np.maximum(size - done, 1), 1)
    return chance


def _divide(top: Floats, bottom: NDArray[Any], or_else: float = np.nan) -> Floats:
    return np.divide(top, bottom, out=np.full(top.shape, or_else), where=bottom > 0)
