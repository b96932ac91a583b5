"""``ReliabilityDisplay``: predicted probabilities against observed frequencies."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sk_medsiglip._axes import new_axes
from sk_medsiglip._intervals import share_estimate
from sk_medsiglip._resampling import check_level
from sk_medsiglip._splits import group_numbers
from sk_medsiglip._validation import Integral
from sk_medsiglip.evaluation import _style as style
from sk_medsiglip.evaluation._answers import ask_probability
from sk_medsiglip.evaluation._calibration import binned_error, calibration_line

_FEW = 5  # bins with fewer images are drawn hollow


@dataclass(eq=False, repr=False)
class ReliabilityDisplay(style.ProbabilityDisplay):
    """Reliability diagram: observed frequency against predicted probability.

    Bars are Wilson's intervals by patient. The histogram below shows the number of
    images in each bin; bins with fewer than five images are hollow.

    Parameters
    ----------
    bins : DataFrame
        One row per bin that holds images, with the columns ``left``, ``right``, ``n``,
        ``probability`` (the mean), ``observed`` (the share of images with the label),
        ``low`` and ``high``.
    calibration_error : float
        Expected calibration error with these bins.
    line : dict of str to (float, float, float), default=None
        Value and bounds of "calibration_slope" and "calibration_intercept" of
        :func:`evaluate`.
    level : float, default=0.95
        Confidence level of the intervals.
    name : str, default=None
        Name in the legend.

    Attributes
    ----------
    ax_, figure_
        The axes and figure of matplotlib.
    histogram_ax_ : matplotlib Axes
        The axes of the histogram below.
    points_
        The markers of the hollow bins and of the full ones.

    See Also
    --------
    expected_calibration_error : Compute the value in the legend.

    Notes
    -----
    The calibration error has no interval, since its bias depends on the number of
    images and is even larger in resamples. Slope and intercept have intervals. A slope
    of 1 and an intercept of 0 are ideal; a slope below 1 means that the probabilities
    are too extreme, and an intercept above 0 that the finding is more frequent than
    predicted.

    Examples
    --------
    >>> from sk_medsiglip.evaluation import ReliabilityDisplay
    >>> display = ReliabilityDisplay.from_predictions(
    ...     [0, 0, 1, 1, 0, 1], [0.1, 0.4, 0.35, 0.8, 0.2, 0.9], n_bins=2)
    >>> display.bins["n"].tolist()
    [4, 2]
    """

    bins: pd.DataFrame
    calibration_error: float
    line: Any = None
    _: KW_ONLY
    level: float = 0.95
    name: str | None = None

    def __post_init__(self) -> None:
        self.line = self.line or {}

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        label: Any = None,
        groups: ArrayLike | None = None,
        n_bins: int = 15,
        level: float = 0.95,
        name: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw the reliability of a fitted classifier.

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
            Patients. Without them each image counts as a patient.
        n_bins : int, default=15
            Number of bins of equal width. "ece" of :func:`evaluate` has 15.
        level : float, default=0.95
            Confidence level of the intervals.
        name : str, default=None
            Name in the legend. By default, the estimator's class.
        ax : matplotlib Axes, default=None
            Axes to draw on. By default, a new figure.

        Returns
        -------
        ReliabilityDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the estimator does not return probabilities.
        """
        check_level(level)
        if not isinstance(n_bins, Integral) or n_bins < 1:
            raise ValueError(f"n_bins must be a positive int, got {n_bins!r}.")
        name = style.class_name(estimator, name)
        question = ask_probability(name or "y_prob", estimator, X, y, label)
        probability = question.risk
        edges = np.linspace(0, 1, n_bins + 1)
        place = np.searchsorted(edges[1:-1], probability, side="left")
        inside = place[:, None] == np.arange(n_bins)
        who = group_numbers(groups, np.shape(y)[0])[question.rows]
        line = calibration_line(question.ill, probability, who, int(who.max()) + 1)
        rows = []
        for k in np.flatnonzero(inside.any(axis=0)):
            base = inside[:, k]
            share = share_estimate(
                np.bincount(who, base & question.ill), np.bincount(who, base)
            )
            low, high, _ = share.interval(level)
            mean = float(probability[base].mean())
            rows.append(
                (edges[k], edges[k + 1], int(base.sum()), mean, share.value, low, high)
            )
        names = ["left", "right", "n", "probability", "observed", "low", "high"]
        display = cls(
            pd.DataFrame(rows, columns=names),
            binned_error(question.ill, probability, n_bins),
            {name: (one.value, *one.interval(level)[:2]) for name, one in line.items()},
            level=level,
            name=name,
        )
        return display.plot(ax)

    def plot(self, ax: Any = None, *, color: Any = style.COLOURS[0]) -> Self:
        """Draw the diagram and the histogram below it.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on, which are divided in two. By default, a new figure.
        color : default="#0072b2"
            Colour of the bins.

        Returns
        -------
        ReliabilityDisplay
            The display, drawn.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        ax, below = _with_room_below(new_axes(ax, (5, 6), "Drawing reliability"))
        bins = self.bins
        words = f"ECE {self.calibration_error:.3f}"
        for name, (value, low, high) in self.line.items():
            words += f"\n{name.replace('_', ' ')} {value:.2f} ({low:.2f} to {high:.2f})"
        if self.name is not None:
            words = f"{style.short(self.name)}: {words}"
        ax.plot([0, 1], [0, 1], color=style.FAINT, linestyle=":", linewidth=1)
        x, y, few = bins["probability"], bins["observed"], bins["n"] < _FEW
        ax.vlines(x, bins["low"], bins["high"], color=color, alpha=0.5)
        (hollow,) = ax.plot(x[few], y[few], "o", color=color, mfc="white", ms=5)
        (full,) = ax.plot(x[~few], y[~few], "o", color=color, ms=6, label=words)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        ax.set_ylabel("observed frequency")
        style.small_legend(ax, loc="lower left", bbox_to_anchor=(0, 1))
        ax.tick_params(labelbottom=False)
        width = bins["right"] - bins["left"]
        look = {"align": "edge", "color": color, "alpha": 0.5, "edgecolor": "white"}
        below.bar(bins["left"], bins["n"], width=width, **look)
        below.set_ylabel("images")
        below.set_xlabel(f"predicted probability (hollow: fewer than {_FEW} images)")
        style.bare(below)
        self.points_, self.histogram_ax_ = [hollow, full], below
        return style.finish(self, ax)


def _with_room_below(ax: Any) -> tuple[Any, Any]:
    """Divide axes in two, and return the upper ones and the lower ones."""
    spec = ax.get_subplotspec()
    if spec is not None:
        above, beneath = spec.subgridspec(2, 1, height_ratios=(3, 1), hspace=0.12)
        ax.set_subplotspec(above)
        return ax, ax.figure.add_subplot(beneath, sharex=ax)
    left, bottom, width, height = ax.get_position().bounds
    ax.set_position((left, bottom + 0.3 * height, width, 0.7 * height))
    return ax, ax.figure.add_axes((left, bottom, width, 0.22 * height), sharex=ax)
