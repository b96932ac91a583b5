"""Base classes of classifiers: accuracy on known labels, predictions from logits."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from sk_medsiglip import _logits
from sk_medsiglip._embeddings import check_embeddings
from sk_medsiglip._labels import known_labels
from sk_medsiglip._persistence import VersionedPickle


class Classifier(ClassifierMixin):
    """Abstract classifier whose ``score`` accepts the same ``y`` as ``fit``."""

    classes_: NDArray[Any]

    def score(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the accuracy on known labels.

        Parameters
        ----------
        X : array-like
            Input as in ``fit``.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            True labels, with NaN, None or NA for unknown ones.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples.

        Returns
        -------
        float
            Accuracy. With several labels, it is the fraction of samples whose known
            labels are all predicted correctly, as in scikit-learn. Samples without a
            known label are ignored.
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
            Input as in ``predict_proba``.

        Returns
        -------
        ndarray
            Array of the same shape as that of ``predict_proba``; minus infinity for 0.
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))


class LogitClassifier(VersionedPickle, Classifier, BaseEstimator):
    """Abstract classifier that predicts from logits; its ``fit`` sets ``classes_``.

    ``classes_`` are the sorted classes, or for several labels one row ``[0, 1]`` each:
    scorers of scikit-learn accept that like a list of arrays, and ``cross_val_predict``
    accepts only that.
    """

    classes_: NDArray[Any]

    @abstractmethod
    def _logits(self, X: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return logits of checked rows: one column for two classes, else one each."""

    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        ndarray
            Logits of shape ``(n_samples,)`` for two classes, positive if the second is
            likelier; else ``(n_samples, n_classes)`` or ``(n_samples, n_labels)``.
        """
        return _logits.decision(self._checked_logits(X), self.classes_)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        ndarray
            Probabilities of shape ``(n_samples, n_classes)``, with rows that sum to 1;
            for several labels ``(n_samples, n_labels)``, the probability of each.
        """
        return _logits.probabilities(self._checked_logits(X), self.classes_)

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the logarithms of the probabilities, exact even if these underflow.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        ndarray
            Array of the same shape as that of :meth:`predict_proba`.
        """
        return _logits.log_probabilities(self._checked_logits(X), self.classes_)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most likely class, or 1 for every label likelier than not.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
        """
        return _logits.likeliest(self._checked_logits(X), self.classes_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.target_tags.multi_output = True
        return tags

    def _checked_logits(self, X: ArrayLike) -> NDArray[np.floating]:
        check_is_fitted(self)
        return self._logits(self._check(X))

    def _check(self, X: Any) -> Any:
        """Return checked input, of the same kind as in ``fit``."""
        return check_embeddings(self, X, reset=False)
