"""Warnings that point at the user's own line, and loggers that are kept still."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

#: File, line and module of a statement.
UserLine = tuple[str, int, str]

#: Packages that lie between the user's line and the one that warns.
_BETWEEN = frozenset(
    ("concurrent", "contextlib", "joblib", "sk_medsiglip", "sklearn", "threading")
)


def user_line() -> UserLine:
    """Return the innermost line outside of this package and scikit-learn.

    A thread of this package has no line of the user: ask in the calling thread.
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
    """Warn at the line of the user, by default that of this call."""
    file, number, module = line or user_line()
    warnings.warn_explicit(message, category, file, number, module)


@contextmanager
def quiet_logger(name: str) -> Iterator[None]:
    """Keep a library's logger from saying anything below an error, for a while."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
