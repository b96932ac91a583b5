"""The index of a location, kept open, and repaired when necessary.

A running process can lose it in three ways: somebody deletes or replaces the file, the
file is damaged, or the disk becomes full or read-only. All three are handled here, so
that the other files of the room need not care.
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

ATTEMPTS = 3  # per call, while other processes clear the store or repair its index

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
        """Query the index; return ``otherwise`` if the store is empty."""
        with self.failing_as_one("could not be read"):
            if _identify(self.path) is None and not list_segments(self.folder):
                return otherwise
            return self._use(question)

    def write(
        self, change: Callable[[Index], T], failing: str = "cannot be written"
    ) -> T:
        """Change the index, which is created if it is missing."""

        def make(index: Index) -> T:
            if not index.writable:
                raise CacheError(f"the embedding cache {self.location} is read-only.")
            return change(index)

        with self.failing_as_one(failing):
            return self._use(make)

    @contextmanager
    def failing_as_one(self, problem: str = "cannot be written") -> Iterator[None]:
        """Turn system errors (disk full, permission denied) into CacheError."""
        try:
            yield
        except CacheError:
            raise
        except OSError as error:
            raise CacheError(
                f"the embedding cache {self.location} {problem}: {error}"
            ) from error

    def check(self) -> int | None:
        """Check the whole file for damage, and rebuild it if necessary."""
        with self.lock:
            seen = _identify(self.path)
            try:
                self._open().check()
            except DamagedIndex:
                return self._rebuild(seen)
            except CacheFormatError:
                # Segments that can be read have the format of this version, and so had
                # the index before it was damaged.
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
        """Return the path of a segment."""
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
                    # Somebody may have cleared the store meanwhile, so retry with a new
                    # index. Cleared twice, it is missing both before and after.
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
        """Return the connection to the file at the path."""
        seen = _identify(self.path)
        if self._index is not None:
            # A read-only connection may not see changes by other processes.
            if self._index.identity == seen and self._index.writable:
                return self._index
            self.close()
        if seen is None:
            make_folder(self.location)
        with self._opening():
            # Create and open it under one lock: another process may clear the store.
            if _identify(self.path) is None:
                build_index(self.path, self.folder)
            self._index = Index(self.path)
        return self._index

    def _rebuild(self, seen: tuple[int, int] | None) -> int:
        """Rebuild the index, unless another process has replaced the file ``seen``."""
        make_folder(self.location)
        with self._opening():
            self.close()
            if _identify(self.path) == seen:
                return build_index(self.path, self.folder)
        return 0

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """Hold the lock for opening and replacing the file.

        SQLite finds the log of a file by its name. The file must not be opened while it
        is replaced, or the log of the old file would be applied to the new one.
        """
        with ExitStack() as stack:
            with suppress(OSError):  # in a read-only folder, files are not replaced
                stack.enter_context(holding(self.location / "index.lock"))
            yield


def _identify(path: Path) -> tuple[int, int] | None:
    """Return an identifier of the file at a path, or None if it is missing."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino
