"""Whether a column goes with a label, and whether it can be read from the rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._splits import Folds
from sk_medsiglip.audit._pair_auc import auc_within
from sk_medsiglip.audit._permute import p_value, permuted_rows
from sk_medsiglip.audit._ridge import BLOCK, FoldedRidge, centred

#: A lighter penalty than usual reads a faint trace better.
READING_PENALTY = 0.003


def p_association(
    ill: NDArray[np.intp],
    level: NDArray[np.intp],
    patient: NDArray[np.intp],
    n_draws: int,
    rng: np.random.Generator,
) -> float:
    """Return how often permuted patients go with the levels as well as they do.

    A patient is the mean of the images, both label and levels; the measure is the
    share of the labels' variance that the levels explain.
    """
    size = np.bincount(patient)
    shares = np.column_stack(
        [np.bincount(patient, level == k) / size for k in range(level.max() + 1)]
    )
    means = np.bincount(patient, ill) / size
    left, lengths, _ = np.linalg.svd(shares - shares.mean(axis=0), full_matrices=False)
    axes = left[:, lengths > 1e-9 * max(lengths[0], 1e-300)]
    centred_means = means - means.mean()
    drawn = np.stack([rng.permutation(centred_means) for _ in range(n_draws)])
    observed = float(((axes.T @ centred_means) ** 2).sum())
    return p_value(observed, ((drawn @ axes) ** 2).sum(axis=1))


def read_levels(
    X: NDArray[np.floating],
    ill: NDArray[np.intp],
    level: NDArray[np.intp],
    patient: NDArray[np.intp],
    folds: Folds,
    n_draws: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return the p-value and the area of reading levels from rows, given the label."""
    spread = X.std(axis=0)
    scaled = centred(X, ill) / np.where(spread > 0, spread, 1)
    ridge = FoldedRidge(scaled, folds, penalty=READING_PENALTY)
    n_levels = int(level.max()) + 1
    # Of two levels, one is the other's opposite.
    asked = np.arange(1, 2) if n_levels == 2 else np.arange(n_levels)
    observed, predicted = _agreement(ridge, level[None], asked, ill)
    labels = np.zeros((2, int(patient.max()) + 1), bool)
    labels[ill, patient] = True
    stratum = (labels[0] + 2 * labels[1])[patient]
    drawn = np.empty(n_draws)
    step = max(1, BLOCK // (len(X) * len(asked)))
    for start in range(0, n_draws, step):
        n = min(step, n_draws - start)
        permuted = permuted_rows(patient, stratum, n, rng)
        drawn[start : start + n], _ = _agreement(ridge, level[permuted], asked, ill)
    areas = [
        auc_within((level == one).astype(np.intp), predicted[:, k], ill)
        for k, one in enumerate(asked)
    ]
    return p_value(float(observed[0]), drawn), float(np.mean(areas))


def _agreement(
    ridge: FoldedRidge,
    levels: NDArray[np.intp],
    asked: NDArray[np.intp],
    ill: NDArray[np.intp],
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return how well predicted and true levels of each draw agree, and predictions.

    The measure is the cosine of the two, the mean over levels.
    """
    n_rows, n_asked = len(ill), len(asked)
    target = (levels.T[:, :, None] == asked).reshape(n_rows, -1).astype(ridge.X.dtype)
    target = centred(target, ill)
    predicted = ridge.predict(target)
    lengths = np.linalg.norm(target, axis=0) * np.linalg.norm(predicted, axis=0)
    cosines = np.einsum("ij,ij->j", target, predicted) / np.maximum(lengths, 1e-12)
    return cosines.reshape(-1, n_asked).mean(axis=1), predicted
