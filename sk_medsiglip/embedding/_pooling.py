"""The rows of the slices of a study to one row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: A name, or a function from rows (n_slices, embedding_dim) to one row.
Pooling: TypeAlias = str | Callable[[NDArray[np.float32]], Any]


def _mean(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    # float64, so that the order of summation does not affect the result
    return rows.mean(axis=0, dtype=np.float64)


def _max(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows.max(axis=0)


#: Each name with its parts, whose columns are concatenated.
NAMED_POOLINGS: dict[str, dict[str, Callable[[NDArray[Any]], NDArray[Any]]]] = {
    "mean": {"mean": _mean},
    "max": {"max": _max},
    "mean+max": {"mean": _mean, "max": _max},
}


def pool(pooling: Pooling, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one float32 row."""
    if isinstance(pooling, str):
        parts = [part(rows) for part in NAMED_POOLINGS[pooling].values()]
        return np.concatenate(parts).astype(np.float32)
    pooled = np.asarray(pooling(rows))
    if pooled.ndim != 1 or pooled.dtype.kind not in "biuf":
        raise ValueError(
            "pooling must return a 1-D array of numbers for the rows of slices, of "
            f"shape {rows.shape}; it returned shape {pooled.shape} and type "
            f"{pooled.dtype}. Reduce over the first axis: axis=0."
        )
    return pooled.astype(np.float32)


def pooled_names(pooling: Pooling | None, embedding_dim: int, prefix: str) -> list[str]:
    """Return a name for every column of a pooled row, or of the row of a slice."""
    if pooling is None:
        return [f"{prefix}{i}" for i in range(embedding_dim)]
    if isinstance(pooling, str):
        parts = NAMED_POOLINGS[pooling]
        return [f"{prefix}_{part}{i}" for part in parts for i in range(embedding_dim)]
    # Only the function knows the length of its rows.
    n_columns = pool(pooling, np.zeros((1, embedding_dim), np.float32)).size
    return [f"{prefix}{i}" for i in range(n_columns)]
