"""What one item of ``X`` is: its name in messages, its path, its bytes."""

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
from PIL import Image

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._file import BoundedFile
from sk_medsiglip.images._lazy import LazyImage
from sk_medsiglip.images._urls import (
    fetch,
    file_url_path,
    is_url,
    open_in_parts,
    redact,
)

__all__ = [
    "alone_with",
    "content_of_file_object",
    "describe",
    "is_readable_stream",
    "open_source",
    "source_name",
    "source_path",
]

#: So many that two sources rarely wait for each other.
_N_LOCKS = 64

_locks = [threading.RLock() for _ in range(_N_LOCKS)]


@contextmanager
def alone_with(*objects: Any) -> Iterator[None]:
    """Hold the locks of objects that several rows, and so threads, may share.

    Pillow loads an image when it is first looked at and is not safe in two threads
    then; open files have one position; whatever else turns itself into an array may
    do so from a file too.
    """
    places = sorted({id(one) // 16 % _N_LOCKS for one in objects if one is not None})
    with ExitStack() as held:
        for place in places:  # in one order, so that no two threads wait for another
            held.enter_context(_locks[place])
        yield


def describe(source: Any) -> str:
    """Return how a message names a source: a path as given, or what it is.

    Of a URL without user, password and query, which may be secret.
    """
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
    """Return the path, URL or place in a file that a source is known by, else None.

    A URL without user, password and query, which may be secret. Bytes, arrays and open
    files have no name.
    """
    named = isinstance(source, str | os.PathLike | LazyImage)
    return describe(source) if named else None


#: Whether a path has no part that is empty, "." or "..".
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
        return path  # what abspath would return, in a fifth of its time
    return os.path.abspath(os.path.expanduser(path))


def is_readable_stream(source: Any) -> bool:
    """Whether ``open_source`` takes it."""
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
    """Give a binary stream that stands at the first byte of the source.

    A URL is fetched whole at once, within the bounds of ``fetch``; ``in_parts``, as it
    is read.
    """
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
        raise ImageReadError("it is empty", "Write the image again, or remove it.")
    yield io.BytesIO(content)


def _open_path(given: str) -> BinaryIO:
    if not given:
        raise ImageReadError("the path is empty", "Give the path of an image file.")
    path = os.path.expanduser(given)
    try:
        status = os.stat(path)
        # Opening a pipe would wait for a writer that may never come.
        if not stat.S_ISREG(status.st_mode):
            _refuse_non_file(status.st_mode)
        if status.st_size == 0:
            raise ImageReadError(
                "the file is empty", "Copy or download it again, or remove it."
            )
        return BoundedFile(path)
    except FileNotFoundError as error:
        if os.path.islink(path):
            raise ImageReadError(
                "it is a link to a file that does not exist",
                "Restore the file that it points to, or remove the link.",
            ) from error
        if re.match(r"\w{2,}:/[^/]", given):
            raise ImageReadError(
                "it is a URL that lost a slash", "Pass URLs as str, not as Path."
            ) from None
        if "\\" in given and os.sep == "/":
            raise ImageReadError(
                "there is no such file, and its path is written as on Windows",
                'Use slashes: X.str.replace("\\\\", "/"), and the folder on this '
                "machine.",
            ) from error
        raise ImageReadError(
            "there is no such file",
            "Check the spelling; a relative path starts at the working directory, "
            "which os.getcwd() shows.",
        ) from error
    except PermissionError as error:
        raise ImageReadError(
            "there is no permission to read it",
            "Change the permissions of the file and its folders, or ask its owner.",
        ) from error
    except OSError as error:
        raise ImageReadError(
            f"it cannot be opened ({error.strerror})", "Check the path and the disk."
        ) from error
    except ImageReadError:
        raise
    except ValueError as error:  # a null character
        raise ImageReadError(
            "it is not a possible path", "Check how the path was put together."
        ) from error


def _refuse_non_file(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise ImageReadError(
            "it is a directory",
            'Pass the files in it: sorted(Path(folder).glob("*.png")).',
        )
    kind = "pipe" if stat.S_ISFIFO(mode) else "device or socket"
    raise ImageReadError(
        f"it is a {kind}, not a file", "Save its content to a file first."
    )


def content_of_file_object(source: Any) -> bytes:
    """Return all that an open file holds; it then stands where it stood."""
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
