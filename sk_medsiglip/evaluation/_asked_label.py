"""The one label that a picture is of, and patients drawn again for its band."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length

from sk_medsiglip._resampling import check_resampling, draw_counts
from sk_medsiglip.evaluation._answers import ask, read_truth
from sk_medsiglip.evaluation._figures import Question

__all__ = ["ask_label", "resamples"]


def ask_label(name: str, estimator: Any, X: Any, y: ArrayLike, label: Any) -> Question:
    """Return what a classifier, or its scores, say of one label.

    Parameters
    ----------
    name : str
        For messages.
    estimator : estimator, array-like or Question
        Fitted; or scores, as :func:`evaluate` takes them; or what was said already.
    X : collection
        What it is asked of; for scores anything as long.
    y : array-like of shape (n_samples,) or (n_samples, n_findings)
        Labels.
    label : object
        A class or finding; None is the only one, of two classes the second.

    Returns
    -------
    Question

    Raises
    ------
    ValueError
        If there are several labels and none is named, or it is not among them, or all
        images are of one kind.
    """
    if isinstance(estimator, Question):
        return estimator
    truth = read_truth(y, [estimator], X, label=label)
    if label is None and len(truth.names) > 1:
        raise ValueError(
            f"there are several labels: pass label=, one of {truth.names}."
        )
    question = ask(name, estimator, X, truth)[truth.place(label)]
    if question.ill.all() or not question.ill.any():
        raise ValueError(
            f"{question.label!r}: images of one kind only. It takes some with and some "
            "without."
        )
    return question


def resamples(
    n_samples: int,
    groups: ArrayLike | None,
    n_bootstrap: int,
    level: float,
    random_state: int,
) -> NDArray[np.int32]:
    """Return how often each sample is in each resample; the sample itself comes first.

    Parameters
    ----------
    n_samples, groups, n_bootstrap, level, random_state
        As :func:`evaluate` takes them, checked.

    Returns
    -------
    ndarray of shape (1 + n_bootstrap, n_samples)
    """
    check_resampling(n_bootstrap, level)
    check_consistent_length(np.empty(n_samples), groups)
    counts = draw_counts(
        n_samples, n_bootstrap, groups=groups, random_state=random_state
    )
    return np.vstack([np.ones_like(counts[:1]), counts])
