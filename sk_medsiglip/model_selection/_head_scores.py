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
        several = classes is not None and len(classes) > 2
        scoring = "roc_auc_ovr" if several else "roc_auc"
    scorer = find_scorer(scoring, classes)
    return LabelwiseScorer(scorer) if classes is None else scorer


def mean_log_loss(estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
    """Return the log loss, the mean over labels; NaN without probabilities."""
    if not hasattr(estimator, "predict_proba"):
        return float("nan")
    truth = np.asarray(y)
    if truth.ndim == 2:
        scorer = LabelwiseScorer(get_scorer("neg_log_loss"))
        return -scorer(estimator, X, truth, sample_weight)
    is_own = truth[:, None] == np.asarray(estimator.classes_)
    own = (estimator.predict_proba(X) * is_own).sum(axis=1)
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
        answers = Answers.of(estimator, X)
        found = []
        for i, column in enumerate(np.asarray(y, dtype=np.float64).T):
            known = np.flatnonzero(~np.isnan(column))
            truth = column[known].astype(int)
            if not truth.any() or truth.all():
                continue
            weight = {}
            if sample_weight is not None:
                weight["sample_weight"] = np.asarray(sample_weight)[known]
            asked = answers.of_label(i).take(known)
            found.append(float(self.scorer(asked, known[:, None], truth, **weight)))
        return float(np.mean(found)) if found else float("nan")
