"""A base of all classifiers: accuracy on known labels, and log probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from sk_medsiglip._labels import known_labels

__all__ = ["Classifier"]


class Classifier(ClassifierMixin):
    """Abstract: a classifier whose ``score`` reads ``y`` as its ``fit`` does."""

    classes_: NDArray[Any]

    def score(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the accuracy where labels are known.

        Parameters
        ----------
        X : array-like
            As in ``fit``.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            The truth; NaN, None or NA where it is not known.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples.

        Returns
        -------
        float
            With several labels, the share of samples all of whose known labels are
            right, as in scikit-learn. Samples of which nothing is known are left out.
        """
        check_is_fitted(self)
        truth, rows = known_labels(y, self.classes_)
        predicted = np.asarray(self.predict(X))
        weight = _check_sample_weight(sample_weight, predicted)[rows]
        predicted = predicted[rows]
        if truth.ndim == 2:
            truth = np.where(np.isnan(truth), predicted, truth).astype(predicted.dtype)
        return float(accuracy_score(truth, predicted, sample_weight=weight))

    @available_if(lambda self: hasattr(self, "predict_proba"))
    def predict_log_proba(self, X: Any) -> NDArray[np.floating]:
        """Return the logarithms of the probabilities.

        Parameters
        ----------
        X : array-like
            As in ``predict_proba``.

        Returns
        -------
        ndarray
            In the shape of ``predict_proba``; minus infinity for 0.
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))
