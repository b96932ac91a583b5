"""Which bits of a stored DICOM value count, and what its sign is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["keep_stored_bits"]


def keep_stored_bits(
    values: NDArray[Any], n_bits: int, high_bit: int | None = None
) -> NDArray[Any]:
    """Return values without the bits that are not theirs, signs extended.

    Parameters
    ----------
    values : ndarray of integers
        As they lie in the file; signed ones of a signed type.
    n_bits : int
        BitsStored.
    high_bit : int or None, default=None
        HighBit, the place of the highest stored bit; None is ``n_bits - 1``.

    Returns
    -------
    ndarray
        ``values`` itself where nothing else is in them, which is the rule; overlays
        and other left-overs in the unused bits are cut off in a copy.

    Notes
    -----
    PS3.5 8.1.1: nothing may be assumed about unused bits.
    """
    available = 8 * values.dtype.itemsize
    highest = n_bits - 1 if high_bit is None else high_bit
    if not n_bits - 1 <= highest < available:  # it cannot be
        highest = n_bits - 1
    above = available - 1 - highest
    unused = available - n_bits
    if unused <= 0 or (above == unused and _is_clean(values, n_bits)):
        return values
    values = np.left_shift(values, above)
    return np.right_shift(values, unused, out=values)


def _is_clean(values: NDArray[Any], n_bits: int) -> bool:
    if values.dtype.kind == "u":
        return bool(values.max() < 2**n_bits)
    limit = 2 ** (n_bits - 1)
    return bool(-limit <= values.min() and values.max() < limit)
