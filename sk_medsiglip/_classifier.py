"""Bases of the classifiers: accuracy on known labels, answers from logits."""

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
    """Abstract classifier whose ``score`` reads ``y`` as its ``fit`` does."""

    classes_: NDArray[Any]

    def score(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the accuracy where labels are known.

        Parameters
        ----------
        X : array-like
            Input as in ``fit``.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            True labels; NaN, None or NA where one is not known.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples.

        Returns
        -------
        float
            With several labels, the share of samples whose known labels are all
            predicted, as in scikit-learn. Samples without a label are left out.
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
            Array shaped as that of ``predict_proba``; minus infinity for 0.
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))


class LogitClassifier(VersionedPickle, Classifier, BaseEstimator):
    """Abstract classifier that answers by logits; its ``fit`` sets ``classes_``.

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
            ``(n_samples, n_classes)``, rows sum to 1; for several labels
            ``(n_samples, n_labels)``, the probability of each.
        """
        return _logits.probabilities(self._checked_logits(X), self.classes_)

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the logarithms of the probabilities, exact also where these vanish.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        ndarray
            Array shaped as that of :meth:`predict_proba`.
        """
        return _logits.log_probabilities(self._checked_logits(X), self.classes_)

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
        """Return checked input of the kind that ``fit`` has seen."""
        return check_embeddings(self, X, reset=False)
