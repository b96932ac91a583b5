"""Vectors in memory, or in a file, that grow and shrink without being copied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.retrieval._top_rows import top_rows

__all__ = ["RowBlocks"]

#: Memory is taken by as much as there is already, and at most by so much at a time.
_BLOCK_BYTES = 256 * 2**20

#: Rows that are read at a time where all are.
_ROWS_AT_ONCE = 8192


@dataclass(eq=False)
class _Block:
    """Rows next to each other: ``rows[:used]``, or of a mapped file those ``alive``."""

    rows: NDArray[np.floating]
    used: int
    alive: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.used if self.alive is None else len(self.alive)

    @property
    def room(self) -> int:
        """Rows that can still be added."""
        return len(self.rows) - self.used if self.rows.flags.writeable else 0

    def take(self, places: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        if self.alive is not None:
            places = self.alive[places]
        elif isinstance(places, slice):
            places = slice(*places.indices(self.used))
        return np.asarray(self.rows[places], np.float32)


class RowBlocks:
    """A matrix in blocks of rows, kept as float32 or float16.

    Adding copies what is added and nothing else. Taking rows out moves the rest of
    their blocks together; of a mapped file, which stays as it is, they are passed over.

    Parameters
    ----------
    width : int
        Columns.
    dtype : {"float32", "float16"}
        What is kept.
    """

    def __init__(self, width: int, dtype: str) -> None:
        self.width = width
        self.dtype = np.dtype(dtype)
        self._blocks: list[_Block] = []

    @classmethod
    def around(cls, rows: NDArray[np.floating]) -> RowBlocks:
        """Return blocks that show an array, such as a mapped file, as it is."""
        blocks = cls(rows.shape[1], rows.dtype.name)
        blocks._blocks = [_Block(rows, len(rows))]
        return blocks

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    def append(self, vectors: NDArray[np.float32]) -> None:
        """Add rows at the end."""
        most = max(1, _BLOCK_BYTES // (self.width * self.dtype.itemsize))
        start = 0
        while start < len(vectors):
            last = self._blocks[-1] if self._blocks else None
            if last is None or not last.room:
                n = min(most, max(len(self), len(vectors) - start))
                last = _Block(np.empty((n, self.width), self.dtype), 0)
                self._blocks.append(last)
            n = min(len(last.rows) - last.used, len(vectors) - start)
            last.rows[last.used : last.used + n] = vectors[start : start + n]
            last.used += n
            start += n

    def keep(self, wanted: NDArray[np.bool_]) -> None:
        """Drop the rows that are not wanted."""
        start = 0
        kept: list[_Block] = []
        for block in self._blocks:
            chosen = wanted[start : start + len(block)]
            start += len(block)
            if not chosen.all():
                places = np.flatnonzero(chosen)
                if block.rows.flags.writeable:
                    _move_together(block, places)
                else:
                    alive = places if block.alive is None else block.alive[places]
                    block = _Block(block.rows, block.used, alive)
            if not (kept and _joined(kept[-1], block)) and len(block):
                kept.append(block)
        self._blocks = kept

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows by position."""
        taken = np.empty((len(positions), self.width), np.float32)
        start = 0
        for block in self._blocks:
            here = (positions >= start) & (positions < start + len(block))
            if here.any():
                taken[here] = block.take(positions[here] - start)
            start += len(block)
        return taken

    def scan(self) -> Iterator[NDArray[np.float32]]:
        """Yield all rows in order, some thousand at a time."""
        for block in self._blocks:
            for start in range(0, len(block), _ROWS_AT_ONCE):
                yield block.take(slice(start, start + _ROWS_AT_ONCE))

    def top(
        self,
        queries: NDArray[np.float32],
        n: int,
        *,
        mask: NDArray[np.bool_] | None = None,
        device: str = "cpu",
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores and positions of the ``n`` rows nearest to each query.

        Parameters
        ----------
        queries : ndarray of shape (n_queries, width), float32
            Of length 1.
        n : int
            Fewer come back where there are fewer.
        mask : ndarray of shape (len(self),), bool, or None
            Rows that may be found.
        device : str, default="cpu"
            Where the products are computed.

        Returns
        -------
        scores : ndarray of shape (n_queries, k), float32
            Decreasing; of equal ones the first row comes first.
        positions : ndarray of shape (n_queries, k), int64
        """
        scores = np.empty((len(queries), 0), np.float32)
        positions = np.empty((len(queries), 0), np.int64)
        start = 0
        for block in self._blocks:
            asked = _asked(block, None if mask is None else mask[start:])
            if asked is None or len(asked):
                found = top_rows(
                    queries, block.rows[: block.used], n, mask=asked, device=device
                )
                places = found[1]
                if block.alive is not None:
                    places = np.searchsorted(block.alive, places)
                scores = np.hstack([scores, found[0]])
                positions = np.hstack([positions, places + start])
                best = np.argsort(-scores, axis=1, kind="stable")[:, :n]
                scores = np.take_along_axis(scores, best, axis=1)
                positions = np.take_along_axis(positions, best, axis=1)
            start += len(block)
        return scores, positions

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is kept free, and what a file holds is read."""
        blocks = [
            _Block(
                np.array(b.rows[: b.used] if b.alive is None else b.rows[b.alive]),
                len(b),
            )
            for b in self._blocks
        ]
        return {"width": self.width, "dtype": self.dtype, "_blocks": blocks}


def _move_together(block: _Block, places: NDArray[np.intp]) -> None:
    """Keep the rows at some places, in their order."""
    for start in range(0, len(places), _ROWS_AT_ONCE):
        some = places[start : start + _ROWS_AT_ONCE]
        block.rows[start : start + len(some)] = block.rows[some]
    block.used = len(places)


def _joined(block: _Block, following: _Block) -> bool:
    """Move the rows of a block into the one before it, if they fit."""
    fits = block.room >= len(following) and following.rows.flags.writeable
    if fits:
        n = len(following)
        block.rows[block.used : block.used + n] = following.rows[:n]
        block.used += n
    return fits


def _asked(block: _Block, mask: NDArray[np.bool_] | None) -> NDArray[np.int64] | None:
    """Return the places in a block that may be found, None for all."""
    if mask is None:
        return block.alive
    places = np.flatnonzero(mask[: len(block)])
    return places if block.alive is None else block.alive[places]
