"""Colours that everybody can tell apart, and names as displays write them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sk_medsiglip._drawn_names import drawn

#: Okabe and Ito's "Color Universal Design" (2008), in the order in which they are
#: taken; yellow is left out, pale on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
#: With them, so that a picture printed in grey can be read.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, FAINT, UNKNOWN = "#222222", "#9aa0a6", "#c4c8cc"

_LONGEST = 22  # characters of a name in a legend
_NAMES = {
    "roc_auc": "AUC",
    "average_precision": "Average precision",
    "f1": "F1",
    "brier": "Brier score",
    "ece": "ECE",
    "ppv": "PPV",
    "npv": "NPV",
}


def bare(ax: Any, *sides: str) -> None:
    """Take away the frame, or sides of it, of matplotlib axes."""
    for side in sides or ("top", "right"):
        ax.spines[side].set_visible(False)


def short(name: str) -> str:
    """Return a name that fits in a legend: its ends, if it is long."""
    return drawn(name, _LONGEST)


def metric_name(metric: str) -> str:
    """Return the name of a figure, such as "AUC" for ``roc_auc``."""
    if metric in _NAMES:
        return _NAMES[metric]
    words = metric.replace("@", " at ").replace("=", " ").replace("_", " ")
    return words[:1].upper() + words[1:]


def drawn_label(table: pd.DataFrame, label: Any) -> Any:
    """Return the label of a table that is drawn: by default "macro", or the first."""
    known = table["label"].unique().tolist()
    if label is None:
        label = "macro" if "macro" in known else known[0]
    if label not in known:
        raise ValueError(f"label {label!r} is not in the table; it holds {known}.")
    return label
