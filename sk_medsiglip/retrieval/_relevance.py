"""What is relevant to what, by the labels of images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["relevance_of_labels"]


def relevance_of_labels(
    query_labels: ArrayLike, item_labels: ArrayLike
) -> NDArray[np.int64]:
    """Return how relevant items are to queries: the number of labels that they share.

    Parameters
    ----------
    query_labels : array-like of shape (n_queries,) or (n_queries, n_labels)
        A class each, or 1 for every finding that is there and 0 for others.
    item_labels : array-like of shape (n_items,) or (n_items, n_labels)
        Of the same kind.

    Returns
    -------
    relevance : ndarray of shape (n_queries, n_items), int64
        0 or 1 for classes; of findings how many both have. Images without any finding
        share none, even with each other.

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
