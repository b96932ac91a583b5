"""Which shards of an output count: a log of small files, each put whole.

A shard exists for readers when a commit names it. A commit is one JSON file in
``_manifest/``, and putting one file is atomic on a disk and in an object store, which
has no renaming. Nothing is ever changed in place::

    _manifest/<time>-<job>-<number>.json
        {"format": "1",
         "table": NAME,                         rows of the last call
         "recipe": {...},                       model, revision, reading
         "shards": {NAME: {"rows": 64, "bytes": 301225, "time": ..., "columns": ...,
                           "keys": "<base64>"}},
         "failures": [{"source": ..., "reason": ..., "hint": ..., "key": "<hex>",
                       "time": ...}],
         "replaces": [COMMIT, ...]}             commits that this one sums up

The shards that count are those of all commits that no other replaces, if their files
exist and are whole. So commits of several jobs need neither an order nor a lock, and a
shard that somebody deleted is merely missing. Keys are in
the manifest so that a job that is run again reads no shard.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._json import read_json
from sk_medsiglip.distributed._shards import (
    KEY_BYTES,
    SHARDS,
    SOURCE_BYTES,
    ShardEntry,
    find_shard,
)
from sk_medsiglip.distributed._storage import Storage
from sk_medsiglip.exceptions import CacheError

FORMAT = "1"
MANIFEST = "_manifest"

#: Number of times that the commits are listed while other jobs remove some.
_ATTEMPTS = 5

#: A numpy type for keys: sorts and compares as bytes do.
_KEY = np.dtype(f"S{KEY_BYTES}")


@dataclass(frozen=True)
class Failure:
    """An image that could not be read, and when that was tried."""

    source: str
    reason: str
    hint: str
    key: bytes
    time: float


@dataclass(frozen=True)
class Commit:
    """Content of one file of the manifest."""

    shards: tuple[ShardEntry, ...] = ()
    failures: tuple[Failure, ...] = ()
    replaces: tuple[str, ...] = ()
    table: str = ""


@dataclass(frozen=True)
class State:
    """The state that all commits together describe."""

    shards: dict[str, ShardEntry] = field(default_factory=dict)
    failures: dict[bytes, Failure] = field(default_factory=dict)
    commits: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        """The table that counts, or "" if there is none."""
        return self.tables[-1] if self.tables else ""

    @property
    def n_rows(self) -> int:
        """Rows of all shards."""
        return sum(entry.n_rows for entry in self.shards.values())

    def keys(self) -> NDArray[np.bytes_]:
        """Return the keys of all rows, sorted, each once: 16 bytes a row."""
        return np.unique(
            np.frombuffer(b"".join(e.keys for e in self.shards.values()), _KEY)
        )


class Manifest:
    """The commits of one output."""

    def __init__(self, storage: Storage, recipe: Mapping[str, Any] | None) -> None:
        self._storage = storage
        self._recipe = None if recipe is None else dict(recipe)
        self._job = uuid.uuid4().hex[:8]
        self._n_commits = 0

    def load(self) -> State:
        """Read all commits."""
        texts = self._read_commits()
        commits = {name: self._parse(name, text) for name, text in texts.items()}
        replaced = {name for commit in commits.values() for name in commit.replaces}
        counting = [c for name, c in commits.items() if name not in replaced]
        present = self._storage.sizes(SHARDS)
        live = {
            entry.name: entry
            for commit in counting
            for entry in commit.shards
            if present.get(entry.name) == entry.n_bytes
        }
        youngest_last = sorted(live.values(), key=lambda e: (e.time, e.name))
        failures = sorted(
            (f for commit in counting for f in commit.failures), key=lambda f: f.time
        )
        return State(
            {entry.name: entry for entry in youngest_last},
            {failure.key[:SOURCE_BYTES]: failure for failure in failures},
            tuple(commits),
            tuple(sorted({commit.table for commit in counting} - {""})),
        )

    def commit(self, commit: Commit) -> str:
        """Put one commit; it counts when this returns, and not before."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        name = f"{stamp}-{self._job}-{self._n_commits:06}.json"
        self._n_commits += 1
        self._storage.put(f"{MANIFEST}/{name}", _write(commit, self._recipe))
        return name

    def adopt(self, state: State) -> State:
        """Commit whole shards that no commit names: their job died just before."""

        def find(name: str) -> ShardEntry | None:
            return find_shard(self._storage, name, self._recipe)

        orphans = self._storage.sizes(SHARDS).keys() - state.shards.keys()
        found = self._storage.at_once(find, sorted(orphans))
        entries = tuple(entry for entry in found if entry is not None)
        if not entries:
            return state
        self.commit(Commit(entries))
        return self.load()

    def _read_commits(self) -> dict[str, bytes]:
        # Another job may put its commits together while they are read here: then one
        # that was listed is gone, and its content in a new one.
        for attempts_left in reversed(range(_ATTEMPTS)):
            sizes = self._storage.sizes(MANIFEST)
            names = sorted(name for name in sizes if name.endswith(".json"))
            try:
                paths = [f"{MANIFEST}/{name}" for name in names]
                texts = self._storage.at_once(self._storage.get, paths)
                return dict(zip(names, texts, strict=True))
            except FileNotFoundError:
                if not attempts_left:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _parse(self, name: str, text: bytes) -> Commit:
        where = f"{self._storage.url}/{MANIFEST}/{name}"
        try:
            kinds = {"shards": dict, "failures": list, "replaces": list, "table": str}
            said = read_json(text, optional=kinds)
            found = said["format"]
            if found != FORMAT:
                raise CacheError(
                    f"{where} has format {found}; this version of sk_medsiglip reads "
                    f"format {FORMAT}. Upgrade sk_medsiglip."
                )
            recipe = said["recipe"]
            commit = Commit(
                tuple(_read_entries(said["shards"])),
                tuple(
                    Failure(**f | {"key": bytes.fromhex(f["key"])})
                    for f in said["failures"]
                ),
                tuple(said["replaces"]),
                said.get("table", ""),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CacheError(
                f"{where} is damaged: {error}. Remove it: the shards that it names "
                "are found again."
            ) from error
        if self._recipe is not None and recipe != self._recipe:
            raise ValueError(_describe_difference(recipe, self._recipe))
        return commit


def _write(commit: Commit, recipe: Mapping[str, Any] | None) -> bytes:
    said = {
        "format": FORMAT,
        "recipe": recipe,
        "shards": {
            entry.name: {
                "rows": entry.n_rows,
                "bytes": entry.n_bytes,
                "time": entry.time,
                "columns": entry.columns,
                "keys": base64.b64encode(entry.keys).decode(),
            }
            for entry in commit.shards
        },
        "failures": [asdict(f) | {"key": f.key.hex()} for f in commit.failures],
        "replaces": list(commit.replaces),
        "table": commit.table,
    }
    return json.dumps(said).encode()


def _read_entries(shards: Mapping[str, Any]) -> Iterator[ShardEntry]:
    for name, said in shards.items():
        keys = base64.b64decode(said["keys"], validate=True)
        if len(keys) != KEY_BYTES * said["rows"]:
            raise ValueError(f"{name} has not as many keys as rows")
        yield ShardEntry(
            name, int(said["bytes"]), keys, said["columns"], float(said["time"])
        )


def _describe_difference(there: Any, here: Mapping[str, Any]) -> str:
    names = sorted(here.keys() | dict(there).keys())
    other = [
        f"{name}={there.get(name)!r} there, {here.get(name)!r} here"
        for name in names
        if there.get(name) != here.get(name)
    ]
    return (
        "out holds embeddings of another kind, and one output holds one: "
        f"{'; '.join(other)}. Give another folder as out, or the same settings."
    )
