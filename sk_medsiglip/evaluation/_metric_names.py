"""How figures are called where people read them: in tables, axes and headings."""

from __future__ import annotations

__all__ = ["metric_name"]

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
