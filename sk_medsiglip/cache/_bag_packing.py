"""The vectors of one image, packed into one row of the store."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Types in which values may be stored, the smallest first.
STORED_TYPES = ("int8", "float16", "float32")

# Number of int8 values that share a scale. With one scale per vector, small values next
# to a large one would be lost, and a few dimensions of these models are very large.
_BLOCK = 24
_LARGEST = 127


@dataclass(frozen=True)
class BagPacking:
    """The packed form of bags: several vectors of one image in one row of a store.

    A store keeps rows of 32-bit words without interpreting them. The words of a row in
    a :class:`Space` of kind ``"cells"`` are in this form.

    Parameters
    ----------
    n_instances : int
        Number of vectors in a bag.
    width : int
        Number of values in a vector.
    stored : {"int8", "float16", "float32"}
        Type of the stored values. With "int8", 24 neighbouring values share a scale
        (bfloat16, little-endian); all scales of a bag come first, then all values. The
        cosine of a vector with its stored form is at least .9999, even if a few values
        are far larger than the others.

    Attributes
    ----------
    n_words : int
        Number of 32-bit words in a row, which is the ``width`` of the space.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_medsiglip.cache import BagPacking
    >>> packing = BagPacking(n_instances=64, width=1152, stored="int8")
    >>> 4 * packing.n_words  # bytes per bag
    79872
    >>> bags = np.random.default_rng(0).normal(size=(2, 64, 1152)).astype(np.float32)
    >>> bool(np.abs(packing.unpack(packing.pack(bags)) - bags).max() < 0.02)
    True
    """

    n_instances: int
    width: int
    stored: str

    @property
    def n_words(self) -> int:
        """Number of 32-bit words in a row."""
        return ceil(self._n_bytes / 4)

    def pack(self, bags: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pack bags into rows.

        Parameters
        ----------
        bags : ndarray of shape (n_bags, n_instances, width), float32
            Finite values.

        Returns
        -------
        ndarray of shape (n_bags, n_words), float32
            Words, whose bits are meaningless as numbers unless ``stored`` is "float32".

        Raises
        ------
        ValueError
            If a value is too large for float16.
        """
        raw = np.zeros((len(bags), 4 * self.n_words), np.uint8)
        if self.stored == "int8":
            for bag, values, scales in zip(bags, *self._parts(raw), strict=True):
                _to_int8(bag, values, scales)
            return raw.view(np.float32)
        (stored,) = self._parts(raw)
        with np.errstate(over="ignore"):
            stored[...] = bags
        if self.stored == "float16" and not np.isfinite(stored).all():
            raise ValueError(
                f"a vector holds {np.abs(bags).max():.3g}, but the largest float16 is "
                "65504. Use dtype='int8' or dtype='float32'."
            )
        return raw.view(np.float32)

    def unpack(self, words: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the bags of rows.

        Parameters
        ----------
        words : ndarray of shape (n_bags, n_words), float32
            Rows returned by :meth:`pack`.

        Returns
        -------
        ndarray of shape (n_bags, n_instances, width), float32
        """
        parts = self._parts(words.view(np.uint8))
        bags = parts[0].astype(np.float32)
        if self.stored == "int8":
            bags *= _from_bfloat16(parts[1])[..., None]
            bags = bags.reshape(len(words), self.n_instances, -1)[..., : self.width]
        return bags

    @property
    def _n_blocks(self) -> int:
        return ceil(self.width / _BLOCK)

    @property
    def _n_bytes(self) -> int:
        if self.stored == "int8":
            return self.n_instances * self._n_blocks * (_BLOCK + 2)
        return self.n_instances * self.width * np.dtype(self.stored).itemsize

    def _parts(self, raw: NDArray[np.uint8]) -> tuple[NDArray[Any], ...]:
        """Return views of packed bytes: values and scales for int8, else values."""
        n = len(raw)
        if self.stored == "int8":
            shape = (n, self.n_instances, self._n_blocks)
            cut = 2 * self.n_instances * self._n_blocks
            scales = raw[:, :cut].view("<u2").reshape(shape)
            values = raw[:, cut : self._n_bytes].view(np.int8)
            return values.reshape(*shape, _BLOCK), scales
        shape = (n, self.n_instances, self.width)
        little_endian = np.dtype(self.stored).newbyteorder("<")
        return (raw[:, : self._n_bytes].view(little_endian).reshape(shape),)


def _to_int8(
    bag: NDArray[np.float32], values: NDArray[np.int8], scales: NDArray[np.uint16]
) -> None:
    """Write the values and scales of one bag, which fits into the cache of the CPU."""
    blocks = np.zeros(values.shape, np.float32)
    blocks.reshape(len(bag), -1)[:, : bag.shape[1]] = bag
    peaks = np.ascontiguousarray(np.abs(blocks).transpose(2, 0, 1)).max(axis=0)
    # Round up to bfloat16, so that the largest value does not exceed 127.
    bits = (peaks / np.float32(_LARGEST)).view(np.uint32)
    scales[...] = (bits + np.uint32(0xFFFF)) >> np.uint32(16)
    steps = _from_bfloat16(scales)
    blocks /= np.where(steps > 0, steps, 1)[..., None]
    values[...] = np.rint(blocks, out=blocks)


def _from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
