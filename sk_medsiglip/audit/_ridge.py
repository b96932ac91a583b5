"""Ridge regressions: what they explain of any target, and their answers out of folds.

The share of a target that a regression explains is a sum of squares of products, so a
thousand permutations, each with a regression of its own, cost one matrix product.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.optimize import brentq

#: Penalty of regressions out of folds, a share of the mean variance of a column.
PENALTY = 0.01
#: Degrees of freedom of the regressions of a test, a share of the number of patients.
#: .1 to .8 were tried with rows of 192 and 1,152 columns: more find more up to .7.
_FREEDOM = 0.7
#: Least penalty: rows in float32 are exact to about as much.
_LEAST_PENALTY = 1e-6
N_FOLDS = 5


def explaining_rows(
    X: NDArray[np.floating], stratum: NDArray[np.intp], n_patients: int
) -> NDArray[np.floating]:
    """Return rows whose products with a target have the explained part as square.

    That is, ``((target @ rows) ** 2).sum()`` is the part of the target's squares that a
    ridge regression explains, where both are centred in each stratum.
    """
    # Variances below the last digit of the rows are rounding.
    digit = float(np.finfo(X.dtype).eps) * max(float(np.abs(X).max()), 1e-30)
    X = _in_fewer_columns(centred(X, stratum))
    values, vectors = np.linalg.eigh((X.T @ X).astype(np.float64) / len(X))
    values = np.maximum(values, digit**2)
    scale = np.sqrt(len(X) * (values + _test_penalty(values, n_patients)))
    return X @ (vectors / scale).astype(X.dtype)


def _test_penalty(values: NDArray[np.float64], n_patients: int) -> float:
    """Return the penalty at which a ridge has its degrees of freedom, or the least."""
    mean = float(values.mean())
    shares = values / mean

    def too_free(logarithm: float) -> float:
        return float((shares / (shares + np.exp(logarithm))).sum()) - wanted

    wanted = _FREEDOM * n_patients
    low, high = np.log(_LEAST_PENALTY), np.log(1e6)
    if too_free(low) <= 0:
        return _LEAST_PENALTY * mean
    return float(np.exp(brentq(too_free, low, high))) * mean


def predict_out_of_folds(
    X: NDArray[np.floating], target: NDArray[np.floating], fold: NDArray[np.intp]
) -> NDArray[np.floating]:
    """Return predictions of targets, ``(n_rows, n_targets)``, from the other folds.

    Rows and targets are centred; there is no intercept.
    """
    X = _in_fewer_columns(X)
    parts = [np.flatnonzero(fold == one) for one in range(int(fold.max()) + 1)]
    grams = np.stack([X[part].T @ X[part] for part in parts])
    moments = np.stack([X[part].T @ target[part] for part in parts])
    predicted = np.empty_like(target)
    for part, gram, moment in zip(
        parts, grams.sum(axis=0) - grams, moments.sum(axis=0) - moments, strict=True
    ):
        mean = float(np.trace(gram)) / len(gram)
        gram[np.diag_indices_from(gram)] += PENALTY * max(mean, 1e-12)
        predicted[part] = X[part] @ scipy.linalg.solve(gram, moment, assume_a="pos")
    return predicted


def _in_fewer_columns(X: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return as many columns as rows at most; rows keep their products."""
    if len(X) >= X.shape[1]:
        return X
    left, lengths, _ = scipy.linalg.svd(X, full_matrices=False)
    return left * lengths


def deal_patients(
    kind: NDArray[np.intp], patient: NDArray[np.intp], n_folds: int = N_FOLDS
) -> NDArray[np.intp]:
    """Return the fold of each row: patients of each kind, by size, are dealt in turn.

    ``kind`` is that of each patient.
    """
    fold = np.empty(len(kind), np.intp)
    order = np.lexsort((np.bincount(patient), kind))
    fold[order] = np.arange(len(kind)) % n_folds
    return fold[patient]


def centred(
    values: NDArray[np.floating], stratum: NDArray[np.intp]
) -> NDArray[np.floating]:
    """Return values less the means of their strata."""
    member = np.eye(int(stratum.max()) + 1, dtype=values.dtype)[stratum]
    means = (member.T @ values) / np.maximum(member.sum(axis=0), 1)[:, None]
    return values - means[stratum]
