"""Class vectors from prompts: embed every text, normalise, average, normalise."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.embedding import (
    MedSigLIPTextEmbedder,
    ModelFacts,
    encode_texts,
    find_facts,
)
from sk_medsiglip.exceptions import PromptError, PromptWarning
from sk_medsiglip.prompts._question import Question

# Widths of common models, to name the origin of X in a message.
_MODELS_BY_WIDTH = {192: "demo", 1152: "google/medsiglip-448"}


@dataclass(frozen=True, eq=False)
class ClassVectors:
    """Vectors of the answers to a question, with the scale and bias of logits.

    Parameters
    ----------
    vectors : ndarray of shape (n_groups, embedding_dim), float32
        One vector per group of texts, in the order of :attr:`Question.texts`.
    logit_scale, logit_bias : float
        Scale and bias of the logit ``logit_scale * cosine + logit_bias``.
    prompt_vectors : ndarray of shape (n_texts, embedding_dim), float32
        One vector of unit length per text, ordered by group.
    starts : ndarray of shape (n_groups,)
        Row of ``prompt_vectors`` at which each group begins.
    """

    vectors: NDArray[np.float32]
    logit_scale: float
    logit_bias: float
    prompt_vectors: NDArray[np.float32]
    starts: NDArray[np.intp]


def encode_question(
    question: Question,
    n_features: int,
    embedder: MedSigLIPTextEmbedder,
    ensemble: str = "embeddings",
) -> ClassVectors:
    """Encode the prompts of a question.

    Parameters
    ----------
    question : Question
        Prompts in order.
    n_features : int
        Width of the image embeddings that the vectors will be compared with.
    embedder : MedSigLIPTextEmbedder
        Embedder of the texts, which uses its store and is called once.
    ensemble : {"embeddings", "scores", "max"}, default="embeddings"
        Method to combine the prompts of a group. With "scores" the mean is not
        normalised, so that a cosine with it is the mean of the cosines. Otherwise it is
        scaled to unit length; "max" uses only the cosines with ``prompt_vectors``.

    Returns
    -------
    ClassVectors
        The vectors, and the scale and bias of logits.

    Raises
    ------
    ValueError
        If the images were embedded by a model of another width.
    PromptError
        If the prompts of a class cancel out, or if weights are used with "max".
    """
    facts = find_facts(embedder.model, embedder.revision, embedder.cache)
    width = facts.embedding_dim
    if width != n_features:
        origin = _MODELS_BY_WIDTH.get(n_features)
        named = f", the width of model={origin!r}" if origin else ""
        raise ValueError(
            f"X has {n_features} columns{named}, but the prompts are encoded by "
            f"model={os.fspath(embedder.model)!r}, whose vectors have {width}. Use one "
            f"model for both: model={origin or '...'!r}."
        )
    if ensemble == "max" and question.weights is not None:
        raise PromptError(
            "ensemble='max' cannot use weights of prompts; leave them out, or use "
            "ensemble='embeddings' or 'scores'."
        )
    texts = question.texts
    each, scale, bias = _encode_each(texts, embedder, facts)
    starts = _starts(texts)
    means = _average(each, starts, question.weights)
    if ensemble != "scores":
        means = _to_length_one(means, texts)
    _warn_of_equal_classes(means, question)
    return ClassVectors(
        means.astype(np.float32),
        scale,
        bias,
        prompt_vectors=each.astype(np.float32),
        starts=starts,
    )


def _warn_of_equal_classes(means: NDArray[np.float64], question: Question) -> None:
    """Warn of classes with equal vectors, or of findings with equal sides."""
    choices = means.reshape(-1, 2, means.shape[1]) if question.is_pairs else means[None]
    for choice, label in zip(choices, question.labels, strict=False):
        _, place = np.unique(choice.round(6), axis=0, return_inverse=True)
        same = np.flatnonzero(np.bincount(place.ravel())[place.ravel()] > 1)
        if same.size:
            which = (
                f"present and absent of {label!r}"
                if question.is_pairs
                else ", ".join(repr(one) for one in question.labels[same].tolist())
            )
            warnings.warn(
                f"The prompts of {which} have the same vector, so every image gets the "
                "same score for each of them. Use other prompts.",
                PromptWarning,
                stacklevel=4,
            )


def encode_class_vectors(
    texts: Sequence[Sequence[str]], embedder: MedSigLIPTextEmbedder
) -> NDArray[np.float32]:
    """Return a vector of unit length for each group of texts.

    Parameters
    ----------
    texts : sequence of sequence of str
        The prompts of each class.
    embedder : MedSigLIPTextEmbedder
        Embedder of the texts, which uses its store and is called once.

    Returns
    -------
    ndarray of shape (len(texts), embedding_dim), float32
        The mean of the normalised vectors of each group, normalised again, so that
        all prompts count equally.

    Raises
    ------
    PromptError
        If the prompts of a class cancel out.
    """
    means = _average(_encode_each(texts, embedder)[0], _starts(texts), None)
    return _to_length_one(means, texts).astype(np.float32)


def _encode_each(
    texts: Sequence[Sequence[str]],
    embedder: MedSigLIPTextEmbedder,
    facts: ModelFacts | None = None,
) -> tuple[NDArray[np.float64], float, float]:
    """Return a unit vector for every text, and the scale and bias of logits."""
    flat = [text for group in texts for text in group]
    vectors, scale, bias = encode_texts(embedder, flat, facts)
    each = vectors.astype(np.float64)
    each /= np.linalg.norm(each, axis=1, keepdims=True)
    return each, scale, bias


def _starts(texts: Sequence[Sequence[str]]) -> NDArray[np.intp]:
    return np.cumsum([0, *(len(group) for group in texts[:-1])])


def _average(
    vectors: NDArray[np.float64],
    starts: NDArray[np.intp],
    weights: Sequence[Sequence[float]] | None,
) -> NDArray[np.float64]:
    flat = np.ones(len(vectors)) if weights is None else np.concatenate(weights)
    sums = np.add.reduceat(vectors * flat[:, None], starts, axis=0)
    return sums / np.add.reduceat(flat, starts)[:, None]


def _to_length_one(
    means: NDArray[np.float64], texts: Sequence[Sequence[str]]
) -> NDArray[np.float64]:
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    if (lengths < 1e-6).any():
        group = int(np.argmin(lengths))
        raise PromptError(
            f"the vectors of the prompts {list(texts[group])} cancel out; put the "
            "prompts into separate classes."
        )
    return means / lengths
