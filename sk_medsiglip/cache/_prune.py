"""Freeing space: the least recently used rows are deleted, the others compacted."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.cache._index import Index
from sk_medsiglip.cache._segment_layout import ROWS_START, row_bytes
from sk_medsiglip.cache._segments import Segment, SegmentWriter, list_segments


def prune(index: Index, folder: Path, max_bytes: int) -> int:
    """Shrink the segments in ``folder`` to ``max_bytes``; return the bytes freed.

    Segments that are open for writing are not changed, even if the limit is exceeded.
    """
    if sum(path.stat().st_size for path in list_segments(folder)) <= max_bytes:
        return 0
    freed = 0
    with ExitStack() as stack:
        # Lock segments before the index is read, so that no row is missed.
        writers = []
        for path in list_segments(folder):
            writer = SegmentWriter.resume(path)
            if writer is not None:
                writers.append(writer)
                stack.callback(writer.close)
        keys, places = index.all_rows()
        kept = np.isin(places >> 8, _blocks_to_keep(index, places, max_bytes))
        for writer in writers:
            own = places >> 32 == writer.id
            # Rows without an index entry (damaged or repeated) are deleted as well.
            if writer.n_rows > int((own & kept).sum()):
                freed += writer.n_bytes
                freed -= _rewrite(
                    index, folder, writer, keys[own], places[own], kept[own]
                )
                writer.path.unlink()
    return freed


def _blocks_to_keep(
    index: Index, places: NDArray[np.int64], max_bytes: int
) -> NDArray[np.int64]:
    """Choose the most recently used blocks that fit into ``max_bytes``."""
    uses = index.uses()
    n_bytes = {n: row_bytes(space.width) for n, (space, _) in index.segments().items()}
    n_rows = Counter((places >> 8).tolist())
    segments_kept: set[int] = set()
    blocks: list[int] = []
    total = 0
    # Among equally recent blocks, the one with the larger number was stored last.
    for block in sorted(n_rows, key=lambda b: (uses.get(b, 0), b), reverse=True):
        number = block >> 24
        total += n_rows[block] * n_bytes.get(number, 0)
        total += 0 if number in segments_kept else ROWS_START
        if total > max_bytes:
            break
        segments_kept.add(number)
        blocks.append(block)
    return np.array(blocks, dtype=np.int64)


def _rewrite(
    index: Index,
    folder: Path,
    old: SegmentWriter,
    keys: NDArray[np.int64],
    places: NDArray[np.int64],
    kept: NDArray[np.bool_],
) -> int:
    """Copy the rows that are kept to a new segment; return its size in bytes.

    Readers that have the old file open continue to read it. Readers that find it
    deleted after looking up a row look it up again.
    """
    uses = index.uses()
    moved_keys: list[int] = []
    moved_uses: dict[int, int] = {}
    new = SegmentWriter.create(folder, old.space) if kept.any() else None
    try:
        if new is not None:
            key_of = dict(zip(places[kept].tolist(), keys[kept].tolist(), strict=True))
            for first, fingerprints, vectors, good in Segment(old.path).scan():
                start = (old.id << 32) + first
                rows = [i for i in np.flatnonzero(good).tolist() if start + i in key_of]
                for new_place, i in enumerate(rows, (new.id << 32) + new.n_rows):
                    used = uses.get((start + i) >> 8, 0)
                    block = new_place >> 8
                    moved_uses[block] = max(moved_uses.get(block, 0), used)
                moved_keys += [key_of[start + i] for i in rows]
                new.append([fingerprints[i] for i in rows], vectors[rows])
        # From now on the index points to the copies.
        with index.writing():
            index.drop_rows(keys.tolist(), places.tolist())
            index.drop_segment(old.id)
            if new is not None:
                first_place = new.id << 32
                index.move_rows(
                    moved_keys, range(first_place, first_place + len(moved_keys))
                )
                index.note_segment(new.id, old.space, new.n_rows)
                index.note_uses(moved_uses.items())
        return 0 if new is None else new.n_bytes
    except BaseException:
        if new is not None:
            new.path.unlink()
        raise
    finally:
        if new is not None:
            new.close()
