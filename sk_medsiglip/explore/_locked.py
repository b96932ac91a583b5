"""Which rows are kept for the test: chosen once, whole patients at a time."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip._splits import group_numbers


def choose_locked(
    locked: Any,
    n_rows: int,
    groups: NDArray[Any] | None,
    frame: pd.DataFrame | None,
    random_state: int,
) -> NDArray[np.bool_]:
    """Return a mask of the locked rows, from a mask, a share of rows, or a table."""
    if locked is None:
        return np.zeros(n_rows, dtype=bool)
    patient = group_numbers(groups, n_rows)
    if isinstance(locked, pd.DataFrame):
        chosen = _in_table(locked, frame)
    elif isinstance(locked, Real) and not isinstance(locked, bool | np.bool_):
        chosen = _draw(float(locked), patient, random_state)
    else:
        chosen = np.asarray(locked)
    if chosen.dtype != bool or chosen.shape != (n_rows,):
        raise ValueError(
            "locked must be a share, a DataFrame, or a mask of True and False for each "
            f"of {n_rows} rows; got {chosen.dtype} of shape {chosen.shape}."
        )
    check_patients(chosen, groups)
    if chosen.all():
        raise ValueError("locked leaves no row to train on.")
    return chosen


def check_patients(
    locked: NDArray[np.bool_], groups: NDArray[np.generic] | None
) -> None:
    """Raise if a patient has rows on both sides."""
    if groups is None:
        return
    both = np.isin(groups, groups[locked]) & ~locked
    if both.any():
        raise ValueError(
            f"group {groups[both][0]!r} has locked rows and others: its rows would be "
            "learned from and tested on. Lock all rows of a group, or none."
        )


def _draw(
    share: float, patient: NDArray[np.intp], random_state: int
) -> NDArray[np.bool_]:
    """Draw patients, one at least, until they have the share of rows."""
    if not 0 < share < 1:
        raise ValueError(f"locked must be a share between 0 and 1, got {share}.")
    sizes = np.bincount(patient)
    order = np.random.default_rng(random_state).permutation(len(sizes))
    n_drawn = np.searchsorted(sizes[order].cumsum(), share * len(patient), "right")
    return np.isin(patient, order[: max(1, int(n_drawn))])


def _in_table(table: pd.DataFrame, frame: pd.DataFrame | None) -> NDArray[np.bool_]:
    """Tell which rows of ``frame`` a table holds, by the columns that both have."""
    keys = [] if frame is None else [name for name in frame if name in table]
    if frame is None or not keys:
        raise ValueError(
            "a table of locked rows needs a column that frame has too, such as the "
            "path of the image, to find the rows by."
        )
    lines, rows = (
        pd.MultiIndex.from_frame(one[keys].astype(str)) for one in (table, frame)
    )
    if (unknown := np.flatnonzero(~lines.isin(rows))).size:
        raise ValueError(
            f"line {unknown[0]} of the table of locked rows, {lines[unknown[0]]}, is "
            f"not a row of frame; they are compared by {keys}."
        )
    return np.asarray(rows.isin(lines))
