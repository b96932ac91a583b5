"""The name, path, identity and bytes of one item of ``X``; the files of a folder."""

from __future__ import annotations

import io
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from PIL import Image

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._lazy import LazyImage
from sk_medsiglip.images._urls import (
    fetch,
    file_url_path,
    is_url,
    local_archive,
    open_in_parts,
    redact,
    url_state,
)

#: Enough locks that two sources rarely wait for each other.
_N_LOCKS = 64

_locks = [threading.RLock() for _ in range(_N_LOCKS)]


@contextmanager
def alone_with(*objects: Any) -> Iterator[None]:
    """Hold the locks of objects that several rows, and so threads, may share.

    Pillow loads an image at its first use, which is not thread-safe, and an open file
    has only one position.
    """
    places = sorted({id(one) // 16 % _N_LOCKS for one in objects if one is not None})
    with ExitStack() as held:
        for place in places:  # in sorted order, or two threads could deadlock
            held.enter_context(_locks[place])
        yield


def describe(source: Any) -> str:
    """Return a name of a source for messages; a URL is shown without its secrets."""
    if isinstance(source, str | os.PathLike):
        return redact(os.fsdecode(os.fspath(source))) or "''"
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{type(source).__name__} of length {len(source)}"
    if isinstance(source, np.ndarray):
        return f"array of shape {source.shape} and type {source.dtype}"
    if isinstance(source, LazyImage):
        return source.describe()
    if isinstance(source, Image.Image):
        return f"PIL image of {source.height} x {source.width} pixels, {source.mode}"
    if hasattr(source, "read"):
        name = getattr(source, "name", None)
        return f"file object {name}" if isinstance(name, str) else "file object"
    return f"object of type {type(source).__name__}"


def source_name(source: Any) -> str | None:
    """Return the path, URL or region that identifies a source, else None.

    A URL is returned without user, password and query, which may be secret. Bytes,
    arrays and open files have no name.
    """
    named = isinstance(source, str | os.PathLike | LazyImage)
    return describe(source) if named else None


@contextmanager
def naming(source: Any) -> Iterator[None]:
    """Name the source in an ``ImageReadError``, in place of a part of it."""
    try:
        yield
    except ImageReadError as error:
        error.source = describe(source)
        raise


#: Match an absolute path without empty parts, "." or "..".
_IS_TIDY = re.compile(r"(?:/(?!\.{0,2}(?:/|$))[^/]+)+\Z").match


def source_path(source: Any) -> str | None:
    """Return the absolute path of a source that is a file, else None.

    ``~`` is the home directory. The file need not exist.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    path = os.fsdecode(os.fspath(source))
    if is_url(path):
        local = file_url_path(path)
        return None if local is None else os.path.abspath(local)
    if path.startswith("/") and _IS_TIDY(path) and os.sep == "/":
        return path  # the result of abspath, in a fifth of its time
    return os.path.abspath(os.path.expanduser(path))


def source_identity(source: Any) -> tuple[str | None, bytes] | None:
    """Return the identity of an image, found without reading it.

    Parameters
    ----------
    source : path, URL, bytes, array, LazyImage, ...
        As for ``read_image``.

    Returns
    -------
    path : str or None
        Absolute path of the local file, or of the zip archive that contains it, whose
        state must be unchanged. None if there is no such file.
    rest : bytes
        Digest of the part of the file. If there is no file, digest of the content, or
        of the state of a URL as reported by its server.

    Notes
    -----
    The result is None if the identity cannot be found cheaply: for Pillow images, file
    objects, and URLs whose server reports neither a version nor a time. A URL costs one
    or two small requests, so use several threads for many URLs.
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
    # Subclasses may carry more than their numbers, such as masks and units.
    if type(source) in (np.ndarray, np.memmap) and source.dtype.kind in "uif":
        digest = blake3(f"array {source.shape} {source.dtype.str}\0".encode())
        values = np.ascontiguousarray(source).reshape(-1)
        return None, digest.update(values.view(np.uint8).data).digest()
    return None


def image_fingerprint(pixels: NDArray[np.uint8]) -> bytes:
    """Return a fingerprint of an image, 32 bytes.

    Parameters
    ----------
    pixels : ndarray of shape (H, W, 3), uint8
        RGB pixels, at the size of the model if the fingerprint is the key of a stored
        row. The vector depends on these pixels only, so images with the same pixels
        (in another format, under another name, with a window that changes nothing)
        share a row.

    Returns
    -------
    bytes
        BLAKE3 hash of shape and pixels.
    """
    digest = blake3(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def is_readable_stream(source: Any) -> bool:
    """Whether ``open_source`` accepts the source."""
    kinds = (str, os.PathLike, bytes, bytearray, memoryview)
    return isinstance(source, kinds) or hasattr(source, "read")


@contextmanager
def open_source(
    source: Any,
    *,
    in_parts: bool = False,
    max_bytes: int | None = None,
    check_head: Callable[[bytes], None] | None = None,
) -> Iterator[BinaryIO]:
    """Open a source; a URL is fetched completely, or ``in_parts`` as it is read."""
    if isinstance(source, str | os.PathLike):
        given = os.fsdecode(os.fspath(source))
        if not is_url(given) or file_url_path(given) is not None:
            with _open_path(file_url_path(given) or given) as stream:
                yield stream
            return
        if in_parts:
            with open_in_parts(given) as stream:
                yield stream
            return
        content = fetch(given, max_bytes, check_head)
    elif isinstance(source, bytes | bytearray | memoryview):
        content = bytes(source)
    else:
        content = content_of_file_object(source)
    if not content:
        raise ImageReadError("it is empty", "Save the image again, or remove it.")
    yield io.BytesIO(content)


def _open_path(given: str) -> BinaryIO:
    if not given:
        raise ImageReadError("the path is empty", "Pass the path of an image file.")
    path = os.path.expanduser(given)
    try:
        status = os.stat(path)
        # Opening a pipe would wait for a writer that may never come.
        if not stat.S_ISREG(status.st_mode):
            raise ImageReadError(*_why_not_a_file(status.st_mode))
        if status.st_size == 0:
            raise ImageReadError(
                "the file is empty", "Copy or download it again, or remove it."
            )
        return BoundedFile(path)
    except ImageReadError:
        raise
    except (OSError, ValueError) as error:
        raise ImageReadError(*_why_not_opened(error, given, path)) from error


def _why_not_opened(error: Exception, given: str, path: str) -> tuple[str, str]:
    """Return the reason and the hint for a path that cannot be opened."""
    if isinstance(error, PermissionError):
        reason = "permission to read it was denied"
        hint = "Change the permissions of the file and its folders, or ask its owner."
    elif isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        reason = f"it cannot be opened ({error.strerror})"
        hint = "Check the path and the disk."
    elif isinstance(error, ValueError):  # a null character
        reason = "it is not a valid path"
        hint = "Check how the path was built."
    elif os.path.islink(path):
        reason = "it is a link to a file that does not exist"
        hint = "Restore the target of the link, or remove the link."
    elif re.match(r"\w{2,}:/[^/]", given):
        reason = "it is a URL that lost a slash"
        hint = "Pass URLs as str, not as Path."
    elif "\\" in given and os.sep == "/":
        reason = "there is no such file, and its path is written as on Windows"
        hint = (
            'Use slashes, X.str.replace("\\\\", "/"), and the folder on this machine.'
        )
    else:
        reason = "there is no such file"
        hint = (
            "Check the spelling; a relative path starts at the working directory, "
            "which os.getcwd() shows."
        )
    return reason, hint


def _why_not_a_file(mode: int) -> tuple[str, str]:
    if stat.S_ISDIR(mode):
        hint = 'Pass the files in it: sorted(Path(folder).glob("*.png")).'
        return "it is a directory", hint
    kind = "pipe" if stat.S_ISFIFO(mode) else "device or socket"
    return f"it is a {kind}, not a file", "Save its content to a file first."


def content_of_file_object(source: Any) -> bytes:
    """Return the content of an open file and restore its position."""
    try:
        with alone_with(source):
            position = source.tell()
            source.seek(0)
            try:
                content = source.read()
            finally:
                source.seek(position)
    except (OSError, ValueError, AttributeError) as error:
        raise ImageReadError(
            "the file object is closed or cannot seek",
            "Pass its bytes, file.read(), or the path.",
        ) from error
    if not isinstance(content, bytes):
        raise ImageReadError(
            "the file object was opened as text", 'Open it with mode "rb".'
        )
    return content


class BoundedFile(io.BufferedReader):
    """A file whose ``read`` never allocates more memory than the size of the file.

    A damaged header may announce four gigabytes in a file of a few hundred bytes.
    """

    def __init__(self, path: str) -> None:
        super().__init__(io.FileIO(path, "rb"))
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to ``size`` bytes, or all that is left."""
        if size is not None and size > 0:
            size = min(size, max(0, self._size - self.tell()))
        return super().read(size)


def folder_path(item: Any) -> str | None:
    """Return the absolute path of an item that is a folder, else None."""
    path = source_path(item)
    return path if path is not None and os.path.isdir(path) else None


def list_files(folder: str) -> list[str]:
    """Return all visible files below a folder, in natural order of their names."""
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        try:
            status = os.stat(path)
            # A link may lead back to a folder above it.
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        waiting.append(entry.path)
                    elif entry.is_file():
                        found.append(entry.path)
        except OSError as error:
            raise ImageReadError(
                f"a folder in it cannot be listed ({error.strerror})",
                "Change its permissions, or ask its owner.",
            ) from error
    return sorted(found, key=_natural)


def _natural(path: str) -> tuple[list[str | int], str]:
    # Text and digits alternate, so text is compared with text, numbers with numbers.
    parts: list[str | int] = list(re.split(r"([0-9]+)", path))
    parts[1::2] = [int(digits) for digits in parts[1::2]]
    return parts, path
