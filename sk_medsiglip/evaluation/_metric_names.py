"""How figures are called where people read them, and of which label they are."""

from __future__ import annotations

from typing import Any

import pandas as pd

__all__ = ["drawn_label", "metric_name"]

_NAMES = {
    "roc_auc": "AUC",
    "average_precision": "Average precision",
    "f1": "F1",
    "brier": "Brier score",
    "ece": "ECE",
    "ppv": "PPV",
    "npv": "NPV",
}


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
        raise ValueError(f"there is no label {label!r} in the table, only {known}.")
    return label
