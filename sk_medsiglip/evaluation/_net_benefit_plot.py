"""``DecisionCurveDisplay``: net benefit against the threshold probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sk_medsiglip._axes import new_axes
from sk_medsiglip._splits import check_groups
from sk_medsiglip.evaluation import _style as style
from sk_medsiglip.evaluation._answers import ask_probability
from sk_medsiglip.evaluation._net_benefit import net_benefit


@dataclass(eq=False)
class DecisionCurveDisplay(style.ProbabilityDisplay):
    """Decision curve: net benefit by threshold probability, with a band by patient.

    A classifier is useful at a threshold if its curve is above the lines for acting on
    everybody and for acting on nobody.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`net_benefit` for one finding.
    level : float, default=0.95
        Confidence level of the band, at each threshold separately.
    name : str, default="model"
        Name in the legend.
    label : default=None
        Class or finding. A string is shown in the title.
    unit : {"images", "patients"}, default="images"
        Unit of the vertical axis.

    Attributes
    ----------
    ax_, figure_
        The axes and figure of matplotlib.
    line_, band_
        Curve of the classifier and its band.

    See Also
    --------
    net_benefit : Compute the net benefit. Its docstring explains the meaning.

    Examples
    --------
    >>> from sk_medsiglip.evaluation import DecisionCurveDisplay
    >>> display = DecisionCurveDisplay.from_predictions(
    ...     [0, 0, 1, 1, 0, 1], [0.1, 0.4, 0.35, 0.8, 0.2, 0.9])
    >>> display.table["strategy"].unique().tolist()
    ['model', 'treat all', 'treat none', 'model - treat all']
    """

    table: pd.DataFrame
    level: float = 0.95
    name: str = "model"
    label: Any = None
    unit: str = "images"

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        label: Any = None,
        groups: ArrayLike | None = None,
        level: float = 0.95,
        name: str | None = None,
        ax: Any = None,
        color: Any = None,
        **options: Any,
    ) -> Self:
        """Draw the decision curve of a fitted classifier.

        Parameters
        ----------
        estimator : classifier
            Fitted classifier with ``predict_proba``.
        X : array-like or list of n_samples images
            The test set.
        y : array-like of shape (n_samples,) or (n_samples, n_findings)
            True classes; or 1, 0, and NaN where a finding is not known.
        label : default=None
            The class or finding to draw, if there are several.
        groups : array-like of shape (n_samples,), default=None
            Patients. If each has one image, the vertical axis counts patients.
        level : float, default=0.95
            Confidence level of the band, at each threshold separately.
        name : str, default=None
            Name in the legend. By default, the estimator's class, or "model".
        ax, color
            Parameters of :meth:`plot`.
        **options
            Parameters ``thresholds`` and ``prevalence`` of :func:`net_benefit`.

        Returns
        -------
        DecisionCurveDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the estimator does not return probabilities.
        """
        name = style.class_name(estimator, name) or "model"
        question = ask_probability(name, estimator, X, y, label)
        unit, who = "images", None
        if groups is not None:
            who = check_groups(groups, np.shape(y)[0])[question.rows]
            unit = "patients" if len(np.unique(who)) == len(who) else unit
        table = net_benefit(
            question.ill, question.risk, groups=who, level=level, **options
        )
        display = cls(table, level, name, question.label, unit)
        return display.plot(ax, color=color)

    def plot(self, ax: Any = None, *, color: Any = None) -> Self:
        """Draw the curve and its band.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. Pass the ``ax_`` of another display to draw both curves in
            one figure. By default, a new figure.
        color : default=None
            Colour of the curve. By default, the next one of a palette that is safe for
            colour-blind readers.

        Returns
        -------
        DecisionCurveDisplay
            The display, drawn.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        ax = new_axes(ax, (6, 4.5), "Drawing a decision curve")
        own, every = (
            self.table[self.table["strategy"] == one] for one in ("model", "treat all")
        )
        x = own["threshold"]
        if not ax.get_lines():
            ax.plot(
                x, 100 * every["value"], color=style.INK, linewidth=1, label="treat all"
            )
            ax.axhline(0, color=style.FAINT, linewidth=1, label="treat none")
        if color is None:
            color = style.COLOURS[(len(ax.get_lines()) - 2) % len(style.COLOURS)]
        self.band_ = style.draw_band(ax, x, 100 * own["low"], 100 * own["high"], color)
        (self.line_,) = ax.plot(
            x, 100 * own["value"], color=color, label=style.short(self.name)
        )
        # The curve for acting on everybody has no lower bound, so the axis is cut off.
        top = max(1, *(np.max(line.get_ydata()) for line in ax.get_lines()))
        ax.set(xlim=(0, min(1, x.max() + 0.01)), ylim=(-0.15 * top, 1.4 * top))
        ax.set_xlabel("threshold probability: risk from which one acts")
        ax.set_ylabel(f"net benefit per 100 {self.unit}")
        of = f"{style.short(self.label)}; " if isinstance(self.label, str) else ""
        ax.set_title(f"{of}band: {self.level:.0%} interval", fontsize=10)
        style.small_legend(ax, loc="upper right")
        return style.finish(self, ax)
