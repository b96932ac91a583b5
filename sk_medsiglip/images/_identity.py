"""What can be told of an image without reading it: enough to know it again."""

from __future__ import annotations

from typing import Any

import numpy as np
from blake3 import blake3

from sk_medsiglip.images._lazy import LazyImage
from sk_medsiglip.images._sources import source_path

__all__ = ["source_identity"]


def source_identity(source: Any) -> tuple[str | None, bytes] | None:
    """Return what an image is known by before it is read.

    Parameters
    ----------
    source : path, bytes, array, LazyImage, ...
        As for ``read_image``.

    Returns
    -------
    path : str or None
        Absolute path of the local file whose state must be unchanged, if it is one.
    rest : bytes
        What else decides the image: which part of the file, or a hash of all the
        content if there is no file.

    Notes
    -----
    None as a whole if nothing is known so cheaply: Pillow images, file objects.
    """
    if isinstance(source, LazyImage):
        whole = None if source.whole() is None else source_identity(source.whole())
        if whole is None:
            return None
        path, rest = whole
        return path, blake3(rest + source.part().encode()).digest()
    path = source_path(source)
    if path is not None:
        return path, b""
    if isinstance(source, bytes | bytearray | memoryview):
        return None, blake3(b"bytes\0" + bytes(source)).digest()
    if isinstance(source, np.ndarray) and source.dtype.kind in "uif":
        digest = blake3(f"array {source.shape} {source.dtype.str}\0".encode())
        digest.update(np.ascontiguousarray(source).view(np.uint8).data)
        return None, digest.digest()
    return None
