"""Comparison of settings by scorers of scikit-learn, with ties decided by log loss."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import get_scorer, make_scorer
from sklearn.utils.metaestimators import available_if

from sk_medsiglip import _logits

#: Means over folds that agree to this number of decimals differ by rounding only.
_DECIMALS = 12


def best_settings(
    scores: NDArray[np.float64], log_losses: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Return the index of the best score; ties are decided by log loss.

    With few images, many settings rank them alike. Otherwise the first setting would
    win, which for penalties is the least confident classifier.
    """
    rounded = np.round(np.where(np.isnan(scores), -np.inf, scores), _DECIMALS)
    worst = np.finfo(np.float64).max
    losses = np.nan_to_num(log_losses, nan=worst, posinf=worst)
    tied = rounded == rounded.max(axis=-1, keepdims=True)
    return np.where(tied, losses, np.inf).argmin(axis=-1)


def find_scorer(scoring: Any, classes: NDArray[Any] | None) -> Callable[..., float]:
    """Return the scorer with a name, or the given scorer.

    Names such as "f1" score the second of two classes here; in scikit-learn they score
    the class 1, which does not exist if classes have names.
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


def mean_of_known(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return means over the values that are not NaN, or NaN if there are none."""
    known = ~np.isnan(values)
    total, n = np.where(known, values, 0.0).sum(axis=axis), known.sum(axis=axis)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


class Answers(ClassifierMixin, BaseEstimator):
    """A classifier that returns known predictions, for use by scorers."""

    def __init__(
        self,
        classes: NDArray[Any],
        decision: NDArray[np.floating] | None,
        proba: NDArray[np.floating] | None,
    ) -> None:
        self.classes_ = classes
        self.decision = decision
        self.proba = proba

    @classmethod
    def of_logits(
        cls, classes: NDArray[Any] | None, logits: NDArray[np.floating]
    ) -> Answers:
        """Return the predictions of one or several logistic regressions."""
        logits = logits.astype(np.float64)
        if classes is None:
            classes = np.tile([0, 1], (logits.shape[1], 1))
        return cls(
            classes,
            _logits.decision(logits, classes),
            _logits.probabilities(logits, classes),
        )

    @classmethod
    def of(cls, estimator: Any, X: Any) -> Answers:
        """Return the answers of a fitted classifier, from the methods that it has."""
        decision, proba = (
            np.asarray(getattr(estimator, method)(X))
            if hasattr(estimator, method)
            else None
            for method in ("decision_function", "predict_proba")
        )
        return cls(np.asarray(estimator.classes_), decision, proba)

    def take(self, rows: NDArray[Any]) -> Answers:
        """Return the answers of some rows."""
        decision, proba = self.decision, self.proba
        return Answers(
            self.classes_,
            None if decision is None else decision[rows],
            None if proba is None else proba[rows],
        )

    def of_label(self, label: int) -> Answers:
        """Return the answers on one of several labels."""
        decision, proba = self.decision, self.proba
        if proba is not None:
            proba = np.column_stack([1 - proba[:, label], proba[:, label]])
        decision = None if decision is None else decision[:, label]
        return Answers(np.array([0, 1]), decision, proba)

    @available_if(lambda self: self.decision is not None)
    def decision_function(self, X: Any) -> Any:
        """Return the scores."""
        return self.decision

    @available_if(lambda self: self.proba is not None)
    def predict_proba(self, X: Any) -> Any:
        """Return the probabilities."""
        return self.proba

    @available_if(lambda self: self.proba is not None)
    def predict_log_proba(self, X: Any) -> Any:
        """Return their logarithms."""
        assert self.proba is not None
        return np.log(np.maximum(self.proba, np.finfo(np.float64).tiny))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return classes."""
        decides = self.decision is not None
        scores: Any = self.decision if decides else self.proba
        middle = 0.0 if decides else 0.5
        if self.classes_.ndim == 2:
            return (scores > middle).astype(int)
        if scores.ndim == 1:
            return self.classes_[(scores > middle).astype(int)]
        return self.classes_[scores.argmax(axis=1)]
