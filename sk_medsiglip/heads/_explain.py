"""``explain_head``: the prompts closest to the weights of a linear head."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sk_medsiglip._labels import finding_names
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
    """Return the prompts whose vectors are closest to the weights of each class.

    The weights of a linear head and the vectors of prompts lie in the same space. If a
    prompt points in the direction of the weights of a class, the head tends to predict
    that class for images that match the prompt. This is a hint for finding shortcuts
    ("a portable film" for "pneumonia"), not a proof.

    Parameters
    ----------
    head : estimator
        Fitted head with ``coef_`` for embeddings, such as :class:`LinearProbe`,
        :class:`PromptProbe` or a linear classifier of scikit-learn; or a pipeline that
        ends in one, with only centring and scaling between embedder and head. For a
        :class:`BagProbe`, the weights of the instances are explained, not those of the
        pooled row.
    prompts : sequence of str
        At least two texts. Each is compared by its difference from their mean.
    top : int or None, default=5
        Number of prompts to return for each class; None returns all.
    model, revision, cache
        The model that embedded the images, whose text tower encodes the prompts, as in
        :class:`~sk_medsiglip.MedSigLIPTextEmbedder`.

    Returns
    -------
    DataFrame
        Columns ``class`` (or label), ``prompt`` and ``cosine``, sorted by class and
        decreasing cosine. Two classes give one direction, towards the second.

    Raises
    ------
    ValueError
        If the head has no weights for embeddings of this model.
    PromptError
        If there are fewer than two prompts.

    Notes
    -----
    Cosines are small, since texts and images lie in different regions of the space;
    only their order matters.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.heads import LinearProbe, explain_head
    >>> phantoms = make_chest_phantoms(120, random_state=0)
    >>> X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    >>> probe = LinearProbe().fit(X, phantoms.target[:, 1])
    >>> prompts = ["pleural effusion", "an enlarged heart", "a nodule"]
    >>> explain_head(probe, prompts, model="demo")["prompt"].iloc[0]
    'pleural effusion'
    """
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if len(texts) < 2:
        raise PromptError(
            f"explain_head needs at least two prompts to compare, got {len(texts)}."
        )
    weights, names = _weights(head)
    embedder = MedSigLIPTextEmbedder(model, revision=revision, cache=cache)
    vectors = plain_rows(embedder, texts).astype(np.float64)
    if vectors.shape[1] != weights.shape[1]:
        raise ValueError(
            f"the head has {weights.shape[1]} weights, but vectors of "
            f"model={os.fspath(model)!r} have {vectors.shape[1]} values: pass the "
            "model that embedded the images."
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
    """Return the weights of raw embeddings, and the name of each row of them."""
    scale = np.ones(1)
    if isinstance(head, Pipeline):
        # From the head back to the embedder: only scaling can be undone.
        for name, step in reversed(head.steps[:-1]):
            if hasattr(step, "scale_") and not hasattr(step, "components_"):
                scale = scale * (1 if step.scale_ is None else step.scale_)
            elif step == "passthrough" or {"model", "embedder"} & set(vars(step)):
                break
            else:
                raise ValueError(
                    f"the step {name!r} ({type(step).__name__}) between embedder and "
                    "head changes the meaning of the weights; pass a head that was "
                    "fitted on embeddings."
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
    if isinstance(classes, list) or classes.ndim == 2:  # of scikit-learn, or ours
        return weights, list(finding_names(head, range(len(classes))))
    if len(weights) == 1:
        findings = finding_names(head)
        return weights, [classes[1] if findings is None else findings[0]]
    return weights, list(classes)
