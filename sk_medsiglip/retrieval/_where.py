"""A filter in SQL: read by sqlglot, checked, and answered by a table or by LanceDB.

The tree that sqlglot makes of a text is read node by node, and any node that is not on
a short list is an error: functions, subqueries, other tables, several statements,
comments. So a filter holds only names of columns that exist, comparisons, and constants
of the type of their column, each written anew from its value. The text itself reaches
neither pandas nor LanceDB.

Missing values follow SQL: a comparison with one is neither true nor false, ``not`` does
not change that, and only rows for which the whole is true are found.
"""

from __future__ import annotations

import datetime as dt
import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip._optional import import_optional
from sk_medsiglip.exceptions import FilterError

_MAX_LENGTH = 1_000_000

#: A chain of 100,000 comparisons ends LanceDB's process; one list of values does not.
_MAX_COMPARISONS = 5_000

_INT64_MAX = 2**63 - 1

_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d.*)?").fullmatch
_EPOCH, _MICROSECOND = dt.datetime(1970, 1, 1), dt.timedelta(microseconds=1)

#: Comparisons by the key of their node: how SQL writes them, and Python's function.
_COMPARISONS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "eq": ("=", operator.eq),
    "neq": ("<>", operator.ne),
    "lt": ("<", operator.lt),
    "lte": ("<=", operator.le),
    "gt": (">", operator.gt),
    "gte": (">=", operator.ge),
}
#: The keys of comparisons whose sides were exchanged.
_FLIPPED = {"lt": "gt", "lte": "gte", "gt": "lt", "gte": "lte"}

#: Python types of the constants that a column of a kind is compared with, in words.
_CONSTANTS: dict[str, tuple[tuple[type, ...], str]] = {
    "text": ((str,), "text in single quotes"),
    "boolean": ((bool,), "true or false"),
    "integer": ((int, float), "a number"),
    "number": ((int, float), "a number"),
    "time": ((str,), "a time in quotes, as '2024-01-31' or '2024-01-31 16:30'"),
    "time_utc": ((str,), "a time in quotes, as '2024-01-31 16:30+00:00'"),
}


@dataclass(frozen=True)
class Filter:
    """A checked condition: its SQL, and whether it is true of each row of a table.

    ``sql`` takes the names of the columns on disk, which are letters, digits and
    underscores only, and writes SQL for DataFusion, which LanceDB uses. ``truth``
    returns True, False or a missing value for each row.
    """

    sql: Callable[[Mapping[str, str]], str]
    truth: Callable[[pd.DataFrame], Any]

    def rows(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Return the rows of a table for which the condition is true."""
        return self.truth(table).to_numpy(bool, na_value=False)


def parse_where(text: str, columns: Mapping[str, str]) -> Filter:
    """Return the checked filter of a text, for columns of these kinds.

    >>> parse_where("60 < age", {"age": "integer"}).sql({"age": "age"})
    '`age` > 60'
    """
    if not isinstance(text, str):
        raise FilterError(
            f'where must be text such as "age > 60", got {type(text).__name__}.'
        )
    if not text.strip():
        raise FilterError('where is empty; leave it out, or write "age > 60".')
    if len(text) > _MAX_LENGTH:
        raise FilterError(
            f"where has {len(text):,} characters, more than {_MAX_LENGTH:,}."
        )
    try:
        return _Reader(columns).read(text)
    except RecursionError:
        raise FilterError(
            "where is nested too deeply. Write a list of values as: column in (...)."
        ) from None


def ids_sql(ids: Iterable[str | int]) -> str:
    """Return the filter for some ids in DataFusion's SQL, by plain text: it is fast."""
    listed = ", ".join(
        str(one) if isinstance(one, int) else _quoted(one) for one in ids
    )
    return f"`id` IN ({listed})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


class _Reader:
    """Reader of sqlglot's tree, which refuses all nodes that it does not know."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._sqlglot = import_optional(
            "sqlglot", extra="retrieval", purpose="A filter (where=)"
        )
        self._exp = self._sqlglot.expressions
        self._columns = columns
        self._n_comparisons = 0

    def read(self, text: str) -> Filter:
        """Parse and check a text."""
        try:
            tokens = self._sqlglot.tokenize(text)
            statements = self._sqlglot.parse(text)
        except self._sqlglot.errors.SqlglotError as error:
            found = (getattr(error, "errors", None) or [{}])[0]
            place = f" near column {found['col']}" if "col" in found else ""
            raise FilterError(
                f"where cannot be read as SQL{place}: {text[:200]!r}. Write, for "
                "example: modality = 'CT' and (age > 60 or age is null). Text stands "
                "in single quotes, a name with spaces in double ones."
            ) from None
        if any(token.comments for token in tokens):
            raise FilterError("where holds a comment (-- or /* */); leave it out.")
        if len(statements) != 1 or statements[0] is None:
            raise FilterError(
                "where must be one condition; a semicolon ends nothing here."
            )
        return self._condition(statements[0])

    def _condition(self, node: Any) -> Filter:
        exp = self._exp
        if type(node) is exp.Paren:
            return self._condition(self._only(node, "this").this)
        if type(node) in (exp.And, exp.Or):
            # A long chain is as deep as it is long; flatten walks it without depth.
            parts = [self._condition(part) for part in node.flatten(unnest=False)]
            return _joined(node.key, parts)
        if type(node) is exp.Not:
            return _not(self._condition(self._only(node, "this").this))
        self._n_comparisons += 1
        if self._n_comparisons > _MAX_COMPARISONS:
            raise FilterError(
                f"where makes more than {_MAX_COMPARISONS:,} comparisons. Write a list "
                "of values as: column in (...)."
            )
        return self._predicate(node)

    def _predicate(self, node: Any) -> Filter:
        exp = self._exp
        if type(node) is exp.Column:
            column = self._column(node)
            if self._columns[column] != "boolean":
                raise FilterError(
                    f"{column!r} alone is not a condition: it is not true or false. "
                    f"Compare it: {column} = ..."
                )
            return self._compared(column, "eq", True)
        if node.key in _COMPARISONS:
            self._only(node, "this", "expression")
            return self._comparison(node.this, node.key, node.expression)
        if type(node) is exp.Between:
            self._only(node, "this", "low", "high")
            low = self._comparison(node.this, "gte", node.args["low"])
            high = self._comparison(node.this, "lte", node.args["high"])
            return _joined("and", [low, high])
        if type(node) is exp.In:
            return self._membership(self._only(node, "this", "expressions"))
        if type(node) is exp.Is:
            return self._is(self._only(node, "this", "expression"))
        if type(node) in (exp.Like, exp.ILike):
            like = self._like(self._only(node, "this", "expression", "negate"))
            return _not(like) if node.args.get("negate") else like
        raise self._refusal(node)

    def _only(self, node: Any, *names: str) -> Any:
        """Return a node that says no more than these arguments of it."""
        if any(value for name, value in node.args.items() if name not in names):
            raise self._refusal(node)
        return node

    def _comparison(self, left: Any, key: str, right: Any) -> Filter:
        exp = self._exp
        if type(right) is exp.Column and type(left) is not exp.Column:
            left, right, key = right, left, _FLIPPED.get(key, key)
        column = self._column(left)
        if type(right) is exp.Null:
            raise FilterError(
                f"a comparison with NULL is never true; write: {column} is null."
            )
        if type(right) is exp.Column:
            raise FilterError(
                f"{column!r} is compared with {right.name!r}, which is read as a "
                "column. Text stands in single quotes: "
                f"{column} = '{right.name}'. Two columns cannot be compared."
            )
        constant = self._constant(right, column)
        if self._columns[column] == "boolean" and key not in ("eq", "neq"):
            raise FilterError(f"{column!r} is true or false and has no order.")
        if self._columns[column] == "integer":
            key, constant = _whole_comparison(key, constant)
        return self._compared(column, key, constant)

    def _compared(self, column: str, key: str, constant: Any) -> Filter:
        symbol, compare = _COMPARISONS[key]
        return _test(
            column,
            f"{symbol} {self._written(constant, column)}",
            lambda values: compare(values, _in_pandas(constant, values)),
        )

    def _membership(self, node: Any) -> Filter:
        column = self._column(node.this)
        listed = node.expressions
        if not listed:
            raise self._refusal(node)
        if any(type(item) is self._exp.Null for item in listed):
            raise FilterError(
                f"NULL in a list is never equal to anything; write: {column} is null."
            )
        constants = [self._constant(item, column) for item in listed]
        if self._columns[column] == "integer":
            constants = [int(one) for one in constants if _is_int64(one)]
            if not constants:
                return self._compared(column, "gt", _INT64_MAX)
        written = ", ".join(self._written(one, column) for one in constants)
        return _test(
            column,
            f"IN ({written})",
            lambda values: values.isin([_in_pandas(one, values) for one in constants]),
        )

    def _is(self, node: Any) -> Filter:
        exp = self._exp
        column = self._column(node.this)
        missing = Filter(
            lambda names: f"`{names[column]}` IS NULL",
            lambda table: table[column].isna().astype("boolean"),
        )
        if type(node.expression) is exp.Null:
            return missing
        if type(node.expression) is exp.Boolean and self._columns[column] == "boolean":
            value = self._compared(column, "eq", bool(node.expression.this))
            return _joined("and", [value, _not(missing)])
        raise self._refusal(node)

    def _like(self, node: Any) -> Filter:
        column = self._column(node.this)
        if self._columns[column] != "text" or not (
            type(node.expression) is self._exp.Literal and node.expression.is_string
        ):
            raise FilterError(
                f"LIKE is for columns of text and a pattern in quotes, as in "
                f"{column} like 'CT%'."
            )
        pattern = node.expression.this
        if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
            raise FilterError("a pattern must not end in a single backslash.")
        ignores_case = type(node) is self._exp.ILike
        flags = re.DOTALL | (re.IGNORECASE if ignores_case else 0)
        matches = re.compile(_as_regex(pattern), flags).fullmatch
        return _test(
            column,
            f"{'ILIKE' if ignores_case else 'LIKE'} {_quoted(pattern)}",
            lambda values: values.map(
                lambda one: matches(one) is not None, na_action="ignore"
            ),
        )

    def _column(self, node: Any) -> str:
        if type(node) is not self._exp.Column:
            raise self._refusal(node)
        if len(node.parts) != 1:
            raise FilterError(
                f"{node.sql()!r} names a column of a table, and there is one table "
                'only. A name with a dot stands in double quotes: "a.b" = 1.'
            )
        self._only(node, "this")
        name: str = node.name
        if name not in self._columns:
            near = difflib.get_close_matches(name, self._columns, n=1, cutoff=0.6)
            folded = [c for c in self._columns if c.lower() == name.lower()]
            meant = (folded or near or [""])[0]
            mend = f" Did you mean {meant!r}?" if meant else ""
            raise FilterError(
                f"there is no column {name!r}; there are {list(self._columns)}.{mend}"
            )
        return name

    def _constant(self, node: Any, column: str) -> Any:
        """Return a constant as a value of its column's kind."""
        kind = self._columns[column]
        value = self._value(node)
        types, wanted = _CONSTANTS[kind]
        if type(value) in types:
            if kind in ("time", "time_utc"):
                return _read_time(value, column, kind)
            return float(value) if kind == "number" else value
        raise FilterError(
            f"{column!r} is compared with {node.sql()}; it needs {wanted}."
        )

    def _value(self, node: Any) -> Any:
        """Return the constant that a node is."""
        exp = self._exp
        if type(node) is exp.Neg and type(node.this) is exp.Literal:
            if not node.this.is_string:
                return -_read_number(node.this.this)
        if type(node) is exp.Boolean:
            return bool(node.this)
        if type(node) is exp.Cast and type(node.this) is exp.Literal:
            # DATE '2024-01-31'; 'x'::text is the same node and refused.
            kinds = exp.DataType.Type
            times = (kinds.DATE, kinds.TIMESTAMP, kinds.TIMESTAMPTZ, kinds.DATETIME)
            self._only(node, "this", "to", "_type")
            if node.to.this in times and node.this.is_string:
                return str(node.this.this)
        if type(node) is exp.Literal:
            return str(node.this) if node.is_string else _read_number(node.this)
        raise self._refusal(node)

    def _written(self, value: Any, column: str) -> str:
        """Return a constant in DataFusion's SQL."""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str):
            return _quoted(value)
        if isinstance(value, dt.datetime):
            # As a number: text would go through nanoseconds, which end in 2262.
            microseconds = (value - _EPOCH) // _MICROSECOND
            zone = 'Some("UTC")' if self._columns[column] == "time_utc" else "None"
            return f"arrow_cast({microseconds}, 'Timestamp(Microsecond, {zone})')"
        if value == -_INT64_MAX - 1 and isinstance(value, int):
            # It would be read as the negative of a number too large.
            return f"arrow_cast('{value}', 'Int64')"
        return repr(value)

    def _refusal(self, node: Any) -> FilterError:
        shown = node.sql() if hasattr(node, "sql") else str(node)
        return FilterError(
            f"where may not say {shown[:200]!r}. It may compare a column with a "
            "constant (=, <>, <, <=, >, >=, in, between, like, ilike, is null) and "
            "join such comparisons by and, or, not and parentheses."
        )


def _read_number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        raise FilterError(f"{text[:50]!r} is not a number.") from None
    if not math.isfinite(value):
        raise FilterError(f"{text[:50]!r} is too large a number.")
    return value


def _read_time(text: str, column: str, kind: str) -> dt.datetime:
    """Return a time, in UTC without saying so where the column has time zones."""
    try:
        # fromisoformat takes any character for the one between date and time.
        if not _TIME(text.strip()):
            raise ValueError
        value = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        raise FilterError(
            f"{text[:50]!r} is not a time; {column!r} holds times. Write '2024-01-31' "
            "or '2024-01-31 16:30:00'."
        ) from None
    if value.tzinfo is None:
        return value
    if kind == "time":
        raise FilterError(
            f"{text[:50]!r} has a time zone, and the times in {column!r} have none. "
            "Leave it out."
        )
    return value.astimezone(dt.UTC).replace(tzinfo=None)


def _is_int64(value: float) -> bool:
    return value == math.floor(value) and -_INT64_MAX - 1 <= value <= _INT64_MAX


def _whole_comparison(key: str, value: float) -> tuple[str, int]:
    """Return a comparison with a whole number that means the same for int64."""
    always, never = ("lte", _INT64_MAX), ("gt", _INT64_MAX)
    if not -_INT64_MAX - 1 <= value <= _INT64_MAX:
        is_below = key in ("lt", "lte")
        holds = key == "neq" or (key != "eq" and is_below == (value > 0))
        return always if holds else never
    if value == math.floor(value):
        return key, int(value)
    if key in ("eq", "neq"):
        return always if key == "neq" else never
    return (
        ("gt", math.floor(value)) if key in ("gt", "gte") else ("lt", math.ceil(value))
    )


def _test(column: str, sql: str, test: Callable[[pd.Series], pd.Series]) -> Filter:
    """Return the filter for a test of one column, whose missing values stay missing."""

    def truth(table: pd.DataFrame) -> Any:
        values = table[column]
        return test(values).astype("boolean").mask(values.isna())

    return Filter(lambda names: f"`{names[column]}` {sql}", truth)


def _not(part: Filter) -> Filter:
    return Filter(
        lambda names: f"NOT ({part.sql(names)})", lambda table: ~part.truth(table)
    )


def _joined(word: str, parts: list[Filter]) -> Filter:
    """Return parts joined by "and" or "or"."""
    join = {"and": operator.and_, "or": operator.or_}[word]
    return Filter(
        lambda names: f" {word.upper()} ".join(f"({one.sql(names)})" for one in parts),
        lambda table: reduce(join, (one.truth(table) for one in parts)),
    )


def _in_pandas(constant: Any, values: pd.Series) -> Any:
    """Return a constant as pandas compares it with a column."""
    if not isinstance(constant, dt.datetime):
        return constant
    time = pd.Timestamp(np.datetime64(constant, "us"))
    is_zoned = isinstance(values.dtype, pd.DatetimeTZDtype)
    return time.tz_localize("UTC") if is_zoned else time


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
