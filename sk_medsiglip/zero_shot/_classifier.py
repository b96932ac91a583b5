"""``ZeroShotClassifier``: classes from prompts, no labels needed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, assert_all_finite
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from sk_medsiglip._persistence import VersionedPickle
from sk_medsiglip._validation import StrOptions, _fit_context
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.embedding import MedSigLIPTextEmbedder
from sk_medsiglip.prompts import (
    Question,
    check_columns,
    check_prompts,
    encode_question,
)

__all__ = ["ZeroShotClassifier"]


class ZeroShotClassifier(VersionedPickle, ClassifierMixin, BaseEstimator):
    """Classify image embeddings by their similarity to prompts.

    Parameters
    ----------
    prompts : dict
        One of several classes: ``{class: prompt or list of prompts}``. Present or
        absent: ``{finding: {"positive": ..., "negative": ...}}``, one finding or
        several. Several prompts of a class are averaged after normalising.
    templates : str or list of str, default=None
        Texts with one ``{}`` each, such as ``"a chest X-ray showing {}"``; every
        prompt is filled into every template.
    model : str or path-like, default="google/medsiglip-448"
        Whose text tower encodes the prompts; must be the model that embedded the
        images.
    revision : str or None, default=None
        Commit, branch or tag of a repository.
    scoring : {"softmax", "sigmoid"}, default="softmax"
        How logits become probabilities. "softmax" over the prompts, as the model card
        does; "sigmoid" of each, as SigLIP was trained, divided by their sum. Rows sum
        to 1 under both. They rank the classes of one image alike; across images they
        rank differently.
    dtype, device, engine, batch_size, cache, verbose
        As in :class:`~sk_medsiglip.MedSigLIPTextEmbedder`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or list of ndarray
        Sorted class names; ``[0, 1]`` for one finding; one ``array([0, 1])`` a finding
        for several.
    findings_ : ndarray of shape (n_findings,)
        Names of the findings in column order; only for present/absent prompts.
    class_embeddings_ : ndarray
        Vectors of length 1: ``(n_classes, embedding_dim)`` in the order of
        ``classes_``; for several findings ``(n_findings, 2, embedding_dim)``, absent
        before present.
    logit_scale_, logit_bias_ : float
        Of the logit ``logit_scale_ * cosine + logit_bias_``.
    n_features_in_ : int
        Width of the embeddings.

    See Also
    --------
    make_zero_shot_pipeline : The same for images.

    Notes
    -----
    The probabilities are not calibrated: the scale was learned on pairs of images and
    captions. With a few labels, ``CalibratedClassifierCV(FrozenEstimator(clf),
    method="temperature")`` mends that. Not a medical device.

    References
    ----------
    .. [1] Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.
    .. [2] MedSigLIP model card,
       https://developers.google.com/health-ai-developer-foundations/medsiglip

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder, ZeroShotClassifier
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> phantoms = make_chest_phantoms(4, random_state=0)
    >>> X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    >>> clf = ZeroShotClassifier(
    ...     {"effusion": "pleural effusion", "normal": "normal chest X-ray"},
    ...     model="demo",
    ... )
    >>> clf.fit(X).predict_proba(X).shape
    (4, 2)
    """

    _parameter_constraints: dict[str, Any] = {
        **MedSigLIPTextEmbedder._parameter_constraints,
        "prompts": "no_validation",  # judged by check_prompts, which says more
        "templates": "no_validation",
        "scoring": [StrOptions({"softmax", "sigmoid"})],
    }
    _parameter_constraints.pop("normalize")  # vectors of prompts always are

    def __init__(
        self,
        prompts: Mapping[Any, Any],
        *,
        templates: str | Sequence[str] | None = None,
        model: str | os.PathLike[str] = "google/medsiglip-448",
        revision: str | None = None,
        scoring: str = "softmax",
        dtype: str = "auto",
        device: str = "auto",
        engine: str = "auto",
        batch_size: int | str = "auto",
        cache: bool | str | os.PathLike[str] | EmbeddingCache = True,
        verbose: int | bool = 0,
    ) -> None:
        self.prompts = prompts
        self.templates = templates
        self.model = model
        self.revision = revision
        self.scoring = scoring
        self.dtype = dtype
        self.device = device
        self.engine = engine
        self.batch_size = batch_size
        self.cache = cache
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Encode the prompts; nothing is learned from ``X`` or ``y``.

        Parameters
        ----------
        X : array-like of shape (n_samples, embedding_dim)
            Image embeddings, normalised or not.
        y : array-like of shape (n_samples,) or (n_samples, n_findings), default=None
            Not needed. If given, its labels must be among those of the prompts; the
            columns of several findings are in the order of the prompts.

        Returns
        -------
        self

        Raises
        ------
        PromptError
            If the prompts are malformed.
        ValueError
            If the width of ``X`` is not the text tower's, or ``y`` holds labels that
            no prompt stands for, or is a DataFrame of the findings in another order.
        """
        X = validate_data(self, X, dtype=[np.float64, np.float32])
        target = None if y is None else _check_target(X, y)
        question = self._read_prompts(target)
        vectors = self._encode_prompts(question)
        n_findings = len(question.labels) if question.is_pairs else 0
        self.classes_: NDArray[Any] | list[NDArray[Any]]
        if n_findings > 1:
            self.classes_ = [np.array([0, 1]) for _ in range(n_findings)]
            vectors = vectors.reshape(n_findings, 2, -1)
        else:
            self.classes_ = np.array([0, 1]) if n_findings else question.labels
        if n_findings:
            self.findings_ = question.labels
        self.class_embeddings_ = vectors
        if target is not None:
            self._check_labels(target)
            check_columns(y, getattr(self, "findings_", ()))
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return SigLIP logits, in the shapes that scikit-learn's scorers expect.

        Parameters
        ----------
        X : array-like of shape (n_samples, embedding_dim)
            Image embeddings.

        Returns
        -------
        ndarray
            ``(n_samples, n_classes)``: ``logit_scale_ * cosine + logit_bias_``. For
            two classes ``(n_samples,)``: second minus first; for one finding
            ``(n_samples,)`` and for several ``(n_samples, n_findings)``: present minus
            absent.
        """
        logits = self._logits(X)
        if logits.shape[-1] == 2:
            return logits[..., 1] - logits[..., 0]
        return logits

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return probabilities; see ``scoring``.

        Parameters
        ----------
        X : array-like of shape (n_samples, embedding_dim)
            Image embeddings.

        Returns
        -------
        ndarray
            ``(n_samples, n_classes)``, rows sum to 1; for several findings
            ``(n_samples, n_findings)``, the probability that each is present.
        """
        logits = self._logits(X)
        # The quotient of sigmoids is a softmax of their logarithms, which does not
        # underflow: SigLIP's bias puts most sigmoids near 1e-5.
        scores = logits if self.scoring == "softmax" else log_expit(logits)
        probabilities = softmax(scores, axis=-1)
        return probabilities[..., 1] if logits.ndim == 3 else probabilities

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the class with the highest logit.

        Parameters
        ----------
        X : array-like of shape (n_samples, embedding_dim)
            Image embeddings.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_findings)
            Class names; for findings 1 where present is likelier than absent.
        """
        best = self._logits(X).argmax(axis=-1)
        return best if isinstance(self.classes_, list) else self.classes_[best]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        if isinstance(self.prompts, Mapping) and len(self.prompts) > 1:
            several = all(isinstance(pair, Mapping) for pair in self.prompts.values())
            tags.classifier_tags.multi_label = several
            tags.target_tags.multi_output = several
        return tags

    def _read_prompts(self, y: NDArray[Any] | None) -> Question:
        """Return the question that is asked; ``y`` has no say in it."""
        return check_prompts(self.prompts, self.templates)

    def _encode_prompts(self, question: Question) -> NDArray[np.float32]:
        """Return the class vectors, and note scale and bias of the logit."""
        embedder = MedSigLIPTextEmbedder(
            self.model,
            revision=self.revision,
            dtype=self.dtype,
            device=self.device,
            engine=self.engine,
            batch_size=self.batch_size,
            cache=self.cache,
            verbose=self.verbose,
        )
        encoded = encode_question(question, self.n_features_in_, embedder)
        self.logit_scale_, self.logit_bias_ = encoded.logit_scale, encoded.logit_bias
        return encoded.vectors

    def _check_labels(self, labels: NDArray[Any]) -> None:
        if isinstance(self.classes_, list):
            n_findings = len(self.classes_)
            if labels.shape[1:] != (n_findings,):
                raise ValueError(
                    f"y has shape {labels.shape}; with {n_findings} findings it must "
                    f"be (n_samples, {n_findings}), columns in the order "
                    f"{self.findings_.tolist()}."
                )
            known = self.classes_[0]
        else:
            known = self.classes_
        unknown = np.setdiff1d(labels, known)
        if unknown.size:
            raise ValueError(
                f"y holds the labels {unknown[:5].tolist()}, which no prompt stands "
                f"for; the prompts' classes are {known.tolist()}."
            )

    def _logits(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return logits of shape (n, n_classes) or (n, n_findings, 2)."""
        check_is_fitted(self)
        rows: NDArray[np.floating] = validate_data(
            self, X, dtype=[np.float64, np.float32], reset=False
        )
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows / np.maximum(lengths, np.finfo(rows.dtype).tiny)
        flat = self.class_embeddings_.reshape(-1, rows.shape[1]).astype(rows.dtype)
        logits = self.logit_scale_ * (rows @ flat.T) + self.logit_bias_
        return logits.reshape(len(rows), *self.class_embeddings_.shape[:-1])


def _check_target(X: ArrayLike, y: ArrayLike) -> NDArray[Any]:
    """Return ``y`` as an array of discrete labels, one row a sample."""
    target = np.asarray(y)
    if target.dtype == object and pd.isna(target).any():
        raise ValueError("Input y contains missing values (None, NaN or NA).")
    if target.ndim == 2 and target.shape[1] == 1:
        target = column_or_1d(target, warn=True)
    check_consistent_length(X, target)
    assert_all_finite(target, input_name="y")
    check_classification_targets(target)
    return target
