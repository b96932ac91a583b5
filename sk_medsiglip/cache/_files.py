"""File state -> fingerprint, so that a warm run opens no image file.

A file's state is what a change of its content cannot leave alone: path, device, inode,
size, modification and change time. Two changes within one tick of the file system's
clock can leave it alone, though; so a state is trusted only if, when it was taken, the
file had been at rest for longer than a tick (git's "racy" rule).

What this cannot see: on Windows, a change that sets the modification time back; on
network file systems, a clock that runs behind this machine's by more than a tick
together with two changes inside it; anywhere, writing to the raw device.
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

# The kernel stamps files with the time of its last timer tick, 1 to 10 ms ago.
FINE_GRAIN = 50_000_000  # nanoseconds, on file systems that keep fractions of a second
COARSE_GRAIN = 2_000_000_000  # nanoseconds, FAT's two seconds

STATE = struct.Struct("<QQqqq")


class FileStamp(NamedTuple):
    """The state of a file, and when it was looked at.

    Parameters
    ----------
    path : str
        Absolute path. Only its hash is ever stored.
    device, inode, size : int
        As ``os.stat`` tells them.
    mtime, ctime : int
        Times of the last change of content and of status, nanoseconds.
    taken : int
        Time of the look, nanoseconds.
    part : bytes
        Name of the part of the file that is meant, such as a region; empty for the
        whole.
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
    """Return the state of each file, None where there is none to be had.

    Parameters
    ----------
    paths : iterable of str or path-like
        Files. Links are followed.

    Returns
    -------
    list of FileStamp or None
        To be taken *before* the files are read, and handed to
        :meth:`EmbeddingCache.recall_files` and
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
    """Return the stamp of something that is no file, by a hash of its content."""
    return FileStamp("", 0, 0, len(digest), 0, 0, time.time_ns(), digest)


def combined_stamp(
    stamps: Sequence[FileStamp | None], part: bytes = b""
) -> FileStamp | None:
    """Return one stamp for several files: another as soon as one of them changes.

    Parameters
    ----------
    stamps : sequence of FileStamp or None
        Their order counts.
    part : bytes, default=b""
        Name of the part of the files that is meant; empty for the whole.

    Returns
    -------
    FileStamp or None
        None if there are none, or the state of one is not to be trusted (yet).
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
    """Return a 32-byte key of each file's state as read in one way."""
    context = blake3(reading.encode()).digest()
    return [blake3(context + _state(stamp) + _name(stamp)).digest() for stamp in stamps]


def is_at_rest(stamp: FileStamp) -> bool:
    """Tell whether any later change of the file must show in its state."""
    changed = max(stamp.mtime, stamp.ctime)
    # Nobody can choose a change time, so its digits betray the file system's clock.
    grain = FINE_GRAIN if stamp.ctime % 1_000_000 else COARSE_GRAIN
    return changed + grain < stamp.taken


def _name(stamp: FileStamp) -> bytes:
    # No path holds a null character.
    return os.fsencode(stamp.path) + b"\0" + stamp.part


def _state(stamp: FileStamp) -> bytes:
    # Some file systems number inodes with 128 bits.
    inode = stamp.inode & 0xFFFF_FFFF_FFFF_FFFF
    return STATE.pack(stamp.device, inode, stamp.size, stamp.mtime, stamp.ctime)
