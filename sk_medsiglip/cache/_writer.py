"""Writing rows: first to a segment, then to the index, which never names a lost row."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip.cache._index import DamagedIndex, Index
from sk_medsiglip.cache._live_index import LiveIndex
from sk_medsiglip.cache._repair import adopt_rows
from sk_medsiglip.cache._segments import Segment, SegmentWriter
from sk_medsiglip.cache._space import Space
from sk_medsiglip.cache._system import make_folder
from sk_medsiglip.exceptions import CacheError

SEGMENT_LIMIT = 256 * 2**20  # bytes; larger segments are only read
ROWS_PER_PUT = 1024  # rows per append and transaction; they fit into the L2 cache


class Writer:
    """The segments to which one process appends, one per space."""

    def __init__(self, index: LiveIndex) -> None:
        self._index = index
        self._open: dict[Space, SegmentWriter] = {}

    def put_many(
        self, space: Space, fingerprints: Sequence[bytes], vectors: ArrayLike
    ) -> None:
        """See :meth:`EmbeddingCache.put_many`."""
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        if rows.shape != (len(fingerprints), space.width):
            raise ValueError(
                f"vectors must have shape {(len(fingerprints), space.width)}, "
                f"got {rows.shape}."
            )
        keys = space.keys(fingerprints).tolist()
        for start in range(0, len(rows), ROWS_PER_PUT):
            part = slice(start, start + ROWS_PER_PUT)
            put = partial(self._put, space, keys[part], fingerprints[part], rows[part])
            self._index.write(put)

    def _put(
        self,
        space: Space,
        keys: list[int],
        fingerprints: Sequence[bytes],
        rows: NDArray[np.float32],
        index: Index,
    ) -> None:
        writer: SegmentWriter | None = None
        try:
            with index.writing():
                stored = index.places(keys)
                new = {key: i for i, key in enumerate(keys) if key not in stored}
                if new:
                    writer = self._segment_for(index, space)
                    n_before = writer.n_rows
                    self._append(index, writer, new, fingerprints, rows)
                index.count("rows_computed", len(new))
                index.count("repeated_puts", len(keys) - len(new))
        except BaseException as error:
            # Index entries of the segment, adopted rows included, are rolled back, so
            # the next put opens it again. Rows that no index can name are removed now.
            if writer is not None:
                if isinstance(error, CacheError | DamagedIndex):
                    writer.truncate(n_before)
                if self._open.get(space) is writer:
                    self._open.pop(space).close()
            raise

    def _append(
        self,
        index: Index,
        writer: SegmentWriter,
        new: dict[int, int],
        fingerprints: Sequence[bytes],
        rows: NDArray[np.float32],
    ) -> None:
        """Write rows to the segment, then to the index."""
        first_place = (writer.id << 32) + writer.n_rows
        if len(new) < len(rows):
            fingerprints = [fingerprints[i] for i in new.values()]
            rows = rows[list(new.values())]
        writer.append(fingerprints, rows)
        index.append_rows(list(new), first_place)
        index.note_segment(writer.id, writer.space, writer.n_rows)
        # The time of use is recorded with the first row of a block.
        begun = range(-(-first_place // 256), (first_place + len(new) - 1) // 256 + 1)
        now = time.time_ns()
        index.note_uses((block, now) for block in begun)

    def _segment_for(self, index: Index, space: Space) -> SegmentWriter:
        """Return the segment to append to: open, left by a dead writer, or new."""
        writer = self._open.get(space)
        if writer is not None:
            if writer.n_bytes < SEGMENT_LIMIT and not writer.is_deleted:
                return writer
            self._open.pop(space).close()
        make_folder(self._index.folder, inside=True)
        for number, (other, n_rows) in index.segments().items():
            path = self._index.segment_path(number)
            if other != space or not _has_room(path):
                continue
            writer = SegmentWriter.resume(path)
            if writer is not None:
                self._open[space] = writer
                if writer.n_rows > n_rows:  # its writer died before indexing them
                    n_good, _ = adopt_rows(index, Segment(path), n_rows)
                    index.count("rows_computed", n_good)
                return writer
        writer = self._open[space] = SegmentWriter.create(self._index.folder, space)
        return writer

    def close(self) -> None:
        """Close the segments, which releases their locks."""
        while self._open:
            self._open.popitem()[1].close()


def _has_room(path: Path) -> bool:
    try:
        return path.stat().st_size < SEGMENT_LIMIT
    except OSError:
        return False
