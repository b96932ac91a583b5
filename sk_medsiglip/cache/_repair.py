"""Checking a store row by row, and rebuilding its index from the segments."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sk_medsiglip.cache._index import Index
from sk_medsiglip.cache._segment_layout import DamagedSegment
from sk_medsiglip.cache._segments import Segment, list_segments


@dataclass(frozen=True)
class VerifyReport:
    """Result of :meth:`EmbeddingCache.verify`: problems found and repaired.

    Parameters
    ----------
    rows : int
        Number of intact rows.
    dropped : int
        Number of rows that were damaged or missing. They are computed again when
        needed.
    recovered : int
        Number of intact rows that were missing in the index, and have been restored.
    segments : int
        Number of files of rows.
    unreadable_segments : int
        Number of those files that cannot be read at all. ``clear`` removes them.
    dropped_files : int
        Number of damaged records of image files. These files will be read again.
    index_rebuilt : bool
        Whether the index had to be rebuilt.

    Attributes
    ----------
    ok : bool
        Whether no problem was found.
    """

    rows: int = 0
    dropped: int = 0
    recovered: int = 0
    segments: int = 0
    unreadable_segments: int = 0
    dropped_files: int = 0
    index_rebuilt: bool = False

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not (
            self.dropped
            or self.recovered
            or self.unreadable_segments
            or self.dropped_files
            or self.index_rebuilt
        )


def build_index(path: Path, folder: Path) -> int:
    """Build an index from the segments in ``folder``; return the number of bad rows.

    It is moved to ``path`` when it is complete, so that a killed process does not leave
    a partial index. The caller holds the lock of the index.
    """
    draft = path.with_suffix(".draft")
    unlink_index(draft)
    index = Index(draft, create=True)
    n_bad = 0
    try:
        for segment in _open_segments(folder)[0]:
            with index.writing():
                n_good, n_segment_bad = adopt_rows(index, segment)
                index.count("rows_computed", n_good)
            n_bad += n_segment_bad
    finally:
        index.close()
    # The log of the old file must not be applied to the new one. Processes that have
    # the old file open keep it until they next look at the path.
    unlink_index(path)
    os.replace(draft, path)
    return n_bad


def adopt_rows(index: Index, segment: Segment, start: int = 0) -> tuple[int, int]:
    """Index the rows of a segment from ``start``; return the numbers of new and bad."""
    n_good = n_bad = 0
    n_rows = start
    for first, fingerprints, _, good in segment.scan(start):
        rows = first + np.flatnonzero(good)
        keys = segment.space.keys([fingerprints[row - first] for row in rows])
        n_good += index.add_rows(keys.tolist(), (rows + (segment.id << 32)).tolist())
        n_bad += int((~good).sum())
        n_rows = first + len(good)
    index.note_segment(segment.id, segment.space, n_rows)
    return n_good, n_bad


def check_rows(index: Index, folder: Path) -> VerifyReport:
    """Read every row, and make the index agree with the segments."""
    # The index is read first: rows that are added meanwhile may then seem unindexed,
    # which is harmless, but never lost.
    known_keys, known_places = index.all_rows()
    segments, n_unreadable = _open_segments(folder)
    all_keys, all_places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    n_rows: dict[int, int] = {}
    for segment in segments:
        n_rows[segment.id] = 0
        for first, fingerprints, _, good in segment.scan():
            all_keys.append(segment.space.keys(fingerprints)[good])
            all_places.append((segment.id << 32) + first + np.flatnonzero(good))
            n_rows[segment.id] = first + len(good)
    keys, places = np.concatenate(all_keys), np.concatenate(all_places)
    order = np.argsort(places)
    keys, places = keys[order], places[order]

    valid = np.zeros(len(known_keys), dtype=bool)
    if len(places):
        nearest = np.searchsorted(places, known_places).clip(max=len(places) - 1)
        valid = (places[nearest] == known_places) & (keys[nearest] == known_keys)
    lost = np.flatnonzero(~np.isin(keys, known_keys[valid]))
    with index.writing():
        index.drop_rows(known_keys[~valid].tolist(), known_places[~valid].tolist())
        n_recovered = index.add_rows(keys[lost].tolist(), places[lost].tolist())
        for segment in segments:
            index.note_segment(segment.id, segment.space, n_rows[segment.id])
        n_dropped_files = index.drop_damaged_files()
    return VerifyReport(
        rows=index.count_rows(),
        dropped=int((~valid).sum()),
        recovered=n_recovered,
        segments=len(segments) + n_unreadable,
        unreadable_segments=n_unreadable,
        dropped_files=n_dropped_files,
    )


def _open_segments(folder: Path) -> tuple[list[Segment], int]:
    """Return the readable segments, and the number of unreadable ones."""
    segments: list[Segment] = []
    n_unreadable = 0
    for path in list_segments(folder):
        try:
            segments.append(Segment(path))
        except FileNotFoundError:
            continue
        except DamagedSegment:
            n_unreadable += 1
    return segments, n_unreadable


def unlink_index(path: Path) -> None:
    """Delete an index and its log. The caller holds the lock of the index."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
