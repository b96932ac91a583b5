"""All that the caches of one location share in one process."""

from __future__ import annotations

import shutil
import stat
import threading
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip.cache._claims import Claims
from sk_medsiglip.cache._files import FileStamp, file_keys, is_at_rest
from sk_medsiglip.cache._index import Index
from sk_medsiglip.cache._live_index import LiveIndex
from sk_medsiglip.cache._location import CONVERTED
from sk_medsiglip.cache._locks import holding
from sk_medsiglip.cache._models import Models
from sk_medsiglip.cache._mounts import network_file_system
from sk_medsiglip.cache._prune import prune
from sk_medsiglip.cache._reader import Reader
from sk_medsiglip.cache._repair import VerifyReport, check_rows
from sk_medsiglip.cache._segments import list_segments
from sk_medsiglip.cache._space import Space
from sk_medsiglip.cache._writer import Writer
from sk_medsiglip.exceptions import CacheError


class Store:
    """One location, as one process has it open."""

    def __init__(self, location: Path) -> None:
        self.location = location
        self.claims = Claims(location / "claims.lock")
        self.models = Models(location / "models")
        self._index = LiveIndex(location)
        self._folder = self._index.folder
        self._lock = self._index.lock
        self._reader = Reader(self._index)
        self._writer = Writer(self._index)

    def get_many(
        self,
        space: Space,
        fingerprints: Sequence[bytes],
        out: NDArray[np.float32],
        *,
        any_numeric: bool,
    ) -> NDArray[np.bool_]:
        """See :meth:`EmbeddingCache.get_many`."""
        return self._reader.get_many(space, fingerprints, out, any_numeric=any_numeric)

    def put_many(
        self, space: Space, fingerprints: Sequence[bytes], vectors: ArrayLike
    ) -> None:
        """See :meth:`EmbeddingCache.put_many`."""
        with self._failing_as_one():
            self._writer.put_many(space, fingerprints, vectors)

    # -------------------------------------------------------------------------- files

    def recall_files(
        self, stamps: Sequence[FileStamp | None], reading: str
    ) -> list[bytes | None]:
        """See :meth:`EmbeddingCache.recall_files`."""
        keys = file_keys([stamp for stamp in stamps if stamp is not None], reading)
        nothing: list[bytes | None] = [None] * len(keys)
        answer = self._index.ask(
            lambda index: index.find_files(keys), otherwise=nothing
        )
        known = iter(answer)
        return [None if stamp is None else next(known) for stamp in stamps]

    def remember_files(
        self,
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

        with self._failing_as_one():
            self._index.write(note)

    def forget_files(self, stamps: Sequence[FileStamp], reading: str) -> None:
        """See :meth:`EmbeddingCache.forget_files`."""
        keys = file_keys(stamps, reading)

        def forget(index: Index) -> None:
            with index.writing():
                index.drop_files(keys)

        if keys:
            with self._failing_as_one():
                self._index.write(forget)

    # --------------------------------------------------------------------- for people

    def count_rows(self) -> int:
        """Return the number of rows."""
        return self._index.ask(lambda index: index.count_rows(), otherwise=0)

    def iterate(self) -> Iterator[tuple[Space, bytes]]:
        """Yield the space and fingerprint of every row."""
        none = np.empty(0, np.int64)
        keys, places = self._index.ask(
            lambda index: index.all_rows(), otherwise=(none, none)
        )
        for key, place in zip(keys.tolist(), places.tolist(), strict=True):
            with self._failing_as_one("could not be read now"):
                segment = self._reader.segment(place >> 32)
                row = place & 0xFFFF_FFFF
                fingerprint = b"" if segment is None else segment.fingerprint(row)
            if segment is not None and fingerprint:
                if segment.space.keys([fingerprint])[0] == key:
                    yield segment.space, fingerprint

    def scan_rows(
        self, spaces: Container[Space]
    ) -> Iterator[tuple[Space, list[bytes], NDArray[np.float32]]]:
        """Yield the intact rows of some spaces, in the order of the disk."""
        none = np.empty(0, np.int64)
        _, places = self._index.ask(
            lambda index: index.all_rows(), otherwise=(none, none)
        )
        numbers = places >> 32
        for number in np.unique(numbers).tolist():
            segment = self._reader.segment(number)
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
        counts = self._index.ask(count, otherwise=nothing)
        converted = self.location / CONVERTED
        n_bytes, n_converted = 0, 0
        for path in self.location.rglob("*"):
            # Others may clear the store meanwhile.
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
            self._failing_as_one("could not be checked now"),
            self._maintaining(),
            self._lock,
        ):
            n_bad = self._index.check()
            report = self._index.write(lambda index: check_rows(index, self._folder))
            self._reader.forget()
        if n_bad is None:
            return report
        return replace(report, dropped=report.dropped + n_bad, index_rebuilt=True)

    def prune(self, max_bytes: int) -> int:
        """See :meth:`EmbeddingCache.prune`."""
        if not self.location.is_dir():
            return 0
        with self._failing_as_one(), self._maintaining(), self._lock:
            self._reader.flush_uses()
            self._writer.close()
            freed = self._index.write(
                lambda index: prune(index, self._folder, max_bytes)
            )
            self._reader.forget()
            return freed

    def clear(self) -> None:
        """See :meth:`EmbeddingCache.clear`."""
        if not self.location.is_dir():
            return
        with self._failing_as_one(), self._maintaining(), self._lock:
            self._reader.forget_uses()
            self._let_go()
            # The index first: whoever finds a row in it must find the row.
            self._index.delete()
            for path in [*list_segments(self._folder), *self.models.paths()]:
                path.unlink(missing_ok=True)
            if (self.location / CONVERTED).is_dir():
                shutil.rmtree(self.location / CONVERTED)

    def close(self) -> None:
        """Close every handle; the next use opens what it needs."""
        with self._lock:
            self._reader.flush_uses()
            self._let_go()
            self.claims.close()

    def __del__(self) -> None:
        self.close()

    # --------------------------------------------------------------------- forking

    def prepare_fork(self) -> None:
        """Before a fork: let no thread be in the middle of something."""
        self._lock.acquire()
        self._index.close()

    def resume_after_fork(self) -> None:
        """After a fork, in the parent."""
        self._lock.release()

    def start_as_child(self) -> None:
        """After a fork, in the child: let go of what is the parent's."""
        self._lock = self._index.lock = threading.RLock()
        self._writer.close()  # the parent's handles keep its locks on the files
        self._reader.forget_uses()
        self.claims.close_inherited()

    # --------------------------------------------------------------------- handles

    def _let_go(self) -> None:
        self._index.close()
        self._writer.close()
        self._reader.forget()

    @contextmanager
    def _maintaining(self) -> Iterator[None]:
        """Check, prune or clear, one process at a time."""
        with holding(self.location / "maintenance.lock"):
            yield

    @contextmanager
    def _failing_as_one(self, what: str = "cannot be written") -> Iterator[None]:
        """Turn the system's errors (no space, no permission) into CacheError."""
        try:
            yield
        except CacheError:
            raise
        except OSError as error:
            raise CacheError(
                f"the embedding cache {self.location} {what}: {error}"
            ) from error
