"""Files that commands write: checked first; what users named, in CSV and Markdown."""

from __future__ import annotations

import os
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sk_medsiglip._version import __version__
from sk_medsiglip.cli._console import model_notice, say
from sk_medsiglip.cli._errors import CommandError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["as_markdown", "check_out", "markdown_report", "write_csv"]

# A spreadsheet computes what begins so, unless it is a number.
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.,]+(e[+-]?\d+)?$)", re.IGNORECASE)
_MARKUP = re.compile(r"[\\`*_\[\]#|~$]|^[+-]")


def check_out(file: Path | None, overwrite: bool) -> None:
    """Raise before hours of work if a file cannot be written, not after."""
    if file is None:
        return
    if not file.parent.is_dir():
        raise CommandError(f"The folder {file.parent} does not exist; make it first.")
    if file.exists() and not overwrite:
        raise CommandError(f"{file} exists. Add --overwrite, or give another name.")
    if not os.access(file.parent, os.W_OK):
        raise CommandError(f"The folder {file.parent} is not writable.")


def write_csv(table: pd.DataFrame, file: Path, **how: Any) -> None:
    """Write a table as it is, and say so if a spreadsheet would compute some of it.

    Parameters
    ----------
    table : DataFrame
        What to write.
    file : Path
        Where to.
    **how
        Further parameters of ``DataFrame.to_csv``.
    """
    table.to_csv(file, index=False, **how)
    texts = table.select_dtypes(exclude=["number", "bool"]).astype(object)
    cells = [*table.columns, *texts.stack()]
    found = [one for one in map(str, cells) if _FORMULA.match(one)]
    if found:
        say(
            f"{len(found):,} cells begin with =, +, -, @ or a tab, such as "
            f"{found[0][:40]!r}: a spreadsheet would compute them. They are written as "
            "they are; import these columns as text.",
            "yellow",
        )


def as_markdown(text: object) -> str:
    """Return a text on one line, so that Markdown shows it as it is written."""
    line = escape(" ".join(str(text).split()), quote=False)
    return _MARKUP.sub(r"\\\g<0>", line)


def markdown_report(
    title: str, n_images: int, model: str, rows: list[list[str]], notes: list[str]
) -> list[str]:
    """Return the lines of a report.

    Parameters
    ----------
    title : str
        The heading.
    n_images : int
        Images that the model embedded.
    model : str
        Its name.
    rows : list of list of str
        A table, its head first.
    notes : list of str
        Sentences below the table.

    Returns
    -------
    list of str
    """
    head, *body = [f"| {' | '.join(map(as_markdown, row))} |" for row in rows]
    made_by = f"{n_images:,} images, embedded by {model}; sk-medsiglip {__version__}."
    return [
        *(f"# {as_markdown(title)}", "", as_markdown(made_by), ""),
        *(f"**{model_notice(model)}**", "", head),
        *("|" + " --- |" * len(rows[0]), *body, ""),
        *(f"- {as_markdown(note)}" for note in notes),
    ]
