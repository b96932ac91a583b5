"""Columns of a table as plain arrays in a folder; nothing in it can run.

A column of text is its UTF-8 bytes, one after the other, and where each value ends. All
other kinds are one array. What is missing is a second array, if anything is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.retrieval._metadata import dtype_of

__all__ = [
    "arrays_of_table",
    "read_array",
    "read_table",
    "table_of_arrays",
    "write_array",
    "write_rows",
    "write_table",
]


def write_table(folder: Path, table: pd.DataFrame, kinds: Mapping[str, str]) -> None:
    """Write the columns of a table.

    Parameters
    ----------
    folder : Path
        Where to.
    table : DataFrame
        In the types of its kinds.
    kinds : dict of str to str
        Of its columns, which are written by place: a name may hold anything.
    """
    for name, values in arrays_of_table(table, kinds):
        write_array(folder / f"{name}.npy", values)


def arrays_of_table(
    table: pd.DataFrame, kinds: Mapping[str, str]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the columns of a table as arrays of numbers, with the names of the files.

    Parameters
    ----------
    table, kinds
        As for :func:`write_table`.

    Yields
    ------
    tuple of str and ndarray
    """
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
        else:
            yield stem, _plain_values(column, kind, missing)


def _plain_values(
    column: pd.Series, kind: str, missing: NDArray[np.bool_]
) -> NDArray[Any]:
    if kind in ("time", "time_utc"):
        return column.to_numpy(dtype="datetime64[us]").view(np.int64)
    if kind == "number":
        return column.to_numpy(dtype=np.float64)
    fill = False if kind == "boolean" else 0
    return column.to_numpy(dtype=bool if kind == "boolean" else np.int64, na_value=fill)


def read_table(folder: Path, kinds: Mapping[str, str], n_rows: int) -> pd.DataFrame:
    """Return what :func:`write_table` wrote; ValueError or OSError if it is damaged."""
    files = folder.glob("column-*.npy")
    return table_of_arrays({one.stem: read_array(one) for one in files}, kinds, n_rows)


def table_of_arrays(
    arrays: dict[str, NDArray[Any]], kinds: Mapping[str, str], n_rows: int
) -> pd.DataFrame:
    """Return the table of :func:`arrays_of_table`; ``arrays`` is empty afterwards."""
    columns = {}
    for place, (name, kind) in enumerate(kinds.items()):
        stem = f"column-{place}"
        missing = arrays.pop(f"{stem}-missing", np.zeros(n_rows, bool))
        values = arrays.pop(stem)
        if kind == "text":
            ends = arrays.pop(f"{stem}-ends")
            columns[name] = _read_text(values.tobytes(), ends, missing)
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
    content: bytes, ends: NDArray[np.int64], missing: NDArray[np.bool_]
) -> pd.Series:
    if len(ends) and (ends[-1] != len(content) or (np.diff(ends) < 0).any()):
        raise ValueError("the ends of a column of text do not fit its bytes")
    values = []
    start = 0
    for end, gap in zip(ends.tolist(), missing.tolist(), strict=True):
        values.append(None if gap else content[start:end].decode())
        start = end
    return pd.Series(values, dtype=dtype_of("text"))


def write_array(path: Path, values: NDArray[Any]) -> None:
    """Write one array, and have it on the disk when this returns."""
    with path.open("wb") as file:
        np.lib.format.write_array(file, values, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def write_rows(
    path: Path, batches: Iterable[NDArray[Any]], shape: tuple[int, int], dtype: np.dtype
) -> None:
    """Write a matrix, batch after batch; a full disk is an error and not a signal."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    written = 0
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for batch in batches:
            file.write(np.ascontiguousarray(batch, dtype).data)
            written += len(batch)
        file.flush()
        os.fsync(file.fileno())
    if written != shape[0]:
        raise ValueError(f"{written} rows were written in the place of {shape[0]}")


def read_array(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    """Return one array; mapped, its values are read from the file as they are used."""
    return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
