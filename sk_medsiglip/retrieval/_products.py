"""Inner products of queries with blocks of rows: numpy, or torch on any device.

What comes of a block stays where it was computed; callers see the highest score of
every few rows, and the few scores that they then ask for. torch takes twice as many
rows a second as numpy's OpenBLAS where queries are few, and converts float16 six times
as fast; numpy is there for searches that are over before torch is imported.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.encoder._fork import one_thread_in_forked_child

__all__ = ["NumpyProducts", "Products", "TorchProducts"]

#: Values of the rows in one product, 4.7 MB: stays in the second-level cache of two
#: cores, where converting and multiplying find it again.
_PART_VALUES = 1024 * 1152
#: Numbers of queries between which small products are faster than one large one.
_FEW_QUERIES = range(2, 64)

#: A slice of the rows, or positions of some.
Where = slice | NDArray[np.int64]


class Products(Protocol):
    """Scores of one block of rows at a time."""

    #: How far each score may be from the true inner product of vectors of length 1.
    error: float

    def multiply(self, where: Where, n: int) -> None:
        """Compute the scores of the ``n`` rows ``where``."""

    def hide(self, hidden: NDArray[np.bool_]) -> None:
        """Set the scores of the rows that are True to minus infinity."""

    def peaks(self) -> NDArray[np.float32]:
        """Return the highest score of each group of rows, (n_groups, n_queries)."""

    def values(
        self, groups: NDArray[np.intp], of: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Return the scores of some groups and queries, (n_pairs, group)."""


class NumpyProducts:
    """Products by numpy.

    Parameters
    ----------
    queries : ndarray of shape (n_queries, d), float32
        Compared with every block.
    rows : ndarray of shape (n_rows, d), float32 or float16
        Where blocks are taken from.
    size : int
        Most rows of a block; a multiple of ``group``.
    group : int
        Rows of one peak.
    """

    def __init__(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.floating],
        size: int,
        group: int,
    ) -> None:
        self.error = rounding_error(queries.shape[1])
        self._queries = queries.T
        self._rows = rows
        self._group = group
        self._scores = np.empty((size, len(queries)), np.float32)
        self._used = 0

    def multiply(self, where: Where, n: int) -> None:
        block = np.asarray(self._rows[where], dtype=np.float32)
        np.matmul(block, self._queries, out=self._scores[:n])
        self._used = -(-n // self._group) * self._group
        self._scores[n : self._used] = -np.inf

    def hide(self, hidden: NDArray[np.bool_]) -> None:
        self._scores[: len(hidden)][hidden] = -np.inf

    def peaks(self) -> NDArray[np.float32]:
        return self._grouped().max(axis=1)

    def values(
        self, groups: NDArray[np.intp], of: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        return self._grouped()[groups, :, of]

    def _grouped(self) -> NDArray[np.float32]:
        used = self._scores[: self._used]
        return used.reshape(-1, self._group, used.shape[1])


class TorchProducts:
    """Products by torch.

    Parameters
    ----------
    queries, rows, size, group
        As for :class:`NumpyProducts`.
    device : str
        Where to compute; rows go there block by block.
    """

    def __init__(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.floating],
        size: int,
        group: int,
        device: str,
    ) -> None:
        import torch

        if device == "cpu":
            one_thread_in_forked_child()
        self._torch = torch
        self._device = torch.device(device)
        self._rows = rows
        self._shared = _shared(torch, rows) if rows.flags.c_contiguous else None
        self._queries = torch.tensor(queries).to(self._device).T.contiguous()
        self._group = group
        self._scores = self._empty(size, len(queries))
        self._used = 0
        self._part = min(size, max(64, _PART_VALUES // max(1, rows.shape[1])))
        in_place = self._shared is not None and rows.dtype == np.float32
        at_once = in_place and len(queries) not in _FEW_QUERIES
        self._step = size if at_once or self._device.type != "cpu" else self._part
        if rows.dtype != np.float32:
            self._converted = self._empty(self._step, rows.shape[1])
        self.error = rounding_error(rows.shape[1])
        if not _keeps_digits(torch, self._device.type):
            # Both factors cut to bfloat16, the coarsest there is.
            self.error += 2 * 2.0**-8

    def multiply(self, where: Where, n: int) -> None:
        step = self._step if isinstance(where, slice) else self._part
        for start in range(0, n, step):
            part = self._there(_within(where, start, min(start + step, n)))
            out = self._scores[start : start + len(part)]
            self._torch.mm(part, self._queries, out=out)
        self._used = -(-n // self._group) * self._group
        self._scores[n : self._used] = -np.inf

    def hide(self, hidden: NDArray[np.bool_]) -> None:
        at = self._torch.from_numpy(np.flatnonzero(hidden)).to(self._device)
        self._scores.index_fill_(0, at, -np.inf)

    def peaks(self) -> NDArray[np.float32]:
        return self._grouped().amax(1).cpu().numpy()

    def values(
        self, groups: NDArray[np.intp], of: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        pairs = (self._torch.from_numpy(one).to(self._device) for one in (groups, of))
        groups_there, of_there = pairs
        return self._grouped()[groups_there, :, of_there].cpu().numpy()

    def _grouped(self) -> Any:
        used = self._scores[: self._used]
        return used.view(-1, self._group, used.shape[1])

    def _there(self, where: Where) -> Any:
        """Return rows as float32 on the device."""
        if self._shared is None:
            part = self._torch.from_numpy(np.array(self._rows[where], order="C"))
        elif isinstance(where, slice):
            part = self._shared[where]
        else:
            part = self._shared.index_select(0, self._torch.from_numpy(where))
        part = part.to(self._device)
        if part.dtype == self._torch.float32:
            return part
        return self._converted[: len(part)].copy_(part)

    def _empty(self, *shape: int) -> Any:
        return self._torch.empty(shape, dtype=self._torch.float32, device=self._device)


def rounding_error(width: int) -> float:
    """Return the bound of a float32 inner product's error, for vectors of length 1."""
    # Four more for what is rounded on the way from scores to floors.
    return 1.01 * (width + 4) * 2.0**-24


def _keeps_digits(torch: Any, device: str) -> bool:
    """Say whether products are known to be float32's own.

    A process may have allowed TF32 or bfloat16, in an older and a newer way; having
    used both, it gets an error from asking.
    """
    if device not in ("cpu", "cuda"):
        return False
    try:
        if torch.get_float32_matmul_precision() != "highest":
            return False
    except RuntimeError:
        return False
    backend = torch.backends.mkldnn if device == "cpu" else torch.backends.cuda
    products = getattr(backend, "matmul", None)
    return getattr(products, "fp32_precision", "ieee") in ("none", "ieee")


def _within(where: Where, start: int, stop: int) -> Where:
    if isinstance(where, slice):
        return slice(where.start + start, where.start + stop)
    return where[start:stop]


class _Plain:
    """The memory of a contiguous array, without what torch minds and is of no matter.

    Mapped files mostly are read-only, of which it warns; here they are only read. One
    row of a reversed array has a negative stride, which it refuses.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array  # keeps the memory
        told = array.__array_interface__
        place = told["data"][0]
        self.__array_interface__ = {**told, "data": (place, False), "strides": None}


def _shared(torch: Any, rows: NDArray[np.floating]) -> Any:
    """Return a tensor on the very memory of an array."""
    return torch.from_numpy(np.asarray(_Plain(rows)))
