"""Columns of metadata as levels: texts as they are, numbers and dates in quarters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

#: Patients that a level needs; smaller levels are left out and named.
LEAST_PATIENTS = 5
#: Different numbers or dates that are levels by themselves; more are cut in quarters.
_MOST_VALUES = 8
#: Levels of one column, the largest; the others are left out and named.
_MOST_LEVELS = 30
_BLANK = "(blank)"


@dataclass(frozen=True, eq=False)
class Column:
    """A column of metadata, coded by its levels."""

    name: str
    levels: list[str]
    code: NDArray[np.intp]  # (n_rows,), place among ``levels``, -1 if left out


def read_metadata(
    metadata: Any, patient: NDArray[np.intp]
) -> tuple[list[Column], dict[str, str]]:
    """Return the columns that have two levels or more, and what is left out and why.

    Levels are sorted by name, so results do not depend on the order of rows.
    """
    table = _as_table(metadata, len(patient))
    columns, left_out = [], {}
    for place, name in enumerate(map(str, table.columns)):
        column, reason = _read_column(name, table.iloc[:, place], patient)
        if reason:
            left_out[name] = reason
        if column is not None:
            columns.append(column)
    if not columns:
        raise ValueError(
            "metadata has no column with two levels of at least "
            f"{LEAST_PATIENTS} patients each: {left_out}. Pass columns such as the "
            "scanner, the site or the view."
        )
    return columns, left_out


def _as_table(metadata: Any, n_rows: int) -> pd.DataFrame:
    """Return metadata as a DataFrame of as many rows as there are samples."""
    if hasattr(metadata, "to_pandas"):
        metadata = metadata.to_pandas()
    table = pd.DataFrame(metadata)
    if len(table) != n_rows:
        raise ValueError(
            f"metadata holds {len(table)} rows for {n_rows} samples; pass a row for "
            "each sample, in the same order."
        )
    if not table.shape[1]:
        raise ValueError("metadata has no columns; pass at least one.")
    names = pd.Index(table.columns.map(str))
    if names.has_duplicates:
        twice = names[names.duplicated()][0]
        raise ValueError(
            f"metadata has two columns named {twice!r}; rename one of them."
        )
    return table


def _read_column(
    name: str, values: pd.Series, patient: NDArray[np.intp]
) -> tuple[Column | None, str]:
    """Return a column, None if it has fewer than two levels, and what is left out."""
    texts = _levels(values)
    pairs = pd.DataFrame({"level": texts, "patient": patient}).drop_duplicates()
    n_patients = pairs["level"].value_counts()
    n_patients = n_patients.sort_index().sort_values(ascending=False, kind="stable")
    if len(n_patients) == 1:
        return None, f"its only value is {n_patients.index[0]!r}"
    kept = n_patients[n_patients >= LEAST_PATIENTS].index[:_MOST_LEVELS]
    levels = sorted(kept)
    left = [level for level in n_patients.index if level not in set(kept)]
    reason = ""
    if left:
        shown = ", ".join(repr(level) for level in sorted(left)[:5])
        reason = (
            f"{len(left)} of {len(n_patients)} levels have fewer than {LEAST_PATIENTS} "
            f"patients, or are not among the {_MOST_LEVELS} largest: {shown}"
            f"{', ...' if len(left) > 5 else ''}"
        )
    if len(levels) < 2:
        return None, reason
    code = pd.Index(levels).get_indexer(pd.Index(texts))
    return Column(name, levels, code.astype(np.intp)), reason


def _levels(values: pd.Series) -> NDArray[np.object_]:
    """Return the level of each value as a text."""
    values = values.astype(object).infer_objects()
    blank = np.asarray(values.isna())
    known = values[~blank]
    is_ordered = pd.api.types.is_datetime64_any_dtype(known) or (
        pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known)
    )
    if is_ordered and known.nunique() > _MOST_VALUES:
        texts = _quarters(known)
    elif is_ordered and pd.api.types.is_numeric_dtype(known):
        texts = known.map("{:g}".format)
    else:
        texts = known.map(str).str.strip()
    levels = np.full(len(values), _BLANK, dtype=object)
    levels[~blank] = np.where(texts == "", _BLANK, texts)
    return levels


def _quarters(values: pd.Series) -> pd.Series:
    """Return the quarter of each number or date, named by its bounds."""
    is_number = pd.api.types.is_numeric_dtype(values)
    ordered = values if is_number else values.astype("int64")
    place = pd.qcut(ordered, 4, labels=False, duplicates="drop")
    name = "{:g} to {:g}" if is_number else "{:%Y-%m-%d} to {:%Y-%m-%d}"
    quarters = values.groupby(place)
    names = {quarter: name.format(own.min(), own.max()) for quarter, own in quarters}
    return place.map(names)
