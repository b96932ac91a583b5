"""What a head is worth on rows it did not learn from, by one figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from sk_medsiglip._scoring import Answers, find_scorer

__all__ = [
    "LabelwiseScorer",
    "check_scorer",
    "mean_auc",
    "mean_log_loss",
    "needs_chances",
]


def check_scorer(scoring: Any, classes: NDArray[Any] | None) -> Callable[..., float]:
    """Return what ``scoring`` means.

    Parameters
    ----------
    scoring : str, callable or None
        As scikit-learn has it; None is :func:`mean_auc`.
    classes : ndarray or None
        Sorted; None for several labels: then a scorer of scikit-learn's is asked of
        each by itself, where it is known, and the mean counts.

    Returns
    -------
    callable
        Of ``(estimator, X, y)``.
    """
    if scoring is None:
        return mean_auc
    scorer = find_scorer(scoring, classes)
    return LabelwiseScorer(scorer) if classes is None else scorer


def needs_chances(scorer: Any) -> bool:
    """Tell whether a scorer may ask for probabilities, which an SVM does not have."""
    if scorer is mean_auc:
        return False
    scorer = getattr(scorer, "scorer", scorer)
    asks = getattr(scorer, "_response_method", "predict_proba")
    return "decision_function" not in asks and asks != "predict"


def mean_auc(estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
    """Return the area under the ROC curve.

    Of several classes the mean of each against the rest (scikit-learn's
    "roc_auc_ovr"), of several labels the mean over labels, each where it is known.

    Parameters
    ----------
    estimator : classifier
        Fitted; probabilities of several classes are used if it has any, else scores.
    X : array-like
        Rows, or images.
    y : array-like of shape (n_samples,) or (n_samples, n_labels)
        The truth.
    sample_weight : array-like of shape (n_samples,), default=None
        Of each row.

    Returns
    -------
    float
        NaN where no label has both values.
    """
    truth = np.asarray(y)
    weight = None if sample_weight is None else np.asarray(sample_weight)
    if truth.ndim == 2 or len(estimator.classes_) == 2:
        decides = hasattr(estimator, "decision_function")
        ask = estimator.decision_function if decides else estimator.predict_proba
        said = _matrix(estimator, ask(X))
        labels, scores = truth.T, said
        if truth.ndim == 1:
            labels = np.where(truth == estimator.classes_[1], 1.0, 0.0)[None]
            scores = said.reshape(len(said), -1)[:, -1:]
    else:
        labels = (truth == np.asarray(estimator.classes_)[:, None]).astype(np.float64)
        chances = hasattr(estimator, "predict_proba")
        ask = estimator.predict_proba if chances else estimator.decision_function
        scores = ask(X)
    return _mean([_auc(*one, weight) for one in zip(labels, scores.T, strict=True)])


def mean_log_loss(estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
    """Return the log loss, of several labels the mean over labels where known.

    Parameters
    ----------
    estimator, X, y, sample_weight
        As in :func:`mean_auc`.

    Returns
    -------
    float
        NaN without probabilities.
    """
    if not hasattr(estimator, "predict_proba"):
        return float("nan")
    truth, said = np.asarray(y), estimator.predict_proba(X)
    if truth.ndim == 2:
        present = _matrix(estimator, said)
        chances = np.where(truth == 1, present, 1 - present)
    else:
        own = truth[:, None] == np.asarray(estimator.classes_)
        truth, chances = np.ones((len(own), 1)), (said * own).sum(axis=1)[:, None]
    weight = np.ones(len(truth)) if sample_weight is None else np.asarray(sample_weight)
    weights = weight[:, None] * ~np.isnan(truth)
    losses = -np.log(np.maximum(chances, np.finfo(np.float64).eps)) * weights
    total = weights.sum(axis=0)
    return _mean(list(losses.sum(axis=0)[total > 0] / total[total > 0]))


class LabelwiseScorer:
    """Ask a scorer of scikit-learn's of each label, where it is known.

    Parameters
    ----------
    scorer : callable
        Of ``(estimator, X, y)``.
    """

    def __init__(self, scorer: Callable[..., float]) -> None:
        self.scorer = scorer

    def __call__(
        self, estimator: Any, X: Any, y: Any, sample_weight: Any = None
    ) -> float:
        """Return the mean over labels that have both values among the known ones."""
        truth = np.asarray(y, dtype=np.float64)
        weight = None if sample_weight is None else np.asarray(sample_weight)
        decision = proba = None
        if hasattr(estimator, "decision_function"):
            decision = _matrix(estimator, estimator.decision_function(X))
        if hasattr(estimator, "predict_proba"):
            present = _matrix(estimator, estimator.predict_proba(X))
            proba = np.stack([1 - present, present], axis=-1)
        found = []
        for i in range(truth.shape[1]):
            known = np.flatnonzero(~np.isnan(truth[:, i]))
            values = truth[known, i].astype(int)
            if len(np.unique(values)) < 2:
                continue
            one = Answers(
                np.array([0, 1]),
                None if decision is None else decision[known, i],
                None if proba is None else proba[known, i],
            )
            extra = {} if weight is None else {"sample_weight": weight[known]}
            found.append(float(self.scorer(one, known[:, None], values, **extra)))
        return _mean(found)

    def __repr__(self) -> str:
        return f"LabelwiseScorer({self.scorer!r})"


def _matrix(estimator: Any, answers: Any) -> NDArray[np.floating]:
    """Return one column a label, also of estimators that list a table for each."""
    if not isinstance(answers, list):
        return np.asarray(answers)
    # A label that had one value in training has one column, of that value.
    return np.column_stack(
        [
            one[:, np.asarray(classes) == 1].sum(axis=1)
            for one, classes in zip(answers, estimator.classes_, strict=True)
        ]
    )


def _auc(
    truth: NDArray[np.floating],
    scores: NDArray[np.floating],
    weight: NDArray[np.floating] | None,
) -> float:
    known = ~np.isnan(truth.astype(np.float64))
    values = truth[known]
    if len(np.unique(values)) < 2:
        return float("nan")
    of = None if weight is None else weight[known]
    return float(roc_auc_score(values, scores[known], sample_weight=of))


def _mean(values: list[float]) -> float:
    told = [value for value in values if not np.isnan(value)]
    return float(np.mean(told)) if told else float("nan")
