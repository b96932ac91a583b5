"""Ridge regressions of many targets on one X, out of folds.

Predictions are linear in the targets, so a thousand permutations are a thousand targets
of one solve: each is refitted, and together they cost three matrix products.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from sk_medsiglip._splits import Folds

#: Penalty as a share of the mean eigenvalue of the training rows' products.
PENALTY = 0.01
#: Elements of the targets that are held at once: 64 MB of float32.
BLOCK = 2**24


class FoldedRidge:
    """Ridge regressions without an intercept, for centred rows and targets."""

    def __init__(
        self, X: NDArray[np.floating], folds: Folds, penalty: float = PENALTY
    ) -> None:
        """Decompose the rows of every fold once."""
        if len(X) < X.shape[1]:
            X = _in_fewer_columns(X)
        self.X = X
        self._parts = []
        for train, test in folds.pairs():
            known, asked = X[train], X[test]
            gram = known.T @ known
            mean = np.trace(gram) / len(gram)
            gram[np.diag_indices_from(gram)] += penalty * max(mean, 1e-12)
            factor = scipy.linalg.cho_factor(gram, overwrite_a=True)
            solved = scipy.linalg.cho_solve(factor, asked.T)
            self._parts.append((train, test, solved.T))

    def predict(self, targets: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return out-of-fold predictions of targets, ``(n_rows, n_targets)``."""
        predicted = np.zeros_like(targets)
        for train, test, solved in self._parts:
            predicted[test] = solved @ (self.X[train].T @ targets[train])
        return predicted


def centred(
    values: NDArray[np.floating], stratum: NDArray[np.intp]
) -> NDArray[np.floating]:
    """Return values less the means of their strata."""
    size = np.bincount(stratum)
    member = np.zeros((len(stratum), len(size)), values.dtype)
    member[np.arange(len(stratum)), stratum] = 1
    means = (member.T @ values) / np.maximum(size, 1)[:, None].astype(values.dtype)
    return values - means[stratum]


def _in_fewer_columns(X: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return coordinates in which rows have the same products with each other."""
    left, lengths, _ = scipy.linalg.svd(X, full_matrices=False)
    return np.ascontiguousarray(left * lengths)
