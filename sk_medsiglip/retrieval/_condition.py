"""All that a filter may say: a few plain objects."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

__all__ = [
    "And",
    "Compare",
    "Condition",
    "Constant",
    "In",
    "IsMissing",
    "Like",
    "Not",
    "Or",
]

Constant = str | int | float | bool | dt.datetime


@dataclass(frozen=True)
class Compare:
    """``column op constant``; the constant is of the column's kind."""

    column: str
    op: str  # "=", "!=", "<", "<=", ">", ">="
    constant: Constant


@dataclass(frozen=True)
class In:
    """``column in (constants)``."""

    column: str
    constants: tuple[Constant, ...]


@dataclass(frozen=True)
class Like:
    """``column like pattern``: ``%`` is any text, ``_`` any character."""

    column: str
    pattern: str
    ignore_case: bool


@dataclass(frozen=True)
class IsMissing:
    """``column is null``."""

    column: str


@dataclass(frozen=True)
class Not:
    """``not part``."""

    part: Condition


@dataclass(frozen=True)
class And:
    """All of the parts."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Or:
    """Any of the parts."""

    parts: tuple[Condition, ...]


Condition = Compare | In | Like | IsMissing | Not | And | Or
