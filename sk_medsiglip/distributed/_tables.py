"""The user's table as the last call had it: its rows, and what it says of them.

Vectors are computed once and kept in shards. Labels, and which images belong, change
from call to call; so each call writes its table anew, a file a piece, in ``tables/``::

    key, source    of the image, as in shards
    ...            the other columns of the user's table

The manifest names the table that counts: that of the call that began last of those that
ended.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sk_medsiglip._optional import import_optional
from sk_medsiglip.distributed._storage import Storage

_TABLES = "tables"

#: Nanoseconds after which a table that no commit names is that of a job that died.
_JOB_LASTS = 7 * 86_400 * 10**9


@dataclass(frozen=True)
class NewTable:
    """A table that is being written."""

    storage: Storage
    name: str

    def put(self, number: int, tables: Sequence[Any]) -> None:
        """Write the rows of a piece; written again, they take their own place."""
        pa = import_optional("pyarrow", extra="ray", purpose="Embedding on a cluster")
        parquet = import_optional("pyarrow.parquet", extra="ray", purpose="Tables")
        sink = pa.BufferOutputStream()
        parquet.write_table(pa.concat_tables(tables), sink, compression="zstd")
        name = f"{_TABLES}/{self.name}-{number:08}.parquet"
        self.storage.put(name, sink.getvalue())


def new_table(storage: Storage) -> NewTable:
    """Return a table under a name of its own."""
    return NewTable(storage, f"{time.time_ns():020}-{uuid.uuid4().hex[:8]}")


def read_table(storage: Storage, name: str) -> Any:
    """Return a table, its rows in the user's order."""
    pa = import_optional("pyarrow", extra="parquet", purpose="Reading tables")
    parquet = import_optional("pyarrow.parquet", extra="parquet", purpose="Tables")
    parts = sorted(one for one in storage.sizes(_TABLES) if one.startswith(name))

    def read(part: str) -> Any:
        with storage.open(f"{_TABLES}/{part}") as file:
            return parquet.read_table(file)

    return pa.concat_tables(storage.at_once(read, parts), promote_options="permissive")


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
