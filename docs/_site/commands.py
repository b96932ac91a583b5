"""The reference of ``sk-medsiglip``, in the words of the commands themselves."""

from __future__ import annotations

from typing import Any

import typer
from typer.testing import CliRunner

from sk_medsiglip.cli import app

__all__ = ["make_commands"]

_INTRODUCTION = """\
# The command sk-medsiglip

The whole way from a folder of images to predictions and a report, without writing
Python. `sk-medsiglip demo` shows it on drawings; `sk-medsiglip COMMAND --help` prints
what stands here. Without `--model` a command uses `google/medsiglip-448`, or the model
that the environment variable `SK_MEDSIGLIP_MODEL` names; only `demo` uses the
demonstration checkpoint by default, which knows nothing of medicine.

"""

#: Columns of a line of help: what a code block shows beside the page's contents.
_WIDTH = "78"


def make_commands() -> str:
    """Return the page: every command's help under its name."""
    sections = [
        f"## {' '.join(words)}\n\n```text\n{_help_of(words)}\n```\n"
        for words in _names(typer.main.get_command(app))
    ]
    return _INTRODUCTION + "\n".join(sections)


def _names(command: Any, *words: str) -> list[tuple[str, ...]]:
    """Return the words of every command, those of groups in their place."""
    below = getattr(command, "commands", None)
    if not below:
        return [words]
    return [name for word in below for name in _names(below[word], *words, word)]


def _help_of(words: tuple[str, ...]) -> str:
    runner = CliRunner(env={"COLUMNS": _WIDTH, "NO_COLOR": "1", "TERM": "dumb"})
    answer = runner.invoke(app, [*words, "--help"], prog_name="sk-medsiglip")
    if answer.exit_code:
        raise RuntimeError(f"sk-medsiglip {' '.join(words)} --help: {answer.output}")
    lines = (line.rstrip() for line in answer.output.strip().splitlines())
    return "\n".join(lines)
