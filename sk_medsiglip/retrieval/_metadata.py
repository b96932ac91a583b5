"""What metadata may hold: five kinds of column, the same in every index.

A DataFrame can hold anything, a file or a table on disk cannot, and a filter must mean
one thing whatever holds the rows. So every column is of one kind, found when the first
rows are added and kept from then on. A missing value is missing, however it was
written: None, NaN, NaT, ``pandas.NA``.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd

__all__ = [
    "RESERVED",
    "conform",
    "conform_column",
    "dtype_of",
    "empty_column",
    "infer_kind",
    "infer_kinds",
]

#: Columns that results have anyway.
RESERVED = ("query", "rank", "id", "source", "score")

#: Kind: what it is called in a message, and the type of its column.
_DTYPES: dict[str, tuple[str, Any]] = {
    "text": ("text", pd.StringDtype()),
    "integer": ("whole numbers", pd.Int64Dtype()),
    "number": ("numbers", np.dtype("float64")),
    "boolean": ("true and false", pd.BooleanDtype()),
    "time": ("times", np.dtype("datetime64[us]")),
    "time_utc": ("times with a time zone", pd.DatetimeTZDtype("us", "UTC")),
}

#: What ``pandas.api.types.infer_dtype`` says of a column of objects.
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

#: Objects that are names and are kept as their text.
_NAMES = (PurePath, UUID)


def infer_kinds(frame: pd.DataFrame) -> dict[str, str]:
    """Return the kind of every column of metadata.

    Parameters
    ----------
    frame : DataFrame
        As the user gave it.

    Returns
    -------
    dict of str to {"text", "integer", "number", "boolean", "time", "time_utc"}

    Raises
    ------
    TypeError
        If a column holds anything else: says which row, and how to convert it.
    ValueError
        If a name is no text, stands twice, or is a column that results have anyway.
    """
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
    if pd.api.types.is_bool_dtype(dtype):
        return "boolean"
    if pd.api.types.is_integer_dtype(dtype):
        return "integer"
    if pd.api.types.is_float_dtype(dtype):
        return "number"
    if isinstance(dtype, pd.DatetimeTZDtype):
        return "time_utc"
    if pd.api.types.is_datetime64_dtype(dtype):
        return "time"
    if isinstance(dtype, pd.StringDtype):
        return "text"
    if pd.api.types.is_object_dtype(dtype):
        return _kind_of_objects(column, name)
    raise TypeError(_unusable(name, column))


def _kind_of_objects(column: pd.Series, name: str) -> str:
    present = column[column.notna()]
    found = pd.api.types.infer_dtype(present, skipna=True)
    kind = _KIND_OF_OBJECTS.get(found)
    if kind == "time" and found == "datetime":
        zones = {value.tzinfo is not None for value in present}
        if len(zones) == 2:
            raise TypeError(
                f"metadata[{name!r}] mixes times with and without a time zone. "
                f"Convert it: pandas.to_datetime(metadata[{name!r}], utc=True)."
            )
        return "time_utc" if zones == {True} else "time"
    if kind is not None:
        return kind
    if all(isinstance(value, _NAMES) for value in present):
        return "text"
    if all(isinstance(value, Enum) and isinstance(value, str) for value in present):
        return "text"
    raise TypeError(_unusable(name, present))


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
    """Return metadata in the types of its kinds.

    Parameters
    ----------
    metadata : DataFrame or None
        What the user gave for these rows; columns may be missing.
    kinds : dict
        Of the index.
    n_rows : int
        Rows that there are.
    first_row : int, default=0
        Where these rows begin, for messages.

    Returns
    -------
    DataFrame of n_rows rows
        The columns of ``kinds``, in that order, under a plain index.

    Raises
    ------
    ValueError, TypeError
        If a column is new, or a value is not of its column's kind.
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
        converted = _CONVERT[kind](column)
    except (TypeError, ValueError, OverflowError, pd.errors.OutOfBoundsDatetime):
        raise TypeError(_other_kind(column, kind, name, first_row)) from None
    return converted.astype(_DTYPES[kind][1])


def _other_kind(column: pd.Series, kind: str, name: str, first_row: int) -> str:
    """Say which value does not fit."""
    place, value = 0, None
    for place, value in enumerate(column):  # noqa: B007
        try:
            if not pd.isna(value):
                _CONVERT[kind](column.iloc[place : place + 1])
        except (TypeError, ValueError, OverflowError):
            break
    return (
        f"metadata[{name!r}] holds {_DTYPES[kind][0]} in this index, and "
        f"{value!r} of row {first_row + place} is none that it can hold. Convert the "
        "column, here or before the first rows are added."
    )


def _to_text(column: pd.Series) -> pd.Series:
    if column.dtype == object:
        named = (*_NAMES, Enum)
        column = column.map(
            lambda v: (
                str(v.value if isinstance(v, Enum) else v)
                if isinstance(v, named)
                else v
            )
        )
    if not isinstance(column.dtype, pd.StringDtype) and any(
        not isinstance(value, str) for value in column[column.notna()]
    ):
        raise TypeError
    # What UTF-8 cannot hold, half of a pair of surrogates, no file can either.
    "".join(column[column.notna()]).encode("utf-8")
    return column.astype(_DTYPES["text"][1])


def _to_integers(column: pd.Series) -> pd.Series:
    if pd.api.types.is_bool_dtype(column.dtype):
        raise TypeError
    if column.dtype == object:
        present = column[column.notna()]
        if any(isinstance(value, bool | np.bool_ | str) for value in present):
            raise TypeError
        if any(value != int(value) for value in present):
            raise ValueError
        whole = pd.array(
            [None if pd.isna(v) else int(v) for v in column], dtype="Int64"
        )
        return pd.Series(whole)
    if (
        pd.api.types.is_unsigned_integer_dtype(column.dtype)
        and (column[column.notna()] > np.iinfo(np.int64).max).any()
    ):
        raise OverflowError
    if pd.api.types.is_float_dtype(column.dtype):
        present = column[column.notna()]
        # The largest float below 2**63; beyond it a cast wraps around.
        if ((present.abs() >= 2.0**63) | (present % 1 != 0)).any():
            raise ValueError
    elif not pd.api.types.is_integer_dtype(column.dtype):
        raise TypeError
    return column.astype("Int64")


def _to_numbers(column: pd.Series) -> pd.Series:
    if pd.api.types.is_bool_dtype(column.dtype):
        raise TypeError
    if column.dtype == object:
        present = column[column.notna()]
        allowed = (int, float, Decimal, np.integer, np.floating)
        if any(
            isinstance(value, bool | np.bool_) or not isinstance(value, allowed)
            for value in present
        ):
            raise TypeError
    elif not pd.api.types.is_numeric_dtype(column.dtype):
        raise TypeError
    values = [np.nan if pd.isna(value) else float(value) for value in column]
    return pd.Series(values, dtype="float64")


def _to_booleans(column: pd.Series) -> pd.Series:
    if column.dtype == object:
        present = column[column.notna()]
        if any(not isinstance(value, bool | np.bool_) for value in present):
            raise TypeError
    elif not pd.api.types.is_bool_dtype(column.dtype):
        raise TypeError
    return column.astype("boolean")


def _to_times(column: pd.Series) -> pd.Series:
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        raise TypeError
    return _read_times(column, utc=False)


def _to_utc(column: pd.Series) -> pd.Series:
    if pd.api.types.is_datetime64_dtype(column.dtype):
        raise TypeError
    return _read_times(column, utc=True)


def _read_times(column: pd.Series, utc: bool) -> pd.Series:
    if column.dtype == object:
        present = column[column.notna()]
        for value in present:
            if isinstance(value, np.datetime64) and not utc:
                continue
            # A date is midnight where times have no zone.
            is_time = hasattr(value, "year") and hasattr(value, "isoformat")
            if not is_time or (getattr(value, "tzinfo", None) is not None) != utc:
                raise TypeError
        if utc:
            return pd.to_datetime(column, utc=True)
        # Not pandas.to_datetime, which reads a year of 9999 in nanoseconds.
        values = [
            np.datetime64("NaT") if pd.isna(v) else np.datetime64(v, "us")
            for v in column
        ]
        return pd.Series(np.array(values, dtype="datetime64[us]"))
    if not pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise TypeError
    return column.dt.tz_convert("UTC") if utc else column


_CONVERT = {
    "text": _to_text,
    "integer": _to_integers,
    "number": _to_numbers,
    "boolean": _to_booleans,
    "time": _to_times,
    "time_utc": _to_utc,
}
