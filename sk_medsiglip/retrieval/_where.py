"""A filter in SQL, read into a :class:`Condition`.

What a user types is parsed by sqlglot and copied, node by node, into plain objects. A
node that is not on the list is an error: functions, subqueries, other tables, several
statements, comments. So there is nothing in a :class:`Condition` but names of columns
that exist, six comparisons, and constants whose type is that of their column; and what
an index evaluates is made from the Condition alone, never from the text.

Missing values follow SQL: a comparison with one is neither true nor false, ``not`` does
not change that, and only rows for which the whole is true are found.
"""

from __future__ import annotations

import datetime as dt
import difflib
import math
import re
from collections.abc import Mapping
from typing import Any

from sk_medsiglip._optional import import_optional
from sk_medsiglip.retrieval._condition import (
    And,
    Compare,
    Condition,
    Constant,
    In,
    IsMissing,
    Like,
    Not,
    Or,
)
from sk_medsiglip.retrieval._errors import FilterError

__all__ = ["parse_where"]

_MAX_LENGTH = 1_000_000

#: A chain of 100,000 comparisons ends LanceDB's process; one list of values does not.
_MAX_COMPARISONS = 5_000

_INT64_MAX = 2**63 - 1

_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d.*)?").fullmatch


def parse_where(text: str, columns: Mapping[str, str]) -> Condition:
    """Return what a filter says.

    Parameters
    ----------
    text : str
        As after SQL's WHERE: ``"modality = 'CT' and age > 60"``.
    columns : dict of str to str
        Kinds of the columns that it may name.

    Returns
    -------
    Condition

    Raises
    ------
    FilterError
        If it is malformed, names a column that does not exist, compares one with a
        constant of another type, or says anything that is not on the list.
    MissingDependencyError
        If sqlglot is not installed.

    Examples
    --------
    >>> from sk_medsiglip.retrieval._where import parse_where
    >>> parse_where("age > 60", {"age": "integer"})
    Compare(column='age', op='>', constant=60)
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
        return _Reader(text, columns).read()
    except RecursionError:
        raise FilterError(
            "where is nested too deeply. Write a list of values as: column in (...)."
        ) from None


class _Reader:
    """One reading of one filter."""

    def __init__(self, text: str, columns: Mapping[str, str]) -> None:
        self._sqlglot = import_optional(
            "sqlglot", extra="retrieval", purpose="A filter (where=)"
        )
        self._exp = import_optional(
            "sqlglot.expressions", extra="retrieval", purpose="A filter (where=)"
        )
        self._text = text
        self._columns = columns
        self._n_comparisons = 0

    def read(self) -> Condition:
        """Parse and copy."""
        try:
            tokens = self._sqlglot.tokenize(self._text)
            statements = self._sqlglot.parse(self._text)
        except self._sqlglot.errors.SqlglotError as error:
            raise FilterError(self._malformed(error)) from None
        if any(token.comments for token in tokens):
            raise FilterError("where holds a comment (-- or /* */); leave it out.")
        if len(statements) != 1 or statements[0] is None:
            raise FilterError(
                "where must be one condition; a semicolon ends nothing here."
            )
        return self._condition(statements[0])

    def _malformed(self, error: Any) -> str:
        found = getattr(error, "errors", None)
        place = f" near column {found[0]['col']}" if found and "col" in found[0] else ""
        return (
            f"where cannot be read as SQL{place}: {self._text[:200]!r}. Write, for "
            "example: modality = 'CT' and (age > 60 or age is null). Text stands in "
            "single quotes, a name with spaces in double ones."
        )

    def _condition(self, node: Any) -> Condition:
        exp = self._exp
        if type(node) is exp.Paren:
            return self._condition(self._only(node, "this").this)
        if type(node) in (exp.And, exp.Or):
            # A long chain is as deep as it is long; flatten walks it without depth.
            parts = tuple(map(self._condition, node.flatten(unnest=False)))
            return And(parts) if type(node) is exp.And else Or(parts)
        if type(node) is exp.Not:
            return Not(self._condition(self._only(node, "this").this))
        self._n_comparisons += 1
        if self._n_comparisons > _MAX_COMPARISONS:
            raise FilterError(
                f"where makes more than {_MAX_COMPARISONS:,} comparisons. Write a list "
                "of values as: column in (...)."
            )
        return self._predicate(node)

    def _predicate(self, node: Any) -> Condition:
        exp = self._exp
        if type(node) is exp.Column:
            return self._alone(node)
        ops = {
            exp.EQ: "=",
            exp.NEQ: "!=",
            exp.LT: "<",
            exp.LTE: "<=",
            exp.GT: ">",
            exp.GTE: ">=",
        }
        if type(node) in ops:
            self._only(node, "this", "expression")
            return self._comparison(node.this, ops[type(node)], node.expression)
        if type(node) is exp.Between:
            self._only(node, "this", "low", "high")
            low = self._comparison(node.this, ">=", node.args["low"])
            return And((low, self._comparison(node.this, "<=", node.args["high"])))
        if type(node) is exp.In:
            return self._membership(self._only(node, "this", "expressions"))
        if type(node) is exp.Is:
            return self._is(self._only(node, "this", "expression"))
        if type(node) in (exp.Like, exp.ILike):
            like = self._like(self._only(node, "this", "expression", "negate"))
            return Not(like) if node.args.get("negate") else like
        raise self._refusal(node)

    def _only(self, node: Any, *names: str) -> Any:
        """Return a node that says no more than what is read of it."""
        if any(value for name, value in node.args.items() if name not in names):
            raise self._refusal(node)
        return node

    def _alone(self, node: Any) -> Condition:
        column = self._column(node)
        if self._columns[column] != "boolean":
            raise FilterError(
                f"{column!r} alone is no condition: it is not true or false. Compare "
                f"it: {column} = ..."
            )
        return Compare(column, "=", True)

    def _comparison(self, left: Any, op: str, right: Any) -> Condition:
        exp = self._exp
        if type(right) is exp.Column and type(left) is not exp.Column:
            left, right = right, left
            op = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(op, op)
        column = self._column(left)
        if type(right) is exp.Null:
            raise FilterError(
                f"a comparison with NULL is never true; write: {column} is null."
            )
        if type(right) is exp.Column:
            raise FilterError(
                f"{column!r} is compared with {right.name!r}, which is read as a "
                "column. Text stands in single quotes: "
                f"{column} {op} '{right.name}'. Two columns cannot be compared."
            )
        constant = self._constant(right, column)
        if self._columns[column] == "boolean" and op not in ("=", "!="):
            raise FilterError(f"{column!r} is true or false and has no order.")
        if self._columns[column] == "integer":
            return _compare_integers(column, op, constant)
        return Compare(column, op, constant)

    def _membership(self, node: Any) -> Condition:
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
            whole = [c for c in constants if _is_int64(c)]
            if not whole:
                return _never(column)
            return In(column, tuple(int(c) for c in whole))  # type: ignore[arg-type]
        return In(column, tuple(constants))

    def _is(self, node: Any) -> Condition:
        exp = self._exp
        column = self._column(node.this)
        if type(node.expression) is exp.Null:
            return IsMissing(column)
        if type(node.expression) is exp.Boolean and self._columns[column] == "boolean":
            value = Compare(column, "=", bool(node.expression.this))
            return And((value, Not(IsMissing(column))))
        raise self._refusal(node)

    def _like(self, node: Any) -> Condition:
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
        return Like(column, pattern, type(node) is self._exp.ILike)

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

    def _constant(self, node: Any, column: str) -> Constant:
        kind = self._columns[column]
        value = self._value(node)
        if kind == "text" and isinstance(value, str):
            return value
        if kind == "boolean" and isinstance(value, bool):
            return value
        if kind in ("integer", "number") and _is_number(value):
            return float(value) if kind == "number" else value
        if kind in ("time", "time_utc") and isinstance(value, str):
            return _read_time(value, column, kind)
        wanted = {
            "text": "text in single quotes",
            "boolean": "true or false",
            "integer": "a number",
            "number": "a number",
            "time": "a time in quotes, as '2024-01-31' or '2024-01-31 16:30'",
            "time_utc": "a time in quotes, as '2024-01-31 16:30+00:00'",
        }[kind]
        raise FilterError(
            f"{column!r} is compared with {node.sql()}; it needs {wanted}."
        )

    def _value(self, node: Any) -> str | int | float | bool:
        """Return the constant that a node is."""
        exp = self._exp
        if type(node) is exp.Neg and type(node.this) is exp.Literal:
            value = self._value(node.this)
            if _is_number(value):
                return -value  # type: ignore[operator]
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

    def _refusal(self, node: Any) -> FilterError:
        shown = node.sql() if hasattr(node, "sql") else str(node)
        return FilterError(
            f"where may not say {shown[:200]!r}. It may compare a column with a "
            "constant (=, <>, <, <=, >, >=, in, between, like, ilike, is null) and "
            "join such comparisons by and, or, not and parentheses."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        raise FilterError(f"{text[:50]!r} is no number.") from None
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
            f"{text[:50]!r} is no time; {column!r} holds times. Write '2024-01-31' or "
            "'2024-01-31 16:30:00'."
        ) from None
    if value.tzinfo is None:
        return value
    if kind == "time":
        raise FilterError(
            f"{text[:50]!r} has a time zone, and the times in {column!r} have none. "
            "Leave it out."
        )
    return value.astimezone(dt.UTC).replace(tzinfo=None)


def _is_int64(value: Any) -> bool:
    return value == math.floor(value) and -_INT64_MAX - 1 <= value <= _INT64_MAX


def _compare_integers(column: str, op: str, value: Any) -> Condition:
    """Return a comparison with a whole number that means the same."""
    if not -_INT64_MAX - 1 <= value <= _INT64_MAX:
        # Beyond all that the column can hold.
        above = value > 0
        holds = op == "!=" or (op in ("<", "<=")) == above and op != "="
        return _always(column) if holds else _never(column)
    if value == math.floor(value):
        return Compare(column, op, int(value))
    if op in ("=", "!="):
        return _never(column) if op == "=" else _always(column)
    if op in (">", ">="):
        return Compare(column, ">", math.floor(value))
    return Compare(column, "<", math.ceil(value))


def _always(column: str) -> Condition:
    """Return what is true of every value, and unknown of a missing one."""
    return Compare(column, "<=", _INT64_MAX)


def _never(column: str) -> Condition:
    return Compare(column, ">", _INT64_MAX)
