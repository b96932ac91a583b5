"""Ids, sources and metadata of rows: columns of a few kinds, the same in every index.

A DataFrame can hold anything, a file or a table on disk cannot, and a filter must mean
one thing whatever holds the rows. So every column is of one kind, found when the first
rows are added and kept from then on. A missing value is missing, however it was
written: None, NaN, NaT, ``pandas.NA``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd

#: Columns that results have anyway.
RESERVED = ("query", "rank", "id", "source", "score")

#: Name in messages and pandas type of each kind of column.
_DTYPES: dict[str, tuple[str, Any]] = {
    "text": ("text", pd.StringDtype()),
    "integer": ("whole numbers", pd.Int64Dtype()),
    "number": ("numbers", np.dtype("float64")),
    "boolean": ("true and false", pd.BooleanDtype()),
    "time": ("times", np.dtype("datetime64[us]")),
    "time_utc": ("times with a time zone", pd.DatetimeTZDtype("us", "UTC")),
}

#: Kinds by the answer of ``pandas.api.types.infer_dtype`` for a column of objects.
_KIND_OF_OBJECTS = {
    "string": "text",
    "empty": "text",
    "integer": "integer",
    "floating": "number",
    "mixed-integer-float": "number",
    "decimal": "number",
    "boolean": "boolean",
    "datetime": "time",
    "datetime64": "time",
    "date": "time",
}

#: Kinds of values that a column takes besides its own.
_TAKEN = {"integer": ("integer", "number"), "number": ("number", "integer")}

#: Types of columns by their kind, in the order in which they are tried.
_TESTS = (
    ("boolean", pd.api.types.is_bool_dtype),
    ("integer", pd.api.types.is_integer_dtype),
    ("number", pd.api.types.is_float_dtype),
    ("time_utc", lambda dtype: isinstance(dtype, pd.DatetimeTZDtype)),
    ("time", pd.api.types.is_datetime64_dtype),
    ("text", lambda dtype: isinstance(dtype, pd.StringDtype)),
)

_NAMED_IN_ERROR = 5


def check_ids(ids: Any, n_rows: int, kind: str | None = None) -> pd.Series:
    """Return ids in the type of their kind, which ``kind`` may prescribe."""
    column = _as_column(ids, "ids", n_rows)
    missing = np.flatnonzero(column.isna())
    if missing.size:
        raise ValueError(f"the id of row {missing[0]} is missing; each row needs one.")
    found = infer_kind(column, "ids")
    if found not in ("integer", "text"):
        raise TypeError(
            f"ids must be whole numbers or text, got {column.iloc[0]!r} first. Convert "
            "them: ids.astype(str)."
        )
    if kind is not None and found != kind:
        raise TypeError(
            f"the ids of this index are {_DTYPES[kind][0]}, which {column.iloc[0]!r} "
            "is not. Convert them, or fit again."
        )
    column = conform_column(column, found, "ids")
    twice = column[column.duplicated()].unique()
    if len(twice):
        raise ValueError(f"ids must be unique; twice or more: {_named(twice)}.")
    return column


def ids_as_list(ids: Any, kind: str) -> list[Any]:
    """Return one or several ids, each once, as values that an index looks up."""
    if isinstance(ids, str | int | np.integer):
        ids = [ids]
    column = _as_column(ids, "ids")
    return check_ids(column, len(column), kind).tolist() if len(column) else []


def check_metadata(metadata: Any, X: Any, n_rows: int) -> pd.DataFrame | None:
    """Return metadata as a DataFrame with a row for every row of ``X``."""
    if metadata is None:
        return None
    if hasattr(metadata, "to_pandas"):
        metadata = metadata.to_pandas()
    if isinstance(metadata, Mapping):
        metadata = pd.DataFrame(metadata)
    if not isinstance(metadata, pd.DataFrame):
        raise TypeError(
            f"metadata must be a DataFrame, got {type(metadata).__name__}. Write "
            'pandas.DataFrame({"age": ages}).'
        )
    if len(metadata) != n_rows:
        raise ValueError(
            f"there are {n_rows} rows and metadata of {len(metadata)}; each row needs "
            "one."
        )
    given = getattr(X, "index", None)
    if isinstance(given, pd.Index) and not given.equals(metadata.index):
        raise ValueError(
            "X and metadata have different indexes, so their rows may not belong "
            "together. Put them in one order, metadata.loc[X.index], or, if they are, "
            "say so: metadata.set_index(X.index)."
        )
    return metadata


def check_sources(sources: Any, n_rows: int) -> pd.Series | None:
    """Return sources, a text a row, or None."""
    if sources is None:
        return None
    column = _as_column(sources, "sources", n_rows)
    return conform_column(column, "text", "sources")


def _as_column(values: Any, name: str, n_rows: int | None = None) -> pd.Series:
    """Return a list or column as a Series with a plain index, of so many rows."""
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise TypeError(f"{name} must be a list or a column, got {values!r}.")
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise ValueError(f"{name} must be one column, got shape {values.shape}.")
    if isinstance(values, pd.Series):
        column = values.reset_index(drop=True)
    elif isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        column = pd.Series(values)
    else:
        column = pd.Series(list(values), dtype=object)
    if n_rows not in (None, len(column)):
        raise ValueError(
            f"there are {n_rows} rows and {len(column)} {name}; each row needs one."
        )
    return column


def _named(ids: Any) -> str:
    # numpy's own repr of a number is "np.int64(3)".
    shown = ", ".join(
        str(one) if isinstance(one, np.integer) else repr(one)
        for one in list(ids[:_NAMED_IN_ERROR])
    )
    more = len(ids) - _NAMED_IN_ERROR
    return f"{shown} and {more} more" if more > 0 else shown


def refuse_known(ids: list[Any]) -> ValueError:
    """Return the error for ids that an index has already."""
    return ValueError(
        f"ids must be unique; the index has already: {_named(ids)}. "
        "retriever.update(ids, X) puts images in their place."
    )


def refuse_unknown(ids: list[Any]) -> ValueError:
    """Return the error for ids that an index does not have."""
    return ValueError(f"the index has no such ids: {_named(ids)}.")


def infer_kinds(frame: pd.DataFrame) -> dict[str, str]:
    """Return the kind of every column of metadata, as the user gave it."""
    names = list(frame.columns)
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"metadata has a column named {name!r}; names must be text. Rename it: "
                "metadata.rename(columns={...})."
            )
        if names.count(name) > 1:
            raise ValueError(
                f"metadata has two columns named {name!r}. Keep one, or rename one."
            )
        if name in RESERVED:
            argument = {"id": "ids", "source": "sources"}.get(name)
            mend = (
                f"pass it as {argument}=metadata.pop({name!r})"
                if argument
                else f"rename it: metadata.rename(columns={{{name!r}: {name + '_'!r}}})"
            )
            raise ValueError(
                f"metadata has a column {name!r}, and so have results. To keep it, "
                f"{mend}."
            )
    return {name: infer_kind(frame[name], name) for name in names}


def infer_kind(column: pd.Series, name: str) -> str:
    """Return the kind of one column; ``name`` is for the error."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return infer_kind(column.cat.categories.to_series(), name)
    for kind, is_kind in _TESTS:
        if is_kind(dtype):
            return kind
    if pd.api.types.is_object_dtype(dtype):
        return _kind_of_objects(column, name)
    raise TypeError(_unusable(name, column))


def _kind_of_objects(column: pd.Series, name: str) -> str:
    present = column[column.notna()]
    found = pd.api.types.infer_dtype(present, skipna=True)
    kind = _KIND_OF_OBJECTS.get(found)
    if found == "datetime":
        zones = {value.tzinfo is not None for value in present}
        if len(zones) == 2:
            raise TypeError(
                f"metadata[{name!r}] mixes times with and without a time zone. "
                f"Convert it: pandas.to_datetime(metadata[{name!r}], utc=True)."
            )
        return "time_utc" if zones == {True} else "time"
    if kind is None and all(_is_name(value) for value in present):
        return "text"
    if kind is None:
        raise TypeError(_unusable(name, present))
    return kind


def _is_name(value: Any) -> bool:
    """Tell whether an object is kept as its text."""
    is_text = isinstance(value, Enum) and isinstance(value, str)
    return is_text or isinstance(value, PurePath | UUID)


def _unusable(name: str, column: pd.Series) -> str:
    present = column[column.notna()]
    types = sorted({type(value).__name__ for value in present.iloc[:1000]})
    hint = f"metadata[{name!r}].map(str)"
    if set(types) <= {"list", "tuple", "set", "frozenset"}:
        hint = f"metadata[{name!r}].map(', '.join)"
    elif pd.api.types.is_timedelta64_dtype(column.dtype):
        hint = f"metadata[{name!r}].dt.total_seconds()"
    return (
        f"metadata[{name!r}] holds {', '.join(types) or column.dtype}, first "
        f"{present.iloc[0] if len(present) else None!r}. A column must hold text, "
        "numbers, true and false, or times, and no mixture. Drop it, or convert it: "
        f"metadata[{name!r}] = {hint}."
    )


def conform(
    metadata: Any, kinds: Mapping[str, str], n_rows: int, *, first_row: int = 0
) -> pd.DataFrame:
    """Return metadata in the types of its kinds, under a plain index.

    ``first_row`` is where these rows begin, for messages.
    """
    if metadata is not None:
        unknown = [name for name in metadata.columns if name not in kinds]
        if unknown:
            raise ValueError(
                f"metadata has a column {unknown[0]!r}, which this index has not: it "
                f"has {list(kinds)}. Columns are those of the first rows; drop it, or "
                "fit again."
            )
    columns = {}
    for name, kind in kinds.items():
        if metadata is None or name not in metadata.columns:
            columns[name] = empty_column(kind, n_rows)
        else:
            columns[name] = conform_column(metadata[name], kind, name, first_row)
    return pd.DataFrame(columns, index=pd.RangeIndex(n_rows))


def dtype_of(kind: str) -> Any:
    """Return the type that columns of a kind have."""
    return _DTYPES[kind][1]


def nullable_dtype(arrow_type: Any) -> Any:
    """Return the pandas type for a type of Arrow; None is pandas' own choice."""
    kinds = {"string": "text", "int64": "integer", "bool": "boolean"}
    kind = kinds.get(str(arrow_type))
    return kind and dtype_of(kind)


def empty_column(kind: str, n_rows: int) -> pd.Series:
    """Return a column in which every value is missing."""
    return pd.Series([None] * n_rows, dtype=_DTYPES[kind][1])


def conform_column(
    column: pd.Series, kind: str, name: str, first_row: int = 0
) -> pd.Series:
    """Return one column in the type of its kind."""
    column = column.reset_index(drop=True)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    try:
        converted = _convert(column, kind)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(_other_kind(column, kind, name, first_row)) from None
    return converted.astype(_DTYPES[kind][1])


def _other_kind(column: pd.Series, kind: str, name: str, first_row: int) -> str:
    """Say which value does not fit."""
    place, value = 0, None
    for place, value in enumerate(column):  # noqa: B007
        try:
            _convert(column.iloc[place : place + 1], kind)
        except (TypeError, ValueError, OverflowError):
            break
    return (
        f"metadata[{name!r}] holds {_DTYPES[kind][0]} in this index, which "
        f"{value!r} of row {first_row + place} is not. Convert the "
        "column, here or before the first rows are added."
    )


def _convert(column: pd.Series, kind: str) -> pd.Series:
    """Return values that a column of a kind can hold, or raise."""
    if column.isna().all():
        return empty_column(kind, len(column))
    if kind == "text":
        return _to_text(column)
    if infer_kind(column, "") not in _TAKEN.get(kind, (kind,)):
        raise TypeError
    if kind == "integer":
        return _to_integers(column)
    if kind == "number":
        return pd.Series([np.nan if pd.isna(v) else float(v) for v in column])
    if kind == "time_utc":
        return pd.to_datetime(column, utc=True)
    if kind == "time" and column.dtype == object:
        # Not pandas.to_datetime, which reads a year of 9999 in nanoseconds.
        values = [
            np.datetime64("NaT") if pd.isna(v) else np.datetime64(v, "us")
            for v in column
        ]
        return pd.Series(np.array(values, dtype="datetime64[us]"))
    return column


def _to_text(column: pd.Series) -> pd.Series:
    if column.dtype == object:
        column = column.map(_plain_text)
    present = column[column.notna()]
    # UTF-8 does not hold half of a pair of surrogates, and so no file does.
    "".join(present).encode("utf-8")
    return column.astype(_DTYPES["text"][1])


def _plain_text(value: Any) -> Any:
    """Return the text of an object that is a name; anything else as it is."""
    if isinstance(value, Enum):
        return str(value.value)
    return str(value) if isinstance(value, PurePath | UUID) else value


def _to_integers(column: pd.Series) -> pd.Series:
    if pd.api.types.is_signed_integer_dtype(column.dtype):
        return column
    present = column[column.notna()]
    if any(int(value) != value or abs(int(value)) >= 2**63 for value in present):
        raise ValueError
    whole = [None if pd.isna(value) else int(value) for value in column]
    return pd.Series(pd.array(whole, dtype="Int64"))
