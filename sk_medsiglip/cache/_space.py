"""The space of a vector: everything but the content that decides it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import blake3
import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._json import read_json

FINGERPRINT_BYTES = 32  # a blake3 digest
MAX_WIDTH = 2**22  # values of a row; bounds what a damaged line may ask for


@dataclass(frozen=True)
class Space:
    """Everything but the content that decides a vector.

    Two vectors may stand for one another exactly if content and space are equal.

    Parameters
    ----------
    kind : {"image", "text", "cells"}
        The tower that computed it; "cells" are several vectors of one image, packed
        by a :class:`BagPacking`.
    model : str
        The model's name on the hub, or ``"demo"``. For a local folder a fixed label
        such as ``"folder"``: ``revision`` tells folders apart, and a path would be
        kept in clear.
    revision : str
        The commit that the name resolved to, or the folder's digest.
    recipe : str
        How the content became the model's input: reading, grey values, resize and
        padding of an image, or the tokenisation of a text.
    dtype : str
        The numeric type of the computation: ``"float32"``, ``"bfloat16"``. Rows are
        stored as float32 whatever it is, cells as their recipe says.
    engine : str
        The engine that ran the model: ``"torch"`` or ``"openvino"``.
    width : int
        Number of values in a vector; for "cells", the number of 32-bit words in a row.

    Examples
    --------
    >>> from sk_medsiglip.cache import Space
    >>> Space("image", "demo", "1f0c", "resize=medsiglip", "float32", "torch", 192)
    Space(kind='image', model='demo', ..., engine='torch', width=192)
    """

    kind: str
    model: str
    revision: str
    recipe: str
    dtype: str
    engine: str
    width: int

    @cached_property
    def line(self) -> str:
        """The space as one line of JSON, the same line for equal spaces."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    @lru_cache(maxsize=256)
    def from_line(cls, line: str) -> Space:
        """Return the space that was written down as ``line``.

        Raises
        ------
        ValueError
            If it is not such a line.
        """
        kinds = {name: str for name in cls.__annotations__} | {"width": int}
        fields = read_json(line, kinds)
        if set(fields) != set(kinds) or not 0 < fields["width"] <= MAX_WIDTH:
            raise ValueError(f"it is not a space of embeddings: {line[:200]}")
        return cls(**fields)

    @cached_property
    def salt(self) -> int:
        """A signed 64-bit number that stands for the space in the rows' keys."""
        digest = blake3.blake3(self.line.encode()).digest(8)
        return int.from_bytes(digest, "little", signed=True)

    def differs_in_numbers_only(self, other: Space) -> bool:
        """Tell whether only the numeric type or the engine sets the two apart."""
        return self == dataclasses.replace(other, dtype=self.dtype, engine=self.engine)

    def keys(self, fingerprints: Sequence[bytes]) -> NDArray[np.int64]:
        """Return the index key of each fingerprint, a 64-bit integer.

        Fingerprints are uniform hashes, so eight bytes of each, moved by the space's
        own number, serve as well as a hash of both. A key only *finds* a row; the
        whole fingerprint, which lies beside the vector, confirms it. Two contents
        that share a key (one chance in 10**7 among a million rows) therefore cost a
        repeated computation, never a wrong vector.

        Raises
        ------
        ValueError
            If a fingerprint is not ``FINGERPRINT_BYTES`` long.
        """
        lengths = set(map(len, fingerprints))
        if lengths - {FINGERPRINT_BYTES}:
            raise ValueError(
                f"every fingerprint must be {FINGERPRINT_BYTES} bytes, a blake3 "
                f"digest; got lengths {sorted(lengths)}."
            )
        words = np.frombuffer(b"".join(fingerprints), dtype="<i8").reshape(-1, 4)
        return words[:, 0] ^ np.int64(self.salt)
