"""Colours, names and elements shared by displays."""

from __future__ import annotations

from typing import Any, Self

import pandas as pd
from numpy.typing import ArrayLike

from sk_medsiglip._drawn_names import drawn

#: Colours safe for colour-blind readers, from Okabe and Ito's "Color Universal Design"
#: (2008). Yellow is left out, since it is too pale on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
#: Markers that go with the colours, for figures printed in grey.
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
    """Hide some sides of the frame of matplotlib axes, by default top and right."""
    for side in sides or ("top", "right"):
        ax.spines[side].set_visible(False)


def finish(display: Any, ax: Any) -> Any:
    """Hide two sides of the frame, and store axes and figure in the display."""
    bare(ax)
    display.ax_, display.figure_ = ax, ax.figure
    return display


def small_legend(ax: Any, **place: Any) -> Any:
    """Add a legend in small type, without a frame."""
    return ax.legend(frameon=False, **{"fontsize": "small", **place})


def draw_band(ax: Any, x: Any, low: Any, high: Any, color: Any) -> Any:
    """Draw the band of a curve."""
    return ax.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)


def class_name(estimator: Any, name: str | None) -> str | None:
    """Return the name for a legend: the given one, or the class of a classifier."""
    if name is None and hasattr(estimator, "predict"):
        return type(estimator).__name__
    return name


class ProbabilityDisplay:
    """Abstract display of probabilities, given directly or by a classifier."""

    from_estimator: Any

    @classmethod
    def from_predictions(
        cls, y_true: ArrayLike, y_prob: ArrayLike, **options: Any
    ) -> Self:
        """Draw given probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,) or (n_samples, n_findings)
            True labels, as in :meth:`from_estimator`.
        y_prob : array-like
            Probabilities of the second class, of each class, or of each finding.
        **options
            The other parameters of :meth:`from_estimator`.

        Returns
        -------
        display
            The display, drawn.
        """
        return cls.from_estimator(y_prob, y_true, y_true, **options)


def short(name: str) -> str:
    """Return a name that fits in a legend, with its middle left out if it is long."""
    return drawn(name, _LONGEST)


def metric_name(metric: str) -> str:
    """Return the name of a metric for readers, such as "AUC" for ``roc_auc``."""
    if metric in _NAMES:
        return _NAMES[metric]
    words = metric.replace("@", " at ").replace("=", " ").replace("_", " ")
    return words[:1].upper() + words[1:]


def drawn_label(table: pd.DataFrame, label: Any) -> Any:
    """Return the label to draw, by default "macro" or the first one of the table."""
    known = table["label"].unique().tolist()
    if label is None:
        label = "macro" if "macro" in known else known[0]
    if label not in known:
        raise ValueError(f"label {label!r} is not in the table; it holds {known}.")
    return label
