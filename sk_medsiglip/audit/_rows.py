"""Rows and patients as the pieces of the audit read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import check_array

from sk_medsiglip._embeddings import is_matrix
from sk_medsiglip._splits import group_numbers

#: Columns that decide the order of rows: equal values in all of them are copies.
_N_ORDERING = 4


@dataclass(frozen=True, eq=False)
class Rows:
    """Readable rows of a data set, in an order that is their own.

    Folds and permutations follow the order of rows. Putting them in the order of their
    values first makes the results the same however the user's table is sorted, and
    whatever its patients are called.
    """

    X: NDArray[np.floating]  # (n_rows, width)
    row: NDArray[np.intp]  # where each row lies in the user's arrays
    patient: NDArray[np.intp]  # numbers from 0 on
    n_given: int
    notes: list[str]  # sentences on rows and groups, for ``attrs``

    @property
    def n_patients(self) -> int:
        """Number of patients, or of rows where there are no groups."""
        return int(self.patient.max(initial=-1)) + 1


def check_rows(X: Any, groups: Any, name: str) -> Rows:
    """Check embeddings and patients, and leave out rows of NaN."""
    shape = np.shape(X) if hasattr(X, "shape") else None
    if shape is not None and len(shape) == 3:
        raise ValueError(
            f"{name} takes rows, (n_samples, width); got bags or images of shape "
            f"{shape}. For bags, pass the means of their instances, "
            "numpy.nanmean(X, axis=1); for images, MedSigLIPEmbedder().transform(X)."
        )
    if not is_matrix(X):
        raise ValueError(
            f"{name} takes embeddings, (n_samples, width): pass "
            "MedSigLIPEmbedder().transform(X) for images."
        )
    rows = check_array(
        X, dtype=[np.float64, np.float32], ensure_all_finite=False, input_name="X"
    )
    blank = np.isnan(rows).all(axis=1)
    odd = np.flatnonzero(~np.isfinite(rows).all(axis=1) & ~blank)
    if odd.size:
        raise ValueError(
            f"X holds NaN or infinite values in row {odd[0]}. Only a row of NaN alone, "
            "an image that could not be read, is left out."
        )
    kept = np.flatnonzero(~blank)
    if not kept.size:
        raise ValueError("X holds rows of NaN alone: no image could be read.")
    number = group_numbers(groups, len(rows))[kept]
    order = np.lexsort(rows[kept, :_N_ORDERING].T[::-1])
    notes = []
    if blank.any():
        notes.append(
            f"{int(blank.sum()):,} of {len(rows):,} rows are NaN, images that could "
            "not be read; they are left out."
        )
    if groups is not None and len(kept) > 1 and len(np.unique(number)) == len(kept):
        notes.append(
            "Every row has a group of its own, so groups keep nothing together. Are "
            "they patients?"
        )
    return Rows(
        X=np.ascontiguousarray(rows[kept][order]),
        row=kept[order],
        patient=pd.factorize(number[order])[0],
        n_given=len(rows),
        notes=notes,
    )
