"""Folders for what is not finished: gone with the process, also one that was killed."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blake3 import blake3

__all__ = ["make_scratch", "scratch_in"]

#: Age from which a folder of another machine is taken for a dead process's, in seconds.
_OLD = 7 * 86_400


@contextmanager
def scratch_in(folder: Path | None, kind: str) -> Iterator[Path]:
    """Yield a new private folder in another one, and remove it afterwards."""
    scratch = make_scratch(folder, kind)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def make_scratch(folder: Path | None, kind: str) -> Path:
    """Make a private folder, and remove those whose process was killed.

    Parameters
    ----------
    folder : pathlib.Path or None
        Where; None is the system's folder of temporary files.
    kind : str
        Begin of its name, after a dot.

    Returns
    -------
    pathlib.Path
        Its name tells machine and process.
    """
    place = Path(tempfile.gettempdir() if folder is None else folder)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    here = blake3(socket.gethostname().encode()).hexdigest(length=4)
    # Not what put_in_place set aside: after a kill that may be the only whole copy.
    pattern = re.compile(rf"\.{kind}-([0-9a-f]{{8}})-(\d+)-\w+")
    for entry in place.glob(f".{kind}-*"):
        found = pattern.fullmatch(entry.name)
        if found and _is_dead(entry, int(found[2]), is_here=found[1] == here):
            shutil.rmtree(entry, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f".{kind}-{here}-{os.getpid()}-", dir=place))


def _is_dead(entry: Path, process: int, *, is_here: bool) -> bool:
    if is_here and os.name == "posix":
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except OSError:  # another user's
            return False
        return False
    try:
        return time.time() - entry.stat().st_mtime > _OLD
    except OSError:
        return False
