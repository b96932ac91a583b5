"""How settings are compared: by which scorer, and which of equally good ones wins."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import get_scorer, make_scorer

__all__ = ["best_settings", "find_scorer"]

#: Means over folds that agree in so many decimals differ by rounding.
_DECIMALS = 12


def best_settings(
    scores: NDArray[np.float64], log_losses: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Return the place of the best score; equal scores are decided by log loss.

    Many settings rank few images alike. Without a second opinion the first of them
    would win, which for penalties is a classifier that is never sure of anything.

    Parameters
    ----------
    scores : ndarray of shape (..., n_settings)
        Higher is better, NaN is worst.
    log_losses : ndarray of shape (..., n_settings)
        NaN where a setting has no probabilities: it loses every tie.

    Returns
    -------
    ndarray of shape (...,), int
        The first of those that are equal in both.
    """
    rounded = np.round(np.where(np.isnan(scores), -np.inf, scores), _DECIMALS)
    worst = np.finfo(np.float64).max
    losses = np.nan_to_num(log_losses, nan=worst, posinf=worst)
    tied = rounded == rounded.max(axis=-1, keepdims=True)
    return np.where(tied, losses, np.inf).argmin(axis=-1)


def find_scorer(scoring: Any, classes: NDArray[Any] | None) -> Callable[..., float]:
    """Return the scorer that a name stands for, or the one that is given.

    Parameters
    ----------
    scoring : str or callable
        As scikit-learn has it.
    classes : ndarray of shape (n_classes,) or None
        Sorted classes. Names such as "f1" ask how well the second of two is found;
        scikit-learn's own ask for a class 1, which names of classes do not have.

    Returns
    -------
    callable
        Of ``(estimator, X, y)``.
    """
    scorer = get_scorer(scoring)
    if not isinstance(scoring, str) or classes is None or len(classes) != 2:
        return scorer
    of_one = "pos_label" in signature(scorer._score_func).parameters
    asked = scorer._kwargs.get("average", "binary") == "binary"
    if 1 in classes.tolist() or not (of_one and asked):
        return scorer
    return make_scorer(
        scorer._score_func,
        response_method=scorer._response_method,
        greater_is_better=scorer._sign > 0,
        **{**scorer._kwargs, "pos_label": classes[1]},
    )
