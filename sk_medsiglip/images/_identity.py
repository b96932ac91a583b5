"""What can be told of an image without reading it: enough to know it again."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from sk_medsiglip.images._lazy import LazyImage
from sk_medsiglip.images._sources import source_path
from sk_medsiglip.images._urls import local_archive, url_state


def source_identity(source: Any) -> tuple[str | None, bytes] | None:
    """Return what an image is known by before it is read.

    Parameters
    ----------
    source : path, URL, bytes, array, LazyImage, ...
        As for ``read_image``.

    Returns
    -------
    path : str or None
        Absolute path of the local file whose state must be unchanged, if it is one:
        the file itself, or the zip archive that holds it.
    rest : bytes
        What else decides the image: which part of the file; or, if there is no file,
        a hash of the content, or of what the server says about a URL's state.

    Notes
    -----
    None as a whole if nothing is known so cheaply: Pillow images, file objects,
    URLs whose server names neither version nor time. A URL costs one or two small
    requests, so ask for many from several threads.
    """
    if isinstance(source, LazyImage):
        whole = None if source.whole() is None else source_identity(source.whole())
        if whole is None:
            return None
        path, rest = whole
        part = repr((rest, type(source).__name__, source.part()))
        return path, blake3(part.encode()).digest()
    path = source_path(source)
    if path is not None:
        return path, b""
    if isinstance(source, str):
        archive = local_archive(source)
        if archive is not None:
            path, member = archive
            path = os.path.abspath(os.path.expanduser(path))
            return path, blake3(member.encode()).digest()
        state = url_state(source)
        return None if state is None else (None, state)
    if isinstance(source, bytes | bytearray | memoryview):
        return None, blake3(b"bytes\0").update(bytes(source)).digest()
    # Subclasses may mean more than their numbers: masks, units.
    if type(source) in (np.ndarray, np.memmap) and source.dtype.kind in "uif":
        digest = blake3(f"array {source.shape} {source.dtype.str}\0".encode())
        values = np.ascontiguousarray(source).reshape(-1)
        return None, digest.update(values.view(np.uint8).data).digest()
    return None


def image_fingerprint(pixels: NDArray[np.uint8]) -> bytes:
    """Return 32 bytes that stand for an image.

    Parameters
    ----------
    pixels : ndarray of shape (H, W, 3), uint8
        RGB; at the model's size, where it stands for a row of the store. The vector
        is a function of these pixels, so that no key could be safer; and all that
        gives the same pixels (another format, another name, a window that changes
        nothing) shares a row.

    Returns
    -------
    bytes
        BLAKE3 of shape and pixels.
    """
    digest = blake3(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()
