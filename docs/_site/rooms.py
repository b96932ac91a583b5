"""The files of each room, from the docstrings of the rooms."""

from __future__ import annotations

import ast
import re
from pathlib import Path

__all__ = ["make_rooms"]

_INTRODUCTION = """\
# The files of each room

What is where, a line a file. [How sk_medsiglip is built](../architecture.md) says how
they work together. Made of the docstring of each room's `__init__.py`.
"""


def make_rooms(package: Path) -> str:
    """Return the page.

    Parameters
    ----------
    package : Path
        The folder of the package.
    """
    parts = [_INTRODUCTION]
    for path in sorted(package.glob("*/__init__.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        parts.append(f"\n## {path.parent.name}/\n\n{_as_markdown(text)}\n")
    return "".join(parts)


def _as_markdown(text: str) -> str:
    """Turn literal blocks and double backquotes into those of Markdown."""

    def fenced(found: re.Match[str]) -> str:
        lines = found[1].strip("\n").split("\n")
        block = "\n".join(line.removeprefix("    ") for line in lines)
        return f":\n\n```text\n{block}\n```\n\n"

    # A docstring's "::" of its own line brings no words with it.
    text = text.replace("\n\n::\n", "::\n")
    text = re.sub(r"[.:]?::\n\n((?:(?: {4}.*)?(?:\n|$))+)", fenced, text)
    return re.sub(r"``(.+?)``", r"`\1`", text).strip()
