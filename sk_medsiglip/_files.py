"""Files and folders that appear whole: written beside their place, then moved there.

A reader finds the old content or the new one, never half of it. What a killed process
leaves behind is removed when something is next written into the same folder.
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

#: Start of the names of unfinished files and folders; readers of a folder skip them.
UNFINISHED = ".unfinished-"
#: Age in seconds from which a process on another machine is taken to be dead.
_OLD = 7 * 86_400


@contextmanager
def new_file(path: Path, *, mode: int = 0o666, durable: bool = False) -> Iterator[Path]:
    """Yield an empty file to write to; it replaces ``path`` when the block ends.

    The folder must exist. Nothing changes if the block raises. ``mode`` are
    permissions, less those that the mask of the process takes away; a ``durable`` file
    is on the disk before it appears, and survives a power failure.
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
    """Add a line to the end of a file, which is made if needed, and wait for the disk.

    Several processes may append to one file. A last line that a killed process has cut
    off is ended first, so that this one is not joined to it.
    """
    is_new = not path.exists()
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
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


@contextmanager
def new_folder(
    path: Path, *, mode: int = 0o777, replace: bool = True
) -> Iterator[Path]:
    """Yield a folder to write to; it takes the place of ``path`` when the block ends.

    With ``replace=False`` a folder that is there already stays, as the work of a
    process that was faster.
    """
    with scratch_folder(path.parent, mode=mode) as scratch:
        yield scratch
        put_in_place(scratch, path, replace=replace)


@contextmanager
def scratch_folder(parent: Path, *, mode: int = 0o777) -> Iterator[Path]:
    """Yield a new folder in another one, and remove it when the block ends.

    The other one is made if it does not exist. :func:`put_in_place` may move the new
    one.
    """
    scratch = make_scratch_folder(parent, mode=mode)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def make_scratch_folder(parent: Path, *, mode: int = 0o777) -> Path:
    """Make a folder for a caller who removes it, see :func:`scratch_folder`."""
    parent.mkdir(parents=True, exist_ok=True, mode=mode)
    scratch = _unfinished_in(parent)
    scratch.mkdir(mode=mode)
    return scratch


def put_in_place(scratch: Path, folder: Path, *, replace: bool = True) -> None:
    """Move a finished folder to its place on the same disk, as a whole.

    With ``replace=False`` a folder that is there already stays, and ``scratch`` too. An
    empty one is always replaced.
    """
    try:
        os.rename(scratch, folder)
    except OSError:
        if not folder.is_dir():
            raise
        if replace:
            # After a kill between two renames this is the only whole copy, so its name
            # is not one that _unfinished_in removes.
            old = scratch.with_name(f"{scratch.name}.old")
            os.rename(folder, old)
            try:
                os.rename(scratch, folder)
            except OSError:
                os.rename(old, folder)
                raise
            shutil.rmtree(old, ignore_errors=True)


def _unfinished_in(folder: Path) -> Path:
    """Return a new name in a folder, and remove what killed processes left there."""
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
    """Tell whether the process that wrote an unfinished file or folder has ended."""
    if is_here and os.name == "posix":
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except OSError:  # it is another user's
            return False
        return False
    try:
        return time.time() - entry.stat().st_mtime > _OLD
    except OSError:
        return False


def _sync(path: Path, flags: int) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
