"""A map of rows in two dimensions, and the points inside a polygon."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA

#: Rows that the principal components are computed from.
_FOR_COMPONENTS = 5_000


class Projection:
    """The first two principal components of a sample of rows."""

    def __init__(
        self, X: NDArray[np.floating], rows: NDArray[np.intp], random_state: int
    ) -> None:
        self.n_rows = len(rows)
        self._axes = np.zeros((X.shape[1], 2), dtype=X.dtype)
        self._origin = np.zeros(2, dtype=X.dtype)
        if len(rows) < 3:
            return
        if len(rows) > _FOR_COMPONENTS:
            rng = np.random.default_rng(random_state)
            rows = np.sort(rng.choice(rows, _FOR_COMPONENTS, replace=False))
        pca = PCA(2, random_state=random_state).fit(X[rows])
        self._axes = pca.components_.T.astype(X.dtype)
        self._origin = pca.mean_.astype(X.dtype) @ self._axes

    def of(self, X: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the places of rows on the map: one product, and no copy."""
        with np.errstate(invalid="ignore"):  # rows of NaN
            return X @ self._axes - self._origin


def inside(points: NDArray[np.floating], polygon: ArrayLike) -> NDArray[np.bool_]:
    """Tell which points lie inside a polygon, by the parity of edges to their right."""
    corners: NDArray[Any] = np.asarray(polygon, dtype=np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError(
            f"polygon must be three corners or more, (n, 2); got shape {corners.shape}."
        )
    if not np.isfinite(corners).all():
        raise ValueError("polygon holds NaN or infinite values.")
    low, high = corners.min(axis=0), corners.max(axis=0)
    near = np.flatnonzero(((points >= low) & (points <= high)).all(axis=1))
    x, y = points[near].T.astype(np.float64)
    odd = np.zeros(len(near), dtype=bool)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y1 != y2:
            crosses = (y1 > y) != (y2 > y)
            odd ^= crosses & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    found = np.zeros(len(points), dtype=bool)
    found[near] = odd
    return found
