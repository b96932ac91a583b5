"""The errors of a command that was asked for something impossible."""

from __future__ import annotations

import re
import shlex

_QUOTES = "'\""
#: A parameter of the library that is an option of the same name, and its value.
_PARAMETER = re.compile(
    r"(?<![\w.-])(?:(?P<name>path_column|label_columns?|group_column)\b|"
    r"(?P<given>model|revision|device|dtype|engine|resize|cache|on_error|batch_size|"
    r"n_jobs|intensity|frame|max_pixels)=(?P<value>\"[^\"]*\"|'[^']*'|[\w./:+-]*\w))"
)


class CommandError(Exception):
    """A mistake of the user; the message names it and the next command to type."""

    exit_code = 2


class TooFewError(CommandError):
    """The command is right, but these images or patients are too few for it."""

    exit_code = 1


def in_shell(message: str) -> str:
    """Return a message of the library in the words of the command line."""
    return _PARAMETER.sub(_as_option, message)


def _as_option(match: re.Match[str]) -> str:
    option = f"--{(match['name'] or match['given']).replace('_', '-')}"
    value = match["value"]
    return option if value is None else f"{option} {shlex.quote(value.strip(_QUOTES))}"
