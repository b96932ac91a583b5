"""``explain_head``: words for what a linear head looks at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.embedding import MedSigLIPTextEmbedder, plain_rows
from sk_medsiglip.exceptions import PromptError
from sk_medsiglip.heads._bag_probe import BagProbe


def explain_head(
    head: Any,
    prompts: Sequence[str],
    *,
    top: int | None = 5,
    model: str | os.PathLike[str] = "google/medsiglip-448",
    revision: str | None = None,
    cache: bool | str | os.PathLike[str] | EmbeddingCache = True,
) -> pd.DataFrame:
    """Return the prompts whose vectors lie closest to each class's weights.

    A linear head weighs the values of an embedding; prompts live in the same space. A
    prompt whose vector points where the weights point is one whose images the head
    would call so. A hint for finding shortcuts ("a portable film" for "pneumonia"), no
    proof of anything.

    Parameters
    ----------
    head : estimator
        Fitted, with ``coef_`` of embeddings: :class:`LinearProbe`,
        :class:`PromptProbe`, scikit-learn's linear classifiers; or a pipeline that ends
        in one and does nothing between embedder and head but centring and scaling. Of a
        :class:`BagProbe`, the weights of the instances are explained, not those of the
        pooled row.
    prompts : sequence of str
        Texts to compare with. At least two: each is compared by how it differs from
        their mean.
    top : int or None, default=5
        How many of each class to return; None returns all.
    model, revision, cache
        The model whose text tower encodes the prompts, as in
        :class:`~sk_medsiglip.MedSigLIPTextEmbedder`; the model that embedded the
        images.

    Returns
    -------
    DataFrame
        Columns ``class`` (or label), ``prompt`` and ``cosine``, sorted by class and
        falling cosine. Two classes give one direction, towards the second.

    Raises
    ------
    ValueError
        If the head has no weights for embeddings of this model.
    PromptError
        If there are fewer than two prompts.

    Notes
    -----
    Cosines are small, as texts and images keep to different corners of the space; their
    order is what counts.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.heads import LinearProbe, explain_head
    >>> phantoms = make_chest_phantoms(120, random_state=0)
    >>> X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    >>> probe = LinearProbe().fit(X, phantoms.target[:, 1])
    >>> words = ["pleural effusion", "an enlarged heart", "a nodule"]
    >>> explain_head(probe, words, model="demo")["prompt"].iloc[0]
    'pleural effusion'
    """
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if len(texts) < 2:
        raise PromptError(
            f"explain_head compares prompts with one another; got {len(texts)}. Pass "
            "two or more."
        )
    weights, names = _weights(head)
    embedder = MedSigLIPTextEmbedder(model, revision=revision, cache=cache)
    vectors = plain_rows(embedder, texts).astype(np.float64)
    if vectors.shape[1] != weights.shape[1]:
        raise ValueError(
            f"the head weighs {weights.shape[1]} values, the vectors of "
            f"model={os.fspath(model)!r} have {vectors.shape[1]}: pass the model that "
            "embedded the images."
        )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors -= vectors.mean(axis=0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    lengths = np.linalg.norm(weights, axis=1, keepdims=True)
    cosines = (weights / np.maximum(lengths, 1e-300)) @ vectors.T
    rows = []
    for name, row in zip(names, cosines, strict=True):
        order = np.argsort(-row, kind="stable")[:top]
        rows += [(name, texts[i], float(row[i])) for i in order.tolist()]
    return pd.DataFrame(rows, columns=["class", "prompt", "cosine"])


def _weights(head: Any) -> tuple[np.ndarray, list[Any]]:
    """Return the weights of raw embeddings, and what each row of them stands for."""
    scale = np.ones(1)
    if isinstance(head, Pipeline):
        # From the head back to the embedder: scaling can be undone, the rest cannot.
        for name, step in reversed(head.steps[:-1]):
            if hasattr(step, "scale_") and not hasattr(step, "components_"):
                scale = scale * (1 if step.scale_ is None else step.scale_)
            elif step == "passthrough" or {"model", "embedder"} & set(vars(step)):
                break
            else:
                raise ValueError(
                    f"the step {name!r} ({type(step).__name__}) between embedder and "
                    "head changes what the weights mean; pass a head that was fitted "
                    "on embeddings."
                )
        head = head.steps[-1][1]
    check_is_fitted(head)
    if not hasattr(head, "coef_"):
        raise ValueError(
            f"{type(head).__name__} has no coef_: only linear heads can be explained "
            "by prompts."
        )
    weights = np.atleast_2d(np.asarray(head.coef_, dtype=np.float64))
    if isinstance(head, BagProbe):
        weights = weights[:, : head.n_features_in_]
    weights = weights / scale
    classes = head.classes_
    if isinstance(classes, list) or classes.ndim == 2:  # scikit-learn's, ours
        numbers = range(len(classes))
        names = getattr(head, "findings_", getattr(head, "label_names_", numbers))
        return weights, list(names)
    if len(weights) == 1:
        findings = getattr(head, "findings_", None)
        return weights, [classes[1] if findings is None else findings[0]]
    return weights, list(classes)
