"""Cosines, scores and probabilities for each ``scoring``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, softmax

SCORINGS = {"softmax", "sigmoid", "cosine"}
#: Number of cosines with single prompts in memory, 64 MiB of float32.
_COSINES_AT_ONCE = 2**24


def cosines(
    rows: NDArray[np.floating],
    vectors: NDArray[np.floating],
    starts: NDArray[np.intp] | None = None,
) -> NDArray[np.floating]:
    """Return the cosines of rows and answers.

    ``vectors`` are those of the answers, or with ``starts`` those of all prompts. Then
    the cosine of an answer is that of its most similar prompt.
    """
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.maximum(lengths, np.finfo(rows.dtype).tiny)
    columns = vectors.T.astype(rows.dtype)
    if starts is None:
        return unit @ columns
    step = max(1, _COSINES_AT_ONCE // len(vectors))
    parts = [
        np.maximum.reduceat(unit[i : i + step] @ columns, starts, axis=1)
        for i in range(0, len(rows), step)
    ]
    return np.concatenate(parts)


def scores(
    cosines: NDArray[np.floating], logit_scale: float, logit_bias: float, scoring: str
) -> NDArray[np.floating]:
    """Return the scores for :func:`probabilities`."""
    if scoring == "cosine":
        return cosines
    logits = logit_scale * cosines + logit_bias
    # Sigmoids divided by their sum are a softmax of their logarithms, which does not
    # underflow, while the bias of SigLIP makes most sigmoids about 1e-5.
    return log_expit(logits) if scoring == "sigmoid" else logits


def probabilities(
    scores: NDArray[np.floating], scoring: str, *, calibrated: bool = False
) -> NDArray[np.float64]:
    """Return numbers from 0 to 1 that sum to 1 over the answers.

    "cosine" is linear: a cosine minus the mean of the others is in [-2, 2] and is
    scaled to ``[0, 2 / n_answers]``. Calibrated scores are always logarithms.
    """
    # In float64, since different scores near 1 would be equal in float32.
    exact = scores.astype(np.float64)
    if scoring != "cosine" or calibrated:
        return softmax(exact, axis=-1)
    n_answers = exact.shape[-1]
    others = (exact.sum(axis=-1, keepdims=True) - exact) / (n_answers - 1)
    return (1 + (exact - others) / 2) / n_answers
