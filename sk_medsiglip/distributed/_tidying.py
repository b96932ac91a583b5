"""At the end of a job: every image once, few large shards, one list of failures.

Blocks become small shards, so that little is lost when a job dies. Here they are put
together, rows that stand twice (a source listed twice, two jobs at once, an image that
changed) lose their older copies, and many commits become one. New shards are written
first, one commit puts them in the place of the old, and only then are these removed: a
job that dies in between has lost nothing, and the next one finishes the work.

Several jobs may do this at once, with neither a lock nor an order: equal states give
equal merged shards, under equal names, and a job whose shards another one has just
merged begins again with the new state. It ends when it finds nothing left to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.distributed._cluster import ray_module
from sk_medsiglip.distributed._manifest import (
    MANIFEST,
    Commit,
    Failure,
    Manifest,
    State,
)
from sk_medsiglip.distributed._shards import (
    KEY_BYTES,
    SHARDS,
    SOURCE_BYTES,
    ShardEntry,
    put_shard,
    remove_old_tables,
)
from sk_medsiglip.distributed._storage import Storage

FAILURES = "failures.parquet"

#: Number of passes after which a job leaves the rest to other jobs.
_MOST_PASSES = 20

#: Merging tasks that wait at a time, so that a driver's memory does not grow with them.
_TASKS_AHEAD = 16

#: CPUs of a merging task.
_CPUS = 0.5


@dataclass(frozen=True)
class _Part:
    """A shard to be merged, and the rows that it keeps."""

    entry: ShardEntry
    kept: NDArray[np.bool_]


def tidy(manifest: Manifest, storage: Storage, rows_per_shard: int) -> State:
    """Put an output in order."""
    for _ in range(_MOST_PASSES):
        try:
            state = manifest.load()
            if not _change(state, manifest, storage, rows_per_shard):
                return state
        except FileNotFoundError:
            continue  # another job has merged these shards, and is done with them
    return manifest.load()


def _change(
    state: State, manifest: Manifest, storage: Storage, rows_per_shard: int
) -> bool:
    """Tidy an output in this state; return whether anything was left to do."""
    entries = list(state.shards.values())
    sources = _source_array(b"".join(entry.keys for entry in entries))
    # One more than there are entries: what follows the last one is empty.
    kept = np.split(_find_youngest(sources), np.cumsum([e.n_rows for e in entries]))
    groups = list(_group(entries, kept[: len(entries)], rows_per_shard))
    merged = [entry for entry in _merge_all(storage, groups) if entry is not None]
    parts = {part.entry.name for group in groups for part in group}
    whole = [e for e in entries if e.name not in parts] + merged
    failures = _find_failures(state, sources)
    _write_failures(storage, failures)
    remove_old_tables(storage, state.tables)
    if not groups and len(state.commits) < 2 and len(failures) == len(state.failures):
        return False
    manifest.commit(Commit(tuple(whole), tuple(failures), state.commits, state.table))
    storage.remove(f"{MANIFEST}/{name}" for name in state.commits)
    left = parts - {entry.name for entry in whole}
    storage.remove(f"{SHARDS}/{name}" for name in sorted(left))
    return True


# -------------------------------------------------------------- rows that stand twice


def _source_array(keys: bytes) -> NDArray[np.bytes_]:
    """Return the part of each key that is the source's alone."""
    table = np.frombuffer(keys, np.uint8).reshape(-1, KEY_BYTES)[:, :SOURCE_BYTES]
    return np.ascontiguousarray(table).view(f"S{SOURCE_BYTES}").ravel()


def _find_youngest(sources: NDArray[np.bytes_]) -> NDArray[np.bool_]:
    """Return the last position of each source."""
    # numpy.unique returns the first of equal items, so the order is reversed.
    _, places = np.unique(sources[::-1], return_index=True)
    is_last = np.zeros(sources.size, dtype=bool)
    is_last[sources.size - 1 - places] = True
    return is_last


# ------------------------------------------------------------------------------ merging


def _group(
    entries: Sequence[ShardEntry],
    kept: Sequence[NDArray[np.bool_]],
    rows_per_shard: int,
) -> Iterator[list[_Part]]:
    """Yield shards that become one: those with rows to drop, and small ones."""
    waiting: dict[str, list[_Part]] = {}
    for entry, mask in zip(entries, kept, strict=True):
        is_small = entry.n_rows <= rows_per_shard // 2
        if mask.all() and not is_small:
            continue
        group = waiting.setdefault(entry.columns, [])
        if group and sum(int(p.kept.sum()) for p in group) + mask.sum() > (
            rows_per_shard
        ):
            yield group
            group = waiting[entry.columns] = []
        group.append(_Part(entry, mask))
    for group in waiting.values():
        # One small shard alone is as large as it can be.
        if len(group) > 1 or (group and not group[0].kept.all()):
            yield group


def _merge_all(
    storage: Storage, groups: Sequence[list[_Part]]
) -> Iterator[ShardEntry | None]:
    ray = ray_module()
    merge = ray.remote(num_cpus=_CPUS)(_merge)
    waiting: list[Any] = []
    for group in groups:
        waiting.append(merge.remote(storage, group))
        if len(waiting) >= _TASKS_AHEAD:
            yield ray.get(waiting.pop(0))
    for reference in waiting:
        yield ray.get(reference)


def _merge(storage: Storage, parts: Sequence[_Part]) -> ShardEntry | None:
    """Write one shard of the rows that stay; None if there are none."""
    import pyarrow as pa

    tables = []
    for part in parts:
        table = storage.read_table(f"{SHARDS}/{part.entry.name}")
        tables.append(table if part.kept.all() else table.filter(part.kept))
    whole = pa.concat_tables(tables).unify_dictionaries()
    if not whole.num_rows:
        return None
    return put_shard(storage, whole, max(part.entry.time for part in parts))


# ----------------------------------------------------------------------------- failures


def _find_failures(state: State, sources: NDArray[np.bytes_]) -> list[Failure]:
    """Return failures of sources that are not embedded meanwhile."""
    failures = list(state.failures.values())
    embedded = np.isin(_source_array(b"".join(f.key for f in failures)), sources)
    still = [f for f, done in zip(failures, embedded, strict=True) if not done]
    return sorted(still, key=lambda failure: failure.source)


def _write_failures(storage: Storage, failures: Sequence[Failure]) -> None:
    import pyarrow as pa

    table = pa.table(
        {
            "source": pa.array([f.source for f in failures], pa.string()),
            "reason": pa.array([f.reason for f in failures], pa.string()),
            "hint": pa.array([f.hint for f in failures], pa.string()),
            "tried": pa.array(
                [int(f.time * 1e6) for f in failures], pa.timestamp("us", tz="UTC")
            ),
        }
    )
    storage.put_table(FAILURES, table)
