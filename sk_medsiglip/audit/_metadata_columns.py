"""Columns of metadata in the order of rows, also those that cannot be tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.audit._metadata import LEAST_PATIENTS, read_metadata
from sk_medsiglip.audit._rows import Rows


@dataclass(frozen=True, eq=False)
class MetadataColumn:
    """A column, the level of every row, and a note on what is left out.

    It has no levels if it cannot be tested.
    """

    name: str
    levels: list[str]
    code: NDArray[np.intp]  # (n_rows,), place among ``levels``, -1 if left out
    note: str

    def usable(
        self, label: NDArray[np.float64], patient: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], list[str], str]:
        """Return labelled rows of levels with enough patients, levels and a note."""
        known = np.flatnonzero((self.code >= 0) & ~np.isnan(label))
        pairs = np.column_stack([self.code[known], patient[known]])
        n_patients = np.bincount(
            np.unique(pairs, axis=0)[:, 0], minlength=len(self.levels)
        )
        enough = n_patients >= LEAST_PATIENTS
        kept = known[enough[self.code[known]]]
        level = np.cumsum(enough)[self.code[kept]] - 1
        names = [
            name for name, is_kept in zip(self.levels, enough, strict=True) if is_kept
        ]
        rare = [name for name in self.levels if name not in names]
        note = self.note
        if rare:
            note = (
                f"{note} Fewer than {LEAST_PATIENTS} patients with a label have "
                f"{', '.join(map(repr, rare[:5]))}{', ...' if len(rare) > 5 else ''}"
            ).strip()
        return kept, level, names, note


def read_columns(metadata: Any, rows: Rows) -> list[MetadataColumn]:
    """Return all columns of a table."""
    if hasattr(metadata, "to_pandas"):
        metadata = metadata.to_pandas()
    patient = np.full(rows.n_given, -1)
    patient[rows.row] = rows.patient
    columns, left_out = read_metadata(metadata, patient)
    usable = {one.name: one for one in columns}
    found = []
    for key, values in pd.DataFrame(metadata).items():
        name = str(key)
        column, note = usable.get(name), left_out.get(name, "")
        if _is_identity(values.iloc[rows.row], rows.patient):
            column = None
            note = "it stands for the patient or the row: no two patients share a value"
        if column is None:
            blank = np.full(len(rows.row), -1)
            found.append(MetadataColumn(name, [], blank, note))
        else:
            code = column.code[rows.row]
            found.append(MetadataColumn(name, column.levels, code, note))
    return found


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
