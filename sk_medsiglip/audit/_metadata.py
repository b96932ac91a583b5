"""Columns of metadata, such as scanner, site and age, as levels."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.audit._rows import Rows

#: Numbers and dates with more distinct values than this are cut at their quartiles.
MOST_LEVELS_OF_NUMBERS = 10
N_BINS = 4


@dataclass(frozen=True, eq=False)
class Column:
    """One column: the level of every row, -1 where it is blank.

    ``reason`` says why the column cannot be used, if that is so.
    """

    name: Hashable
    level: NDArray[np.intp]  # (n_rows,)
    names: list[Any]  # of the levels
    reason: str = ""


def read_metadata(metadata: Any, rows: Rows) -> list[Column]:
    """Return the columns of a table, in the order of rows."""
    if isinstance(metadata, pd.Series):
        metadata = metadata.to_frame()
    table = metadata if isinstance(metadata, pd.DataFrame) else pd.DataFrame(metadata)
    if len(table) != rows.n_given:
        raise ValueError(
            f"metadata holds {len(table)} rows for {rows.n_given} rows of X; pass one "
            "for each row, in the same order."
        )
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()].tolist()
        raise ValueError(f"metadata names columns twice: {twice}. Rename one of each.")
    if not len(table.columns):
        raise ValueError("metadata has no columns; pass at least one, such as a site.")
    return [
        _read_column(name, values.iloc[rows.row].reset_index(drop=True), rows.patient)
        for name, values in table.items()
    ]


def _read_column(
    name: Hashable, values: pd.Series, patient: NDArray[np.intp]
) -> Column:
    """Return a column as levels."""
    values = _without_useless_types(values)
    known = values.notna().to_numpy()
    blank = np.full(len(values), -1)
    n_values = values.nunique()
    if n_values < 2:
        reason = "every value is blank" if not n_values else "there is one value only"
        return Column(name, blank, [], reason)
    is_number = pd.api.types.is_numeric_dtype(values.dtype)
    is_date = pd.api.types.is_datetime64_any_dtype(values.dtype) or (
        pd.api.types.is_timedelta64_dtype(values.dtype)
    )
    is_measured = is_date or pd.api.types.is_float_dtype(values.dtype)
    if not is_measured and _is_identity(values[known], patient[known]):
        reason = "no two patients share a value: it stands for the patient or the row"
        return Column(name, blank, [], reason)
    if (is_number or is_date) and n_values > MOST_LEVELS_OF_NUMBERS:
        values = pd.qcut(values, N_BINS, duplicates="drop")
    else:
        values = values.astype(object)
    found = sorted(values[known].unique(), key=lambda one: (str(type(one)), one))
    number = {one: k for k, one in enumerate(found)}
    level = blank.copy()
    level[known] = [number[one] for one in values[known]]
    names = [str(one) if isinstance(one, pd.Interval) else one for one in found]
    return Column(name, level, names)


def _without_useless_types(values: pd.Series) -> pd.Series:
    """Return plain values: whole numbers as such, objects of one type by that type."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.cat.categories.dtype)
    values = values.infer_objects()
    if pd.api.types.is_bool_dtype(values.dtype):
        return values.astype(object)
    if pd.api.types.is_float_dtype(values.dtype):
        values = values.replace([np.inf, -np.inf], np.nan)
        known = values.dropna()
        # Blanks make floats of whole numbers.
        if len(known) and (known == known.round()).all():
            return values.astype("Int64")
    if values.dtype == object:
        texts = values.map(type, na_action="ignore").nunique() > 1
        return values.map(str, na_action="ignore") if texts else values
    return values


def _is_identity(values: pd.Series, patient: NDArray[np.intp]) -> bool:
    """Return whether no value is shared by two patients."""
    pairs = pd.DataFrame({"value": values.to_numpy(dtype=object), "patient": patient})
    return len(pairs.drop_duplicates()) == pairs["value"].nunique()
