"""Reading rows: memory -> index -> segment.

The place of a row is kept in memory after the first request; the row itself is read and
checked each time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._warning import warn_user
from sk_medsiglip.cache._index import Index
from sk_medsiglip.cache._live_index import LiveIndex
from sk_medsiglip.cache._segment_layout import DamagedSegment
from sk_medsiglip.cache._segments import Segment
from sk_medsiglip.cache._space import Space
from sk_medsiglip.exceptions import CacheError, CacheWarning

MOST_PLACES = 1_000_000  # places kept in memory, about 150 bytes each
MOST_SEGMENTS = 128  # segments kept open
USES_EVERY = 60.0  # seconds between two records of use


class Reader:
    """Open segments and known places of a location, in one process."""

    def __init__(self, index: LiveIndex) -> None:
        self._index = index
        self._segments: dict[int, Segment] = {}
        self._places: dict[int, int] = {}
        self._uses: dict[int, int] = {}
        self._uses_noted = time.monotonic()

    def get_many(
        self,
        space: Space,
        fingerprints: Sequence[bytes],
        out: NDArray[np.float32],
        *,
        any_numeric: bool,
    ) -> NDArray[np.bool_]:
        """See :meth:`EmbeddingCache.get_many`."""
        if (
            out.shape != (len(fingerprints), space.width)
            or out.dtype != np.float32
            or not out.flags.c_contiguous
        ):
            raise ValueError(
                f"out must be a C-contiguous float32 array of shape "
                f"{(len(fingerprints), space.width)}; got {out.dtype} {out.shape}."
            )
        found = np.zeros(len(fingerprints), dtype=bool)
        n_damaged = 0
        failures: dict[int, OSError] = {}
        for candidate in self._stand_ins(space) if any_numeric else [space]:
            todo = np.flatnonzero(~found)
            if todo.size:
                n_damaged += self._get(
                    candidate, fingerprints, todo, out, found, failures
                )
        if n_damaged:
            warn_user(
                f"{n_damaged} stored embeddings in {self._index.location} are damaged "
                "and count as missing. To find others: sk-medsiglip cache verify",
                CacheWarning,
            )
        unread = [error for row, error in failures.items() if not found[row]]
        if unread:
            warn_user(
                f"{len(unread)} stored embeddings in {self._index.location} could not "
                f"be read ({unread[0].strerror}) and count as missing for now.",
                CacheWarning,
            )
        return found

    def _stand_ins(self, space: Space) -> list[Space]:
        """Return the stored spaces that differ only in numerics, float32 first."""
        nothing: dict[int, tuple[Space, int]] = {}
        stored = self._index.ask(lambda index: index.segments(), otherwise=nothing)
        spaces = {other for other, _ in stored.values()} | {space}
        return sorted(
            (other for other in spaces if other.differs_in_numbers_only(space)),
            key=lambda other: (
                other.dtype != "float32",
                other != space,
                other.line,
            ),
        )

    def _get(
        self,
        space: Space,
        fingerprints: Sequence[bytes],
        todo: NDArray[np.intp],
        out: NDArray[np.float32],
        found: NDArray[np.bool_],
        failures: dict[int, OSError],
    ) -> int:
        """Fill the rows ``todo`` from one space; return the number of damaged rows."""
        wanted = [fingerprints[i] for i in todo.tolist()]
        keys = space.keys(wanted).tolist()
        places = self._find_places(keys)
        bad = self._read(places, wanted, todo, out, found, failures)
        if not bad.size:
            return 0
        # Rows move when another process prunes, so look them up again.
        keys = [keys[i] for i in bad.tolist()]
        places = self._find_places(keys, afresh=True)
        wanted = [wanted[i] for i in bad.tolist()]
        bad = self._read(places, wanted, todo[bad], out, found, failures)
        # Rows of a store that was just cleared are missing, not damaged.
        if bad.size:
            bad = bad[self._find_places(keys, afresh=True)[bad] == places[bad]]
        if bad.size:
            self._drop([keys[i] for i in bad.tolist()], places[bad].tolist())
        return len(bad)

    def _find_places(
        self, keys: list[int], *, afresh: bool = False
    ) -> NDArray[np.int64]:
        """Return the place of each key, or -1 if it is unknown."""
        with self._index.lock:
            known = {} if afresh else self._places
            places = [known.get(key, -1) for key in keys]
            asked = [k for k, p in zip(keys, places, strict=True) if p < 0]
            if asked:
                none: dict[int, int] = {}
                answer = self._index.ask(
                    lambda index: index.places(asked), otherwise=none
                )
                if len(self._places) + len(answer) > MOST_PLACES:
                    self._places.clear()
                self._places.update(answer)
                places = [
                    answer.get(k, -1) if p < 0 else p
                    for k, p in zip(keys, places, strict=True)
                ]
        return np.array(places, dtype=np.int64)

    def _read(
        self,
        places: NDArray[np.int64],
        wanted: list[bytes],
        todo: NDArray[np.intp],
        out: NDArray[np.float32],
        found: NDArray[np.bool_],
        failures: dict[int, OSError],
    ) -> NDArray[np.intp]:
        """Read rows in the order of their places; return those that are damaged.

        Rows that could not be read because of a system error go to ``failures``.
        """
        order = np.argsort(places, kind="stable")
        order = order[np.searchsorted(places[order], 0) :]
        if not order.size:
            return order
        ordered = places[order]
        good = np.zeros(len(order), dtype=bool)
        numbers = ordered >> 32
        cuts = (np.flatnonzero(np.diff(numbers)) + 1).tolist()
        for start, stop in zip([0, *cuts], [*cuts, len(order)], strict=True):
            here = order[start:stop]
            targets = todo[here].tolist()
            try:
                segment = self.segment(int(numbers[start]))
            except CacheError:
                raise
            except OSError as error:
                failures.update(dict.fromkeys(targets, error))
                continue
            if segment is None:
                continue
            # A repeated row is read twice. Two keys with the same place need not have
            # the same fingerprint: each must match the row.
            good[start:stop] = segment.read(
                ordered[start:stop] & 0xFFFF_FFFF,
                [wanted[i] for i in here.tolist()],
                out,
                targets,
                failures,
            )
        self._note_uses(ordered[good])
        found[todo[order]] = good
        bad = order[~good]
        if failures:
            bad = bad[[row not in failures for row in todo[bad].tolist()]]
        return bad

    def segment(self, number: int) -> Segment | None:
        """Return a segment, or None if it is missing or damaged."""
        with self._index.lock:
            segment = self._segments.pop(number, None)
            if segment is None or segment.is_deleted:
                try:
                    segment = Segment(self._index.segment_path(number))
                except (FileNotFoundError, DamagedSegment):
                    return None
            while len(self._segments) >= MOST_SEGMENTS:
                # Other threads may be reading it: it is closed by the last of them.
                del self._segments[next(iter(self._segments))]
            self._segments[number] = segment
            return segment

    def _drop(self, keys: list[int], places: list[int]) -> None:
        """Remove damaged rows, so that the next writer stores them again."""

        def drop(index: Index) -> None:
            if index.writable:
                with index.writing():
                    index.drop_rows(keys, places)

        with self._index.lock:
            for key in keys:
                self._places.pop(key, None)
            with suppress(CacheError):  # they stay in the index, but fail each check
                self._index.ask(drop, otherwise=None)

    def _note_uses(self, places: NDArray[np.int64]) -> None:
        """Note that rows were read; record it from time to time."""
        now = time.time_ns()
        with self._index.lock:
            self._uses.update(dict.fromkeys(np.unique(places >> 8).tolist(), now))
            if time.monotonic() - self._uses_noted > USES_EVERY:
                self.flush_uses()

    def flush_uses(self) -> None:
        """Record which rows were read."""
        self._uses_noted = time.monotonic()
        uses, self._uses = self._uses, {}
        if not uses:
            return

        def note(index: Index) -> None:
            if index.writable:
                with index.writing():
                    index.note_uses(uses.items())

        with suppress(CacheError):  # losing these times is not worth an error
            self._index.ask(note, otherwise=None)

    def forget(self) -> None:
        """Forget the places of rows, and close the segments."""
        with self._index.lock:
            self._segments.clear()
            self._places.clear()

    def forget_uses(self) -> None:
        """Forget uses that are not recorded yet."""
        self._uses.clear()
