"""``SubgroupForestDisplay``: performance by subgroup, as a forest plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sk_medsiglip._axes import new_axes
from sk_medsiglip._drawn_names import drawn
from sk_medsiglip.evaluation import _style as style
from sk_medsiglip.evaluation._evaluate import evaluate
from sk_medsiglip.evaluation._judged import REST

_HEIGHT_OF_A_LINE = 0.26  # inches


class SubgroupForestDisplay:
    """Forest plot of a table of :func:`evaluate` with one line per subgroup.

    The plot shows values with their intervals, or gaps between a subgroup and the
    others. The numbers of images, and of images with the finding, stand at the right.

    Parameters
    ----------
    table : DataFrame
        Result of ``evaluate(..., subgroups=...)``.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    drawn_ : DataFrame
        The rows of the table that are drawn, from the top.

    See Also
    --------
    evaluate : Compute the table.

    Notes
    -----
    With many subgroups, some intervals will miss by chance. The column ``p_holm`` of
    the table is corrected for the number of gaps, and ``note`` gives the gap that can
    be found in a subgroup of this size.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_medsiglip.evaluation import SubgroupForestDisplay, evaluate
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 200)
    >>> score = np.clip(0.4 * y + 0.6 * rng.random(200), 0, 1)
    >>> table = evaluate(score, y, y, subgroups={"sex": rng.choice(["F", "M"], 200)})
    >>> display = SubgroupForestDisplay(table).plot()
    >>> display.drawn_["subgroup"].tolist()
    ['all', 'sex=F', 'sex=M']
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        subgroups: Any,
        metric: str = "roc_auc",
        label: Any = None,
        gaps: bool = False,
        ax: Any = None,
        **params: Any,
    ) -> Self:
        """Evaluate one or several classifiers by subgroup and draw the result.

        Parameters
        ----------
        estimator : classifier or dict
            Fitted classifier, or ``{name: fitted classifier}``.
        X, y, subgroups
            Parameters of :func:`evaluate`.
        metric, label, gaps, ax
            Parameters of :meth:`plot`.
        **params
            Further parameters of :func:`evaluate`, such as ``groups`` and
            ``n_bootstrap``.

        Returns
        -------
        SubgroupForestDisplay
            The display, drawn.
        """
        if not isinstance(estimator, Mapping) and hasattr(estimator, "predict"):
            estimator = {type(estimator).__name__: estimator}
        table = evaluate(estimator, X, y, subgroups=subgroups, metrics=metric, **params)
        return cls(table).plot(ax, metric=metric, label=label, gaps=gaps)

    def plot(
        self,
        ax: Any = None,
        *,
        metric: str | None = None,
        label: Any = None,
        gaps: bool = False,
    ) -> Self:
        """Draw the table.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. By default, a new figure with room for all subgroups.
        metric : str, default=None
            Name of the metric. By default, the first in the table.
        label : default=None
            The class or finding to draw. By default, "macro", or the only label.
        gaps : bool, default=False
            Whether to draw gaps (subgroup minus the others) and a line at 0. By
            default, values are drawn with a line at the value for all images, and, for
            a single classifier, its interval as a band.

        Returns
        -------
        SubgroupForestDisplay
            The display, drawn.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        ValueError
            If the table holds no subgroup, or lacks the metric, label or gaps.
        """
        metric, label, table = self._chosen(metric, label, gaps)
        names = table["estimator"].unique().tolist()
        subgroups = table["subgroup"].unique().tolist()
        height = 1.3 + _HEIGHT_OF_A_LINE * len(subgroups) * max(1.2, len(names))
        ax = new_axes(ax, (7.5, height), "Drawing subgroups")
        self._draw_line(ax, table, gaps, names)
        for k, name in enumerate(names):
            rows = table[table["estimator"] == name].set_index("subgroup")
            rows = rows.reindex(subgroups)
            aside = 0.4 * (k / max(1, len(names) - 1) - 0.5 * (len(names) > 1))
            places = np.arange(len(subgroups)) + aside
            colour = style.COLOURS[k % len(style.COLOURS)]
            ax.hlines(places, rows["low"], rows["high"], color=colour, alpha=0.6)
            marker = style.MARKERS[k % len(style.MARKERS)]
            ax.plot(
                rows["value"],
                places,
                marker,
                color=colour,
                ms=6,
                label=style.short(name),
            )
        first = table.drop_duplicates("subgroup").set_index("subgroup")
        beside = {"transform": ax.get_yaxis_transform(), "fontsize": "small"}
        for place, subgroup in enumerate(subgroups):
            row = first.loc[subgroup]
            counted = f"{row['n']:,} ({row['n_positive']:,})"
            ax.text(1.02, place, counted, va="center", **beside)
        over = {"transform": ax.transAxes, "fontsize": "small"}
        ax.text(1.02, 1.0, "images (with it)", va="bottom", **over)
        levels = [drawn(one.removesuffix(REST), 40) for one in subgroups]
        ax.set_yticks(range(len(subgroups)), levels)
        ax.set_ylim(len(subgroups) - 0.4, -0.6)
        what = f"{style.metric_name(metric)} of {drawn(label, 40)}"
        ax.set_xlabel(f"{what}, subgroup minus the others" if gaps else what)
        ax.tick_params(axis="y", length=0)
        if len(names) > 1:
            style.small_legend(
                ax, ncols=len(names), loc="lower left", bbox_to_anchor=(0, 1)
            )
        style.bare(ax, "left")
        self.drawn_ = table
        return style.finish(self, ax)

    def _chosen(
        self, metric: str | None, label: Any, gaps: bool
    ) -> tuple[str, Any, pd.DataFrame]:
        table = self.table
        names = table["estimator"].unique()
        # Differences between classifiers are not drawn.
        pairs = [f"{a} - {b}" for a in names for b in names]
        table = table[~table["estimator"].isin(pairs)]
        subgroups = set(table["subgroup"]) - {"all"}
        if not subgroups:
            raise ValueError(
                "the table has no subgroups: make it by evaluate(..., "
                "subgroups={'sex': sex})."
            )
        metrics = table["metric"].unique().tolist()
        metric = metrics[0] if metric is None else metric
        if metric not in metrics:
            raise ValueError(
                f"there is no metric {metric!r} in the table; it holds {metrics}."
            )
        label = style.drawn_label(table, label)
        table = table[(table["metric"] == metric) & (table["label"] == label)]
        is_gap = table["subgroup"].str.endswith(REST)
        if gaps and not is_gap.any():
            raise ValueError(
                "the table has no gaps, since no subgroup has images outside it: pass "
                "subgroups with two or more values."
            )
        return metric, label, table[is_gap if gaps else ~is_gap].reset_index(drop=True)

    @staticmethod
    def _draw_line(ax: Any, table: pd.DataFrame, gaps: bool, names: list[str]) -> None:
        """Draw the reference line."""
        if gaps:
            ax.axvline(0, color=style.INK, linewidth=0.8)
            return
        everybody = table[table["subgroup"] == "all"]
        for k, row in enumerate(everybody.itertuples()):
            colour = (
                style.COLOURS[k % len(style.COLOURS)] if len(names) > 1 else style.INK
            )
            if len(names) == 1:  # several bands would hide each other
                ax.axvspan(
                    row.low, row.high, color=style.FAINT, alpha=0.15, linewidth=0
                )
            ax.axvline(row.value, color=colour, linewidth=0.8, linestyle=":")
