r"""Names that matplotlib draws literally, and always includes in a legend.

matplotlib interprets text between two dollar signs as a formula, and omits names that
begin with an underscore from a legend.

Examples
--------
>>> drawn("pays $5 or $6")
'pays \\$5 or \\$6'
"""

from __future__ import annotations

from textwrap import wrap
from unicodedata import category

_MAX_LINES = 4


def drawn(name: object, longest: int = 60) -> str:
    """Return a name on one line; the middle of a long name is cut out."""
    readable = (" " if category(one) in ("Cc", "Cs") else one for one in str(name))
    text = " ".join("".join(readable).split()) or "(no name)"
    if len(text) > longest:
        start = 2 * longest // 3
        text = f"{text[:start]}…{text[start + 1 - longest :]}"
    # A zero-width space, so that the name does not begin with an underscore.
    return ("\u200b" if text[0] == "_" else "") + text.replace("$", r"\$")


def drawn_lines(text: object, width: int) -> str:
    """Return the lines of a title, at most four."""
    lines = wrap(str(text), width, max_lines=_MAX_LINES, placeholder=" …")
    return "\n".join(drawn(line, width) for line in lines)
