"""At the end of a job: every image once, few large shards, one list of failures.

Blocks become small shards, so that little is lost when a job dies. Here they are put
together, rows that stand twice (a source listed twice, two jobs at once, an image that
changed) lose their older copies, and many commits become one. New shards are written
first, one commit puts them in the place of the old, and only then are these removed: a
job that dies in between has lost nothing, and the next one finishes the work.

One job at a time does this. It leaves a mark first and then looks for others' marks;
whoever sees another's takes its own away and tries later. So two never think that they
are alone, on any storage whose listings show what was put before. A mark is written
anew while its job lives; one that stays as it is was left by a job that died.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
)
from sk_medsiglip.distributed._storage import Storage
from sk_medsiglip.distributed._tables import remove_old_tables

FAILURES = "failures.parquet"

_MARK = "tidying-"

#: Seconds between the times that a mark is written anew; after which one that was not
#: is that of a dead job; and that one waits for others.
_BEAT, _MARK_LASTS, _PATIENCE = 10.0, 60.0, 900.0

#: Merging tasks that wait at a time, so that a driver's memory does not grow with them.
_TASKS_AHEAD = 16

#: CPUs of a merging task.
_CPUS = 0.5


@dataclass(frozen=True)
class _Part:
    """A shard to be merged, and which of its rows stay."""

    entry: ShardEntry
    kept: NDArray[np.bool_]


def tidy(manifest: Manifest, storage: Storage, rows_per_shard: int) -> State:
    """Put an output in order."""
    with _alone(storage) as is_alone:
        state = manifest.load()
        if not is_alone:
            return state
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
        if groups or len(state.commits) > 1 or len(failures) < len(state.failures):
            manifest.commit(
                Commit(tuple(whole), tuple(failures), state.commits, state.table)
            )
            storage.remove(f"{MANIFEST}/{name}" for name in state.commits)
            left = parts - {entry.name for entry in whole}
            storage.remove(f"{SHARDS}/{name}" for name in sorted(left))
        remove_old_tables(storage, state.tables)
        return manifest.load()


@contextmanager
def _alone(storage: Storage) -> Iterator[bool]:
    """Give True while no other job puts this output in order."""
    end = time.monotonic() + _PATIENCE
    name = f"{MANIFEST}/{_MARK}{uuid.uuid4().hex}"
    seen: dict[str, tuple[bytes, float]] = {}
    while True:
        _put_mark(storage, name)
        if not _other_marks(storage, name, seen):
            break
        storage.remove([name])
        if time.monotonic() > end:
            yield False
            return
        time.sleep(random.uniform(0.2, 2.0))
    stop = threading.Event()
    beat = threading.Thread(target=_keep_mark, args=(storage, name, stop), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        stop.set()
        beat.join()
        storage.remove([name])


def _put_mark(storage: Storage, name: str) -> None:
    # Never the same: clocks of machines differ, so that a time would say little.
    storage.put(name, uuid.uuid4().hex.encode())


def _keep_mark(storage: Storage, name: str, stop: threading.Event) -> None:
    while not stop.wait(_BEAT):
        with suppress(OSError):  # a storage may answer again the next time
            _put_mark(storage, name)


def _other_marks(
    storage: Storage, own: str, seen: dict[str, tuple[bytes, float]]
) -> list[str]:
    """Return marks of jobs that live; ``seen`` is what they held, and since when."""
    others = []
    for base in storage.sizes(MANIFEST):
        name = f"{MANIFEST}/{base}"
        if not base.startswith(_MARK) or name == own:
            continue
        try:
            content = storage.get(name)
        except FileNotFoundError:
            continue
        before, since = seen.setdefault(name, (content, time.monotonic()))
        if before != content:
            seen[name] = content, time.monotonic()
        elif time.monotonic() - since > _MARK_LASTS:
            storage.remove([name])
            continue
        others.append(name)
    return others


# -------------------------------------------------------------- rows that stand twice


def _source_array(keys: bytes) -> NDArray[np.bytes_]:
    """Return the part of each key that is the source's alone."""
    table = np.frombuffer(keys, np.uint8).reshape(-1, KEY_BYTES)[:, :SOURCE_BYTES]
    return np.ascontiguousarray(table).view(f"S{SOURCE_BYTES}").ravel()


def _find_youngest(sources: NDArray[np.bytes_]) -> NDArray[np.bool_]:
    """Return where a source stands for the last time."""
    # Of equals numpy's unique names the first.
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
