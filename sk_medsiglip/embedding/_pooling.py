"""The rows of a study's slices to one row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: By name, or a function from the rows (n_slices, embedding_dim) to one row.
Pooling: TypeAlias = str | Callable[[NDArray[np.float32]], Any]


def _mean(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    # float64, so that the order of summing does not show in the result
    return rows.mean(axis=0, dtype=np.float64)


def _max(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows.max(axis=0)


#: Each name with its parts, whose columns follow one another.
NAMED_POOLINGS: dict[str, dict[str, Callable[[NDArray[Any]], NDArray[Any]]]] = {
    "mean": {"mean": _mean},
    "max": {"max": _max},
    "mean+max": {"mean": _mean, "max": _max},
}


def pool(pooling: Pooling, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one row of float32."""
    if isinstance(pooling, str):
        parts = [part(rows) for part in NAMED_POOLINGS[pooling].values()]
        return np.concatenate(parts).astype(np.float32)
    pooled = np.asarray(pooling(rows))
    if pooled.ndim != 1 or pooled.dtype.kind not in "biuf":
        raise ValueError(
            "pooling must return one row of numbers, a 1-D array, of the slices' rows "
            f"of shape {rows.shape}; it returned shape {pooled.shape} and type "
            f"{pooled.dtype}. Reduce over the first axis: axis=0."
        )
    return pooled.astype(np.float32)


def pooled_names(pooling: Pooling | None, embedding_dim: int, prefix: str) -> list[str]:
    """Return a name for every column; without pooling, of a single slice's row."""
    if pooling is None:
        return [f"{prefix}{i}" for i in range(embedding_dim)]
    if isinstance(pooling, str):
        parts = NAMED_POOLINGS[pooling]
        return [f"{prefix}_{part}{i}" for part in parts for i in range(embedding_dim)]
    # How long its rows are, only the function knows.
    n_columns = pool(pooling, np.zeros((1, embedding_dim), np.float32)).size
    return [f"{prefix}{i}" for i in range(n_columns)]
