"""From embeddings of a tuned encoder to classes: numpy, no model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax
from sklearn.metrics import accuracy_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sk_medsiglip.embedding import plain_rows

__all__ = ["ClassAnswers"]


def _classifies(tuner: Any) -> bool:
    if tuner.objective != "classification":
        raise AttributeError(
            "A contrastive fine-tuner has no classes of its own. Use "
            "ZeroShotClassifier(prompts, model=tuner.save(path)), or a head on "
            "tuner.transform(X)."
        )
    return True


class ClassAnswers:
    """Mixin of ``MedSigLIPFineTuner``: what ``objective="classification"`` answers."""

    objective: str
    classes_: NDArray[Any]
    coef_: NDArray[np.float32]
    intercept_: NDArray[np.float32]

    @available_if(_classifies)
    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return logits.

        Parameters
        ----------
        X : array-like
            Images.

        Returns
        -------
        ndarray
            ``(n_samples,)`` for two classes, else one column a class or label.
        """
        logits = self._logits(X)
        binary = self.classes_.ndim == 1 and len(self.classes_) == 2
        return logits[:, 0] if binary else logits

    @available_if(_classifies)
    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return probabilities.

        Parameters
        ----------
        X : array-like
            Images.

        Returns
        -------
        ndarray
            ``(n_samples, n_classes)``, rows sum to 1; for several labels
            ``(n_samples, n_labels)``, the probability of each.
        """
        logits = self._logits(X)
        if self.classes_.ndim == 2:
            return expit(logits)
        if len(self.classes_) == 2:
            return np.column_stack([expit(-logits[:, 0]), expit(logits[:, 0])])
        return softmax(logits, axis=1)

    @available_if(_classifies)
    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the likeliest class, or 1 for every label likelier than not.

        Parameters
        ----------
        X : array-like
            Images.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
        """
        logits = self._logits(X)
        if self.classes_.ndim == 2:
            return (logits > 0).astype(int)
        if len(self.classes_) == 2:
            return self.classes_[(logits[:, 0] > 0).astype(int)]
        return self.classes_[logits.argmax(axis=1)]

    @available_if(_classifies)
    def score(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the accuracy.

        Parameters
        ----------
        X : array-like
            Images.
        y : array-like
            Labels, without blanks.
        sample_weight : array-like of shape (n_samples,) or None, default=None

        Returns
        -------
        float
        """
        return float(accuracy_score(y, self.predict(X), sample_weight=sample_weight))

    def _logits(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return what the layer makes of images: one column for two classes."""
        check_is_fitted(self)
        embedder = self.as_embedder()  # type: ignore[attr-defined]
        rows = plain_rows(embedder, X).astype(np.float64)
        # As in training: their direction, with values about 1.
        rows *= rows.shape[1] ** 0.5 / np.linalg.norm(rows, axis=1, keepdims=True)
        return rows @ self.coef_.astype(np.float64).T + self.intercept_
