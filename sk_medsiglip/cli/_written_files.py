"""Files that commands write: checked first; names of users in CSV and Markdown."""

from __future__ import annotations

import os
import re
import shlex
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sk_medsiglip._version import __version__
from sk_medsiglip.cli._console import model_notice, say
from sk_medsiglip.cli._errors import CommandError

if TYPE_CHECKING:
    import pandas as pd
    import typer

# A spreadsheet computes what begins so, unless it is a number.
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.,]+(e[+-]?\d+)?$)", re.IGNORECASE)
_MARKUP = re.compile(r"[\\`*_\[\]#|~$]|^[+-]")
# Options that decide nothing about the result, or that name places on this machine.
_LEFT_OUT = {"cache", "no_cache", "device", "n_jobs", "batch_size"}


def check_out(
    file: Path | None, overwrite: bool, suffixes: tuple[str, ...] = ()
) -> None:
    """Raise before hours of work if a file cannot be written, not after."""
    if file is None:
        return
    if suffixes and file.suffix.lower() not in suffixes:
        *others, last = suffixes
        raise CommandError(
            f"{file} ends in {file.suffix or 'no suffix'!r}; name it "
            f"{', '.join(others)} or {last}."
        )
    if not file.absolute().parent.is_dir():
        raise CommandError(f"The folder {file.parent} does not exist; make it first.")
    if file.exists() and not overwrite:
        raise CommandError(f"{file} exists. Add --overwrite, or give another name.")
    if not os.access(file.absolute().parent, os.W_OK):
        raise CommandError(f"The folder {file.parent} is not writable.")


def write_csv(table: pd.DataFrame, file: Path, **how: Any) -> None:
    """Write a table as it is, and warn if a spreadsheet would compute some of it."""
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
    """Return the lines of a report: a table, its head first, and sentences below."""
    head, *body = [f"| {' | '.join(map(as_markdown, row))} |" for row in rows]
    made_by = f"{n_images:,} images, embedded by {model}; sk-medsiglip {__version__}."
    return [
        *(f"# {as_markdown(title)}", "", as_markdown(made_by), ""),
        *(f"**{model_notice(model)}**", "", head),
        *("|" + " --- |" * len(rows[0]), *body, ""),
        *(f"- {as_markdown(note)}" for note in notes),
    ]


def typed_command(context: typer.Context) -> str:
    """Return the command that was typed, with files but without their folders."""
    words = ["sk-medsiglip", str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in _LEFT_OUT or source is None or source.name.startswith("DEFAULT"):
            continue
        given = context.params[name]
        for value in given if isinstance(given, list | tuple) else [given]:
            if parameter.opts[0].startswith("-"):
                words.append(max(parameter.opts, key=len))
            if value is not True:
                is_folder = name == "model" and Path(value).is_absolute()
                short = isinstance(value, Path) or is_folder
                words.append(Path(value).name if short else str(value))
    return shlex.join(words)
