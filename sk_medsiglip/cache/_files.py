"""File state -> fingerprint, so that a warm run opens no image file.

The state of a file consists of path, device, inode, size, modification time and change
time, one of which changes whenever its content does. Two changes within one tick of the
file system's clock may give the same state. So a state is trusted only if the file had
been unchanged for longer than a tick when it was taken (git's "racy" rule).

The following changes are not detected: on Windows, one that resets the modification
time; on network file systems, two changes within a tick if their clock runs behind that
of this machine by more than a tick; on all systems, writing to the raw device.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from blake3 import blake3

from sk_medsiglip.cache._index import Index
from sk_medsiglip.cache._live_index import LiveIndex

# The kernel uses the time of its last timer tick, 1 to 10 ms ago.
FINE_GRAIN = 50_000_000  # nanoseconds, on file systems that store fractions of a second
COARSE_GRAIN = 2_000_000_000  # nanoseconds, the two seconds of FAT

STATE = struct.Struct("<QQqqq")


class FileStamp(NamedTuple):
    """The state of a file, and the time at which it was taken.

    Parameters
    ----------
    path : str
        Absolute path. Only its hash is stored.
    device, inode, size : int
        Results of ``os.stat``.
    mtime, ctime : int
        Times of the last change of content and of status, in nanoseconds.
    taken : int
        Time at which the state was taken, in nanoseconds.
    part : bytes
        Identifier of a part of the file, such as a region; empty for the whole file.
    """

    path: str
    device: int
    inode: int
    size: int
    mtime: int
    ctime: int
    taken: int
    part: bytes = b""


def file_stamps(
    paths: Iterable[str | os.PathLike[str]],
) -> list[FileStamp | None]:
    """Return the state of each file.

    Parameters
    ----------
    paths : iterable of str or path-like
        Files. Links are followed.

    Returns
    -------
    list of FileStamp or None
        None for files that cannot be found. The states must be taken *before* the files
        are read, and passed to :meth:`EmbeddingCache.recall_files` and
        :meth:`EmbeddingCache.remember_files`.

    Examples
    --------
    >>> from sk_medsiglip.cache import file_stamps
    >>> file_stamps(["no such file"])
    [None]
    """
    stamps: list[FileStamp | None] = []
    for path in paths:
        name = os.fspath(path)
        if not name.startswith("/") and not os.path.isabs(name):
            name = os.path.abspath(name)
        taken = time.time_ns()
        try:
            state = os.stat(name)
        except (OSError, ValueError):
            stamps.append(None)
            continue
        stamps.append(
            FileStamp(
                name,
                state.st_dev,
                state.st_ino,
                state.st_size,
                state.st_mtime_ns,
                state.st_ctime_ns,
                taken,
            )
        )
    return stamps


def content_stamp(digest: bytes) -> FileStamp:
    """Return a stamp for a source that is not a file, from a hash of its content.

    Parameters
    ----------
    digest : bytes
        Hash of the content.

    Returns
    -------
    FileStamp
    """
    return FileStamp("", 0, 0, len(digest), 0, 0, time.time_ns(), digest)


def combined_stamp(
    stamps: Sequence[FileStamp | None], part: bytes = b""
) -> FileStamp | None:
    """Return one stamp for several files, which changes with each of them.

    Parameters
    ----------
    stamps : sequence of FileStamp or None
        Stamps of the files; their order matters.
    part : bytes, default=b""
        Identifier of a part of the files; empty for all.

    Returns
    -------
    FileStamp or None
        None without files, or if the state of one cannot be trusted (yet).
    """
    if not stamps or any(stamp is None or not is_at_rest(stamp) for stamp in stamps):
        return None
    digest = blake3(part)
    for key in file_keys([stamp for stamp in stamps if stamp is not None], ""):
        digest.update(key)
    return content_stamp(digest.digest())


def recall_files(
    live: LiveIndex, stamps: Sequence[FileStamp | None], reading: str
) -> list[bytes | None]:
    """See :meth:`EmbeddingCache.recall_files`."""
    keys = file_keys([stamp for stamp in stamps if stamp is not None], reading)
    nothing: list[bytes | None] = [None] * len(keys)
    known = iter(live.ask(lambda index: index.find_files(keys), otherwise=nothing))
    return [None if stamp is None else next(known) for stamp in stamps]


def remember_files(
    live: LiveIndex,
    stamps: Sequence[FileStamp | None],
    reading: str,
    fingerprints: Sequence[bytes | None],
) -> None:
    """See :meth:`EmbeddingCache.remember_files`."""
    settled = [
        (stamp, fingerprint)
        for stamp, fingerprint in zip(stamps, fingerprints, strict=True)
        if stamp is not None and fingerprint is not None and is_at_rest(stamp)
    ]
    if not settled:
        return
    keys = file_keys([stamp for stamp, _ in settled], reading)

    def note(index: Index) -> None:
        with index.writing():
            index.add_files(zip(keys, (f for _, f in settled), strict=True))

    live.write(note)


def forget_files(live: LiveIndex, stamps: Sequence[FileStamp], reading: str) -> None:
    """See :meth:`EmbeddingCache.forget_files`."""
    keys = file_keys(stamps, reading)

    def forget(index: Index) -> None:
        with index.writing():
            index.drop_files(keys)

    if keys:
        live.write(forget)


def file_keys(stamps: Sequence[FileStamp], reading: str) -> list[bytes]:
    """Return a 32-byte key for the state of each file, read in one way."""
    context = blake3(reading.encode()).digest()
    return [blake3(context + _state(stamp) + _name(stamp)).digest() for stamp in stamps]


def is_at_rest(stamp: FileStamp) -> bool:
    """Whether every later change of the file must change its state."""
    changed = max(stamp.mtime, stamp.ctime)
    # Change times cannot be set, so their digits show the resolution of the clock.
    grain = FINE_GRAIN if stamp.ctime % 1_000_000 else COARSE_GRAIN
    return changed + grain < stamp.taken


def _name(stamp: FileStamp) -> bytes:
    # Paths do not contain null characters.
    return os.fsencode(stamp.path) + b"\0" + stamp.part


def _state(stamp: FileStamp) -> bytes:
    # Some file systems have inode numbers of 128 bits.
    inode = stamp.inode & 0xFFFF_FFFF_FFFF_FFFF
    return STATE.pack(stamp.device, inode, stamp.size, stamp.mtime, stamp.ctime)
