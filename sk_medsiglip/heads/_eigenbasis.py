"""Coordinates in which penalised problems on one X are small and nearly diagonal.

With the columns of ``B`` orthonormal and spanning the rows of the centred ``X``, every
minimiser of ``sum_i c_i loss(x_i v + b) + 1/2 |v|^2`` is ``v = B w``, and ``|v| = |w|``
(what is orthogonal to all rows changes no logit and only adds to the penalty). So the
problem in ``w``, on ``Z = (X - mean) B``, is the same problem: a change of coordinates.
Centring is one too, as the free intercept takes it up. That ``B`` and the mean come
from all rows therefore tells a fold nothing of the rows that it leaves out.

``B`` holds the eigenvectors of the Gram matrix, so the columns of ``Z`` are orthogonal,
and there are no more of them than samples: few-shot problems cost n, not d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

#: Directions shorter than this share of the longest are rounding in float32.
FLOAT32_DIGITS = 1e-7


@dataclass(frozen=True, eq=False)
class Eigenbasis:
    """Rows in their own coordinates, and the way back."""

    rows: NDArray[np.floating]
    penalty: NDArray[np.floating]
    basis: NDArray[np.floating]
    mean: NDArray[np.floating]
    energy = None  # of the columns of ``rows``: the solver finds it
    parts_at_once = 1  # of those in which the solver takes the problems

    @property
    def width(self) -> int:
        """Number of columns of ``rows``."""
        return int(self.rows.shape[1])

    def wrap(self, loss: Any) -> Any:
        """Return the loss of the logits of rows: the loss itself."""
        return loss

    def decision(self, logits: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the logits of samples from those of rows: the same."""
        return logits

    def coefficients(
        self, weights: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return coefficients of X and intercepts."""
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
    """Find the coordinates for some rows."""
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
        # An orthonormal basis of the rows first, without loss whatever their scale.
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

    Squaring halves the digits: float64 keeps those that rows in float32 ever had, and
    takes a fifth of the time of a QR decomposition.
    """
    vectors = _eigenvectors(X @ X.T)
    span = X.T @ vectors
    lengths = np.linalg.norm(span, axis=0)
    seen = lengths > FLOAT32_DIGITS * lengths.max(initial=0)
    if not seen.any():
        return np.eye(X.shape[1])[:, : len(X)]
    return span[:, seen] / lengths[seen]


def _eigenvectors(gram: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return eigenvectors as columns; they are orthonormal whatever they solve."""
    scale = np.abs(gram).max()
    if not (np.isfinite(scale) and scale > 0):
        return np.eye(len(gram), dtype=gram.dtype)
    _, vectors = scipy.linalg.eigh(
        gram / scale, overwrite_a=True, check_finite=False, driver="evd"
    )
    return vectors
