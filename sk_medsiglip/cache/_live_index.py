"""The index of a location, kept open while it is good and mended when it is not.

It can go from under a running process in three ways: somebody deletes or replaces the
file, the file gets damaged, the disk fills up or turns read-only. Here all three are
met, so that the rest of the room asks questions and gets answers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from sk_medsiglip.cache._index import DamagedIndex, Index
from sk_medsiglip.cache._repair import build_index, unlink_index
from sk_medsiglip.cache._segments import list_segments
from sk_medsiglip.cache._system import holding, make_folder
from sk_medsiglip.exceptions import CacheError, CacheFormatError

ATTEMPTS = 3  # of one question, while others clear the store or mend its index

T = TypeVar("T")


class LiveIndex:
    """The index of one location, for all threads of one process."""

    def __init__(self, location: Path) -> None:
        self.location = location
        self.path = location / "index.sqlite3"
        self.folder = location / "segments"
        self.lock = threading.RLock()
        self._index: Index | None = None

    def ask(self, question: Callable[[Index], T], *, otherwise: T) -> T:
        """Return the index's answer, or ``otherwise`` if nothing was ever stored."""
        with self.failing_as_one("could not be read now"):
            if _identify(self.path) is None and not list_segments(self.folder):
                return otherwise
            return self._use(question)

    def write(
        self, change: Callable[[Index], T], failing: str = "cannot be written"
    ) -> T:
        """Make a change, in an index that is made if missing."""

        def make(index: Index) -> T:
            if not index.writable:
                raise CacheError(f"the embedding cache {self.location} is read-only.")
            return change(index)

        with self.failing_as_one(failing):
            return self._use(make)

    @contextmanager
    def failing_as_one(self, what: str = "cannot be written") -> Iterator[None]:
        """Turn the system's errors (no space, no permission) into CacheError."""
        try:
            yield
        except CacheError:
            raise
        except OSError as error:
            raise CacheError(
                f"the embedding cache {self.location} {what}: {error}"
            ) from error

    def check(self) -> int | None:
        """Look for damage in the whole file and rebuild it if there is any."""
        with self.lock:
            seen = _identify(self.path)
            try:
                self._open().check()
            except DamagedIndex:
                return self._rebuild(seen)
            except CacheFormatError:
                # Segments say their format too: if they can be read, they were
                # written by this version, and so was the index.
                if not list_segments(self.folder):
                    raise
                return self._rebuild(seen)
            return None

    @contextmanager
    def deleting(self) -> Iterator[None]:
        """Delete the file, and let nobody build another within the block."""
        with self.lock, self._opening():
            self.close()
            unlink_index(self.path)
            yield

    def segment_path(self, number: int) -> Path:
        """Return where a segment lies."""
        return self.folder / f"{number:08x}.rows"

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        with self.lock:
            index, self._index = self._index, None
            if index is not None:
                index.close()

    def _use(self, work: Callable[[Index], T]) -> T:
        with self.lock:
            last: Exception | None = None
            damaged = None
            for _ in range(ATTEMPTS):
                seen = _identify(self.path)
                try:
                    if isinstance(last, DamagedIndex):
                        self._rebuild(damaged)
                    return work(self._open())
                except DamagedIndex as error:
                    last, damaged = error, seen
                except CacheFormatError:
                    raise
                except OSError as error:
                    # Somebody may have cleared the store meanwhile: a new one will do.
                    # Cleared twice, it was not there before and is not there after.
                    gone = isinstance(error, FileNotFoundError)
                    if _identify(self.path) == seen and not gone:
                        raise
                    last = error
                    self.close()
            if isinstance(last, OSError):
                raise last
            raise CacheError(
                f"the index {self.path} is damaged and cannot be rebuilt: {last}. "
                "Run: sk-medsiglip cache verify"
            ) from last

    def _open(self) -> Index:
        """Return the connection, to the file that is at the path now."""
        seen = _identify(self.path)
        if self._index is not None:
            # A read-only connection may be blind to what others write.
            if self._index.identity == seen and self._index.writable:
                return self._index
            self.close()
        if seen is None:
            make_folder(self.location)
        with self._opening():
            # Made and opened under one lock: another process may clear the store.
            if _identify(self.path) is None:
                build_index(self.path, self.folder)
            self._index = Index(self.path)
        return self._index

    def _rebuild(self, seen: tuple[int, int] | None) -> int:
        """Build the index anew, unless somebody did since it was ``seen``."""
        make_folder(self.location)
        with self._opening():
            self.close()
            if _identify(self.path) == seen:
                return build_index(self.path, self.folder)
        return 0

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """Hold the lock under which the file is opened, and exchanged for another.

        SQLite finds the log of a file by its name. While the file is exchanged nobody
        may open it, lest the log of the old one be read into the new one.
        """
        with ExitStack() as stack:
            with suppress(OSError):  # a read-only folder: nothing is exchanged here
                stack.enter_context(holding(self.location / "index.lock"))
            yield


def _identify(path: Path) -> tuple[int, int] | None:
    """Return what tells the file at a path from another one, None if there is none."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino
