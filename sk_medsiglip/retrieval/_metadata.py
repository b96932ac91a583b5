"""Ids, sources and metadata of rows: columns of a few kinds, the same in every index.

A DataFrame can hold anything, a file or a table on disk cannot, and a filter must have
one meaning for all indexes. So every column has one kind, which is inferred from the
first rows and does not change. None, NaN, NaT and ``pandas.NA`` are all missing values.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd

#: Names of columns that results have in any case.
RESERVED = ("query", "rank", "id", "source", "score")

#: Name in messages, and pandas type, of each kind of column.
_DTYPES: dict[str, tuple[str, Any]] = {
    "text": ("text", pd.StringDtype()),
    "integer": ("whole numbers", pd.Int64Dtype()),
    "number": ("numbers", np.dtype("float64")),
    "boolean": ("true and false", pd.BooleanDtype()),
    "time": ("times", np.dtype("datetime64[us]")),
    "time_utc": ("times with a time zone", pd.DatetimeTZDtype("us", "UTC")),
}

#: Kinds by the result of ``pandas.api.types.infer_dtype``.
_INFERRED = {
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

#: Kinds of values that a column of a kind accepts.
_TAKEN = {"integer": ("integer", "number"), "number": ("number", "integer")}

_NAMED_IN_ERROR = 5


def check_ids(ids: Any, n_rows: int, kind: str | None = None) -> pd.Series:
    """Return unique ids in the type of their kind, which must be ``kind`` if given."""
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
            f"the ids of this index are {_DTYPES[kind][0]}, got {column.iloc[0]!r}. "
            "Convert them, or fit again."
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


def check_metadata(metadata: Any, X: Any, n_rows: int) -> pd.DataFrame:
    """Return metadata as a new table with a row for every row of ``X``."""
    if metadata is None:
        return pd.DataFrame(index=pd.RangeIndex(n_rows))
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
            f"there are {n_rows} rows, and {len(metadata)} of metadata; they must be "
            "equally many."
        )
    given = getattr(X, "index", None)
    if isinstance(given, pd.Index) and not given.equals(metadata.index):
        raise ValueError(
            "X and metadata have different indexes, so their rows may not belong "
            "together. Put them in one order, metadata.loc[X.index], or, if they are, "
            "say so: metadata.set_index(X.index)."
        )
    check_names(list(metadata.columns))
    return metadata.reset_index(drop=True)


def check_sources(sources: Any, n_rows: int) -> pd.Series:
    """Return sources as one text for each row."""
    column = _as_column(sources, "sources", n_rows)
    return conform_column(column, "text", "sources")


def _as_column(values: Any, name: str, n_rows: int | None = None) -> pd.Series:
    """Return a list or column as a Series with a plain index, of a given length."""
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise TypeError(f"{name} must be a list or a column, got {values!r}.")
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise ValueError(f"{name} must be one column, got shape {values.shape}.")
    if not isinstance(values, pd.Series | np.ndarray):
        values = np.fromiter(values, dtype=object)
    column = pd.Series(values).reset_index(drop=True)
    if n_rows not in (None, len(column)):
        raise ValueError(
            f"there are {n_rows} rows and {len(column)} {name}; they must be equally "
            "many."
        )
    return column


def _named(ids: Any) -> str:
    # The repr of a numpy number is "np.int64(3)".
    shown = ", ".join(
        str(one) if isinstance(one, np.integer) else repr(one)
        for one in list(ids[:_NAMED_IN_ERROR])
    )
    more = len(ids) - _NAMED_IN_ERROR
    return f"{shown} and {more} more" if more > 0 else shown


def refuse_known(ids: list[Any]) -> ValueError:
    """Return the error for ids that are in an index already."""
    return ValueError(
        f"ids must be unique; the index has already: {_named(ids)}. "
        "retriever.update(ids, X) replaces their images."
    )


def refuse_unknown(ids: list[Any]) -> ValueError:
    """Return the error for ids that are not in an index."""
    return ValueError(f"the index has no such ids: {_named(ids)}.")


def check_names(names: list[Any]) -> None:
    """Raise if names of columns are not texts, not unique, or reserved."""
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
                f"metadata has a column {name!r}, as results have. To keep it, {mend}."
            )


def infer_kind(column: pd.Series, name: str) -> str:
    """Return the kind of one column; ``name`` is for the error."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return infer_kind(column.cat.categories.to_series(), name)
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return "time_utc"
    present = column[column.notna()]
    found = pd.api.types.infer_dtype(present)
    zones = {one.tzinfo is not None for one in present if found == "datetime"}
    if len(zones) == 2:
        raise TypeError(
            f"metadata[{name!r}] mixes times with and without a time zone. "
            f"Convert it: pandas.to_datetime(metadata[{name!r}], utc=True)."
        )
    if zones == {True}:
        return "time_utc"
    if found not in _INFERRED and all(map(_is_name, present)):
        return "text"
    if found not in _INFERRED:
        raise TypeError(_unusable(name, present))
    return _INFERRED[found]


def _is_name(value: Any) -> bool:
    """Tell whether an object is stored as its text."""
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
    table: pd.DataFrame, kinds: Mapping[str, str], first_row: int = 0
) -> pd.DataFrame:
    """Return a table with the columns of an index, in the types of their kinds.

    ``first_row`` is the number of the first row, for messages.
    """
    unknown = [name for name in table.columns if name not in kinds]
    if unknown:
        raise ValueError(
            f"metadata has a column {unknown[0]!r}, and the index has {list(kinds)}, "
            "the columns of its first rows. Drop the column, or fit again."
        )
    columns = {
        name: conform_column(table[name], kind, name, first_row)
        if name in table.columns
        else empty_column(kind, len(table))
        for name, kind in kinds.items()
    }
    return pd.DataFrame(columns, index=pd.RangeIndex(len(table)))


def dtype_of(kind: str) -> Any:
    """Return the type that columns of a kind have."""
    return _DTYPES[kind][1]


def nullable_dtype(arrow_type: Any) -> Any:
    """Return the pandas type for a type of Arrow; None is pandas' own choice."""
    name = str(arrow_type)
    if name == "uint64":
        return pd.UInt64Dtype()
    if name.startswith(("int", "uint")):
        return dtype_of("integer")
    return {"string": dtype_of("text"), "bool": dtype_of("boolean")}.get(name)


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
        return _convert(column, kind)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(_other_kind(column, kind, name, first_row)) from None


def _other_kind(column: pd.Series, kind: str, name: str, first_row: int) -> str:
    """Return the message that names the first value of another kind."""
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
    """Return a column in the type of a kind, or raise if a value would change."""
    if column.isna().all():
        return empty_column(kind, len(column))
    if kind == "text":
        column = _to_text(column)
    elif infer_kind(column, "") not in _TAKEN.get(kind, (kind,)):
        raise TypeError
    elif kind == "integer" and not pd.api.types.is_signed_integer_dtype(column.dtype):
        # Some types are cast without a check; objects are not.
        column = column.astype(object)
    elif kind == "number":
        column = pd.Series(column.to_numpy(np.float64, na_value=np.nan))
    with np.errstate(
        invalid="ignore"
    ):  # numbers too large for int64, which are refused
        return column.astype(dtype_of(kind))


def _to_text(column: pd.Series) -> pd.Series:
    """Return texts, and the texts of paths, UUIDs and members of an Enum."""
    if column.dtype == object:
        column = column.map(
            lambda one: (
                str(one.value if isinstance(one, Enum) else one)
                if _is_name(one)
                else one
            )
        )
    # A file cannot hold half of a surrogate pair, for which UTF-8 has no bytes.
    "".join(column[column.notna()]).encode("utf-8")
    return column
