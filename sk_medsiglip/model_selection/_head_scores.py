"""Scores of a classifier on rows that it did not learn from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import get_scorer

from sk_medsiglip._scoring import Answers, find_scorer


def check_scorer(scoring: Any, classes: NDArray[Any] | None) -> Callable[..., float]:
    """Return the scorer that ``scoring`` names; ``classes`` is None for labels."""
    if scoring is None:
        return mean_auc
    scorer = find_scorer(scoring, classes)
    return LabelwiseScorer(scorer) if classes is None else scorer


def needs_probabilities(scorer: Any) -> bool:
    """Tell whether a scorer may ask for probabilities, which an SVM does not have."""
    if scorer is mean_auc:
        return False
    scorer = getattr(scorer, "scorer", scorer)
    asks = getattr(scorer, "_response_method", "predict_proba")
    return "decision_function" not in asks and asks != "predict"


def mean_auc(estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
    """Return the area under the ROC curve, the mean over classes or labels.

    Each of several classes is compared with the rest, as in "roc_auc_ovr"; without
    probabilities by the scores, which an SVM has.
    """
    score_each = LabelwiseScorer(get_scorer("roc_auc"))
    truth = np.asarray(y)
    if truth.ndim == 2:
        return score_each(estimator, X, truth, sample_weight)
    classes = np.asarray(estimator.classes_)
    wanted = "decision_function" if len(classes) == 2 else "predict_proba"
    other = "predict_proba" if len(classes) == 2 else "decision_function"
    ask = getattr(estimator, wanted, None) or getattr(estimator, other)
    scores = np.asarray(ask(X)).reshape(len(truth), -1)
    if len(classes) == 2:
        classes, scores = classes[1:], scores[:, -1:]
    answers = Answers(np.tile([0, 1], (len(classes), 1)), scores, None)
    return score_each(answers, X, truth[:, None] == classes, sample_weight)


def mean_log_loss(estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
    """Return the log loss, the mean over labels; NaN without probabilities."""
    if not hasattr(estimator, "predict_proba"):
        return float("nan")
    truth, said = np.asarray(y), estimator.predict_proba(X)
    if truth.ndim == 2:
        scorer = LabelwiseScorer(get_scorer("neg_log_loss"))
        return -scorer(estimator, X, truth, sample_weight)
    own = (said * (truth[:, None] == np.asarray(estimator.classes_))).sum(axis=1)
    losses = -np.log(np.maximum(own, np.finfo(np.float64).eps))
    return float(np.average(losses, weights=sample_weight))


class LabelwiseScorer:
    """Mean over labels of a scorer of scikit-learn, each where it is known.

    Labels of which only one value is known are left out.
    """

    def __init__(self, scorer: Callable[..., float]) -> None:
        self.scorer = scorer

    def __call__(
        self, estimator: Any, X: Any, y: Any, sample_weight: Any = None
    ) -> float:
        """Return the mean, NaN if no label can be scored."""
        truth = np.asarray(y, dtype=np.float64)
        decision = proba = None
        if hasattr(estimator, "decision_function"):
            decision = _matrix(estimator, estimator.decision_function(X))
        if hasattr(estimator, "predict_proba"):
            present = _matrix(estimator, estimator.predict_proba(X))
            proba = np.stack([1 - present, present], axis=-1)
        found = []
        for i, column in enumerate(truth.T):
            known = np.flatnonzero(~np.isnan(column))
            values = column[known].astype(int)
            if not values.any() or values.all():
                continue
            answers = Answers(
                np.array([0, 1]),
                None if decision is None else decision[known, i],
                None if proba is None else proba[known, i],
            )
            weight = {}
            if sample_weight is not None:
                weight["sample_weight"] = np.asarray(sample_weight)[known]
            found.append(float(self.scorer(answers, known[:, None], values, **weight)))
        return float(np.mean(found)) if found else float("nan")


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
