"""The store of each location, opened once in a process and shared by all caches.

Sharing is necessary: a process loses its locks on parts of a file when it closes *any*
handle of that file, and SQLite has the same limitation. An SQLite connection must not
cross a fork, which would corrupt the file, so it is closed before a fork and opened
again at its next use, in both processes.
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import threading
import weakref
from collections import deque
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.cache._claims import Claims
from sk_medsiglip.cache._index import Index
from sk_medsiglip.cache._live_index import LiveIndex
from sk_medsiglip.cache._models import Models
from sk_medsiglip.cache._prune import prune
from sk_medsiglip.cache._reader import Reader
from sk_medsiglip.cache._repair import VerifyReport, check_rows
from sk_medsiglip.cache._segments import list_segments
from sk_medsiglip.cache._space import Space
from sk_medsiglip.cache._system import CONVERTED, holding, network_file_system
from sk_medsiglip.cache._writer import Writer


class Store:
    """The store of one location, opened once in a process."""

    def __init__(self, location: Path) -> None:
        self.location = location
        self.claims = Claims(location / "claims.lock")
        self.models = Models(location / "models")
        self.index = LiveIndex(location)
        self._folder = self.index.folder
        self._lock = self.index.lock
        self.reader = Reader(self.index)
        self.writer = Writer(self.index)

    # ------------------------------------------------------- rows and maintenance

    def count_rows(self) -> int:
        """Return the number of rows."""
        return self.index.ask(lambda index: index.count_rows(), otherwise=0)

    def iterate(self) -> Iterator[tuple[Space, bytes]]:
        """Yield the space and fingerprint of every row."""
        none = np.empty(0, np.int64)
        keys, places = self.index.ask(
            lambda index: index.all_rows(), otherwise=(none, none)
        )
        for key, place in zip(keys.tolist(), places.tolist(), strict=True):
            with self.index.failing_as_one("could not be read now"):
                segment = self.reader.segment(place >> 32)
                row = place & 0xFFFF_FFFF
                fingerprint = b"" if segment is None else segment.fingerprint(row)
            if segment is not None and fingerprint:
                if segment.space.keys([fingerprint])[0] == key:
                    yield segment.space, fingerprint

    def scan_rows(
        self, spaces: Container[Space]
    ) -> Iterator[tuple[Space, list[bytes], NDArray[np.float32]]]:
        """Yield the intact rows of some spaces, in their order on the disk."""
        none = np.empty(0, np.int64)
        _, places = self.index.ask(
            lambda index: index.all_rows(), otherwise=(none, none)
        )
        numbers = places >> 32
        for number in np.unique(numbers).tolist():
            segment = self.reader.segment(number)
            if segment is None or segment.space not in spaces:
                continue
            indexed = np.zeros(segment.n_rows, dtype=bool)
            rows = places[numbers == number] & 0xFFFF_FFFF
            indexed[rows[rows < len(indexed)]] = True
            for first, fingerprints, vectors, good in segment.scan():
                part = indexed[first : first + len(good)]
                picks = np.flatnonzero(good[: len(part)] & part)
                if picks.size:
                    chosen = [fingerprints[i] for i in picks.tolist()]
                    yield segment.space, chosen, vectors[picks]

    def stats(self) -> dict[str, Any]:
        """See :meth:`EmbeddingCache.stats`."""

        def count(index: Index) -> dict[str, Any]:
            n_rows: dict[Space, int] = {}
            segments = index.segments()
            numbers, counts = np.unique(index.all_rows()[1] >> 32, return_counts=True)
            for number, n in zip(numbers.tolist(), counts.tolist(), strict=True):
                if number in segments:
                    space = segments[number][0]
                    n_rows[space] = n_rows.get(space, 0) + n
            return {
                "rows": int(counts.sum()),
                "segments": len(list_segments(self._folder)),
                "spaces": [asdict(space) | {"rows": n} for space, n in n_rows.items()],
                "files": index.count_files(),
                "rows_computed": index.counter("rows_computed"),
                "repeated_puts": index.counter("repeated_puts"),
            }

        nothing = {"rows": 0, "segments": 0, "spaces": [], "files": 0}
        nothing |= {"rows_computed": 0, "repeated_puts": 0}
        counts = self.index.ask(count, otherwise=nothing)
        converted = self.location / CONVERTED
        n_bytes, n_converted = 0, 0
        for path in self.location.rglob("*"):
            # Another process may clear the store at the same time.
            with suppress(FileNotFoundError):
                state = path.stat()
                size = state.st_size if stat.S_ISREG(state.st_mode) else 0
                n_bytes += size
                n_converted += size if converted in path.parents else 0
        return {
            "location": str(self.location),
            "network": network_file_system(self.location),
            "bytes": n_bytes - n_converted,
            "converted_bytes": n_converted,
            "models": self.models.count(),
            **counts,
        }

    def verify(self) -> VerifyReport:
        """See :meth:`EmbeddingCache.verify`."""
        if not self.location.is_dir():
            return VerifyReport()
        with (
            self.index.failing_as_one("could not be checked now"),
            self._maintaining(),
            self._lock,
        ):
            n_bad = self.index.check()
            report = self.index.write(
                lambda index: check_rows(index, self._folder),
                "could not be checked now",
            )
            self.reader.forget()
        if n_bad is None:
            return report
        return replace(report, dropped=report.dropped + n_bad, index_rebuilt=True)

    def prune(self, max_bytes: int) -> int:
        """See :meth:`EmbeddingCache.prune`."""
        if not self.location.is_dir():
            return 0
        with self.index.failing_as_one(), self._maintaining(), self._lock:
            self.reader.flush_uses()
            self.writer.close()
            freed = self.index.write(
                lambda index: prune(index, self._folder, max_bytes)
            )
            self.reader.forget()
            return freed

    def clear(self) -> None:
        """See :meth:`EmbeddingCache.clear`."""
        if not self.location.is_dir():
            return
        with self.index.failing_as_one(), self._maintaining(), self._lock:
            self.reader.forget_uses()
            self._close_handles()
            # The index is deleted first, since every row that it names must exist. For
            # the same reason it must not be rebuilt from segments that will be deleted.
            with self.index.deleting():
                for path in [*list_segments(self._folder), *self.models.paths()]:
                    path.unlink(missing_ok=True)
            if (self.location / CONVERTED).is_dir():
                shutil.rmtree(self.location / CONVERTED)

    def close(self) -> None:
        """Close all handles; they are opened again when they are needed."""
        with self._lock:
            self.reader.flush_uses()
            self._close_handles()
            self.claims.close()

    def __del__(self) -> None:
        self.close()

    # --------------------------------------------------------------------- forking

    def prepare_fork(self) -> None:
        """Wait until no thread uses the store, before a fork."""
        self._lock.acquire()
        self.index.close()

    def resume_after_fork(self) -> None:
        """Release the lock in the parent, after a fork."""
        self._lock.release()

    def start_as_child(self) -> None:
        """Give up the handles of the parent in the child, after a fork."""
        self._lock = self.index.lock = threading.RLock()
        self.writer.close()  # the locks stay with the parent, whose handles are open
        self.reader.forget_uses()
        self.claims.close_inherited()

    # --------------------------------------------------------------------- handles

    def _close_handles(self) -> None:
        self.index.close()
        self.writer.close()
        self.reader.forget()

    def _maintaining(self) -> AbstractContextManager[None]:
        """Let one process at a time check, prune or clear."""
        return holding(self.location / "maintenance.lock")


#: Number of stores that stay open although no cache refers to them.
N_IDLE = 4

_lock = threading.RLock()
_stores: weakref.WeakValueDictionary[Path, Store] = weakref.WeakValueDictionary()
_last_opened: deque[Store] = deque(maxlen=N_IDLE)
_forking: list[Store] = []


def open_store(location: Path) -> Store:
    """Return the store of a location, which is shared in this process.

    The stores used last stay open, since an estimator with ``cache=True`` creates a new
    cache in each call.
    """
    with _lock:
        store = _stores.get(location)
        if store is None:
            store = _stores[location] = Store(location)
            _last_opened.append(store)
        return store


def _before_fork() -> None:
    _lock.acquire()
    _forking.extend(_stores.values())
    for store in _forking:
        store.prepare_fork()


def _after_fork_in_parent() -> None:
    for store in _forking:
        store.resume_after_fork()
    _forking.clear()
    _lock.release()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    for store in _forking:
        store.start_as_child()
    _forking.clear()


@atexit.register
def _close_all() -> None:
    for store in list(_stores.values()):
        store.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
