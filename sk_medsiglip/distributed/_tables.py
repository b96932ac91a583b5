"""The user's table as the last call had it: its rows, and what it says of them.

Vectors are computed once and kept in shards. Labels, and which images belong, change
from call to call; so each call writes its table anew, a file a piece, in ``tables/``::

    key, source    of the image, as in shards
    ...            the other columns of the user's table

The manifest names the table that counts: the one of the last call that ended.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sk_medsiglip.distributed._storage import Storage

_TABLES = "tables"

#: Nanoseconds after which a table that no commit names belongs to a job that died.
_JOB_LASTS = 7 * 86_400 * 10**9


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
