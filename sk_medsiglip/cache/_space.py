"""The space of a vector: everything that decides it, except the content."""

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
MAX_WIDTH = 2**22  # values per row; limits the memory requested by a damaged line


@dataclass(frozen=True)
class Space:
    """Everything that decides a vector, except the content.

    Vectors are interchangeable if and only if their content and space are equal.

    Parameters
    ----------
    kind : {"image", "text", "cells"}
        The tower that computed it; "cells" are several vectors of one image, packed
        by a :class:`BagPacking`.
    model : str
        Name of the model on the hub, or ``"demo"``. For a local folder, a fixed label
        such as ``"folder"``: ``revision`` distinguishes folders, and a path would be
        stored in plain text.
    revision : str
        The commit that the name resolved to, or the digest of the folder.
    recipe : str
        Description of the preprocessing: reading, grey values, resize and padding of an
        image, or the tokenization of a text.
    dtype : str
        Numeric type of the computation, ``"float32"`` or ``"bfloat16"``. Rows are
        always stored as float32, cells according to their recipe.
    engine : str
        Engine that ran the model, ``"torch"`` or ``"openvino"``.
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
        """The space as one line of JSON, which is the same for equal spaces."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    @lru_cache(maxsize=256)
    def from_line(cls, line: str) -> Space:
        """Return the space of a ``line``.

        Raises
        ------
        ValueError
            If it is not the line of a space.
        """
        kinds = {name: str for name in cls.__annotations__} | {"width": int}
        fields = read_json(line, kinds)
        if set(fields) != set(kinds) or not 0 < fields["width"] <= MAX_WIDTH:
            raise ValueError(f"it is not a space of embeddings: {line[:200]}")
        return cls(**fields)

    @cached_property
    def salt(self) -> int:
        """A signed 64-bit number that represents the space in the keys of rows."""
        digest = blake3.blake3(self.line.encode()).digest(8)
        return int.from_bytes(digest, "little", signed=True)

    def differs_in_numbers_only(self, other: Space) -> bool:
        """Return whether two spaces differ only in the numeric type or the engine."""
        return self == dataclasses.replace(other, dtype=self.dtype, engine=self.engine)

    def keys(self, fingerprints: Sequence[bytes]) -> NDArray[np.int64]:
        """Return the index key of each fingerprint, a 64-bit integer.

        Fingerprints are uniform hashes, so eight bytes of each, combined with the
        number of the space, are as good as a hash of both. A key only *finds* a row;
        the whole fingerprint, which is stored with the vector, confirms it. So two
        contents with the same key (a chance of one in 10**7 among a million rows) cost
        a repeated computation, but never give a wrong vector.

        Raises
        ------
        ValueError
            If the length of a fingerprint is not ``FINGERPRINT_BYTES``.
        """
        lengths = set(map(len, fingerprints))
        if lengths - {FINGERPRINT_BYTES}:
            raise ValueError(
                f"every fingerprint must be a blake3 digest of {FINGERPRINT_BYTES} "
                f"bytes, got lengths {sorted(lengths)}."
            )
        words = np.frombuffer(b"".join(fingerprints), dtype="<i8").reshape(-1, 4)
        return words[:, 0] ^ np.int64(self.salt)
