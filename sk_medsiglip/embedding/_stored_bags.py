"""Bags that stay in the store until they are indexed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sk_medsiglip.cache import BagPacking
from sk_medsiglip.embedding._model_rows import StoredRows
from sk_medsiglip.exceptions import CacheError

# Number of bags that are unpacked together, few enough for the cache of a CPU.
_PIECE = 16


@dataclass(frozen=True)
class BagForm:
    """The conversion of packed cells, and optionally rows, to bags."""

    packing: BagPacking
    with_row: bool
    normalize: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Number of instances in a bag, and width of an instance."""
        return self.packing.n_instances + self.with_row, self.packing.width

    def write(
        self,
        bags: NDArray[np.float32],
        words: NDArray[np.float32],
        rows: NDArray[np.float32],
        readable: NDArray[np.bool_],
    ) -> None:
        """Unpack into ``bags``; those of unreadable images become NaN."""
        bags[~readable] = np.nan
        which = slice(None) if readable.all() else readable  # a slice copies nothing
        bags[which, : self.packing.n_instances] = self.packing.unpack(words[which])
        if self.with_row:
            bags[which, -1] = rows[which]
        if self.normalize:
            bags /= np.linalg.norm(bags, axis=2, keepdims=True)


@dataclass(frozen=True, eq=False, repr=False)
class StoredBags:
    """A lazy array of bags: an index selects, ``numpy.asarray`` reads.

    It behaves like an array of shape (n_samples, n_instances, width). A slice, an array
    of integers or a boolean mask returns another lazy array, which holds 32 bytes per
    bag and the location of the store; a single integer returns the bag. Any other use
    in NumPy reads all bags.
    """

    cells: StoredRows
    rows: StoredRows
    form: BagForm
    fingerprints: NDArray[np.void]

    dtype = np.dtype(np.float32)
    ndim = 3

    @classmethod
    def of(
        cls,
        cells: StoredRows,
        rows: StoredRows,
        form: BagForm,
        fingerprints: Sequence[bytes | None],
    ) -> StoredBags:
        """Return the bags of images; a fingerprint of None means unreadable."""
        joined = b"".join(one or _UNREADABLE for one in fingerprints)
        return cls(cells, rows, form, np.frombuffer(joined, _FINGERPRINT))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of bags, number of instances in a bag, and width of an instance."""
        return len(self), *self.form.shape

    def __len__(self) -> int:
        return len(self.fingerprints)

    def __getitem__(self, key: Any) -> StoredBags | NDArray[np.float32]:
        first, *rest = key if isinstance(key, tuple) and key else (key,)
        if first is None or first is Ellipsis:
            return np.asarray(self)[key]
        picked = self.fingerprints[first]
        if isinstance(picked, np.void):
            bag = np.asarray(replace(self, fingerprints=self.fingerprints[[first]]))[0]
            return bag[tuple(rest)]
        if picked.ndim != 1:
            raise IndexError(
                f"bags must be indexed by a 1-D array, got one with {picked.ndim} axes."
            )
        bags = replace(self, fingerprints=picked)
        if all(one is Ellipsis or _is_whole(one) for one in rest):
            return bags
        return np.asarray(bags)[(slice(None), *rest)]

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        if copy is False:
            raise ValueError(
                "Bags in a store cannot be converted to an array without a copy."
            )
        bags = np.empty(self.shape, np.float32)
        for start in range(0, len(self), _PIECE):
            part = slice(start, start + _PIECE)
            self._read(self.fingerprints[part], bags[part], start)
        return bags if dtype is None else bags.astype(dtype, copy=False)

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self.shape))
        return f"<bags of shape ({shape}) in {self.cells.cache.location}>"

    def _read(
        self, picked: NDArray[np.void], bags: NDArray[np.float32], start: int
    ) -> None:
        """Fill ``bags``, whose first bag has index ``start`` in this array."""
        asked: list[bytes] = [one.tobytes() for one in picked]
        words = np.empty((len(asked), self.form.packing.n_words), np.float32)
        rows = np.empty((len(asked), self.form.packing.width), np.float32)
        found = self.cells.get(asked, words)
        if self.form.with_row:
            found &= self.rows.get(asked, rows)
        readable = np.array([one != _UNREADABLE for one in asked], dtype=bool)
        missing = np.flatnonzero(readable & ~found)
        if missing.size:
            raise CacheError(
                f"bag {start + missing[0]} is missing or damaged in "
                f"{self.cells.cache.location}. Call transform again, which computes "
                "missing bags."
            )
        self.form.write(bags, words, rows, readable)


def _is_whole(key: Any) -> bool:
    return isinstance(key, slice) and key == slice(None)


_FINGERPRINT = np.dtype("V32")
_UNREADABLE = bytes(_FINGERPRINT.itemsize)
