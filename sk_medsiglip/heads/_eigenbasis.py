"""Coordinates in which penalised problems on one X are small and nearly diagonal.

If the columns of ``B`` are orthonormal and span the rows of the centred ``X``, every
minimiser of ``sum_i c_i loss(x_i v + b) + 1/2 |v|^2`` is ``v = B w``, ``|v| = |w|``,
since a component orthogonal to all rows only increases the penalty. So the problem in
``w``, on ``Z = (X - mean) B``, is the same problem after a change of coordinates.
Centring is compensated by the unpenalised intercept. Therefore computing ``B`` and the
mean from all rows does not leak the rows left out into a fold.

The columns of ``B`` are the eigenvectors of the Gram matrix, so the columns of ``Z``
are orthogonal, and there are at most as many as samples: the cost of few-shot problems
depends on n, not on d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

#: Directions shorter than this fraction of the longest are rounding errors in float32.
FLOAT32_DIGITS = 1e-7


@dataclass(frozen=True, eq=False)
class Eigenbasis:
    """Rows in the coordinates of their eigenbasis, and the inverse transform."""

    rows: NDArray[np.floating]
    penalty: NDArray[np.floating]
    basis: NDArray[np.floating]
    mean: NDArray[np.floating]
    energy = None  # mean squares of the columns of ``rows``, computed by the solver
    parts_at_once = 1  # number of parts of the problems solved at a time

    @property
    def width(self) -> int:
        """Number of columns of ``rows``."""
        return int(self.rows.shape[1])

    def wrap(self, loss: Any) -> Any:
        """Return the loss unchanged, since rows are samples."""
        return loss

    def decision(self, logits: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the logits unchanged, since rows are samples."""
        return logits

    def coefficients(
        self, weights: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return coefficients for X, and intercepts."""
        rank = self.basis.shape[1]
        coef = (self.basis @ weights[:rank]).T.astype(np.float64)
        intercept = np.zeros(len(coef))
        if len(weights) > rank:
            intercept = weights[rank].astype(np.float64) - coef @ self.mean
        return coef, intercept


def make_eigenbasis(
    X: NDArray[np.floating],
    *,
    fit_intercept: bool,
    sample_weight: NDArray[np.float64] | None = None,
) -> Eigenbasis:
    """Compute the eigenbasis of rows."""
    n_samples, n_features = X.shape
    mean = np.zeros(n_features, X.dtype)
    if fit_intercept:
        mean = X.mean(0, dtype=np.float64).astype(X.dtype)
        if sample_weight is not None:
            mean = np.average(X, axis=0, weights=sample_weight).astype(X.dtype)
        X = X - mean
    if n_samples >= n_features:
        basis = _eigenvectors(X.T @ X)
    elif X.dtype == np.float32:
        basis = _span_of_few(X.astype(np.float64)).astype(np.float32)
    else:
        # An orthonormal basis of the rows first, which loses no digits at any scale.
        span, triangle = scipy.linalg.qr(X.T, mode="economic", check_finite=False)
        basis = span @ _eigenvectors(triangle @ triangle.T)
    rows = X @ basis
    penalty = np.ones(rows.shape[1], X.dtype)
    if fit_intercept:
        rows = np.hstack([rows, np.ones((n_samples, 1), X.dtype)])
        penalty = np.append(penalty, X.dtype.type(0))
    return Eigenbasis(np.ascontiguousarray(rows), penalty, basis, mean)


def _span_of_few(X: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the right singular vectors of few rows, from their products.

    Squaring halves the digits, but float64 retains those of float32 rows, in a fifth of
    the time of a QR decomposition.
    """
    vectors = _eigenvectors(X @ X.T)
    span = X.T @ vectors
    lengths = np.linalg.norm(span, axis=0)
    seen = lengths > FLOAT32_DIGITS * lengths.max(initial=0)
    if not seen.any():
        return np.eye(X.shape[1])[:, : len(X)]
    return span[:, seen] / lengths[seen]


def _eigenvectors(gram: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return eigenvectors as columns, orthonormal even for an invalid matrix."""
    scale = np.abs(gram).max()
    if not (np.isfinite(scale) and scale > 0):
        return np.eye(len(gram), dtype=gram.dtype)
    _, vectors = scipy.linalg.eigh(
        gram / scale, overwrite_a=True, check_finite=False, driver="evd"
    )
    return vectors
