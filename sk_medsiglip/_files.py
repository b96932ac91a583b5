"""Files and folders that are written atomically: next to their place, then moved.

A reader finds the old content or the new one, never a part of it. Unfinished files of a
killed process are removed by the next writer in the same folder.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blake3 import blake3

#: Prefix of unfinished files and folders, which readers of a folder skip.
UNFINISHED = ".unfinished-"
#: Age in seconds after which a process on another machine is considered dead.
_OLD = 7 * 86_400


@contextmanager
def new_file(path: Path, *, mode: int = 0o666, durable: bool = False) -> Iterator[Path]:
    """Yield an empty file to write to; it replaces ``path`` when the block ends.

    The folder must exist. Nothing changes if the block raises. ``mode`` gives the
    permissions, before the umask of the process is applied. A ``durable`` file is
    flushed to disk before it appears, and survives a power failure.
    """
    draft = _unfinished_in(path.parent)
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    try:
        yield draft
        if durable:
            _sync(draft, os.O_RDWR)
        os.replace(draft, path)
        if durable and os.name == "posix":
            _sync(path.parent, os.O_RDONLY)
    finally:
        draft.unlink(missing_ok=True)


def append_line(path: Path, line: bytes) -> None:
    """Append a line to a file, which is created if needed, and wait for the disk.

    Several processes may append to one file. If a killed process left an incomplete
    line, it is ended first.
    """
    is_new = not path.exists()
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        # Otherwise half of a line that another process is writing looks incomplete.
        lock_until_closed(descriptor)
        if size := os.fstat(descriptor).st_size:
            os.lseek(descriptor, size - 1, os.SEEK_SET)
            if os.read(descriptor, 1) != b"\n":
                line = b"\n" + line
        # In one call, so that lines of two processes do not mix.
        left = memoryview(line + b"\n")
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new and os.name == "posix":
        _sync(path.parent, os.O_RDONLY)


def lock_until_closed(descriptor: int) -> None:
    """Lock a file until it is closed, where the system and the disk can do that."""
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)


@contextmanager
def new_folder(
    path: Path, *, mode: int = 0o777, replace: bool = True
) -> Iterator[Path]:
    """Yield a folder to write to; it replaces ``path`` when the block ends.

    With ``replace=False``, an existing folder is kept as the work of a faster process.
    """
    with scratch_folder(path.parent, mode=mode) as scratch:
        yield scratch
        put_in_place(scratch, path, replace=replace)


@contextmanager
def scratch_folder(parent: Path, *, mode: int = 0o777) -> Iterator[Path]:
    """Yield a new folder in ``parent``, and remove it when the block ends.

    ``parent`` is created if it does not exist. :func:`put_in_place` may move the new
    folder.
    """
    scratch = make_scratch_folder(parent, mode=mode)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def make_scratch_folder(parent: Path, *, mode: int = 0o777) -> Path:
    """Create a folder that the caller removes; see :func:`scratch_folder`."""
    parent.mkdir(parents=True, exist_ok=True, mode=mode)
    scratch = _unfinished_in(parent)
    scratch.mkdir(mode=mode)
    return scratch


def put_in_place(scratch: Path, folder: Path, *, replace: bool = True) -> None:
    """Move a finished folder atomically to its place on the same disk.

    With ``replace=False``, an existing folder is kept, and ``scratch`` is not moved. An
    empty folder is always replaced.
    """
    try:
        os.rename(scratch, folder)
    except OSError:
        if not folder.is_dir():
            raise
        if replace:
            # If the process is killed between the two renames, this is the only
            # complete copy, so its name is not one that _unfinished_in removes.
            old = scratch.with_name(f"{scratch.name}.old")
            os.rename(folder, old)
            try:
                os.rename(scratch, folder)
            except OSError:
                os.rename(old, folder)
                raise
            shutil.rmtree(old, ignore_errors=True)


def _unfinished_in(folder: Path) -> Path:
    """Return a new name in a folder, and remove leftovers of killed processes."""
    here = blake3(socket.gethostname().encode()).hexdigest(length=4)
    pattern = re.compile(rf"{re.escape(UNFINISHED)}([0-9a-f]{{8}})-(\d+)-\w+")
    for entry in folder.glob(f"{UNFINISHED}*"):
        found = pattern.fullmatch(entry.name)
        if found and _is_dead(entry, int(found[2]), is_here=found[1] == here):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with suppress(OSError):
                    entry.unlink()
    return folder / f"{UNFINISHED}{here}-{os.getpid()}-{secrets.token_hex(8)}"


def _is_dead(entry: Path, process: int, *, is_here: bool) -> bool:
    """Whether the process that wrote an unfinished file or folder has ended."""
    if is_here and os.name == "posix":
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except OSError:  # it belongs to another user
            return False
        return False
    try:
        return time.time() - entry.stat().st_mtime > _OLD
    except OSError:
        return False


def _sync(path: Path, flags: int) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
