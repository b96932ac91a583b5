"""Locks of the operating system: they end with their process, however it ends.

Two kinds, because POSIX has two. A *file lock* (``flock``) belongs to one opening of a
file; it survives other openings of that file in the same process. A *byte lock*
(``lockf``) belongs to the process and to one byte, so one file serves a billion
claims; it is lost as soon as the process closes *any* handle on that file, which is why
whoever uses it keeps exactly one.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sk_medsiglip.cache._location import open_file

if sys.platform == "win32":
    import msvcrt

    # Windows keeps others from reading a locked byte, so that the byte which stands
    # for the whole file lies behind all that a file may hold.
    WHOLE_FILE = 2**30

    def lock_byte(fd: int, offset: int) -> bool:
        """Lock one byte if it is free; say whether it is locked now."""
        os.lseek(fd, offset, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def unlock_byte(fd: int, offset: int) -> None:
        """Unlock one byte."""
        os.lseek(fd, offset, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

    def lock_file(fd: int, *, wait: bool = False) -> bool:
        """Lock the file of this handle; say whether it is locked now."""
        while not (locked := lock_byte(fd, WHOLE_FILE)) and wait:
            time.sleep(0.01)
        return locked

else:
    import fcntl

    def lock_byte(fd: int, offset: int) -> bool:
        """Lock one byte if it is free; say whether it is locked now."""
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except OSError as error:
            # Any other error: no lock service, as on some network mounts. Better to
            # compute a row twice than not at all.
            return error.errno not in (errno.EAGAIN, errno.EACCES)
        return True

    def unlock_byte(fd: int, offset: int) -> None:
        """Unlock one byte."""
        with suppress(OSError):  # where there are none, none is held
            fcntl.lockf(fd, fcntl.LOCK_UN, 1, offset)

    def lock_file(fd: int, *, wait: bool = False) -> bool:
        """Lock the file of this handle; say whether it is locked now."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Hold the file lock of ``path``, made if missing, for a ``with`` block."""
    fd = open_file(path, os.O_RDWR | os.O_CREAT)
    try:
        lock_file(fd, wait=True)
        yield
    finally:
        os.close(fd)
