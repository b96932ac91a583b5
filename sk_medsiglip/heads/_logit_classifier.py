"""From logits to answers: what every head of this room has in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from sk_medsiglip._classifier import Classifier
from sk_medsiglip._embeddings import check_embeddings
from sk_medsiglip._persistence import VersionedPickle

__all__ = ["LogitClassifier"]


class LogitClassifier(VersionedPickle, Classifier, BaseEstimator):
    """A classifier whose ``fit`` sets ``classes_`` and that knows its logits.

    ``classes_`` is sorted labels, or for several labels one row ``[0, 1]`` each:
    scikit-learn's scorers take that as they take its own list of arrays, and
    ``cross_val_predict`` takes only that.
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
            ``(n_samples,)`` for two classes, above 0 where the second is likelier;
            else ``(n_samples, n_classes)`` or ``(n_samples, n_labels)``.
        """
        logits = self._checked_logits(X)
        binary = self.classes_.ndim == 1 and len(self.classes_) == 2
        return logits[:, 0] if binary else logits

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        ndarray
            ``(n_samples, n_classes)``, rows sum to 1; for several labels
            ``(n_samples, n_labels)``, the probability of each.
        """
        logits = self._checked_logits(X)
        if self.classes_.ndim == 2:
            return expit(logits)
        if len(self.classes_) == 2:
            present = expit(logits[:, 0])
            return np.column_stack([expit(-logits[:, 0]), present])
        return softmax(logits, axis=1)

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the logarithms of the probabilities, exact also where these vanish.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        ndarray
            In the shape of :meth:`predict_proba`.
        """
        logits = self._checked_logits(X)
        if self.classes_.ndim == 2:
            return log_expit(logits)
        if len(self.classes_) == 2:
            return log_expit(np.column_stack([-logits[:, 0], logits[:, 0]]))
        return log_softmax(logits, axis=1)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the likeliest class, or 1 for every label likelier than not.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
        """
        logits = self._checked_logits(X)
        if self.classes_.ndim == 2:
            return (logits > 0).astype(int)
        if len(self.classes_) == 2:
            return self.classes_[(logits[:, 0] > 0).astype(int)]
        return self.classes_[logits.argmax(axis=1)]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.target_tags.multi_output = True
        return tags

    def _checked_logits(self, X: ArrayLike) -> NDArray[np.floating]:
        check_is_fitted(self)
        return self._logits(check_embeddings(self, X, reset=False))
