"""From cosines to scores to probabilities, a formula for each ``scoring``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, softmax

SCORINGS = {"softmax", "sigmoid", "cosine"}
#: Cosines with single prompts that are held at once, 64 MiB of float32.
_COSINES_AT_ONCE = 2**24


def cosines(
    rows: NDArray[np.floating],
    vectors: NDArray[np.floating],
    starts: NDArray[np.intp] | None = None,
) -> NDArray[np.floating]:
    """Return the similarity of rows and answers.

    ``vectors`` are those of the answers, or with ``starts`` those of the prompts of all
    answers: an answer is as similar as the most similar of its prompts.
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
    """Return the scores that :func:`probabilities` takes."""
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

    "cosine" is linear: each cosine less the mean of the others lies in [-2, 2] and is
    brought to ``[0, 2 / n_answers]``. Calibrated scores are always logarithms.
    """
    # In float64: near 1, float32 has gaps that would make ties of different scores.
    exact = scores.astype(np.float64)
    if scoring != "cosine" or calibrated:
        return softmax(exact, axis=-1)
    n_answers = exact.shape[-1]
    others = (exact.sum(axis=-1, keepdims=True) - exact) / (n_answers - 1)
    return (1 + (exact - others) / 2) / n_answers
