"""``LabelEfficiencyDisplay``: plot of scores against the number of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sk_medsiglip._axes import new_axes
from sk_medsiglip._drawn_names import drawn
from sk_medsiglip.evaluation import _style as style
from sk_medsiglip.evaluation._label_efficiency import label_efficiency

_LOWER_IS_BETTER = ("brier", "ece")


class LabelEfficiencyDisplay:
    """Plot of a table of :func:`label_efficiency`, with one line per classifier.

    A line is the mean over draws, and its band holds the middle share of them. The band
    shows the effect of the choice of labelled images, not that of a small test set. A
    horizontal dashed line is a classifier that needs no labels.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`label_efficiency`.
    scoring : str, default=None
        Metric of the scores, named on the axis. By default, the metric that is stored
        with the table.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    lines_ : dict of str to matplotlib Line2D
        Lines by name of the estimator.

    See Also
    --------
    label_efficiency : Compute the table.

    Examples
    --------
    >>> from sk_medsiglip import LinearProbe, MedSigLIPEmbedder
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.evaluation import LabelEfficiencyDisplay
    >>> phantoms = make_chest_phantoms(120, random_state=0)
    >>> X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    >>> display = LabelEfficiencyDisplay.from_estimators(
    ...     {"probe": LinearProbe()}, X, phantoms.target[:, 1], [8, 32],
    ...     groups=phantoms.groups, n_repeats=3)
    >>> list(display.lines_)
    ['probe']
    """

    def __init__(self, table: pd.DataFrame, *, scoring: str | None = None) -> None:
        self.table = table
        self.scoring = scoring

    @classmethod
    def from_estimators(
        cls,
        estimators: Mapping[str, Any],
        X: Any,
        y: ArrayLike,
        sizes: Sequence[int],
        *,
        ax: Any = None,
        label: Any = None,
        share: float = 0.8,
        scoring: str = "roc_auc",
        **params: Any,
    ) -> Self:
        """Score classifiers and draw the result.

        Parameters
        ----------
        estimators, X, y, sizes, scoring
            Parameters of :func:`label_efficiency`.
        ax, label, share
            Parameters of :meth:`plot`.
        **params
            Further parameters of :func:`label_efficiency`, such as ``groups`` and
            ``n_repeats``.

        Returns
        -------
        LabelEfficiencyDisplay
            The display, drawn.
        """
        table = label_efficiency(estimators, X, y, sizes, scoring=scoring, **params)
        return cls(table, scoring=scoring).plot(ax, label=label, share=share)

    def plot(self, ax: Any = None, *, label: Any = None, share: float = 0.8) -> Self:
        """Draw the table.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. By default, a new figure.
        label : default=None
            The class or finding to draw. By default, "macro", or the only label.
        share : float, default=0.8
            Share of the draws inside the band. 0.8 means from the 10th to the 90th
            percentile.

        Returns
        -------
        LabelEfficiencyDisplay
            The display, drawn.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        ValueError
            If the label is not in the table, or if ``share`` is out of range.

        Notes
        -----
        Sizes with a draw from which the label could not be learned are left out.
        """
        if not 0 < share <= 1:
            raise ValueError(f"share={share!r} must be above 0 and at most 1.")
        label = style.drawn_label(self.table, label)
        table = self.table[self.table["label"] == label]
        ax = new_axes(ax, (6.4, 4.4), "Drawing label efficiency")
        self.lines_: dict[str, Any] = {}
        places = iter(range(len(table)))
        for name, rows in table.groupby("estimator", sort=False):
            if (rows["size"] == 0).all():
                n_free = sum(
                    (one.get_linestyle() != "-") for one in self.lines_.values()
                )
                self.lines_[name] = ax.axhline(
                    rows["score"].iloc[0],
                    color=style.INK,
                    linestyle=("--", ":", "-.")[n_free % 3],
                    label=f"{style.short(name)} (no labels)",
                )
            else:
                self._draw(ax, name, rows, share, next(places))
        sizes = sorted(set(table["size"]) - {0})
        if sizes:
            self._label_sizes(ax, sizes)
        n_repeats = table["repeat"].max() + 1
        ax.set_xlabel("labelled images, the first ones chosen to show every label")
        scoring = self.scoring or self.table.attrs.get("scoring", "score")
        better = " (lower is better)" if scoring in _LOWER_IS_BETTER else ""
        ax.set_ylabel(drawn(style.metric_name(str(scoring))) + better)
        ax.set_title(
            f"{drawn(label, 30)}: mean and middle {share:.0%} of {n_repeats} draws",
            fontsize=10,
        )
        ax.grid(axis="y", color=style.FAINT, alpha=0.3, linewidth=0.6)
        style.small_legend(ax)
        return style.finish(self, ax)

    def _draw(
        self, ax: Any, name: str, rows: pd.DataFrame, share: float, place: int
    ) -> None:
        scores = rows.pivot(index="size", columns="repeat", values="score")
        scores = scores[scores.notna().all(axis=1)]
        colour = style.COLOURS[place % len(style.COLOURS)]
        values = scores.to_numpy()
        if len(values):
            tail = (1 - share) / 2
            low, high = np.quantile(values, [tail, 1 - tail], axis=1)
            style.draw_band(ax, scores.index, low, high, colour)
        (self.lines_[name],) = ax.plot(
            scores.index,
            values.mean(axis=1),
            color=colour,
            marker=style.MARKERS[place % len(style.MARKERS)],
            markersize=5,
            label=style.short(name),
        )

    @staticmethod
    def _label_sizes(ax: Any, sizes: list[int]) -> None:
        ax.set_xscale("log", base=2)
        shown: list[int] = []
        for size in sizes:  # leave out those whose tick labels would overlap
            if not shown or size >= 1.5 * shown[-1]:
                shown.append(size)
        ax.set_xticks(shown, [f"{size:,}" for size in shown])
        ax.set_xticks([], minor=True)
