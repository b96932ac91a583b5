"""Rows that were embedded elsewhere: files of Parquet, read batch by batch.

A file has a column of vectors, may have ids and sources, and all else is metadata. The
shards that a cluster writes say in their schema, as JSON under ``sk_medsiglip.recipe``,
which model and revision made the vectors, and how the images were read.
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
from sk_medsiglip.retrieval._incoming import ROWS_AT_ONCE, Rejected, usable_rows
from sk_medsiglip.retrieval._index import About, Rows
from sk_medsiglip.retrieval._metadata import (
    RESERVED,
    check_ids,
    check_names,
    conform,
    nullable_dtype,
)
from sk_medsiglip.retrieval._models import prepared_as

#: Key in the metadata of a schema of the model and the preparation of images.
_RECIPE = b"sk_medsiglip.recipe"

_FACTS: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "revision": (str, type(None)),
    "reading": str,
    "resize": str,
    "pad": bool,
}

#: Columns of ids; the first that exists is used.
_ID_COLUMNS = ("id", "ids")

#: Column that identifies rows of shards; a row whose key is known was written twice.
_KEY = "key"

#: Columns of shards that are not metadata of the images.
_OF_SHARDS = ("space", "fingerprint", "checksum", _KEY, "size", "mtime")

#: Name that shards give to a model in a folder, whose path they do not hold.
_FOLDER = "folder"


class ParquetShards:
    """A data set of Parquet files; ``n_rows`` counts the rows read so far."""

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
            files = [(file, file.physical_schema) for file in dataset.get_fragments()]
        except (OSError, ValueError) as error:
            raise SearchIndexError(
                f"{location!r} cannot be read as Parquet: {error}."
            ) from error
        if not files:
            raise SearchIndexError(f"{location!r} holds no Parquet file.")
        # A file of failures beside the shards has no vectors.
        chosen = [(file, schema) for file, schema in files if vectors in schema.names]
        self._schema = self._whole_schema(
            [schema for _, schema in chosen], dataset.schema, vectors
        )
        names = [vectors, *self._schema.names] if chosen else files[0][1].names
        for name in filter(None, (vectors, ids)):
            if name not in names:
                raise ValueError(f"there is no column {name!r}; there are {names}.")
        self.n_rows = 0
        self.rejected: list[Rejected] = []
        self._ids = ids or next((n for n in _ID_COLUMNS if n in names), None)
        self._vectors, self._sources = vectors, sources
        self._vector_type = chosen[0][1].field(vectors).type
        is_binary = self._pyarrow.types.is_binary, self._pyarrow.types.is_large_binary
        self._is_binary = any(test(self._vector_type) for test in is_binary)
        of_numbers = self._pyarrow.list_(self._pyarrow.float32())
        kind = self._pyarrow.large_binary() if self._is_binary else of_numbers
        self._dataset = module.FileSystemDataset(
            [file for file, _ in chosen],
            self._schema.append(self._pyarrow.field(vectors, kind)),
            dataset.format,
        )
        self._recipe = _read_recipe(chosen)
        of_shards = _OF_SHARDS if self._recipe else ()
        self._not_metadata = {vectors, sources, self._ids, _KEY, *of_shards}

    def about(self, model: str | None) -> About:
        """Return facts about the shards; ``model`` is used if they name none."""
        recipe = self._recipe
        named = recipe.get("model")
        if model is None and named in (None, _FOLDER):
            of_folder = f", but that it is {recipe['revision']}" if recipe else ""
            raise ValueError(
                f"the files do not say where the model is{of_folder}; pass model=."
            )
        metadata = self._metadata(self._schema.empty_table()).schema
        check_names(metadata.names)
        return About(
            width=self._width(),
            id_kind=self._check_ids(),
            kinds={field.name: self._kind(field) for field in metadata},
            model=str(model if named in (None, _FOLDER) else named),
            revision=recipe.get("revision"),
            recipe=prepared_as(recipe["reading"], recipe["resize"], recipe["pad"])
            if recipe
            else None,
        )

    def new_rows(self, about: About) -> Iterator[Rows]:
        """Yield all rows, in the order of the files."""
        for batch in self._scan():
            first, n = self.n_rows, len(batch)
            given = self._metadata(batch).to_pandas(
                types_mapper=nullable_dtype, date_as_object=False
            )
            given["id"] = np.arange(first, first + n)
            if self._ids is not None:
                given["id"] = self._ids_of(batch)
            if self._sources in batch.schema.names:
                given["source"] = batch[self._sources].to_pylist()
            table = conform(given, about.columns, first)
            vectors = self._matrix(batch[self._vectors], about.width)
            rows = Rows(np.arange(first, first + n), vectors, table)
            self.n_rows += n
            yield from usable_rows(rows, first, self.rejected)

    def _scan(self, columns: list[str] | None = None) -> Iterator[Any]:
        """Yield all rows, each key once; memory does not grow with the files.

        It uses one thread, since several would read ahead of a slow caller without
        limit.
        """
        seen: set[bytes] = set()
        has_keys = bool(self._recipe) and _KEY in self._schema.names
        wanted = columns and list({*columns, *([_KEY] if has_keys else [])})
        try:
            for batch in self._dataset.to_batches(
                wanted, batch_size=ROWS_AT_ONCE, use_threads=False
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

    def _first_times(self, batch: Any, seen: set[bytes]) -> Any:
        """Return the rows with new keys."""
        new = []
        for key in batch[_KEY].to_pylist():
            new.append(key is None or key not in seen)
            seen.add(key)
        return batch if all(new) else batch.filter(self._pyarrow.array(new))

    def _whole_schema(self, of_files: list[Any], of_dataset: Any, vectors: str) -> Any:
        """Return all columns but the vectors, in types that can hold all files."""
        schema = self._pyarrow.schema
        plain = [
            schema([self._decoded(one) for one in file if one.name != vectors])
            for file in of_files
        ]
        known = {vectors, *(name for file in plain for name in file.names)}
        # Columns from names of folders, as "site=A", are in no file.
        hive = [self._decoded(one) for one in of_dataset if one.name not in known]
        try:
            return self._pyarrow.unify_schemas(
                [schema([]), *plain, schema(hive)], promote_options="permissive"
            )
        except self._pyarrow.ArrowException as error:
            raise _different_types(error) from error

    def _decoded(self, field: Any) -> Any:
        kind = field.type
        is_dictionary = self._pyarrow.types.is_dictionary(kind)
        plain = field.with_type(kind.value_type) if is_dictionary else field
        return plain.remove_metadata()

    def _metadata(self, table: Any) -> Any:
        """Return the columns of metadata, structs as their fields."""
        chosen = table.select(
            [n for n in table.schema.names if n not in self._not_metadata]
        )
        if isinstance(chosen, self._pyarrow.RecordBatch):
            chosen = self._pyarrow.Table.from_batches([chosen])
        while any(self._pyarrow.types.is_struct(kind) for kind in chosen.schema.types):
            chosen = chosen.flatten()
        # "metadata.age" is called "age" if no other column is.
        short = [name.rpartition(".")[2] for name in chosen.column_names]
        taken = {*RESERVED, *table.schema.names}
        return chosen.rename_columns(
            [
                name if short.count(one) > 1 or one in taken else one
                for name, one in zip(chosen.column_names, short, strict=True)
            ]
        )

    def _kind(self, field: Any) -> str:
        """Return the kind of a column of metadata."""
        types, kind = self._pyarrow.types, field.type
        if types.is_dictionary(kind):
            kind = kind.value_type
        if types.is_timestamp(kind):
            return "time" if kind.tz is None else "time_utc"
        for test, found in (
            (types.is_string, "text"),
            (types.is_large_string, "text"),
            (types.is_null, "text"),
            (types.is_integer, "integer"),
            (types.is_floating, "number"),
            (types.is_decimal, "number"),
            (types.is_boolean, "boolean"),
            (types.is_date, "time"),
        ):
            if test(kind):
                return found
        raise TypeError(
            f"the column {field.name!r} holds {kind}. Metadata must be text, numbers, "
            "true and false, or times; leave it out of the files, or convert it."
        )

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
        present = column.drop_null()
        if self._is_binary:
            flat = np.frombuffer(b"".join(present.to_pylist()), "<f4")
        else:
            flat = present.flatten().to_numpy(zero_copy_only=False)
        if len(flat) != valid.sum() * width:
            raise ValueError(
                f"vectors of width {width} were expected, and some differ."
            )
        vectors[valid] = flat.reshape(-1, width)
        return vectors

    def _check_ids(self) -> str:
        """Return the kind of the ids; raise if some are missing or occur twice."""
        if self._ids is None:
            return "integer"
        listed = [one for part in self._scan([self._ids]) for one in self._ids_of(part)]
        ids = check_ids(pd.Series(listed, dtype=object), len(listed))
        return "text" if isinstance(ids.dtype, pd.StringDtype) else "integer"

    def _ids_of(self, batch: Any) -> list[Any]:
        listed: list[Any] = batch[self._ids].to_pylist()
        return [one.hex() if isinstance(one, bytes) else one for one in listed]


def _read_recipe(files: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Return the recipe of the vectors, which all files must share."""
    found: dict[str, Any] | None = None
    for file, schema in files:
        stored = (schema.metadata or {}).get(_RECIPE)
        try:
            recipe = read_json(stored, _FACTS) if stored else {}
        except ValueError as error:
            raise SearchIndexError(
                f"the facts about the model in {file.path} cannot be read: {error}."
            ) from error
        if found is not None and recipe != found:
            raise CheckpointError(
                f"{file.path} holds vectors by {recipe}, and files before it by "
                f"{found}. Vectors of two models do not mix; name the files of one."
            )
        found = recipe
    return found or {}


def _different_types(error: Exception) -> TypeError:
    return TypeError(
        f"a column has different types in different files: {error}. Write it in one "
        "type, or leave it out of the files."
    )
