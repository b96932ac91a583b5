"""Warnings that point to the user's line, and loggers silenced below errors."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

#: File, line and module of a statement.
UserLine = tuple[str, int, str]

#: Packages between the user's line and the one that warns.
_BETWEEN = frozenset(
    ("concurrent", "contextlib", "joblib", "sk_medsiglip", "sklearn", "threading")
)


def user_line() -> UserLine:
    """Return the innermost line outside of this package and scikit-learn.

    It must be called in the user's thread, since other threads have no such line.
    """
    frame = sys._getframe()
    while frame.f_back is not None and (
        frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN
    ):
        frame = frame.f_back
    module = frame.f_globals.get("__name__", "")
    return frame.f_code.co_filename, frame.f_lineno, module


def warn_user(
    message: str, category: type[Warning], line: UserLine | None = None
) -> None:
    """Warn at a line of the user, by default that of this call."""
    file, number, module = line or user_line()
    warnings.warn_explicit(message, category, file, number, module)


@contextmanager
def quiet_logger(name: str) -> Iterator[None]:
    """Silence a library's logger below the level of errors inside the block."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
