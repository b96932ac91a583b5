"""From cosines to scores, and from scores to probabilities: one formula a scoring."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, softmax

SCORINGS = {"softmax", "sigmoid", "cosine"}


def pooled_cosines(
    unit_rows: NDArray[np.floating],
    vectors: NDArray[np.floating],
    starts: NDArray[np.intp] | None = None,
) -> NDArray[np.floating]:
    """Return the similarity of images and answers.

    Parameters
    ----------
    unit_rows : ndarray of shape (n_samples, embedding_dim)
        Images, of length 1.
    vectors : ndarray of shape (n_vectors, embedding_dim)
        Of the answers; or of the prompts of all answers, one after the other.
    starts : ndarray of shape (n_answers,), default=None
        Where the prompts of each answer begin. An answer is as similar as the most
        similar of its prompts.

    Returns
    -------
    ndarray of shape (n_samples, n_answers)
    """
    cosines = unit_rows @ vectors.T.astype(unit_rows.dtype)
    if starts is None:
        return cosines
    return np.maximum.reduceat(cosines, starts, axis=1)


def scores(
    cosines: NDArray[np.floating], logit_scale: float, logit_bias: float, scoring: str
) -> NDArray[np.floating]:
    """Return what a softmax (or its rival) turns into probabilities.

    Parameters
    ----------
    cosines : ndarray of shape (..., n_answers)
        From :func:`pooled_cosines`.
    logit_scale, logit_bias : float
        The model's.
    scoring : {"softmax", "sigmoid", "cosine"}
        Logits; logarithms of their sigmoids; the cosines themselves.

    Returns
    -------
    ndarray of shape (..., n_answers)
    """
    if scoring == "cosine":
        return cosines
    logits = logit_scale * cosines + logit_bias
    # The quotient of sigmoids is a softmax of their logarithms, which does not
    # underflow: SigLIP's bias puts most sigmoids near 1e-5.
    return log_expit(logits) if scoring == "sigmoid" else logits


def probabilities(
    scores: NDArray[np.floating], scoring: str, *, calibrated: bool = False
) -> NDArray[np.float64]:
    """Return numbers from 0 to 1 whose sum over the answers is 1.

    Parameters
    ----------
    scores : ndarray of shape (..., n_answers)
        From :func:`scores`, or calibrated ones.
    scoring : {"softmax", "sigmoid", "cosine"}
        The first two are a softmax of the scores. "cosine" is linear: each cosine
        less the mean of the others' lies in [-2, 2] and is brought to ``[0, 2 /
        n_answers]``.
    calibrated : bool, default=False
        Calibrated scores are logarithms of probabilities, whatever they came from.

    Returns
    -------
    ndarray of shape (..., n_answers), float64
    """
    # In float64: near 1, float32 has gaps that would make ties of different scores.
    exact = scores.astype(np.float64)
    if scoring != "cosine" or calibrated:
        return softmax(exact, axis=-1)
    n_answers = exact.shape[-1]
    others = (exact.sum(axis=-1, keepdims=True) - exact) / (n_answers - 1)
    return (1 + (exact - others) / 2) / n_answers
