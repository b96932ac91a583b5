"""The table of ``index="lancedb"``: its location and options, and rows as Arrow.

The facts about an index are stored in the schema of the table, so that both change in
one commit.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import UserDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._json import read_json
from sk_medsiglip._optional import import_optional
from sk_medsiglip.exceptions import SearchIndexError
from sk_medsiglip.retrieval._index import About, Rows
from sk_medsiglip.retrieval._metadata import nullable_dtype

TABLE = "images"
FORMAT = 1

_SCHEMA_KEY = b"sk_medsiglip.retrieval"

#: Names of columns that are used on disk too; others are replaced by a number.
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*").fullmatch


#: Parts of the names of options that are shown and pickled. All others may be secrets.
_PUBLIC = (
    "region",
    "endpoint",
    "bucket",
    "timeout",
    "allow_http",
    "virtual_hosted",
    "retries",
    "retry",
    "account_name",
)


class StorageOptions(UserDict[str, str]):
    """A mapping that shows and pickles only the options that are not secret.

    A copy in the same process has all of them. After unpickling, secrets have to come
    from the environment.

    >>> StorageOptions({"region": "eu-north-1", "aws_secret_access_key": "abc"})
    {'region': 'eu-north-1', 'aws_secret_access_key': ...}
    """

    # Saved files name the room. Not a dict, since skops would save all its items.
    __module__ = "sk_medsiglip.retrieval"

    @classmethod
    def around(cls, options: Any) -> Any:
        """Return a mapping as this class, and anything else unchanged."""
        if isinstance(options, Mapping) and not isinstance(options, cls):
            return cls(options)
        return options

    @property
    def public(self) -> dict[str, str]:
        """The options that may be shown."""
        return {name: value for name, value in self.items() if _is_public(name)}

    def __repr__(self) -> str:
        shown = [
            f"{name!r}: {value!r}" if _is_public(name) else f"{name!r}: ..."
            for name, value in self.items()
        ]
        return "{" + ", ".join(shown) + "}"

    __str__ = __repr__

    def __deepcopy__(self, memo: Any) -> StorageOptions:
        return self

    def __copy__(self) -> StorageOptions:
        return self

    def __reduce__(self) -> tuple:
        return StorageOptions, (self.public,)


def _is_public(name: Any) -> bool:
    lowered = str(name).lower()
    return any(part in lowered for part in _PUBLIC) and "key" not in lowered


@dataclass(frozen=True)
class LanceSettings:
    """The parameters of a retriever that say where a table is and how to search it."""

    uri: str
    storage_options: Mapping[str, str] | None
    storage: str = "float32"
    ann: str = "auto"
    nprobes: int | None = None
    ef: int | None = None
    refine_factor: int = 20

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> LanceSettings:
        """Return the settings in the parameters of a retriever."""
        if params["uri"] is None:
            raise ValueError(
                'index="lancedb" needs a location for its rows: uri="folder", or '
                'uri="s3://bucket/name".'
            )
        uri = os.fspath(params["uri"])
        if uri.startswith("db://"):
            raise ValueError(
                f"uri={uri!r} is in LanceDB's cloud, which is not supported. "
                "Name a folder, or an object store: s3://bucket/name."
            )
        if "://" not in uri:
            uri = os.path.abspath(os.path.expanduser(uri))
        known = {field.name: params[field.name] for field in fields(cls)}
        return cls(**{**known, "uri": uri})


def import_lance(name: str) -> Any:
    """Return a module of LanceDB or pyarrow, or say how to install it."""
    # LanceDB's warnings name folders, and users cannot act on them.
    os.environ.setdefault("LANCEDB_LOG", "error")
    return import_optional(name, extra="retrieval", purpose='index="lancedb"')


def connect(settings: LanceSettings) -> Any:
    """Return a connection to the database."""
    lancedb = import_lance("lancedb")
    options = settings.storage_options
    for name, value in (options or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(
                f"storage_options must be text, and {name!r} is {type(value).__name__}."
            )
    return lancedb.connect(
        settings.uri, storage_options=None if options is None else dict(options)
    )


def open_table(settings: LanceSettings) -> Any:
    """Return the table at its newest version; SearchIndexError if there is none."""
    if is_lance(settings.uri) is False:
        raise SearchIndexError(
            f"there is no index at {settings.uri!r}. "
            'ImageRetriever(index="lancedb", uri=...).fit(X) builds one.'
        )
    try:
        return connect(settings).open_table(TABLE)
    except (ValueError, OSError, RuntimeError) as error:
        raise SearchIndexError(
            f"the index at {settings.uri!r} cannot be opened: {error}. Check the "
            "address and, for an object store, the credentials in the environment."
        ) from error


def is_lance(uri: str) -> bool | None:
    """Return whether a table exists; None if only opening it would tell."""
    if "://" in uri:
        return None
    return (Path(uri) / f"{TABLE}.lance").is_dir()


def read_schema(schema: Any, uri: str) -> tuple[About, str]:
    """Return the facts about an index, and the type of its vectors."""
    try:
        facts = read_json((schema.metadata or {})[_SCHEMA_KEY], {"format": int})
        found = facts["format"]
        if found == FORMAT:
            about = About.from_dict(facts["about"])
            item = schema.field("vector").type.value_type
            return about, item.to_pandas_dtype().__name__
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise SearchIndexError(
            f"the table {TABLE!r} at {uri!r} was not written by ImageRetriever, or "
            f"is damaged ({error})."
        ) from error
    raise SearchIndexError(
        f"the index at {uri!r} has format {found}; this version of sk_medsiglip reads "
        f"format {FORMAT}. Upgrade sk_medsiglip."
    )


class RowFormat:
    """Conversion of rows to Arrow and back.

    ``names`` are the names of columns on disk: letters, digits and underscores.
    """

    def __init__(self, about: About, storage: str) -> None:
        self.about = about
        self.names = _names_on_disk(about)
        self._pyarrow = pyarrow = import_lance("pyarrow")
        types = {
            "text": pyarrow.string(),
            "integer": pyarrow.int64(),
            "number": pyarrow.float64(),
            "boolean": pyarrow.bool_(),
            "time": pyarrow.timestamp("us"),
            "time_utc": pyarrow.timestamp("us", tz="UTC"),
        }
        item = pyarrow.float16() if storage == "float16" else pyarrow.float32()
        facts = {"format": FORMAT, "about": about.as_dict()}
        self.schema = pyarrow.schema(
            [
                ("number", pyarrow.int64()),
                *((self.names[n], types[kind]) for n, kind in about.columns.items()),
                ("vector", pyarrow.list_(item, about.width)),
            ],
            metadata={_SCHEMA_KEY: json.dumps(facts)},
        )

    def selected(self, *, vectors: bool) -> list[str]:
        """Return the names on disk of all columns of a row."""
        return ["number", *self.names.values(), *(["vector"] if vectors else [])]

    def to_batch(self, rows: Rows) -> Any:
        """Return rows as a RecordBatch."""
        pyarrow = self._pyarrow
        frame = rows.table.set_axis(list(self.names.values()), axis=1)
        frame.insert(0, "number", rows.numbers)
        vector = self.schema.field("vector").type
        flat = rows.vectors.astype(vector.value_type.to_pandas_dtype()).ravel()
        vectors = pyarrow.FixedSizeListArray.from_arrays(flat, type=vector)
        plain = pyarrow.RecordBatch.from_pandas(
            frame, self.schema.remove(len(frame.columns)), preserve_index=False
        )
        return pyarrow.record_batch([*plain.columns, vectors], schema=self.schema)

    def to_rows(self, table: Any, *, vectors: bool) -> Rows:
        """Return a pyarrow.Table as rows, in its order."""
        on_disk = list(self.names.values())
        frame = table.select(on_disk).to_pandas(types_mapper=nullable_dtype)
        frame.columns = list(self.names)
        width = self.about.width
        none = np.empty((0, width), np.float32)
        return Rows(
            table["number"].to_numpy(),
            matrix(table["vector"], width) if vectors else none,
            frame,
        )


class Stream:
    """Rows that LanceDB reads batch by batch, in a thread of its own.

    An error in a batch is raised unchanged; LanceDB alone would raise one with its
    text. An interrupt stops the reading, so that nothing is committed later.
    """

    def __init__(self, batches: Iterable[Rows], form: RowFormat) -> None:
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        pyarrow = import_lance("pyarrow")
        self.reader = pyarrow.RecordBatchReader.from_batches(
            form.schema, self._convert(batches, form)
        )

    def _convert(self, batches: Iterable[Rows], form: RowFormat) -> Iterator[Any]:
        try:
            for rows in batches:
                self._check_running()
                yield form.to_batch(rows)
            self._check_running()
        except GeneratorExit:
            raise
        except BaseException as error:
            self._error = error
            raise

    def _check_running(self) -> None:
        if self._stopped.is_set():
            raise RuntimeError("stopped by its caller")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self._stopped.set()
        if isinstance(error, Exception) and self._error is not None:
            raise self._error from None


def _names_on_disk(about: About) -> dict[str, str]:
    names = {"id": "id", "source": "source"}
    used = {"id", "source", "number", "vector"}
    for place, name in enumerate(about.kinds):
        plain = bool(_PLAIN_NAME(name)) and name.lower() not in used
        on_disk = name if plain else f"column_{place}"
        while on_disk.lower() in used:
            on_disk += "_"
        used.add(on_disk.lower())
        names[name] = on_disk
    return names


def matrix(column: Any, width: int) -> NDArray[np.float32]:
    """Return a column of vectors as the rows of an array."""
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    flat = np.concatenate(parts) if parts else np.empty(0)
    return flat.reshape(-1, width).astype(np.float32)
