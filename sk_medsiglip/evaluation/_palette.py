"""Colours that people who see colours differently can tell apart.

References
----------
.. [1] Okabe and Ito, "Color Universal Design", 2008.
"""

from __future__ import annotations

__all__ = ["COLOURS", "FAINT", "INK", "MARKERS", "UNKNOWN", "bare", "short"]

from typing import Any

from sk_medsiglip._drawn_names import drawn

#: In the order in which they are taken; yellow is left out, pale on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
#: With them, so that a picture printed in grey can be read.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
#: Characters of a name in a legend.
_LONGEST = 22
INK, FAINT, UNKNOWN = "#222222", "#9aa0a6", "#c4c8cc"


def bare(ax: Any, *sides: str) -> None:
    """Take away the frame, or sides of it, of matplotlib axes."""
    for side in sides or ("top", "right"):
        ax.spines[side].set_visible(False)


def short(name: str) -> str:
    """Return a name that fits in a legend: its ends, if it is long."""
    return drawn(name, _LONGEST)
