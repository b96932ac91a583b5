"""Methods of a fitted fine-tuner: embeddings, predictions and saved folders."""

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
            "A contrastive fine-tuner cannot predict classes. Use "
            "ZeroShotClassifier(prompts, model=tuner.save(path)), or fit a head to "
            "tuner.transform(X)."
        )
    return True


class FittedTuner(
    VersionedPickle, ClassNamePrefixFeaturesOutMixin, TransformerMixin, Parameters
):
    """Abstract class with the methods of ``MedSigLIPFineTuner`` that need a fit."""

    history_: pd.DataFrame
    fingerprint_: str
    classes_: NDArray[Any]
    coef_: NDArray[np.float32]
    intercept_: NDArray[np.float32]
    # Tuned as a dict, so that pickles do not refer to a private class.
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
            Embeddings. The store keeps them under ``fingerprint_``.
        """
        return plain_rows(self.as_embedder(), X)

    def as_embedder(self) -> MedSigLIPEmbedder:
        """Return an embedder of the tuned encoder, for pipelines.

        Returns
        -------
        MedSigLIPEmbedder
            An embedder whose ``model`` is a folder beside the store of this machine.
            For use on another machine, call ``save(path)`` and pass that folder as
            ``model``.
        """
        check_is_fitted(self)
        base, tuned = self.base_embedder(), self._weights()
        model = base.model if tuned is None else tuned.folder(base.cache, base.model)
        return base.set_params(model=os.fspath(model), revision=self.fingerprint_)

    def base_embedder(self) -> MedSigLIPEmbedder:
        """Return an unfitted embedder of the checkpoint before fine-tuning."""
        given = self.embedder
        return MedSigLIPEmbedder() if given is None else clone(given)

    def reader(self, checkpoint: Checkpoint) -> Callable[[Any], NDArray[np.uint8]]:
        """Return a function that reads an image and resizes it for the model.

        Parameters
        ----------
        checkpoint : Checkpoint
            The model, which sets the image size and preprocessing.

        Returns
        -------
        callable
            A function from a source to an array of shape (image_size, image_size, 3).
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
            Logits, ``(n_samples,)`` for two classes, else one column per class or
            label.
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
            Probabilities of the classes, ``(n_samples, n_classes)``, in rows that sum
            to 1; for several labels the probability of each, ``(n_samples, n_labels)``.
        """
        return probabilities(self._logits(X), self.classes_)

    @available_if(_classifies)
    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most likely class, or 1 for labels with a probability above 0.5.

        Parameters
        ----------
        X : array-like
            Images.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Predictions.
        """
        return likeliest(self._logits(X), self.classes_)

    @available_if(_classifies)
    def score(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the accuracy of the predictions.

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
            Share of images whose prediction is right in all labels.
        """
        return float(accuracy_score(y, self.predict(X), sample_weight=sample_weight))

    def _logits(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the outputs of the layer: one column for two classes."""
        embedder = self.as_embedder().set_params(on_error="raise", normalize=False)
        rows = plain_rows(embedder, X).astype(np.float64)
        # The scale of the inputs in training.
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
            The folder, which can be passed as ``model=`` to every estimator of this
            package if the encoder was trained. It holds the adapter in the format of
            peft, or the trained weights, but not the base, which is found by its name.

        Raises
        ------
        RunFolderError
            If the folder holds other files, or cannot be written.
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
            The folder. It holds no pickles.

        Returns
        -------
        MedSigLIPFineTuner
            The fitted fine-tuner.

        Raises
        ------
        CheckpointError
            If the folder is damaged, or if its base differs from the one that was
            tuned.
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
            The folder, which ``transformers.SiglipModel.from_pretrained`` can load too.
            It does not include a classifier.

        Raises
        ------
        RunFolderError
            If the folder holds files, or cannot be written.

        Notes
        -----
        The weights of the base are loaded and written, which takes 3.5 GB of memory and
        of disk space for MedSigLIP.
        """
        model = self.as_embedder().model
        return merge_folder(
            Path(path).expanduser(), self._given(), self._learned(), model
        )

    def _given(self) -> dict[str, Any]:
        """Return the parameters, with the default embedder in place of None."""
        return self.get_params(deep=False) | {"embedder": self.base_embedder()}

    def _learned(self) -> dict[str, Any]:
        """Return the fitted attributes."""
        return {name: self.__dict__[name] for name in ATTRIBUTES if name in vars(self)}

    def _weights(self) -> Tuned | None:
        return None if self._tuned is None else Tuned(**self._tuned)

    def plot_history(self, ax: Any = None) -> Any:
        """Plot the losses of each step.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to draw on. By default, a new figure.

        Returns
        -------
        matplotlib Axes
            The axes of the plot.
        """
        check_is_fitted(self)
        return plot_history(self.history_, self.best_step_, ax)

    def __getstate__(self) -> dict[str, Any]:
        tuned = self.__dict__.get("_tuned")
        if tuned is not None and tuned["files"] is None:
            raise TypeError(
                f"A fine-tuner with train={self.train!r} has weights that are too "
                "large for a pickle. Write them with save(path), and read them with "
                "MedSigLIPFineTuner.load(path); or use train='lora', which trains a "
                "small adapter."
            )
        return super().__getstate__()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "history_")
