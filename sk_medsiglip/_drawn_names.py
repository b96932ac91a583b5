r"""Names as matplotlib draws them: as they are written, and never left out.

matplotlib takes what stands between two dollars for a formula, and leaves out of a
legend what begins with an underscore. Only files that draw need this one.

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
    """Return a name on one line: its ends, if it is too long.

    Parameters
    ----------
    name : object
        A class, a finding, a file, a prompt.
    longest : int, default=60
        The number of characters that there is room for.

    Returns
    -------
    str
        The text for matplotlib, whole or as part of a longer one.
    """
    readable = (" " if category(one) in ("Cc", "Cs") else one for one in str(name))
    text = " ".join("".join(readable).split()) or "(no name)"
    if len(text) > longest:
        start = 2 * longest // 3
        text = f"{text[:start]}…{text[start + 1 - longest :]}"
    # Zero-width: nobody sees it, and the name begins with no underscore any more.
    return ("\u200b" if text[0] == "_" else "") + text.replace("$", r"\$")


def drawn_lines(text: object, width: int) -> str:
    """Return a title in lines: its first four, if it is too long.

    Parameters
    ----------
    text : object
        The title.
    width : int
        Characters of a line.

    Returns
    -------
    str
        The text for matplotlib.
    """
    lines = wrap(str(text), width, max_lines=_MAX_LINES, placeholder=" …")
    return "\n".join(drawn(line, width) for line in lines)
