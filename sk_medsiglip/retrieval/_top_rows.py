"""The rows with the highest inner products, exactly, in bounded memory.

Blocks of rows are multiplied in float32, and only those rows of a block are kept whose
score reaches that of the ``n``-th best so far less the largest error of rounding. The
rows that are left at the end, little more than ``n`` a query, are multiplied again in
float64. So the result is that of float64, whatever the block, the library or the
device, and equal rows have equal scores.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from sk_medsiglip.encoder import one_thread_in_forked_child

#: Largest number of queries at a time.
_QUERIES = 2048
#: Scores of a block: 2 MB are aimed at, and 16 MB are the most.
_SCORES, _MOST_SCORES = 2**19, 2**22
#: Rows of a block in which a first floor is looked for.
_SAMPLED = 1024
#: Bounds of the number of rows of a block.
_FEWEST_ROWS, _MOST_ROWS = 4096, 2**16
#: Values of the rows in one product, 4.7 MB: they stay in the second-level cache of two
#: cores, where converting and multiplying find them again.
_PART_VALUES = 1024 * 1152
#: Numbers of queries for which small products are faster than one large one.
_FEW_QUERIES = range(2, 64)
#: Multiplications that numpy does while torch is imported, and the number it does while
#: it converts one value from float16.
_SMALL_WORK, _HALF_WORK = 2e10, 100
#: Values that are multiplied again at a time, in float64: 512 KB.
_AGAIN_VALUES = 2**16

_LOWEST = np.finfo(np.float32).min


def top_rows(
    queries: NDArray[np.float32],
    rows: NDArray[np.floating],
    n: int,
    *,
    allowed: NDArray[np.int64] | None = None,
    device: str = "cpu",
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return scores and positions of the ``n`` best rows of each query, best first.

    Queries and rows are of unit length; rows are contiguous, float32 or float16, and
    may be memory-mapped. ``allowed`` are ascending positions. Of equal scores the
    lowest position comes first, and fewer rows come back where there are fewer.
    """
    n_allowed = len(rows) if allowed is None else len(allowed)
    n = min(n, n_allowed)
    scores = np.empty((len(queries), n), np.float32)
    positions = np.empty((len(queries), n), np.int64)
    if not scores.size:
        return scores, positions
    torch, device = _choose_torch(len(queries), n_allowed, rows, device)
    hidden = None
    if allowed is not None and 2 * n_allowed > len(rows):
        # Gathering rows costs about as much as the product of those left out.
        hidden = np.ones(len(rows), bool)
        hidden[allowed] = False
        allowed = None
    for start in range(0, len(queries), _QUERIES):
        # A collection that is searched for itself may hold thousands of copies of one
        # picture; each would meet thousands of equal scores.
        first = first_copies(queries[start : start + _QUERIES])
        different = np.flatnonzero(first == np.arange(len(first)))
        which = np.searchsorted(different, first)
        some = np.ascontiguousarray(queries[start + different])
        size = _block_rows(len(some), n_allowed)
        products = _Products(some, rows, size, torch, device)
        found = _search(products, some, rows, n, allowed, hidden)
        stop = start + len(which)
        scores[start:stop], positions[start:stop] = (part[which] for part in found)
    return scores, positions


def _choose_torch(
    n_queries: int, n_allowed: int, rows: NDArray[np.floating], device: str
) -> tuple[Any, str]:
    """Return torch and its device; None for a search that is over before its import.

    Torch takes twice as many rows a second as numpy's OpenBLAS where queries are few,
    and converts float16 six times as fast.
    """
    cost = n_queries + (_HALF_WORK if rows.dtype == np.float16 else 0)
    is_small = n_allowed * rows.shape[1] * cost < _SMALL_WORK
    if device in ("auto", "cpu") and is_small and "torch" not in sys.modules:
        return None, "cpu"
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"device={device!r} cannot be used: {str(error).splitlines()[0]} Use 'cpu'."
        ) from error
    return torch, device


def first_copies(vectors: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return for each vector the position of the first that is equal to the bit.

    Zero vectors stay by themselves.
    """
    seen: dict[bytes, int] = {}
    first = np.arange(len(vectors))
    for at, vector in enumerate(vectors):
        if vector.any():
            digest = blake3(vector.tobytes()).digest()
            first[at] = seen.setdefault(digest, at)
    return first


def _block_rows(n_queries: int, n_allowed: int) -> int:
    """Return the number of rows of a block."""
    aimed = np.clip(_SCORES // n_queries, _FEWEST_ROWS, _MOST_ROWS)
    return int(min(aimed, _MOST_SCORES // n_queries, n_allowed))


def _search(
    products: _Products,
    queries: NDArray[np.float32],
    rows: NDArray[np.floating],
    n: int,
    allowed: NDArray[np.int64] | None,
    hidden: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the best rows of different queries."""
    margin = 2 * products.error * np.linalg.norm(queries, axis=1)
    found = _Candidates(queries, rows, n, margin.astype(np.float32))
    n_rows = len(rows) if allowed is None else len(allowed)
    for start in range(0, n_rows, products.size):
        stop = min(start + products.size, n_rows)
        where = slice(start, stop) if allowed is None else allowed[start:stop]
        if hidden is not None and hidden[where].all():
            continue
        products.multiply(where, stop - start)
        if hidden is not None:
            products.hide(np.flatnonzero(hidden[where]))
        hits = products.reaching(found.floor)
        if len(hits) > 2 * n * len(queries) and stop - start >= n:
            # The first blocks, or rows that get better and better.
            found.raise_floor(products.reached_by(n))
            hits = products.reaching(found.floor)
        place, query = np.divmod(hits, len(queries))
        place = start + place if allowed is None else allowed[start + place]
        found.add(query, place, products.scores(hits))
    return found.best()


class _Products:
    """Inner products of queries with one block of rows at a time, by numpy or torch.

    They stay on the device; callers see which of them reach a floor, and the scores of
    these. Scores are numbered as they lie, query by query within a row.
    """

    def __init__(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.floating],
        size: int,
        torch: Any,
        device: str,
    ) -> None:
        self.size = size
        width = rows.shape[1]
        # The bound of a float32 inner product's error, for vectors of unit length; four
        # more for what is rounded on the way from scores to floors.
        self.error = 1.01 * (width + 4) * 2.0**-24
        self._is_half = rows.dtype == np.float16
        part = min(size, max(64, _PART_VALUES // max(1, width)))
        self._queries: Any = queries.T
        self._rows: Any = rows
        if torch is None:
            self._library: Any = np
            self._device: dict[str, str] = {}
        else:
            if device == "cpu":
                one_thread_in_forked_child()
            if not _keeps_digits(torch, device):
                # Both factors cut to bfloat16, the coarsest there is.
                self.error += 2 * 2.0**-8
            self._library, self._device = torch, {"device": device}
            self._queries = torch.tensor(queries, device=device).T.contiguous()
            self._rows = torch.from_numpy(np.asarray(_Writable(rows)))
        in_parts = self._is_half or len(queries) in _FEW_QUERIES
        self._step = part if in_parts and device == "cpu" else size
        self._part = part
        self._products = self._empty(size, len(queries))
        self._converted = self._empty(self._step if self._is_half else 0, width)
        self._block: Any = None

    def multiply(self, where: slice | NDArray[np.int64], n: int) -> None:
        """Compute the scores of the ``n`` rows ``where``."""
        part: Any
        step = self._step if isinstance(where, slice) else min(self._step, self._part)
        for start in range(0, n, step):
            stop = min(start + step, n)
            if isinstance(where, slice):
                part = self._rows[where.start + start : where.start + stop]
            elif self._library is np:
                part = self._rows[where[start:stop]]
            else:
                places = self._library.from_numpy(where[start:stop])
                part = self._rows.index_select(0, places)  # faster than by []
            out = self._products[start:stop]
            self._library.matmul(self._on_device(part), self._queries, out=out)
        block = self._products[:n]
        # numpy finds the few scores that reach a floor faster than torch on a CPU.
        self._block = block if self._device.get("device") != "cpu" else block.numpy()

    def hide(self, places: NDArray[np.intp]) -> None:
        """Set the scores of rows of the block to minus infinity."""
        self._block[places] = -np.inf

    def reaching(self, floor: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return the numbers of the scores that reach the floors, one a query."""
        if isinstance(self._block, np.ndarray):
            return np.flatnonzero(self._block >= floor)
        on_device = self._library.tensor(floor, **self._device)
        return (self._block >= on_device).flatten().nonzero()[:, 0].cpu().numpy()

    def reached_by(self, n: int) -> NDArray[np.float32]:
        """Return a score that ``n`` rows of the block reach, for each query."""
        # The n-th best of every few rows is nearly as high, and found much sooner.
        some = self._block[:: max(1, len(self._block) // max(n, _SAMPLED))]
        if isinstance(some, np.ndarray):
            nth = len(some) - n
            return np.partition(some, nth, axis=0)[nth]
        return some.topk(n, dim=0).values[-1].cpu().numpy()

    def scores(self, numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return some scores."""
        if isinstance(self._block, np.ndarray):
            return self._block.ravel()[numbers]
        return self._block.flatten()[numbers].cpu().numpy()

    def _on_device(self, part: Any) -> Any:
        """Return rows as float32 on the device."""
        if self._library is np:
            return part.astype(np.float32, copy=False)
        part = part.to(**self._device)
        return self._converted[: len(part)].copy_(part) if self._is_half else part

    def _empty(self, *shape: int) -> Any:
        return self._library.empty(shape, dtype=self._library.float32, **self._device)


class _Writable:
    """The memory of an array; torch would warn if the array is read-only."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array  # keeps the memory
        told = array.__array_interface__
        self.__array_interface__ = {**told, "data": (told["data"][0], False)}


def _keeps_digits(torch: Any, device: str) -> bool:
    """Tell whether products are known to be computed in full float32.

    A process may have allowed TF32 or bfloat16, in an older and a newer way; having
    used both, it gets an error from asking.
    """
    kind = torch.device(device).type
    if kind not in ("cpu", "cuda"):
        return False
    try:
        if torch.get_float32_matmul_precision() != "highest":
            return False
    except RuntimeError:
        return False
    backend = torch.backends.mkldnn if kind == "cpu" else torch.backends.cuda
    products = getattr(backend, "matmul", None)
    return getattr(products, "fp32_precision", "ieee") in ("none", "ieee")


class _Candidates:
    """Rows that may be among the best of some queries.

    A score must reach ``floor``, one a query, which rises as rows are found.
    """

    def __init__(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.floating],
        n: int,
        margin: NDArray[np.float32],
    ) -> None:
        self._queries, self._rows = queries, rows
        self._n, self._margin = n, margin
        self.floor = np.full(len(queries), _LOWEST, np.float32)
        self._query = np.empty(0, np.intp)
        self._position = np.empty(0, np.int64)
        self._score = np.empty(0, np.float32)
        self._new: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
        self._n_new = 0

    def raise_floor(self, nth_best: NDArray[np.float32]) -> None:
        """Raise the floor to scores that n rows reach, less the error of rounding."""
        np.maximum(self.floor, nth_best - self._margin, out=self.floor)

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

    def _tighten(self) -> None:
        """Drop rows that cannot be among the best any more."""
        parts = [(self._query, self._position, self._score), *self._new]
        query, position, score = map(np.concatenate, zip(*parts, strict=True))
        self._new, self._n_new = [], 0
        order = np.lexsort((-score, query))
        counts = np.bincount(query, minlength=len(self.floor))
        enough = counts >= self._n
        nth = np.cumsum(counts) - counts + self._n - 1
        nth_best = np.full(len(self.floor), _LOWEST, np.float32)
        nth_best[enough] = score[order[nth[enough]]]
        self.raise_floor(nth_best)
        self._keep(score >= self.floor[query], query, position, score)
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
        self._keep(kept, self._query, self._position, self._score)

    def _keep(self, kept: NDArray[Any], query: Any, position: Any, score: Any) -> None:
        self._query, self._position = query[kept], position[kept]
        self._score = score[kept]
