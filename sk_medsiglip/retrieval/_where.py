"""A filter in SQL: read by sqlglot, checked, and answered by a table or by LanceDB.

The tree that sqlglot makes of a text is read node by node, and any node that is not on
a short list is an error: functions, subqueries, other tables, several statements,
comments. So a filter has only existing columns, comparisons, and constants of the type
of their column, each written anew from its value. The text itself is passed to neither
pandas nor LanceDB.

Missing values behave as in SQL: a comparison with one is neither true nor false,
``not`` does not change that, and only rows for which the filter is true are found.
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

#: A chain of 100,000 comparisons crashes LanceDB; a list of as many values does not.
_MAX_COMPARISONS = 5_000

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1

_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d.*)?").fullmatch

#: Keys of the nodes that compare two values, and the keys with the sides exchanged.
_COMPARISONS = {
    "eq": "eq", "neq": "neq", "lt": "gt", "lte": "gte", "gt": "lt", "gte": "lte",
}  # fmt: skip

#: Python types of the constants for a column of each kind, and their name in messages.
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
    """Return the filter for ids in DataFusion's SQL, as plain text for speed."""
    listed = ", ".join(
        str(one) if isinstance(one, int) else _quoted(one) for one in ids
    )
    return f"`id` IN ({listed})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


class _Reader:
    """Reader of sqlglot's tree that refuses all nodes that it does not know."""

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
        # sqlglot's parser fails on some texts by an AttributeError.
        except (self._sqlglot.errors.SqlglotError, AttributeError) as error:
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
            raise FilterError("where must be one condition, without semicolons.")
        return self._condition(statements[0])

    def _condition(self, node: Any) -> Filter:
        exp = self._exp
        if type(node) is exp.Paren:
            return self._condition(self._only(node, "this").this)
        if type(node) in (exp.And, exp.Or):
            # A long chain is a deep tree, which flatten walks without recursion.
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
            return self._is_true(node)
        if node.key in _COMPARISONS:
            self._only(node, "this", "expression")
            return self._comparison(node.this, node.key, node.expression)
        if type(node) is exp.Between:
            self._only(node, "this", "low", "high")
            low = self._comparison(node.this, "gte", node.args["low"])
            high = self._comparison(node.this, "lte", node.args["high"])
            return _joined("and", [low, high])
        if type(node) is exp.In and node.expressions:
            column = self._column(self._only(node, "this", "expressions").this)
            return self._among(
                column, [self._constant(one, column) for one in node.expressions]
            )
        if type(node) is exp.Is:
            return self._is(self._only(node, "this", "expression"))
        if type(node) in (exp.Like, exp.ILike):
            like = self._like(self._only(node, "this", "expression", "negate"))
            return _not(like) if node.args.get("negate") else like
        raise self._refusal(node)

    def _only(self, node: Any, *names: str) -> Any:
        """Return a node; raise if it has other arguments than these."""
        if any(value for name, value in node.args.items() if name not in names):
            raise self._refusal(node)
        return node

    def _is_true(self, node: Any) -> Filter:
        column = self._column(node)
        if self._columns[column] != "boolean":
            raise FilterError(
                f"{column!r} alone is not a condition: it is not true or false. "
                f"Compare it: {column} = ..."
            )
        return self._among(column, [True])

    def _comparison(self, left: Any, key: str, right: Any) -> Filter:
        exp = self._exp
        if type(right) is exp.Column and type(left) is not exp.Column:
            left, right, key = right, left, _COMPARISONS[key]
        column = self._column(left)
        constant = self._constant(right, column)
        if key in ("eq", "neq"):
            equal = self._among(column, [constant])
            return equal if key == "eq" else _not(equal)
        if self._columns[column] == "boolean":
            raise FilterError(f"{column!r} is true or false and has no order.")
        if key in ("gt", "gte"):
            return self._above(column, constant, or_equal=key == "gte")
        return _not(self._above(column, constant, or_equal=key == "lt"))

    def _above(self, column: str, constant: Any, *, or_equal: bool) -> Filter:
        if self._columns[column] == "integer":
            # A bound in int64: for any other, LanceDB would round the column.
            bound = math.ceil(constant) - 1 if or_equal else math.floor(constant)
            if bound < _INT64_MIN:
                return _not(self._above(column, _INT64_MAX, or_equal=False))
            constant, or_equal = min(bound, _INT64_MAX), False
        symbol, compare = (">=", operator.ge) if or_equal else (">", operator.gt)
        sql = f"{symbol} {_written(constant)}"
        return _test(column, sql, lambda values: compare(values, constant))

    def _among(self, column: str, constants: list[Any]) -> Filter:
        if self._columns[column] == "integer":
            constants = [int(one) for one in constants if _is_int64(one)]
            if not constants:
                return self._above(column, _INT64_MAX, or_equal=False)
        written = ", ".join(map(_written, constants))
        if len(constants) == 1:
            return _test(column, f"= {written}", lambda values: values == constants[0])
        return _test(column, f"IN ({written})", lambda values: values.isin(constants))

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
            value = self._among(column, [node.expression.this])
            return _joined("and", [value, _not(missing)])
        raise self._refusal(node)

    def _like(self, node: Any) -> Filter:
        column = self._column(node.this)
        if self._columns[column] != "text" or not node.expression.is_string:
            raise FilterError(
                "LIKE is for columns of text and a pattern in quotes, as in "
                f"{column} like 'CT%'."
            )
        pattern = node.expression.this
        if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
            raise FilterError("a pattern must not end in a single backslash.")
        ignores_case = type(node) is self._exp.ILike
        regex = re.compile(
            _as_regex(pattern), re.DOTALL | (re.IGNORECASE if ignores_case else 0)
        )
        return _test(
            column,
            f"{'ILIKE' if ignores_case else 'LIKE'} {_quoted(pattern)}",
            lambda values: values.map(
                lambda one: regex.fullmatch(one) is not None, na_action="ignore"
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
        name: str = self._only(node, "this").name
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
        exp, kind = self._exp, self._columns[column]
        if type(node) is exp.Null:
            raise FilterError(
                f"a comparison with NULL is never true; write: {column} is null."
            )
        if type(node) is exp.Column:
            raise FilterError(
                f"{column!r} is compared with {node.name!r}, which is read as a "
                "column. Text stands in single quotes: "
                f"{column} = '{node.name}'. Two columns cannot be compared."
            )
        value = self._value(node)
        types, wanted = _CONSTANTS[kind]
        if type(value) not in types:
            raise FilterError(
                f"{column!r} is compared with {node.sql()}; it needs {wanted}."
            )
        if kind in ("time", "time_utc"):
            return _read_time(value, column, kind)
        return float(value) if kind == "number" else value

    def _value(self, node: Any) -> Any:
        """Return the constant that a node is."""
        exp = self._exp
        if type(node) is exp.Cast and node.this.is_string:
            # DATE '2024-01-31'. 'x'::text is the same kind of node, and refused.
            kinds = exp.DataType.Type
            times = (kinds.DATE, kinds.TIMESTAMP, kinds.TIMESTAMPTZ, kinds.DATETIME)
            if self._only(node, "this", "to", "_type").to.this in times:
                node = node.this
        if node.is_string or type(node) is exp.Boolean:
            return node.this
        if node.is_number:
            return _read_number(node)
        raise self._refusal(node)

    def _refusal(self, node: Any) -> FilterError:
        return FilterError(
            f"where may not contain {node.sql()[:200]!r}. It may compare a column with "
            "a constant (=, <>, <, <=, >, >=, in, between, like, ilike, is null) and "
            "join such comparisons by and, or, not and parentheses."
        )


def _read_number(node: Any) -> int | float:
    """Return an int or a float; raise if it is too large for float64."""
    try:
        value = node.to_py()
        if math.isfinite(float(value)):
            return value if isinstance(value, int) else float(value)
    except (ArithmeticError, ValueError):
        pass
    raise FilterError(f"{node.sql()[:50]!r} is not a number, or is too large.")


def _read_time(text: str, column: str, kind: str) -> pd.Timestamp:
    """Return a time, in UTC if the column has time zones."""
    try:
        # fromisoformat accepts any character between date and time.
        if not _TIME(text.strip()):
            raise ValueError
        value = pd.Timestamp(dt.datetime.fromisoformat(text.strip()))
    except ValueError:
        raise FilterError(
            f"{text[:50]!r} is not a time; {column!r} holds times. Write '2024-01-31' "
            "or '2024-01-31 16:30:00'."
        ) from None
    if kind == "time_utc":
        return value.tz_localize("UTC") if value.tz is None else value.tz_convert("UTC")
    if value.tz is not None:
        raise FilterError(
            f"{text[:50]!r} has a time zone, and the times in {column!r} have none. "
            "Leave it out."
        )
    return value


def _written(value: Any) -> str:
    """Return a constant in DataFusion's SQL."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, pd.Timestamp):
        # As a number, since text would be read as nanoseconds, which end in 2262.
        microseconds = value.to_datetime64().astype("datetime64[us]").astype(int)
        zone = "None" if value.tz is None else 'Some("UTC")'
        return f"arrow_cast({microseconds}, 'Timestamp(Microsecond, {zone})')"
    if value == _INT64_MIN and isinstance(value, int):
        # It would be read as the negative of a number that is too large.
        return f"arrow_cast('{value}', 'Int64')"
    return repr(value)


def _is_int64(value: float) -> bool:
    return value == math.floor(value) and _INT64_MIN <= value <= _INT64_MAX


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


def _as_regex(pattern: str) -> str:
    r"""Return a regular expression for ``%``, ``_`` and ``\``, which quotes them.

    >>> _as_regex("a_100\\%%")
    'a.100%.*'
    """
    parts = re.findall(r"\\?.", pattern, re.DOTALL)
    return "".join({"%": ".*", "_": "."}.get(p, re.escape(p[-1])) for p in parts)
