"""Printing: results go to stdout, warnings and errors to stderr."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

NOT_CLINICAL = "For research only: not a medical device, not for clinical use."

_SHOWN_ROWS = 10
_SHOWN_COLUMNS = 5  # fit a terminal of 80

_DEMO_NOTICE = (
    'The model is the small demonstration checkpoint, "demo", trained on drawings. It '
    f"is not MedSigLIP, and its output says nothing about patients. {NOT_CLINICAL}"
)

# Off: colours of numbers inside sentences mean nothing.
console = Console(highlight=False)
_stderr = Console(stderr=True, highlight=False)


def say(text: str, style: str | None = None, *, indent: int = 0) -> None:
    """Print a paragraph literally: rich could take parts of a path for markup."""
    _print(console, " " * indent + text, style)


def complain(text: str, style: str | None = "red") -> None:
    """Print to stderr."""
    _print(_stderr, text, style)


def heading(text: str) -> None:
    """Print the title of a step."""
    console.print()
    console.rule(Text(text, "bold"), align="left", style="dim", characters="-")


def show_code(*lines: str) -> None:
    """Print lines to type: commands after a $, Python after >>>."""
    for line in lines:
        prompt = "$" if line.startswith("sk-medsiglip ") else ">>>"
        _print(console, f"  {prompt} {line}", "cyan")


class _LiteralTable(Table):
    """A table that prints names of users literally, without rich's markup."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(
            *(Text(cell) if isinstance(cell, str) else cell for cell in cells),
            **options,
        )


def make_table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table; columns after the first are right-aligned.

    Titles, columns and cells are printed literally.
    """
    table = _LiteralTable(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        title=None if title is None else Text(title),
        title_justify="left",
        title_style="bold",
    )
    for position, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if position else "left")
    return table


def preview(frame: Any, *, in_file: bool = True) -> Table:
    """Return the first rows and columns of a DataFrame as a table."""
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
    table = make_table(*map(str, shown.columns), title="; ".join(parts) or None)
    for row in shown.itertuples(index=False):
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row))
    return table


def model_notice(model: str) -> str:
    """Return the notice to print wherever a model's output is shown."""
    from sk_medsiglip.encoder import is_demonstration  # late: it takes a second

    return _DEMO_NOTICE if is_demonstration(model) else NOT_CLINICAL


def bar() -> int:
    """Return ``verbose`` for the embedders: a bar only on a terminal."""
    return int(sys.stderr.isatty())


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning as a sentence, in place of ``warnings.showwarning``."""
    complain(f"Warning: {message}", "yellow")


def _print(target: Console, text: str, style: str | None) -> None:
    # A terminal gets whole words a line; a file or a pipe gets whole paragraphs.
    options: dict[str, Any] = {"markup": False, "soft_wrap": not target.is_terminal}
    target.print(text, style=style, **options)
