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
    """A column of metadata, coded by its levels; without levels it cannot be used."""

    name: str
    levels: list[str]  # sorted, so results do not depend on the order of rows
    code: NDArray[np.intp]  # (n_rows,), place among ``levels``, -1 if left out
    note: str  # levels that are left out, and why
    is_identity: bool  # whether no two patients share a value

    def keep(self, kept: NDArray[np.bool_], patient: NDArray[np.intp]) -> Column:
        """Return the column for some rows, those of levels with enough patients."""
        code = np.where(kept, self.code, -1)
        pairs = np.unique(np.column_stack([code, patient])[code >= 0], axis=0)
        enough = np.bincount(pairs[:, 0], minlength=len(self.levels)) >= LEAST_PATIENTS
        rare = [name for name, one in zip(self.levels, enough, strict=True) if not one]
        note = self.note
        if rare:
            note = (
                f"{note} Fewer than {LEAST_PATIENTS} patients with a label have "
                f"{_listed(rare)}"
            ).strip()
        levels = [name for name in self.levels if name not in rare]
        # The place of each level among those with enough patients; the last is for -1.
        place = np.append(np.where(enough, np.cumsum(enough) - 1, -1), -1)
        return Column(self.name, levels, place[code], note, self.is_identity)


def as_table(
    metadata: Any, n_rows: int, kept: NDArray[np.intp] | None = None
) -> pd.DataFrame:
    """Return the rows of metadata that are kept; there must be one for each sample."""
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
    return table if kept is None else table.iloc[kept]


def read_columns(table: pd.DataFrame, patient: NDArray[np.intp]) -> list[Column]:
    """Return all columns; raise if none has two levels."""
    columns = [
        _read_column(str(name), values, patient) for name, values in table.items()
    ]
    if not any(column.levels for column in columns):
        left_out = {column.name: column.note for column in columns}
        raise ValueError(
            "metadata has no column with two levels of at least "
            f"{LEAST_PATIENTS} patients each: {left_out}. Pass columns such as the "
            "scanner, the site or the view."
        )
    return columns


def _read_column(name: str, values: pd.Series, patient: NDArray[np.intp]) -> Column:
    """Return a column, without levels if fewer than two have enough patients."""
    texts = _levels(values)
    pairs = pd.DataFrame({"level": texts, "patient": patient}).drop_duplicates()
    n_patients = pairs["level"].value_counts()
    n_patients = n_patients.sort_index().sort_values(ascending=False, kind="stable")
    levels = sorted(n_patients[n_patients >= LEAST_PATIENTS].index[:_MOST_LEVELS])
    left = sorted(set(n_patients.index).difference(levels))
    note = ""
    if len(n_patients) == 1:
        note = f"its only value is {n_patients.index[0]!r}"
    elif left:
        note = (
            f"{len(left)} of {len(n_patients)} levels have fewer than {LEAST_PATIENTS} "
            f"patients, or are not among the {_MOST_LEVELS} largest: {_listed(left)}"
        )
    levels = levels if len(levels) > 1 else []
    code = pd.Index(levels, dtype=object).get_indexer(pd.Index(texts))
    identity = _is_identity(values, patient)
    return Column(name, levels, code.astype(np.intp), note, identity)


def _listed(levels: list[str]) -> str:
    """Return the names of some levels."""
    return ", ".join(map(repr, levels[:5])) + ", ..." * (len(levels) > 5)


def _is_identity(values: pd.Series, patient: NDArray[np.intp]) -> bool:
    """Return whether no two patients share a value; measurements are no identities."""
    known = values.notna().to_numpy()
    values = values[known].astype(object).infer_objects()
    measured = pd.api.types.is_datetime64_any_dtype(values) or (
        pd.api.types.is_float_dtype(values) and (values % 1 != 0).any()
    )
    if measured or values.nunique() < 2:
        return False
    pairs = pd.DataFrame({"value": values.to_numpy(), "patient": patient[known]})
    return bool(len(pairs.drop_duplicates()) == values.nunique())


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
