"""The rows with the highest inner products, exactly, in bounded memory.

Blocks of rows are multiplied in float32, and only those rows of a block are kept whose
score reaches that of the ``n``-th best so far less the largest error of rounding. The
rows that are left at the end, little more than ``n`` a query, are multiplied again in
float64. So the result is that of float64, whatever the block, the library or the
device, and equal rows have equal scores.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from sk_medsiglip.encoder import one_thread_in_forked_child

#: Largest number of queries at a time.
_QUERIES = 2048
#: Number of scores in a block: usually 2 MB, at most 16 MB.
_SCORES, _MOST_SCORES = 2**19, 2**22
#: Number of rows of a block that a first floor is estimated from.
_SAMPLED = 1024
#: Bounds of the number of rows of a block.
_FEWEST_ROWS, _MOST_ROWS = 4096, 2**16
#: Number of values of the rows in one product, 4.7 MB: they stay in the second-level
#: cache of two cores between conversion and multiplication.
_PART_VALUES = 1024 * 1152
#: Numbers of queries for which small products are faster than one large one.
_FEW_QUERIES = range(2, 64)
#: Number of multiplications by numpy in the time that importing torch takes, and in the
#: time of converting one value from float16.
_SMALL_WORK, _HALF_WORK = 2e10, 100
#: Number of values that are multiplied again at a time, in float64: 512 KB.
_AGAIN_VALUES = 2**16

_LOWEST = np.finfo(np.float32).min

#: Numbers of queries, positions of rows, and their scores.
_Hits = tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.float32]]


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
    margin = _rounding(rows.shape[1], torch, device)
    hidden = None
    if allowed is not None and 2 * n_allowed > len(rows):
        # Gathering rows costs about as much as the product of those left out.
        hidden = np.ones(len(rows), bool)
        hidden[allowed] = False
        allowed = None
    for start in range(0, len(queries), _QUERIES):
        # A collection that is searched with itself may hold thousands of copies of one
        # picture, each of which has thousands of equal scores.
        first = first_copies(queries[start : start + _QUERIES])
        different, which = np.unique(first, return_inverse=True)
        some = queries[start + different]
        blocks = _blocks(some, rows, allowed, hidden, torch, device)
        found = _search(some, rows, n, blocks, margin)
        stop = start + len(which)
        scores[start:stop], positions[start:stop] = (part[which] for part in found)
    return scores, positions


def first_copies(vectors: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return for each vector the position of the first that is equal, bit by bit.

    A zero vector is not equal to any other.
    """
    seen: dict[bytes, int] = {}
    first = np.arange(len(vectors))
    for at, vector in enumerate(vectors):
        if vector.any():
            digest = blake3(vector.tobytes()).digest()
            first[at] = seen.setdefault(digest, at)
    return first


def _choose_torch(
    n_queries: int, n_allowed: int, rows: NDArray[np.floating], device: str
) -> tuple[Any, str]:
    """Return torch and its device; None if the search takes less than its import.

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
    if device == "cpu":
        one_thread_in_forked_child()
    return torch, device


def _rounding(width: int, torch: Any, device: str) -> float:
    """Return the largest rounding error of a difference of two float32 products."""
    # The bound for one product of unit vectors, and four more roundings of floors.
    error = 1.01 * (width + 4) * 2.0**-24
    if torch is not None and not _keeps_digits(torch, device):
        # Both factors may be rounded to bfloat16, the coarsest type.
        error += 2 * 2.0**-8
    return 2 * error


def _keeps_digits(torch: Any, device: str) -> bool:
    """Tell whether products are known to be computed in full float32.

    A process may have allowed TF32 or bfloat16 by an older or a newer setting; torch
    raises an error if both were used.
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


def _block_rows(n_queries: int, n_allowed: int) -> int:
    """Return the number of rows of a block."""
    aimed = np.clip(_SCORES // n_queries, _FEWEST_ROWS, _MOST_ROWS)
    return int(min(aimed, _MOST_SCORES // n_queries, n_allowed))


def _blocks(
    queries: NDArray[np.float32],
    rows: NDArray[np.floating],
    allowed: NDArray[np.int64] | None,
    hidden: NDArray[np.bool_] | None,
    torch: Any,
    device: str,
) -> Iterator[tuple[NDArray[np.int64], Any]]:
    """Yield the positions of rows, and their products in a column for each query.

    Products are an array, or a tensor on another device than the CPU. The next block
    overwrites them.
    """
    library, place = (np, {}) if torch is None else (torch, {"device": device})
    stored: Any = rows
    columns: Any = queries.T
    if torch is not None:
        stored = torch.from_numpy(np.asarray(_Writable(rows)))
        columns = torch.tensor(queries, device=device).T.contiguous()
    n_rows = len(rows) if allowed is None else len(allowed)
    size = step = _block_rows(len(queries), n_rows)
    is_copied = rows.dtype == np.float16 or device != "cpu"
    if is_copied or allowed is not None or len(queries) in _FEW_QUERIES:
        step = min(size, max(64, _PART_VALUES // max(1, rows.shape[1])))
    products, copies = (
        library.empty(shape, dtype=library.float32, **place)
        for shape in ((size, len(queries)), (step * is_copied, rows.shape[1]))
    )
    for start in range(0, n_rows, size):
        stop = min(start + size, n_rows)
        for at in range(start, stop, step):
            end = min(at + step, stop)
            if allowed is None:
                part = stored[at:end]
            elif torch is None:
                part = stored[allowed[at:end]]
            else:  # faster than by []
                part = stored.index_select(0, torch.from_numpy(allowed[at:end]))
            if is_copied:
                copies[: end - at] = part
                part = copies[: end - at]
            library.matmul(part, columns, out=products[at - start : end - start])
        block = products[: stop - start]
        if torch is not None and device == "cpu":
            # numpy finds the few scores that reach a floor faster than torch.
            block = block.numpy()
        positions = np.arange(start, stop) if allowed is None else allowed[start:stop]
        if hidden is not None:
            block[np.flatnonzero(hidden[positions])] = -np.inf
        yield positions, block


class _Writable:
    """The memory of an array, for torch, which warns of a read-only array."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array  # keeps the memory alive
        told = array.__array_interface__
        self.__array_interface__ = {**told, "data": (told["data"][0], False)}


def _search(
    queries: NDArray[np.float32],
    rows: NDArray[np.floating],
    n: int,
    blocks: Iterator[tuple[NDArray[np.int64], Any]],
    margin: float,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return scores and positions of the best rows of queries without copies."""
    # Lower bounds of the scores of the n best rows.
    floor = np.full(len(queries), _LOWEST, np.float32)
    found: list[_Hits] = []
    n_found, most = 0, 4 * max(n * len(queries), 2**12)
    for positions, block in blocks:
        hits = _reaching(block, floor)
        if len(hits) > 2 * n * len(queries) and len(positions) >= n:
            # In the first blocks, or if rows get better and better.
            np.maximum(floor, _reached_by(block, n) - margin, out=floor)
            hits = _reaching(block, floor)
        row, query = np.divmod(hits, len(queries))
        found.append((query, positions[row], _scores(block, hits)))
        n_found += len(hits)
        if n_found > most:
            found = [_best(found, queries, rows, n, floor, margin)]
            n_found = n * len(queries)
    _, positions, scores = _best(found, queries, rows, n, floor, margin)
    return scores.reshape(-1, n), positions.reshape(-1, n)


def _reaching(block: Any, floor: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the places in a flat block of the scores that reach the floors."""
    if isinstance(block, np.ndarray):
        return np.flatnonzero(block >= floor)
    on_device = block.new_tensor(floor)
    return (block >= on_device).flatten().nonzero()[:, 0].cpu().numpy()


def _reached_by(block: Any, n: int) -> NDArray[np.float32]:
    """Return a score that ``n`` rows of a block reach, for each query."""
    # The n-th best of a sample is nearly as high, and found much faster.
    some = block[:: max(1, len(block) // max(n, _SAMPLED))]
    if isinstance(some, np.ndarray):
        return np.partition(some, len(some) - n, axis=0)[len(some) - n]
    return some.topk(n, dim=0).values[-1].cpu().numpy()


def _scores(block: Any, places: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the scores at places in a flat block."""
    if isinstance(block, np.ndarray):
        return block.ravel()[places]
    return block.flatten()[places].cpu().numpy()


def _best(
    found: list[_Hits],
    queries: NDArray[np.float32],
    rows: NDArray[np.floating],
    n: int,
    floor: NDArray[np.float32],
    margin: float,
) -> _Hits:
    """Raise the floors, and return the best of the rows found, scored in float64."""
    query, position, score = map(np.concatenate, zip(*found, strict=True))
    order = np.lexsort((-score, query))
    starts = np.searchsorted(query[order], np.arange(len(queries) + 1))
    full = np.diff(starts) >= n
    nth_best = score[order[starts[:-1][full] + n - 1]]
    floor[full] = np.maximum(floor[full], nth_best - margin)
    kept = score >= floor[query]
    query, position, score = query[kept], position[kept], score[kept]
    step = max(1, _AGAIN_VALUES // max(1, rows.shape[1]))
    for start in range(0, len(query), step):
        some = slice(start, start + step)
        score[some] = np.vecdot(
            queries[query[some]].astype(np.float64),
            rows[position[some]].astype(np.float64),
        )
    order = np.lexsort((position, -score, query))
    starts = np.searchsorted(query[order], np.arange(len(queries)))
    kept = order[np.arange(len(query)) - starts[query[order]] < n]
    return query[kept], position[kept], score[kept]
