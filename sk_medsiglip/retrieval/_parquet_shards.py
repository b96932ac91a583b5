"""Rows that were embedded elsewhere: files of Parquet, read batch by batch.

A file has a column of vectors, may have ids and sources, and all else is metadata. The
shards that a cluster writes say in their schema, as JSON under ``sk_medsiglip.recipe``,
by which model, revision and way of reading the vectors are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip._json import read_json
from sk_medsiglip._optional import import_optional
from sk_medsiglip.exceptions import CheckpointError, SearchIndexError
from sk_medsiglip.retrieval._incoming import Rejected, reason_of_vector, with_vectors
from sk_medsiglip.retrieval._index import About, Rows
from sk_medsiglip.retrieval._metadata import (
    RESERVED,
    check_ids,
    conform,
    conform_column,
    infer_kinds,
    nullable_dtype,
)
from sk_medsiglip.retrieval._models import prepared_as

#: 38 MB of vectors of width 1152.
_ROWS_AT_ONCE = 8192

#: Key in a schema's metadata: the model, and how images were read.
_RECIPE = b"sk_medsiglip.recipe"

_FACTS: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "revision": (str, type(None)),
    "reading": str,
    "resize": str,
    "pad": bool,
}

#: Columns of ids; the first one that exists is taken.
_ID_COLUMNS = ("id", "ids")

#: Column that identifies the rows of shards; a row with a known key was written twice.
_KEY = "key"

#: Columns of shards that are not metadata of the images.
_OF_SHARDS = ("space", "fingerprint", "checksum", _KEY, "size", "mtime")

#: Name that shards give to a model in a folder, whose path they do not hold.
_FOLDER = "folder"


class ParquetShards:
    """A data set of Parquet files; ``n_rows`` are counted once all of them are read."""

    def __init__(
        self,
        location: Any,
        *,
        filesystem: Any = None,
        ids: str | None = None,
        vectors: str = "vector",
        sources: str = "source",
    ) -> None:
        purpose = "Reading Parquet"
        self._pyarrow = import_optional("pyarrow", extra="parquet", purpose=purpose)
        module = import_optional("pyarrow.dataset", extra="parquet", purpose=purpose)
        if isinstance(location, os.PathLike):
            location = os.fspath(location)
        try:
            dataset = module.dataset(
                location, format="parquet", filesystem=filesystem, partitioning="hive"
            )
            files = list(dataset.get_fragments())
            schemas = [file.physical_schema for file in files]
        except (OSError, ValueError) as error:
            raise SearchIndexError(
                f"{location!r} cannot be read as Parquet: {error}."
            ) from error
        if not files:
            raise SearchIndexError(f"{location!r} holds no Parquet file.")
        self._vectors, self._sources = vectors, sources
        # A list of failures beside the shards is passed over.
        chosen = [i for i, schema in enumerate(schemas) if vectors in schema.names]
        self._files = [files[i] for i in chosen]
        self._schemas = [schemas[i] for i in chosen]
        self._schema = self._whole_schema(dataset.schema)
        names = [vectors, *self._schema.names] if chosen else schemas[0].names
        self._ids = ids or next((n for n in _ID_COLUMNS if n in names), None)
        for name in (vectors, *([ids] if ids else [])):
            if name not in names:
                raise ValueError(f"there is no column {name!r}; there are {names}.")
        self.n_rows = 0
        self._vector_type = self._schemas[0].field(vectors).type
        is_binary = self._pyarrow.types.is_binary, self._pyarrow.types.is_large_binary
        self._is_binary = any(test(self._vector_type) for test in is_binary)
        of_numbers = self._pyarrow.list_(self._pyarrow.float32())
        kind = self._pyarrow.large_binary() if self._is_binary else of_numbers
        self._dataset = module.FileSystemDataset(
            self._files,
            self._schema.append(self._pyarrow.field(vectors, kind)),
            dataset.format,
        )
        self._recipe = self._read_recipe()
        self._not_metadata = {vectors, sources, self._ids, _KEY}
        if self._recipe:
            self._not_metadata.update(_OF_SHARDS)

    def about(self, model: str | None) -> About:
        """Return facts of the shards; ``model`` is named where they do not say it."""
        recipe = self._recipe
        named = recipe.get("model")
        if model is None and named in (None, _FOLDER):
            of_folder = f", but that it is {recipe['revision']}" if recipe else ""
            raise ValueError(
                f"the files do not say where the model is{of_folder}; pass model=."
            )
        ids = self._read_ids()
        return About(
            width=self._width(),
            id_kind="text" if isinstance(ids.dtype, pd.StringDtype) else "integer",
            kinds=infer_kinds(self._frame(self._schema.empty_table())),
            model=str(model if named in (None, _FOLDER) else named),
            revision=recipe.get("revision"),
            recipe=prepared_as(recipe["reading"], recipe["resize"], recipe["pad"])
            if recipe
            else None,
        )

    def batches(self, about: About, rejected: list[Rejected]) -> Iterator[Rows]:
        """Yield all rows, in the order of the files."""
        row = 0
        for batch in self._scan():
            n = len(batch)
            table = conform(self._frame(batch), about.kinds, n, first_row=row)
            table.insert(0, "id", self._ids_of(batch, row, about))
            table.insert(1, "source", self._sources_of(batch, row))
            vectors = self._matrix(batch[self._vectors], about.width)

            def reason(at: int, first: int = row, some: Any = vectors) -> str:
                return reason_of_vector(some[at - first])

            numbers = np.arange(row, row + n)
            yield from with_vectors(vectors, table, numbers, row, reason, rejected)
            row += n
        self.n_rows = row

    def _scan(self, columns: list[str] | None = None) -> Iterator[Any]:
        """Yield all rows, each key once; memory does not grow with the files.

        Not by several threads, which read ahead of a slow caller as far as they get.
        """
        seen: set[bytes] = set()
        has_keys = bool(self._recipe) and _KEY in self._schema.names
        wanted = columns and list({*columns, *([_KEY] if has_keys else [])})
        try:
            for batch in self._dataset.to_batches(
                wanted, batch_size=_ROWS_AT_ONCE, use_threads=False
            ):
                if has_keys:
                    batch = self._first_times(batch, seen)
                if len(batch):
                    yield batch
        except (
            self._pyarrow.ArrowInvalid,
            self._pyarrow.ArrowNotImplementedError,
        ) as error:
            raise _different_types(error) from error

    def _whole_schema(self, of_dataset: Any) -> Any:
        """Return all columns but the vectors, in types that hold every file's."""
        schema = self._pyarrow.schema
        of_files = [
            schema([self._decoded(one) for one in file if one.name != self._vectors])
            for file in self._schemas
        ]
        known = {self._vectors, *(name for file in of_files for name in file.names)}
        # Names of folders, as "site=A", are columns of the data set alone.
        hive = schema(
            [self._decoded(one) for one in of_dataset if one.name not in known]
        )
        try:
            return self._pyarrow.unify_schemas(
                [schema([]), *of_files, hive], promote_options="permissive"
            )
        except self._pyarrow.ArrowException as error:
            raise _different_types(error) from error

    def _decoded(self, field: Any) -> Any:
        kind = field.type
        is_dictionary = self._pyarrow.types.is_dictionary(kind)
        plain = field.with_type(kind.value_type) if is_dictionary else field
        return plain.remove_metadata()

    def _first_times(self, batch: Any, seen: set[bytes]) -> Any:
        """Return the rows whose keys were not seen before."""
        new = []
        for key in batch[_KEY].to_pylist():
            new.append(key is None or key not in seen)
            seen.add(key)
        return batch if all(new) else batch.filter(self._pyarrow.array(new))

    def _read_recipe(self) -> dict[str, Any]:
        """Return the recipe of the vectors, which all files must share."""
        found: dict[str, Any] | None = None
        for file, schema in zip(self._files, self._schemas, strict=True):
            stored = (schema.metadata or {}).get(_RECIPE)
            try:
                recipe = read_json(stored, _FACTS) if stored else {}
            except ValueError as error:
                raise SearchIndexError(
                    f"{file.path} says nothing that can be read of its model: {error}."
                ) from error
            if found is not None and recipe != found:
                raise CheckpointError(
                    f"{file.path} holds vectors by {recipe}, and files before it by "
                    f"{found}. Vectors of two models do not mix; name the files of "
                    "one."
                )
            found = recipe
        return found or {}

    def _width(self) -> int:
        if self._pyarrow.types.is_fixed_size_list(self._vector_type):
            return int(self._vector_type.list_size)
        for batch in self._scan([self._vectors]):
            for value in batch[self._vectors]:
                if value.is_valid:
                    n = len(value.as_py())
                    return n // 4 if self._is_binary else n
        raise ValueError("the files hold no vector.")

    def _matrix(self, column: Any, width: int) -> NDArray[np.floating]:
        """Return vectors as the rows of an array, NaN for missing ones."""
        vectors = np.full((len(column), width), np.nan, np.float32)
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        present = column.filter(self._pyarrow.array(valid))
        if self._is_binary:
            flat = np.frombuffer(b"".join(present.to_pylist()), "<f4")
        else:
            flat = present.flatten().to_numpy(zero_copy_only=False)
        if len(flat) != valid.sum() * width:
            raise ValueError(
                f"vectors of width {width} were expected, and there are others."
            )
        vectors[valid] = flat.reshape(-1, width)
        return vectors

    def _frame(self, table: Any) -> pd.DataFrame:
        """Return metadata as pandas has it, structs as their fields."""
        names = [n for n in table.schema.names if n not in self._not_metadata]
        chosen = table.select(names)
        if isinstance(chosen, self._pyarrow.RecordBatch):
            chosen = self._pyarrow.Table.from_batches([chosen])
        while any(self._pyarrow.types.is_struct(kind) for kind in chosen.schema.types):
            chosen = chosen.flatten()
        # "metadata.age" is "age", where that is one column: the struct is a wrapper.
        short = [name.rpartition(".")[2] for name in chosen.column_names]
        taken = {*RESERVED, *table.schema.names}
        chosen = chosen.rename_columns(
            [
                name if short.count(one) > 1 or one in taken else one
                for name, one in zip(chosen.column_names, short, strict=True)
            ]
        )
        columns = {
            name: self._plain(chosen[name], name) for name in chosen.column_names
        }
        return self._pyarrow.table(columns).to_pandas(types_mapper=nullable_dtype)

    def _plain(self, column: Any, name: str) -> Any:
        """Return a column of text, numbers, true and false, or times."""
        pyarrow, types = self._pyarrow, self._pyarrow.types
        kind = column.type
        if types.is_dictionary(kind):
            return self._plain(column.cast(kind.value_type), name)
        for tests, wanted in (
            ((types.is_string, types.is_large_string, types.is_null), pyarrow.string()),
            ((types.is_integer,), pyarrow.int64()),
            ((types.is_floating, types.is_decimal), pyarrow.float64()),
            ((types.is_boolean,), pyarrow.bool_()),
            ((types.is_date,), pyarrow.timestamp("us")),
            (
                (types.is_timestamp,),
                pyarrow.timestamp("us", tz=getattr(kind, "tz", None)),
            ),
        ):
            if any(test(kind) for test in tests):
                try:
                    return column.cast(wanted, safe=not types.is_timestamp(kind))
                except self._pyarrow.ArrowInvalid as error:
                    raise TypeError(
                        f"the column {name!r} holds {kind}, and a value that metadata "
                        f"cannot hold: {error}. Write it as text, or leave it out."
                    ) from error
        raise TypeError(
            f"the column {name!r} holds {kind}. Metadata must be text, numbers, true "
            "and false, or times; leave it out of the files, or convert it."
        )

    def _read_ids(self) -> pd.Series:
        """Return all ids, checked: unique, none missing."""
        if self._ids is None:
            return check_ids(np.arange(1), 1)
        listed = [
            one for batch in self._scan([self._ids]) for one in self._plain_ids(batch)
        ]
        return check_ids(pd.Series(listed, dtype=object), len(listed))

    def _plain_ids(self, batch: Any) -> list[Any]:
        listed: list[Any] = batch[self._ids].to_pylist()
        return [one.hex() if isinstance(one, bytes) else one for one in listed]

    def _ids_of(self, batch: Any, row: int, about: About) -> pd.Series:
        if self._ids is None:
            values = pd.Series(np.arange(row, row + len(batch)))
        else:
            values = pd.Series(self._plain_ids(batch), dtype=object)
        return conform_column(values, about.id_kind, "id", row)

    def _sources_of(self, batch: Any, row: int) -> pd.Series:
        there = self._sources in batch.schema.names
        listed = batch[self._sources].to_pylist() if there else [None] * len(batch)
        values = pd.Series(listed, dtype=object)
        return conform_column(values, "text", "source", row)


def _different_types(error: Exception) -> TypeError:
    return TypeError(
        f"a column has different types in different files: {error}. Write it in one "
        "type, or leave it out of the files."
    )
