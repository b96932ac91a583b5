"""``BestHead``: answers of a search are those of the best it found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin
from sklearn.utils import _safe_indexing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
)

from sk_medsiglip._embeddings import check_embeddings
from sk_medsiglip._labels import check_columns, known_labels
from sk_medsiglip.model_selection._head_scores import check_scorer


def _best_has(name: str) -> Callable[[BestHead], bool]:
    """Return a check that the best estimator has a method."""

    def check(self: BestHead) -> bool:
        if hasattr(self, "cv_results_") and not self.refit:
            raise AttributeError(
                f"{name} needs refit=True: with refit=False only best_params_ is known."
            )
        asked = getattr(self, "best_estimator_", self.estimator)
        if asked is not None:
            getattr(asked, name)
        return True

    return check


class BestHead(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Abstract: ``fit`` sets ``best_estimator_``, unless ``refit=False``."""

    estimator: Any
    embedder: Any
    refit: bool
    scoring: Any
    best_estimator_: Any
    classes_: NDArray[Any]

    @property
    def scorer_(self) -> Callable[..., float]:
        """The scorer that ``scoring`` stands for."""
        check_is_fitted(self, "classes_")
        classes = None if np.ndim(self.classes_) == 2 else self.classes_
        return check_scorer(self.scoring, classes)

    @available_if(_best_has("predict"))
    def predict(self, X: Any) -> NDArray[Any]:
        """Return the likeliest classes, as the best estimator does."""
        return self._ask("predict", X)

    @available_if(_best_has("predict_proba"))
    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Return probabilities, as the best estimator does."""
        return self._ask("predict_proba", X)

    @available_if(_best_has("predict_log_proba"))
    def predict_log_proba(self, X: Any) -> NDArray[np.floating]:
        """Return logarithms of probabilities, as the best estimator does."""
        return self._ask("predict_log_proba", X)

    @available_if(_best_has("decision_function"))
    def decision_function(self, X: Any) -> NDArray[np.floating]:
        """Return scores, as the best estimator does."""
        return self._ask("decision_function", X)

    def score(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the score of the best estimator on other rows, by ``scoring``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or images
            As in :meth:`fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            The truth, as in :meth:`fit`: NaN where a label is not known, which leaves
            the row out. A DataFrame must have the labels in the order of :meth:`fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Handed to the scorer if given.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If a DataFrame has the labels in another order.
        """
        check_is_fitted(self)
        _best_has("score")(self)
        check_columns(y, getattr(self, "label_names_", ()))
        truth, rows = known_labels(y, self.classes_)
        asked = self._checked(X)
        check_consistent_length(asked, y)
        extra = {}
        if sample_weight is not None:
            extra["sample_weight"] = _check_sample_weight(sample_weight, asked)[rows]
        asked = _safe_indexing(asked, rows)
        return float(self.scorer_(self.best_estimator_, asked, truth, **extra))

    def _checked(self, X: Any) -> Any:
        if self.embedder is not None:
            return X
        return check_embeddings(self, X, reset=False)

    def _ask(self, name: str, X: Any) -> Any:
        check_is_fitted(self)
        return getattr(self.best_estimator_, name)(self._checked(X))
