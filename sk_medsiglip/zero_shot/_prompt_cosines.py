"""Cosines with single prompts, from which those with any mean of prompts follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from sk_medsiglip._labels import Labels
from sk_medsiglip.embedding import MedSigLIPTextEmbedder
from sk_medsiglip.prompts import Question, encode_question


def log_odds(logits: NDArray[np.float64], answer: int) -> NDArray[np.float64]:
    """Return how much likelier an answer is than all others together.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_answers, ...)
        Of the answers.
    answer : int
        Which of them.

    Returns
    -------
    ndarray of shape (n_samples, ...)
        It ranks as the probability does, and does not saturate.
    """
    others = np.delete(logits, answer, axis=1)
    rest = others[:, 0] if others.shape[1] == 1 else logsumexp(others, axis=1)
    return logits[:, answer] - rest


@dataclass(frozen=True, eq=False)
class PromptCosines:
    """How similar images and prompts are, and prompts among themselves.

    The cosine of an image with the mean of some prompts is the mean of its cosines,
    divided by the length of the mean; so no vector is needed any more.

    Parameters
    ----------
    images : ndarray of shape (n_samples, n_prompts), float64
        Cosines of images and prompts.
    prompts : ndarray of shape (n_prompts, n_prompts), float64
        Cosines of prompts.
    """

    images: NDArray[np.float64]
    prompts: NDArray[np.float64]

    def with_mean(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return cosines with weighted means.

        Parameters
        ----------
        weights : ndarray of shape (n_means, n_prompts)
            Of the prompts in each mean.

        Returns
        -------
        ndarray of shape (n_samples, n_means)
        """
        squares = np.einsum("ij,jk,ik->i", weights, self.prompts, weights)
        return (self.images @ weights.T) / np.sqrt(np.maximum(squares, 1e-12))


@dataclass(frozen=True, eq=False)
class Choice:
    """One choice between answers, and the truth of the images where it is known.

    A question of exclusive classes is one choice; each finding is one, between absent
    and present.

    Parameters
    ----------
    name : str
        Of the finding; "" for exclusive classes.
    classes : ndarray of shape (n_answers,)
        Names of the answers.
    prompts : list of ndarray of shape (n_prompts_of_answer,)
        Which rows of the question's list of texts stand for each answer.
    rows : ndarray of shape (n_known,)
        Images whose answer is known.
    target : ndarray of shape (n_known,)
        Index of the answer of each of these.
    cosines : PromptCosines
        Of these images and the prompts of this choice.
    weights : ndarray of shape (n_prompts,)
        Of the prompts as they were given.
    logit_scale : float
        What makes logits of cosines.
    """

    name: str
    classes: NDArray
    prompts: list[NDArray[np.intp]]
    rows: NDArray[np.intp]
    target: NDArray[np.intp]
    cosines: PromptCosines
    weights: NDArray[np.float64]
    logit_scale: float

    @property
    def members(self) -> NDArray[np.float64]:
        """Which prompts are of which answer, ``(n_answers, n_prompts)``, 0 or 1."""
        sizes = [len(rows) for rows in self.prompts]
        answer = np.repeat(np.arange(len(sizes)), sizes)
        return (answer == np.arange(len(sizes))[:, None]).astype(np.float64)

    def logits(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return logits of the answers under weights of the prompts.

        Parameters
        ----------
        weights : ndarray of shape (n_prompts,)
            0 leaves a prompt out.

        Returns
        -------
        ndarray of shape (n_known, n_answers)
            Without the model's bias, which all answers share.
        """
        return self.logit_scale * self.cosines.with_mean(self.members * weights)


def encode_choices(
    question: Question,
    labels: Labels,
    X: NDArray[np.floating],
    embedder: MedSigLIPTextEmbedder,
) -> list[Choice]:
    """Encode every prompt once, and compare the images with each.

    Parameters
    ----------
    question : Question
        What is asked.
    labels : Labels
        The truth, by class or finding, NaN where it is not known.
    X : ndarray of shape (n_samples, embedding_dim)
        Image embeddings.
    embedder : MedSigLIPTextEmbedder
        What encodes the prompts.

    Returns
    -------
    list of Choice
        One, or one a finding.
    """
    encoded = encode_question(question, X.shape[1], embedder)
    vectors = encoded.prompt_vectors.astype(np.float64)
    unit = X.astype(np.float64)
    lengths = np.linalg.norm(unit, axis=1, keepdims=True)
    images = (unit / np.maximum(lengths, np.finfo(np.float64).tiny)) @ vectors.T
    among = vectors @ vectors.T
    given = question.weights
    weights = np.ones(len(vectors)) if given is None else np.concatenate(given)

    places = np.split(np.arange(len(vectors)), encoded.starts[1:])
    if question.is_pairs:
        names = [str(name) for name in question.labels]
        answers = [places[i : i + 2] for i in range(0, len(places), 2)]
        classes = np.array([0, 1])
    else:
        names, answers, classes = [""], [places], question.labels
    choices = []
    for name, of_answer, target in zip(names, answers, labels.by_label(), strict=True):
        known = np.flatnonzero(~np.isnan(target.astype(np.float64)))
        used = np.concatenate(of_answer)
        cosines = PromptCosines(images[np.ix_(known, used)], among[np.ix_(used, used)])
        choices.append(
            Choice(
                name,
                classes,
                of_answer,
                known,
                target[known].astype(np.intp),
                cosines,
                weights[used],
                encoded.logit_scale,
            )
        )
    return choices
