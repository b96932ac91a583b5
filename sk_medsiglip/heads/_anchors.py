"""Vectors of the prompts of each class, the starting point of heads for few labels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.embedding import MedSigLIPTextEmbedder
from sk_medsiglip.prompts import check_prompts, encode_question

#: Parameters of a zero-shot classifier that are passed to its text embedder.
_TEXT_SIDE = ("revision", "dtype", "device", "engine", "batch_size", "cache", "verbose")


@dataclass(frozen=True, eq=False)
class Anchors:
    """Unit vectors of the prompts of each class, or of each side of a finding."""

    classes: NDArray[Any] | None
    findings: NDArray[Any] | None
    vectors: NDArray[np.float64]
    logit_scale: float


def make_anchors(
    prompts: Any,
    *,
    templates: Any,
    model: str | os.PathLike[str],
    revision: str | None,
    cache: bool | str | os.PathLike[str] | EmbeddingCache,
    n_features: int,
) -> Anchors:
    """Encode prompts, or use the vectors of a fitted zero-shot classifier."""
    settings: dict[str, Any] = {"revision": revision, "cache": cache}
    if hasattr(prompts, "prompts") and hasattr(prompts, "get_params"):
        if hasattr(prompts, "class_embeddings_"):
            return _from_fitted(prompts, n_features)
        given = prompts.get_params(deep=False)
        prompts, templates, model = (
            given[name] for name in ("prompts", "templates", "model")
        )
        settings = {name: given[name] for name in _TEXT_SIDE if name in given}
    elif not isinstance(prompts, Mapping):
        raise TypeError(
            f"prompts must be a dict of prompts, a ZeroShotClassifier or None, got "
            f"{type(prompts).__name__}."
        )
    question = check_prompts(prompts, templates)
    encoded = encode_question(
        question, n_features, MedSigLIPTextEmbedder(model, **settings)
    )
    vectors = _of_length_one(encoded.vectors.astype(np.float64))
    per_question = 2 if question.is_pairs else len(vectors)
    return Anchors(
        question.classes,
        question.findings,
        vectors.reshape(-1, per_question, n_features),
        encoded.logit_scale,
    )


def _from_fitted(classifier: Any, n_features: int) -> Anchors:
    vectors = np.asarray(classifier.class_embeddings_, dtype=np.float64)
    if vectors.shape[-1] != n_features:
        raise ValueError(
            f"X has {n_features} columns, but the fitted {type(classifier).__name__} "
            f"expects {vectors.shape[-1]}: use one model for images and prompts."
        )
    # Lengths are only nearly 1 in float32, and smaller for an ensemble of scores.
    vectors = _of_length_one(vectors)
    several = np.ndim(classifier.classes_) == 2
    return Anchors(
        None if several else np.asarray(classifier.classes_),
        getattr(classifier, "findings_", None),
        vectors if several else vectors[None],
        float(classifier.logit_scale_),
    )


def _of_length_one(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
