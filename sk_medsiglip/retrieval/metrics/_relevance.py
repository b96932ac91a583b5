"""Relevance by the labels of images, and what a metric is at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def relevance_of_labels(
    query_labels: ArrayLike, item_labels: ArrayLike
) -> NDArray[np.int64]:
    """Return how relevant items are to queries: the number of labels that they share.

    Parameters
    ----------
    query_labels : array-like of shape (n_queries,) or (n_queries, n_labels)
        A class each, or 1 for every finding that is there and 0 for others.
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
        If the two are of different kinds, or findings are not 0 and 1.

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
            "query_labels and item_labels must both hold a class each, or both a row "
            f"of findings each, got shapes {ours.shape} and {theirs.shape}."
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
                f"{name} must be 0 and 1; say first what others, such as uncertain or "
                "missing ones, count as."
            )
    return ours.astype(np.int64) @ theirs.astype(np.int64).T


def chance_level(
    metric: Callable[..., Any],
    y_true: ArrayLike,
    *,
    n_items: int | None = None,
    **options: Any,
) -> Any:
    """Return the mean of a metric if items come in random order.

    Parameters
    ----------
    metric : callable
        A function of this module.
    y_true : array-like of shape (n_queries, n_items) or (n_queries,)
        As for the metric.
    n_items : int, default=None
        Number of items, where ``y_true`` holds the columns of mates.
    **options
        Options of the metric, such as ``k``.

    Returns
    -------
    chance : float, or ndarray of shape (n_queries,)
        Mean over all orders, computed exactly. For :func:`median_rank`, the median of
        the queries' mean ranks.

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
