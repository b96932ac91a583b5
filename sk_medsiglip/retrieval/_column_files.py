"""Columns of a table as plain arrays of numbers, which hold nothing that can run.

A column of text is its UTF-8 bytes, one value after the other, and where each ends. All
other kinds are one array. A second array marks missing values, if there are any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.retrieval._metadata import dtype_of


def arrays_of_table(
    table: pd.DataFrame, kinds: Mapping[str, str]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the columns as arrays, named by their place: a name may hold anything."""
    for place, (name, kind) in enumerate(kinds.items()):
        column = table[name]
        missing = column.isna().to_numpy()
        stem = f"column-{place}"
        if missing.any():
            yield f"{stem}-missing", missing
        if kind == "text":
            encoded = [
                b"" if m else v.encode() for v, m in zip(column, missing, strict=True)
            ]
            ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
            yield stem, np.frombuffer(b"".join(encoded), np.uint8)
            yield f"{stem}-ends", ends
        elif kind in ("time", "time_utc"):
            yield stem, column.to_numpy(dtype="datetime64[us]").view(np.int64)
        elif kind == "number":
            yield stem, np.ascontiguousarray(column.to_numpy(dtype=np.float64))
        else:
            plain = bool if kind == "boolean" else np.int64
            yield stem, column.to_numpy(dtype=plain, na_value=plain(0))


def table_of_arrays(
    arrays: Mapping[str, NDArray[Any]], kinds: Mapping[str, str], n_rows: int
) -> pd.DataFrame:
    """Return the table of :func:`arrays_of_table`."""
    columns = {}
    for place, (name, kind) in enumerate(kinds.items()):
        stem = f"column-{place}"
        missing = arrays.get(f"{stem}-missing", np.zeros(n_rows, bool))
        values = arrays[stem]
        if kind == "text":
            columns[name] = _read_text(values, arrays[f"{stem}-ends"], missing)
        else:
            if kind in ("time", "time_utc"):
                values = values.view("datetime64[us]")
            column = pd.Series(values)
            if kind == "time_utc":
                column = column.dt.tz_localize("UTC")
            column = column.astype(dtype_of(kind))
            if kind in ("integer", "boolean"):
                column[missing] = pd.NA
            columns[name] = column
        if len(columns[name]) != n_rows:
            raise ValueError(f"a column has {len(columns[name])} of {n_rows} rows")
    return pd.DataFrame(columns, index=pd.RangeIndex(n_rows))


def _read_text(
    content: NDArray[np.uint8], ends: NDArray[np.int64], missing: NDArray[np.bool_]
) -> pd.Series:
    if len(ends) and (ends[-1] != len(content) or (np.diff(ends) < 0).any()):
        raise ValueError("the ends of a column of text do not fit its bytes")
    text = content.tobytes()
    starts = [0, *ends.tolist()][:-1]
    values = [
        None if gap else text[start:end].decode()
        for start, end, gap in zip(starts, ends.tolist(), missing, strict=True)
    ]
    return pd.Series(values, dtype=dtype_of("text"))
