"""The Parquet files of an output: shards of embedded images, and the user's tables.

A shard, in ``shards/``, holds some images, a row each, no image twice, in no order::

    space        dictionary<string>  model, revision, numeric type ..., as JSON: one key
    fingerprint  binary(32)          blake3 of the pixels at the model's size
    checksum     uint32              crc32 over space, fingerprint and vector
    vector       binary              embedding_dim little-endian float32, as the model
                                     gives them: not scaled to unit length
    key          binary(16)          identifies a row: 12 bytes of a hash of the
                                     source's absolute name, 4 of its state
    source       string              path, URL or name, as the user's table has it
    size, mtime  int64               bytes, and nanoseconds since 1970, of a file;
                                     null for URLs and images inside the table
    ...                              the other columns of the user's table, as they
                                     were when the image was embedded

The first four are those of :meth:`EmbeddingCache.export_parquet`, with the same
meaning, so that :meth:`EmbeddingCache.import_parquet` takes a shard.
``numpy.frombuffer(value, "<f4")`` is a vector. In the file's own metadata, as JSON:

``sk_medsiglip.format``   of the first four columns
``sk_medsiglip.models``   facts that a cache needs to serve without the model
``sk_medsiglip.recipe``   model, revision, and how a source became pixels

Vectors are computed once. Labels, and the choice of images, change from call to call,
so each call writes its table again, a file for each piece, in ``tables/``: ``key`` and
``source`` as above, and the other columns of the user's table. The manifest names the
table that counts: the one of the last call that ended.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from sk_medsiglip._json import read_json
from sk_medsiglip.cache import EXPORT_COLUMNS, Space, rows_as_table
from sk_medsiglip.distributed._storage import Storage

SHARDS = "shards"
_TABLES = "tables"

#: Nanoseconds after which a table that no commit names belongs to a job that died.
_JOB_LASTS = 7 * 86_400 * 10**9

#: A key, and the part of it that is the source's alone.
KEY_BYTES, SOURCE_BYTES = 16, 12

#: Names of our own columns; see :func:`stored_name` for a user's of the same name.
OWN_COLUMNS = (*EXPORT_COLUMNS, "key", "source", "size", "mtime")

_RECIPE = b"sk_medsiglip.recipe"

#: Before the names of a user's columns that are called as ours are, or as those of a
#: block on its way, which begin with "_".
_OF_TABLE = "table."


@dataclass(frozen=True)
class ShardEntry:
    """A shard as the manifest knows it.

    ``keys`` are those of its rows, one after another; ``columns`` is equal for shards
    whose rows may lie in one file; ``time`` is when its youngest row was written, in
    seconds since 1970.
    """

    name: str
    n_bytes: int
    keys: bytes
    columns: str
    time: float

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.keys) // KEY_BYTES


def stored_name(name: str) -> str:
    """Return the name of a user's column in shards and tables."""
    ours = name in OWN_COLUMNS or name.startswith(("_", _OF_TABLE))
    return f"{_OF_TABLE}{name}" if ours else name


def own_name(stored: str) -> str:
    """Return the user's name of a stored column; undoes :func:`stored_name`."""
    return stored.removeprefix(_OF_TABLE)


def make_key(name: str, state: bytes) -> bytes:
    """Return the key of a source in one state: 12 bytes of its name, 4 of its state.

    The probability that two of 10**9 sources share their 12 bytes is 10**-11.
    """
    source = blake3(name.encode("utf-8", "surrogateescape")).digest(SOURCE_BYTES)
    return source + blake3(state).digest(KEY_BYTES - SOURCE_BYTES)


def make_shard(
    space: Space,
    rows: Any,
    vectors: NDArray[np.float32],
    *,
    models: Sequence[Mapping[str, Any]],
    recipe: Mapping[str, Any],
) -> Any:
    """Return rows (key, source, size, mtime, fingerprint, ...) and their vectors."""
    table = rows_as_table(space, rows["fingerprint"].to_pylist(), vectors, models)
    about = table.schema.metadata | {
        _RECIPE: json.dumps(dict(recipe), sort_keys=True).encode()
    }
    for name in rows.column_names:
        if name != "fingerprint":
            table = table.append_column(rows.schema.field(name), rows[name])
    return table.replace_schema_metadata(about)


def put_shard(storage: Storage, table: Any, when: float | None = None) -> ShardEntry:
    """Write a shard under the name that its rows give it: the same rows, the same name.

    Two jobs, or a task that was tried again, therefore write one file and not two.
    """
    import pyarrow as pa

    keys = b"".join(table["key"].to_pylist())
    digest = blake3(table["space"][0].as_py().encode() + keys)
    name = f"{digest.hexdigest(16)}.parquet"
    flat = [field for field in table.schema if not pa.types.is_nested(field.type)]
    texts = [field.name for field in flat if pa.types.is_string(field.type)]
    # Random bits do not compress; names, paths and labels do, ten times and more.
    dense = ("fingerprint", "checksum", "vector", "key")
    n_bytes = storage.put_table(
        f"{SHARDS}/{name}",
        table,
        compression={
            name: "none" if name in dense else "zstd" for name in table.column_names
        },
        use_dictionary=["space", *texts],
        write_statistics=[field.name for field in flat if field.name not in dense],
    )
    when = time.time() if when is None else when
    return ShardEntry(name, n_bytes, keys, _signature(table.schema), when)


def find_shard(storage: Storage, name: str, recipe: Any) -> ShardEntry | None:
    """Return the entry of a file, None if it is not a whole shard of this recipe."""
    from pyarrow import parquet

    try:
        with storage.open(f"{SHARDS}/{name}") as stream:
            file = parquet.ParquetFile(stream)
            if recipe_of(file.schema_arrow) != recipe:
                return None
            keys = b"".join(file.read(columns=["key"])["key"].to_pylist())
            signature = _signature(file.schema_arrow)
            return ShardEntry(name, stream.size(), keys, signature, time.time())
    except (OSError, ValueError, KeyError):
        # Not a shard, a damaged one, or another job has just removed it.
        return None


def recipe_of(schema: Any) -> dict[str, Any]:
    """Return the recipe in a shard's schema."""
    return read_json((schema.metadata or {})[_RECIPE])


def _signature(schema: Any) -> str:
    """Return text that is equal for shards whose rows may lie in one file."""
    first = ("key", "source", "size", "mtime", "fingerprint")
    fields = [schema.field(name) for name in first]
    fields += [field for field in schema if field.name not in OWN_COLUMNS]
    columns = [f"{field.name}:{field.type}" for field in fields]
    return blake3(json.dumps(columns).encode()).hexdigest(8)


# --------------------------------------------------------------------- the user's table


def _new_name() -> str:
    """Return a name that begins with the time, so that names sort by it."""
    return f"{time.time_ns():020}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class NewTable:
    """A table that is being written under a name of its own."""

    storage: Storage
    name: str = field(default_factory=_new_name)

    def put(self, number: int, tables: Sequence[Any]) -> None:
        """Write the rows of a piece; written again, they take their own place."""
        import pyarrow as pa

        name = f"{_TABLES}/{self.name}-{number:08}.parquet"
        self.storage.put_table(name, pa.concat_tables(tables), compression="zstd")


def read_table(storage: Storage, name: str) -> Any:
    """Return a table, its rows in the user's order."""
    import pyarrow as pa

    parts = sorted(one for one in storage.sizes(_TABLES) if one.startswith(name))
    paths = [f"{_TABLES}/{part}" for part in parts]
    return pa.concat_tables(
        storage.at_once(storage.read_table, paths), promote_options="permissive"
    )


def remove_old_tables(storage: Storage, tables: Sequence[str]) -> None:
    """Remove all but the last of these tables, and those of jobs that died long ago."""
    long_ago = f"{time.time_ns() - _JOB_LASTS:020}"
    old = [
        part
        for part in storage.sizes(_TABLES)
        if part.startswith(tuple(tables[:-1]))
        or (part < long_ago and not part.startswith(tuple(tables[-1:])))
    ]
    storage.remove(f"{_TABLES}/{part}" for part in old)
