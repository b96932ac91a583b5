"""What a shard is: a Parquet file of embedded images. The one place that says so.

A shard holds some images, a row each, no image twice, in no order::

    space        dictionary<string>  model, revision, numeric type ..., as JSON: one key
    fingerprint  binary(32)          blake3 of the pixels at the model's size
    checksum     uint32              crc32 over space, fingerprint and vector
    vector       binary              embedding_dim little-endian float32, as the model
                                     gives them: not brought to length 1
    key          binary(16)          what tells a row from others: 12 bytes of a hash of
                                     the source's absolute name, 4 of its state
    source       string              path, URL or name, as the user's table has it
    size, mtime  int64               bytes, and nanoseconds since 1970, of a file;
                                     null for URLs and images inside the table
    ...                              the other columns of the user's table, as they
                                     were when the image was embedded

The first four are those of :meth:`EmbeddingCache.export_parquet`, with the same
meaning, so that :meth:`EmbeddingCache.import_parquet` takes a shard.
``numpy.frombuffer(value, "<f4")`` is a vector. In the file's own metadata, as JSON:

``sk_medsiglip.format``   of the first four columns
``sk_medsiglip.models``   what a cache needs to serve without the model
``sk_medsiglip.recipe``   model, revision, and how a source became pixels
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from sk_medsiglip._json import read_json
from sk_medsiglip._optional import import_optional
from sk_medsiglip.cache import EXPORT_COLUMNS, Space, rows_as_table

#: A key, and the part of it that is the source's alone.
KEY_BYTES, SOURCE_BYTES = 16, 12

#: Names of our own columns; see :func:`stored_name` for a user's of the same name.
OWN_COLUMNS = (*EXPORT_COLUMNS, "key", "source", "size", "mtime")

_RECIPE = b"sk_medsiglip.recipe"

#: Before the names of a user's columns that are called as ours are, or as those of a
#: block on its way, which begin with "_".
_OF_TABLE = "table."


def stored_name(name: str) -> str:
    """Return what a column of the user's table is called in shards and tables."""
    ours = name in OWN_COLUMNS or name.startswith(("_", _OF_TABLE))
    return f"{_OF_TABLE}{name}" if ours else name


def own_name(stored: str) -> str:
    """Return what the user calls a stored column; undoes :func:`stored_name`."""
    return stored.removeprefix(_OF_TABLE)


def make_key(name: str, state: bytes) -> bytes:
    """Return the key of a source in one state."""
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
    """Return a shard as a file in memory."""
    table = rows_as_table(space, rows["fingerprint"].to_pylist(), vectors, models)
    about = table.schema.metadata | {
        _RECIPE: json.dumps(dict(recipe), sort_keys=True).encode()
    }
    for name in rows.column_names:
        if name != "fingerprint":
            table = table.append_column(rows.schema.field(name), rows[name])
    return write_table(table.replace_schema_metadata(about))


def write_table(table: Any) -> Any:
    """Return a table of a shard's columns as a file in memory."""
    pa = _pyarrow()
    parquet = import_optional("pyarrow.parquet", extra="ray", purpose="Writing shards")
    sink = pa.BufferOutputStream()
    flat = [f for f in table.schema if not pa.types.is_nested(f.type)]
    texts = [f.name for f in flat if pa.types.is_string(f.type)]
    # Random bits do not compress; names, paths and labels do, ten times and more.
    dense = ("fingerprint", "checksum", "vector", "key")
    parquet.write_table(
        table,
        sink,
        compression={
            name: "none" if name in dense else "zstd" for name in table.column_names
        },
        use_dictionary=["space", *texts],
        write_statistics=[f.name for f in flat if f.name not in dense],
    )
    return sink.getvalue()


def name_shard(keys: Sequence[bytes], space: str) -> str:
    """Return the name of the shard of these rows: the same rows, the same name.

    Two jobs, or a task that was tried again, therefore write one file and not two.
    """
    digest = blake3(space.encode())
    for key in keys:
        digest.update(key)
    return f"{digest.hexdigest(16)}.parquet"


def read_keys(file: Any) -> bytes:
    """Return the keys of a shard, one after another."""
    column = _parquet_file(file).read(columns=["key"])["key"]
    return b"".join(column.to_pylist())


def read_recipe(file: Any) -> dict[str, Any]:
    """Return a shard's recipe."""
    about = _parquet_file(file).schema_arrow.metadata or {}
    try:
        return read_json(about[_RECIPE])
    except (KeyError, ValueError) as error:
        raise ValueError("a Parquet file that is no shard") from error


def column_signature(schema: Any) -> str:
    """Return text that is equal for shards whose rows may lie in one file."""
    columns = [f"{field.name}:{field.type}" for field in schema]
    return blake3(json.dumps(columns).encode()).hexdigest(8)


def _parquet_file(file: Any) -> Any:
    parquet = import_optional("pyarrow.parquet", extra="ray", purpose="Reading shards")
    return parquet.ParquetFile(file)


def _pyarrow() -> Any:
    return import_optional("pyarrow", extra="ray", purpose="Writing shards")
