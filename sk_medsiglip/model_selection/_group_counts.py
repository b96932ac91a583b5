"""Counts of rows and labels by group, which splits of whole groups spread evenly."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import type_of_target

from sk_medsiglip._labels import check_indicator
from sk_medsiglip._splits import group_numbers

_NAMED = 5
Rows = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class GroupCounts:
    """The counts of each group, ``(n_groups,)`` or ``(n_groups, n_labels)``.

    ``classes`` tells that every row has exactly one of the labels.
    """

    sizes: NDArray[np.float64]
    positives: NDArray[np.float64]
    known: NDArray[np.float64]
    names: list[Any]
    classes: bool

    @property
    def table(self) -> NDArray[np.float64]:
        """The counts to be spread evenly; known rows only where there are blanks."""
        has_blanks = (self.known < self.sizes[:, None]).any(axis=0)
        return np.column_stack([self.sizes, self.positives, self.known[:, has_blanks]])

    def warn_of_rare(self, wanted: int, what: str) -> None:
        """Warn if a label has fewer groups with it, or without it, than wanted."""
        with_it = (self.positives > 0).sum(axis=0)
        sides = {"with": with_it}
        if not self.classes:
            sides["without"] = (self.known > self.positives).sum(axis=0)
        for side, n_groups in sides.items():
            # A label that nobody has is constant, which is for the scorer to say.
            few = np.flatnonzero((n_groups < wanted) & (n_groups > 0))
            if few.size:
                shown = [f"{self.names[i]!r} ({n_groups[i]})" for i in few[:_NAMED]]
                more = f" and {few.size - _NAMED} more" if few.size > _NAMED else ""
                kind = "classes" if self.classes else "labels"
                warnings.warn(
                    f"fewer groups {side} these {kind} than {what}: "
                    f"{', '.join(shown)}{more}. Some parts hold none, and cannot be "
                    "judged by them.",
                    UserWarning,
                    stacklevel=3,
                )


def count_groups(y: Any, groups: Any) -> tuple[GroupCounts, Rows]:
    """Return the counts, and the number of each row's group."""
    true, known, names, classes = _read_y(y)
    n_rows = len(true)
    check_consistent_length(true, groups)
    of_row = group_numbers(groups, n_rows)
    n_groups = int(of_row.max(initial=-1)) + 1
    # Sparse: a sum over the rows of each group, whatever their order.
    member = scipy.sparse.csr_array(
        (np.ones(n_rows), (of_row, np.arange(n_rows))), (n_groups, n_rows)
    )
    sizes = np.bincount(of_row, minlength=n_groups).astype(np.float64)
    counts = GroupCounts(
        sizes, member @ true.astype(float), member @ known.astype(float), names, classes
    )
    return counts, of_row


def _read_y(y: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_], list[Any], bool]:
    """Return the true and the known labels, names, and whether they are classes."""
    if y is None:
        raise ValueError("y is needed: the labels that are to be spread evenly.")
    columns = getattr(y, "columns", None)
    values = y.toarray() if scipy.sparse.issparse(y) else np.asarray(y)
    if not len(values):
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is needed.")
    if values.ndim == 1 and not pd.isna(values).any():
        kind = type_of_target(values)
        if kind not in ("binary", "multiclass"):
            raise ValueError(
                "y must hold classes, or one column a label of 1, 0 and NaN; got "
                f"{kind!r} values such as {values.tolist()[0]!r}."
            )
        classes, index = np.unique(values, return_inverse=True)
        true = index[:, None] == np.arange(len(classes))
        return true, np.ones_like(true), classes.tolist(), True
    if values.ndim not in (1, 2):
        raise ValueError(f"y must have one or two dimensions, got {values.shape}.")
    table = check_indicator(values.reshape(len(values), -1))
    names = list(range(table.shape[1])) if columns is None else list(columns)
    return table == 1, ~np.isnan(table), names, False
