"""A filter on a DataFrame, by SQL's three truth values."""

from __future__ import annotations

import operator
import re
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.retrieval._condition import (
    And,
    Compare,
    Condition,
    In,
    IsMissing,
    Like,
    Not,
    Or,
)

__all__ = ["rows_where"]

_COMPARE = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class _Truth(NamedTuple):
    """Which rows it is true of, and which it is false of; of the rest it is unknown."""

    true: NDArray[np.bool_]
    false: NDArray[np.bool_]


def rows_where(condition: Condition, table: pd.DataFrame) -> NDArray[np.bool_]:
    """Return the rows that a condition is true of.

    Parameters
    ----------
    condition : Condition
        From ``parse_where``, for the columns of this table.
    table : DataFrame of n rows
        In the types of its kinds.

    Returns
    -------
    ndarray of shape (n,), bool
    """
    return _truth(condition, table).true


def _truth(condition: Condition, table: pd.DataFrame) -> _Truth:
    match condition:
        case And(parts):
            return reduce(_both, (_truth(part, table) for part in parts))
        case Or(parts):
            return _negate(
                reduce(_both, (_negate(_truth(part, table)) for part in parts))
            )
        case Not(part):
            return _negate(_truth(part, table))
        case IsMissing(column):
            missing = table[column].isna().to_numpy()
            return _Truth(missing, ~missing)
        case Compare(column, op, constant):
            values = table[column]
            return _known(values, _COMPARE[op](values, _as_held(values, constant)))
        case In(column, constants):
            values = table[column]
            wanted = [_as_held(values, constant) for constant in constants]
            return _known(values, values.isin(wanted))
        case Like(column, pattern, ignore_case):
            return _like(table[column], pattern, ignore_case)


def _both(left: _Truth, right: _Truth) -> _Truth:
    return _Truth(left.true & right.true, left.false | right.false)


def _negate(truth: _Truth) -> _Truth:
    return _Truth(truth.false, truth.true)


def _known(values: pd.Series, result: pd.Series) -> _Truth:
    """Return a result that is unknown where the value is missing."""
    present = values.notna().to_numpy()
    held = result.fillna(False).to_numpy(dtype=bool)
    return _Truth(held & present, ~held & present)


def _as_held(values: pd.Series, constant: Any) -> Any:
    """Return a constant as the column's own type has it."""
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return pd.Timestamp(constant).tz_localize("UTC")
    if pd.api.types.is_datetime64_dtype(values.dtype):
        return pd.Timestamp(constant)
    return constant


def _like(values: pd.Series, pattern: str, ignore_case: bool) -> _Truth:
    matches = re.compile(
        _as_regex(pattern), re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    ).fullmatch
    present = values.notna().to_numpy()
    held = np.zeros(len(values), bool)
    held[present] = [
        matches(value) is not None for value in values.to_numpy(object)[present]
    ]
    return _Truth(held, ~held & present)


def _as_regex(pattern: str) -> str:
    r"""Return a regular expression for ``%``, ``_`` and ``\``, which quotes them.

    >>> _as_regex("a_100\\%%")
    'a.100%.*'
    """
    parts = []
    characters = iter(pattern)
    for character in characters:
        if character == "\\":
            parts.append(re.escape(next(characters)))
        else:
            parts.append({"%": ".*", "_": "."}.get(character, re.escape(character)))
    return "".join(parts)
