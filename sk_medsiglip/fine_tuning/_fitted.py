"""A fitted fine-tuner: its encoder, its answers, and the folders it is saved to."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.metrics import accuracy_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sk_medsiglip._logits import decision, likeliest, probabilities
from sk_medsiglip._persistence import VersionedPickle
from sk_medsiglip.embedding import MedSigLIPEmbedder, plain_rows, prepare_image
from sk_medsiglip.encoder import Checkpoint
from sk_medsiglip.fine_tuning._history_plot import plot_history
from sk_medsiglip.fine_tuning._save import (
    ATTRIBUTES,
    load_folder,
    merge_folder,
    save_folder,
)
from sk_medsiglip.fine_tuning._settings import Parameters
from sk_medsiglip.fine_tuning._tuned import Tuned


def _classifies(tuner: Any) -> bool:
    if tuner.objective != "classification":
        raise AttributeError(
            "A contrastive fine-tuner has no classes of its own. Use "
            "ZeroShotClassifier(prompts, model=tuner.save(path)), or a head on "
            "tuner.transform(X)."
        )
    return True


class FittedTuner(
    VersionedPickle, ClassNamePrefixFeaturesOutMixin, TransformerMixin, Parameters
):
    """Abstract: the methods of ``MedSigLIPFineTuner`` that need a fit."""

    history_: pd.DataFrame
    fingerprint_: str
    classes_: NDArray[Any]
    coef_: NDArray[np.float32]
    intercept_: NDArray[np.float32]
    # The fields of Tuned as a dict, so that saved files name no class of this room.
    _tuned: dict[str, Any] | None

    def _set_fitted(self, learned: dict[str, Any], tuned: Tuned | None) -> None:
        for name, value in learned.items():
            setattr(self, name, value)
        self._tuned = None if tuned is None else asdict(tuned)

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return embeddings of the tuned encoder.

        Parameters
        ----------
        X : array-like of shape (n_samples,), (n_samples, H, W) or (n_samples, H, W, C)
            Images.

        Returns
        -------
        ndarray of shape (n_samples, embedding_dim), float32
            Stored under ``fingerprint_``.
        """
        return plain_rows(self.as_embedder(), X)

    def as_embedder(self) -> MedSigLIPEmbedder:
        """Return an embedder of the tuned encoder, for pipelines.

        Returns
        -------
        MedSigLIPEmbedder
            It names a folder beside the store of this machine and refuses others. For
            another machine ``save(path)`` and name that folder.
        """
        check_is_fitted(self)
        base, tuned = self.base_embedder(), self._weights()
        model = base.model if tuned is None else tuned.folder(base.cache, base.model)
        return base.set_params(model=os.fspath(model), revision=self.fingerprint_)

    def base_embedder(self) -> MedSigLIPEmbedder:
        """Return the embedder of the checkpoint before it is tuned, not fitted."""
        given = self.embedder
        return MedSigLIPEmbedder() if given is None else clone(given)

    def reader(self, checkpoint: Checkpoint) -> Callable[[Any], NDArray[np.uint8]]:
        """Return the function that reads an image as the model takes it.

        Parameters
        ----------
        checkpoint : Checkpoint
            The model, for its size and image processor.

        Returns
        -------
        callable
            From a source to an array of shape (image_size, image_size, 3).
        """
        return partial(prepare_image, self.base_embedder(), checkpoint)  # type: ignore[arg-type]

    @available_if(_classifies)
    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
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
        return decision(self._logits(X), self.classes_)

    @available_if(_classifies)
    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
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
        return probabilities(self._logits(X), self.classes_)

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
        return likeliest(self._logits(X), self.classes_)

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
            Weights of the images.

        Returns
        -------
        float
        """
        return float(accuracy_score(y, self.predict(X), sample_weight=sample_weight))

    def _logits(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the outputs of the layer: one column for two classes."""
        embedder = self.as_embedder().set_params(on_error="raise", normalize=False)
        rows = plain_rows(embedder, X).astype(np.float64)
        # The scale that the layer was trained on.
        rows *= rows.shape[1] ** 0.5 / np.linalg.norm(rows, axis=1, keepdims=True)
        return rows @ self.coef_.astype(np.float64).T + self.intercept_

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write the tuned encoder and the fitted attributes to a folder.

        Parameters
        ----------
        path : str or path-like
            A new or empty folder, or one that an earlier ``save`` wrote.

        Returns
        -------
        str
            The folder: a ``model=`` for every estimator of this package, if the
            encoder was changed at all. It holds the adapter as peft writes it, or the
            trained weights; not the base, which is found by its name.

        Raises
        ------
        RunFolderError
            If it holds something else, or cannot be written.
        """
        check_is_fitted(self)
        return save_folder(
            Path(path).expanduser(), self._given(), self._learned(), self._weights()
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the fine-tuner that ``save`` wrote.

        Parameters
        ----------
        path : str or path-like
            Its folder. Pickles are not opened.

        Returns
        -------
        MedSigLIPFineTuner
            Fitted.

        Raises
        ------
        CheckpointError
            If it is damaged, or its base is another one than was tuned.
        """
        given, learned, tuned = load_folder(
            Path(path).expanduser(), cls._get_param_names()
        )
        tuner = cls(**given)
        tuner._set_fitted(learned, tuned)
        return tuner

    def merge(self, path: str | os.PathLike[str]) -> str:
        """Write base and tuned weights as one ordinary checkpoint.

        Parameters
        ----------
        path : str or path-like
            A new or empty folder.

        Returns
        -------
        str
            The folder, which ``transformers.SiglipModel.from_pretrained`` opens too. A
            classifier is not part of it.

        Raises
        ------
        RunFolderError
            If it holds something, or cannot be written.

        Notes
        -----
        Needs the base's weights: 3.5 GB of memory and of disk for MedSigLIP.
        """
        model = self.as_embedder().model
        return merge_folder(
            Path(path).expanduser(), self._given(), self._learned(), model
        )

    def _given(self) -> dict[str, Any]:
        """Return the parameters, with the embedder that the default means."""
        return self.get_params(deep=False) | {"embedder": self.base_embedder()}

    def _learned(self) -> dict[str, Any]:
        """Return the fitted attributes."""
        return {name: self.__dict__[name] for name in ATTRIBUTES if name in vars(self)}

    def _weights(self) -> Tuned | None:
        return None if self._tuned is None else Tuned(**self._tuned)

    def plot_history(self, ax: Any = None) -> Any:
        """Draw losses by step.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            The axes to draw on. By default, those of a new figure.

        Returns
        -------
        matplotlib Axes
        """
        check_is_fitted(self)
        return plot_history(self.history_, self.best_step_, ax)

    def __getstate__(self) -> dict[str, Any]:
        tuned = self.__dict__.get("_tuned")
        if tuned is not None and tuned["files"] is None:
            raise TypeError(
                f"A fine-tuner with train={self.train!r} holds whole weights, which do "
                "not belong into a pickle. Write them with save(path), and read them "
                "with MedSigLIPFineTuner.load(path); or use train='lora', whose "
                "adapter fits."
            )
        return super().__getstate__()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "history_")
