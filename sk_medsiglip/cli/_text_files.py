"""What users named, in the CSV and Markdown files that commands write."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sk_medsiglip.cli._console import say

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["as_markdown", "write_csv"]

# A spreadsheet computes what begins so, unless it is a number.
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.,]+(e[+-]?\d+)?$)", re.IGNORECASE)
_MARKUP = re.compile(r"[\\`*_\[\]#|~$]|^[+-]")


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
