"""Printing of results to stdout, and of warnings and errors to stderr."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

NOT_CLINICAL = "For research only: not a medical device, not for clinical use."

_SHOWN_ROWS = 10
_SHOWN_COLUMNS = 5  # fit into 80 characters

_DEMO_NOTICE = (
    'The model is the small demonstration checkpoint, "demo", trained on drawings. It '
    f"is not MedSigLIP, and its output says nothing about patients. {NOT_CLINICAL}"
)

_QUOTES = "'\""
#: Parameters in messages of the library that are also options of commands.
_PARAMETER = re.compile(
    r"(?<![\w.-])(?:(?P<name>path_column|label_columns?|group_column)\b|"
    r"(?P<given>model|revision|device|dtype|engine|resize|cache|on_error|batch_size|"
    r"n_jobs|intensity|frame|max_pixels|grid)=(?P<value>\"[^\"]*\"|'[^']*'|[\w./:+-]*\w))"
)

# Without highlighting, since colours of numbers in sentences have no meaning.
console = Console(highlight=False)
_stderr = Console(stderr=True, highlight=False)


class CommandError(Exception):
    """A mistake of the user, with a message that says what to type instead."""

    exit_code = 2


class TooFewError(CommandError):
    """The command is valid, but there are too few images or patients."""

    exit_code = 1


def in_shell(message: str) -> str:
    """Return a message of the library with options in place of parameters."""
    return _PARAMETER.sub(_as_option, message)


def say(text: str, style: str | None = None, *, indent: int = 0) -> None:
    """Print a paragraph literally, since rich could take parts of paths for markup."""
    _print(console, " " * indent + text, style)


def say_remarks(remarks: Iterable[str]) -> None:
    """Print remarks, such as on images that were left out."""
    for remark in remarks:
        say(remark, "yellow")


def complain(text: str, style: str | None = "red") -> None:
    """Print to stderr."""
    _print(_stderr, text, style)


def heading(text: str) -> None:
    """Print the title of a step."""
    console.print()
    console.rule(Text(text, "bold"), align="left", style="dim", characters="-")


def show_code(*lines: str) -> None:
    """Print lines to type: commands after ``$``, Python after ``>>>``."""
    for line in lines:
        prompt = "$" if line.startswith("sk-medsiglip ") else ">>>"
        _print(console, f"  {prompt} {line}", "cyan")


def make_table(
    columns: Iterable[object],
    rows: Iterable[Iterable[object]] = (),
    title: str | None = None,
) -> Table:
    """Return a table; columns after the first are right-aligned.

    Titles, columns and cells are printed literally, without rich's markup.
    """
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        title=None if title is None else Text(title),
        title_justify="left",
        title_style="bold",
    )
    for position, column in enumerate(columns):
        table.add_column(Text(str(column)), justify="right" if position else "left")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


def show_table(
    columns: Iterable[object],
    rows: Iterable[Iterable[object]],
    title: str | None = None,
) -> None:
    """Print a table."""
    console.print(make_table(columns, rows, title))


def preview(frame: Any, *, in_file: bool = True) -> None:
    """Print the first rows and columns of a DataFrame as a table."""
    parts = []
    if len(frame) > _SHOWN_ROWS:
        parts.append(f"First {_SHOWN_ROWS} of {len(frame):,} rows")
    left_out = frame.shape[1] - _SHOWN_COLUMNS
    if left_out > 0:
        more = "column" if left_out == 1 else "columns"
        parts.append(f"{left_out} more {more}" + (" in the file" if in_file else ""))
    if parts and not in_file:
        parts.append("--out FILE.csv writes all")
    shown = frame.iloc[:_SHOWN_ROWS, :_SHOWN_COLUMNS]
    rows = (
        (f"{value:.3f}" if isinstance(value, float) else value for value in row)
        for row in shown.itertuples(index=False)
    )
    show_table(shown.columns, rows, "; ".join(parts) or None)


def model_notice(model: str) -> str:
    """Return the notice to print with the output of a model."""
    from sk_medsiglip.encoder import is_demonstration  # late, since it takes a second

    return _DEMO_NOTICE if is_demonstration(model) else NOT_CLINICAL


def bar() -> int:
    """Return ``verbose`` for estimators, which is 1 on a terminal only."""
    return int(sys.stderr.isatty())


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as a sentence, as a substitute for ``warnings.showwarning``."""
    complain(f"Warning: {message}", "yellow")


def _print(target: Console, text: str, style: str | None) -> None:
    # Lines are wrapped on a terminal, but not in a file or pipe.
    options: dict[str, Any] = {"markup": False, "soft_wrap": not target.is_terminal}
    target.print(text, style=style, **options)


def _as_option(match: re.Match[str]) -> str:
    option = f"--{(match['name'] or match['given']).replace('_', '-')}"
    value = match["value"]
    return option if value is None else f"{option} {shlex.quote(value.strip(_QUOTES))}"
