"""The rows with the highest inner products, exactly, in bounded memory.

Blocks of rows are multiplied in float32, and of every block only those are kept that
could be among the best: whose score reaches that of the ``n``-th best so far less what
rounding can do. What is left at the end, little more than ``n`` rows a query, is
multiplied again in float64. So the result is that of float64, whatever the block, the
library or the device, and equal rows have equal scores.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.retrieval._products import (
    NumpyProducts,
    Products,
    TorchProducts,
    Where,
)

__all__ = ["top_rows"]

#: Rows of which only the highest score is looked at first.
_GROUP = 32
#: Most queries at a time.
_QUERIES = 2048
#: Scores of a block that are aimed at, 2 MB, and the most, 16 MB.
_SCORES, _MOST_SCORES = 2**19, 2**22
#: Bounds of the rows of a block.
_FEWEST_ROWS, _MOST_ROWS = 4096, 2**16
#: Multiplications that numpy does in the time in which torch is imported, and how many
#: it does in the time in which it converts one value from float16.
_SMALL_WORK, _HALF_WORK = 2e10, 100
#: Values that are multiplied again at a time, in float64: 512 KB, which
_AGAIN_VALUES = 2**16

_LOWEST = np.finfo(np.float32).min


def top_rows(
    queries: NDArray[np.float32],
    rows: NDArray[np.floating],
    n: int,
    *,
    mask: NDArray[Any] | None = None,
    device: str = "cpu",
    block_rows: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find the ``n`` rows of the highest inner product with each query.

    Parameters
    ----------
    queries : ndarray of shape (n_queries, d), float32
        Of length 1 each.
    rows : ndarray of shape (n_rows, d), float32 or float16
        Of length 1 each; may be memory-mapped. Nothing is normalised here.
    n : int
        How many to find; all allowed rows if there are fewer.
    mask : ndarray, default=None
        Which rows are allowed: bool of shape (n_rows,), or their positions, int64 in
        increasing order. None allows all.
    device : str, default="cpu"
        Where to compute, as torch names devices; "auto" is "cuda" where there is one.
        Rows cross to a GPU at every call.
    block_rows : int, default=None
        Rows at a time. None chooses by the number of queries.

    Returns
    -------
    scores : ndarray of shape (n_queries, n), float32
        The highest first: inner products in float64, rounded.
    positions : ndarray of shape (n_queries, n), int64
        Of the rows. Among equal scores the lowest comes first.

    Raises
    ------
    TypeError
        If an array is of another numeric type.
    ValueError
        If shapes do not fit, a position is not one of a row, positions are not in
        order, ``n`` or ``block_rows`` is below 1, or the device cannot be used.

    Notes
    -----
    Memory beyond the arguments and the result: on a CPU at most 16 MB of scores, 5 MB
    of rows and about 200 bytes for each of ``n_queries * n``, of up to 2,048 queries at
    a time. A larger ``block_rows`` takes more.

    Rows whose scores float32 cannot tell from a query's ``n``-th best, within 1.5e-4 of
    it at a width of 1152, are multiplied again one by one, a million in two seconds.
    Equal queries are searched for once.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_medsiglip.retrieval._top_rows import top_rows
    >>> rows = np.array([[1, 0], [0, 1], [0.6, 0.8], [0, 1]], dtype=np.float32)
    >>> scores, positions = top_rows(rows[1:3], rows, 3)
    >>> positions
    array([[1, 3, 2],
           [2, 1, 3]])
    >>> scores
    array([[1. , 1. , 0.8],
           [1. , 0.8, 0.8]], dtype=float32)
    """
    _check(queries, rows, n, block_rows)
    allowed = None if mask is None else _check_mask(mask, len(rows))
    n_allowed = len(rows) if allowed is None else _count(allowed)
    n = min(n, n_allowed)
    scores = np.empty((len(queries), n), np.float32)
    positions = np.empty((len(queries), n), np.int64)
    if not scores.size:
        return scores, positions
    for start in range(0, len(queries), _QUERIES):
        some, which = _different(queries[start : start + _QUERIES])
        size = _block_size(len(some), n_allowed, block_rows)
        group = _GROUP if size >= 2 * _GROUP * n else 1
        size = -(-size // group) * group
        products = _products(some, rows, size, group, n_allowed, device)
        found = _search(products, some, rows, n, allowed, size, group)
        stop = start + len(which)
        scores[start:stop], positions[start:stop] = (part[which] for part in found)
    return scores, positions


def _check(queries: Any, rows: Any, n: int, block_rows: int | None) -> None:
    for name, array in (("queries", queries), ("rows", rows)):
        if not isinstance(array, np.ndarray) or array.ndim != 2:
            got = getattr(array, "shape", type(array).__name__)
            raise ValueError(f"{name} must be an array of two dimensions, got {got}.")
    if queries.dtype != np.float32:
        raise TypeError(
            f"queries must be float32, got {queries.dtype}; "
            "use queries.astype(numpy.float32)."
        )
    if rows.dtype not in (np.float32, np.float16):
        raise TypeError(
            f"rows must be float32 or float16, got {rows.dtype}; "
            "use rows.astype(numpy.float32)."
        )
    if queries.shape[1] != rows.shape[1]:
        raise ValueError(
            f"queries have {queries.shape[1]} values each and rows {rows.shape[1]}: "
            "they must come from the same model."
        )
    for name, number in (("n", n), ("block_rows", block_rows)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}.")


def _check_mask(mask: Any, n_rows: int) -> NDArray[Any]:
    """Return the allowed rows in the form in which they are fewer to go through."""
    mask = np.asarray(mask)
    if mask.ndim != 1 or mask.dtype.kind not in "biu":
        raise ValueError(
            "mask must be one bool a row, or positions of rows, got "
            f"{mask.dtype} of shape {mask.shape}."
        )
    if mask.dtype == bool:
        if len(mask) != n_rows:
            raise ValueError(f"mask has {len(mask)} entries for {n_rows} rows.")
        dense, positions = mask, np.flatnonzero(mask)
    else:
        positions = mask.astype(np.int64)
        if np.any(np.diff(positions) <= 0):
            raise ValueError("positions in mask must increase, without repeats.")
        if len(positions) and not (0 <= positions[0] and positions[-1] < n_rows):
            raise ValueError(
                f"positions in mask must be from 0 to {n_rows - 1}, got "
                f"{positions[0]} to {positions[-1]}."
            )
        dense = np.zeros(n_rows, bool)
        dense[positions] = True
    # Gathering rows costs about as much as the product of those left out.
    return dense if 2 * len(positions) > n_rows else positions


def _count(allowed: NDArray[Any]) -> int:
    return int(np.count_nonzero(allowed)) if allowed.dtype == bool else len(allowed)


def _different(
    queries: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return the different queries, and of each query which of them it is.

    A collection that is searched for itself may hold thousands of one picture, all
    black, say; each would meet thousands of equal scores.
    """
    numbers: dict[bytes, int] = {}
    which = [numbers.setdefault(query.tobytes(), len(numbers)) for query in queries]
    _, first = np.unique(which, return_index=True)
    return np.ascontiguousarray(queries[first]), np.array(which)


def _block_size(n_queries: int, n_rows: int, block_rows: int | None) -> int:
    if block_rows is None:
        aimed = np.clip(_SCORES // n_queries, _FEWEST_ROWS, _MOST_ROWS)
        block_rows = int(min(aimed, _MOST_SCORES // n_queries))
    return min(block_rows, n_rows)


def _products(
    queries: NDArray[np.float32],
    rows: NDArray[np.floating],
    size: int,
    group: int,
    n_allowed: int,
    device: str,
) -> Products:
    """Return who multiplies."""
    cost = len(queries) + (_HALF_WORK if rows.dtype == np.float16 else 0)
    small = n_allowed * rows.shape[1] * cost < _SMALL_WORK
    if device in ("auto", "cpu") and small and "torch" not in sys.modules:
        return NumpyProducts(queries, rows, size, group)
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"device={device!r} cannot be used: {str(error).splitlines()[0]} Use 'cpu'."
        ) from error
    return TorchProducts(queries, rows, size, group, device)


def _search(
    products: Products,
    queries: NDArray[np.float32],
    rows: NDArray[np.floating],
    n: int,
    allowed: NDArray[Any] | None,
    size: int,
    group: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    margin = 2 * products.error * np.linalg.norm(queries, axis=1)
    found = _Candidates(queries, rows, n, margin.astype(np.float32))
    for where, positions, hidden in _blocks(len(rows), allowed, size):
        products.multiply(where, len(positions))
        if hidden is not None:
            products.hide(hidden)
        peaks = products.peaks()
        groups, of = found.reaching(peaks)
        if not len(groups):
            continue
        values = products.values(groups, of)
        i, j = np.nonzero(values >= found.floor[of, np.newaxis])
        found.add(of[i], positions[groups[i] * group + j], values[i, j])
    return found.best()


def _blocks(
    n_rows: int, allowed: NDArray[Any] | None, size: int
) -> Iterator[tuple[Where, NDArray[np.int64], NDArray[np.bool_] | None]]:
    """Yield where rows are, their positions, and which of them are not allowed."""
    if allowed is not None and allowed.dtype != bool:
        for start in range(0, len(allowed), size):
            some = allowed[start : start + size]
            yield some, some, None
        return
    for start in range(0, n_rows, size):
        stop = min(start + size, n_rows)
        hidden = None
        if allowed is not None:
            hidden = ~allowed[start:stop]
            if hidden.all():
                continue
            if not hidden.any():
                hidden = None
        yield slice(start, stop), np.arange(start, stop), hidden


class _Candidates:
    """Rows that may be among the best of some queries.

    ``floor`` is what a score must reach, one a query; it rises as rows are found.
    """

    def __init__(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.floating],
        n: int,
        margin: NDArray[np.float32],
    ) -> None:
        self._queries = queries
        self._rows = rows
        self._n = n
        self._margin = margin
        self.floor = np.full(len(queries), _LOWEST, np.float32)
        self._query = np.empty(0, np.intp)
        self._position = np.empty(0, np.int64)
        self._score = np.empty(0, np.float32)
        self._new: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
        self._n_new = 0

    def reaching(
        self, peaks: NDArray[np.float32]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return which groups have a row that may be among the best, of which query."""
        hit = peaks >= self.floor
        wanted = self._n * len(self.floor)
        if len(peaks) >= self._n and np.count_nonzero(hit) > 2 * wanted:
            # The first blocks, or rows that get better and better: n groups have a row
            # at least as good as the n-th of their peaks.
            nth = len(peaks) - self._n
            self._raise_floor(np.partition(peaks, nth, axis=0)[nth])
            hit = peaks >= self.floor
        at = np.flatnonzero(hit)
        return np.divmod(at, peaks.shape[1])

    def add(
        self,
        query: NDArray[np.intp],
        position: NDArray[np.int64],
        score: NDArray[np.float32],
    ) -> None:
        """Keep rows with their scores."""
        self._new.append((query, position, score))
        self._n_new += len(query)
        if self._n_new > max(len(self._query), self._n * len(self.floor), 2**12):
            self._tighten()

    def best(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the best, their scores rounded from float64."""
        self._tighten()
        self._multiply_again()
        shape = len(self.floor), self._n
        return self._score.reshape(shape), self._position.reshape(shape)

    def _raise_floor(self, nth_best: NDArray[np.float32]) -> None:
        np.maximum(self.floor, nth_best - self._margin, out=self.floor)

    def _tighten(self) -> None:
        """Drop rows that cannot be among the best any more."""
        parts = [(self._query, self._position, self._score), *self._new]
        query, position, score = map(np.concatenate, zip(*parts, strict=True))
        self._new, self._n_new = [], 0
        order = np.lexsort((-score, query))
        counts = np.bincount(query, minlength=len(self.floor))
        enough = counts >= self._n
        nth_best = np.full(len(self.floor), _LOWEST, np.float32)
        nth = np.cumsum(counts) - counts + self._n - 1
        nth_best[enough] = score[order[nth[enough]]]
        self._raise_floor(nth_best)
        keep = score >= self.floor[query]
        self._query, self._position = query[keep], position[keep]
        self._score = score[keep]
        if len(self._query) > 4 * max(self._n * len(self.floor), 2**12):
            self._multiply_again()

    def _multiply_again(self) -> None:
        """Keep the best by their scores in float64, as many as are wanted."""
        step = max(1, _AGAIN_VALUES // max(1, self._rows.shape[1]))
        for start in range(0, len(self._query), step):
            some = slice(start, start + step)
            self._score[some] = np.vecdot(
                self._queries[self._query[some]].astype(np.float64),
                self._rows[self._position[some]].astype(np.float64),
            )
        order = np.lexsort((self._position, -self._score, self._query))
        query = self._query[order]
        starts = np.searchsorted(query, np.arange(len(self.floor)))
        kept = order[np.arange(len(query)) - starts[query] < self._n]
        self._query, self._position = self._query[kept], self._position[kept]
        self._score = self._score[kept]
