"""A filter as SQL for DataFusion, which LanceDB evaluates it with."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

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

__all__ = ["constant_sql", "where_sql"]

_EPOCH = dt.datetime(1970, 1, 1)


def where_sql(
    condition: Condition, names: Mapping[str, str], kinds: Mapping[str, str]
) -> str:
    """Return SQL that says what a condition says.

    Parameters
    ----------
    condition : Condition
        From ``parse_where``.
    names : dict of str to str
        What each column is called on disk: letters, digits and underscores only.
    kinds : dict of str to str
        Of each column.

    Returns
    -------
    str
        Made of the condition alone: no word of what a user typed is in it but
        constants, each quoted.
    """

    def sql(part: Condition) -> str:
        match part:
            case And(parts):
                return "(" + " AND ".join(map(sql, parts)) + ")"
            case Or(parts):
                return "(" + " OR ".join(map(sql, parts)) + ")"
            case Not(inner):
                return f"(NOT {sql(inner)})"
            case IsMissing(column):
                return f"(`{names[column]}` IS NULL)"
            case Compare(column, op, constant):
                return (
                    f"(`{names[column]}` {op} {constant_sql(constant, kinds[column])})"
                )
            case In(column, constants):
                listed = ", ".join(constant_sql(c, kinds[column]) for c in constants)
                return f"(`{names[column]}` IN ({listed}))"
            case Like(column, pattern, ignore_case):
                word = "ILIKE" if ignore_case else "LIKE"
                return f"(`{names[column]}` {word} {constant_sql(pattern, 'text')})"

    return sql(condition)


def constant_sql(constant: object, kind: str) -> str:
    """Return a constant of a kind as SQL."""
    if isinstance(constant, bool):
        return "true" if constant else "false"
    if isinstance(constant, dt.datetime):
        # As a number: text would go through nanoseconds, which end in the year 2262.
        microseconds = (constant - _EPOCH) // dt.timedelta(microseconds=1)
        zone = 'Some("UTC")' if kind == "time_utc" else "None"
        return f"arrow_cast({microseconds}, 'Timestamp(Microsecond, {zone})')"
    if isinstance(constant, int):
        # The smallest one would be read as the negative of a number too large.
        smallest = constant == -(2**63)
        return f"arrow_cast('{constant}', 'Int64')" if smallest else str(constant)
    if isinstance(constant, float):
        return repr(constant)
    if isinstance(constant, str):
        return "'" + constant.replace("'", "''") + "'"
    raise TypeError(f"no constant: {constant!r}")
