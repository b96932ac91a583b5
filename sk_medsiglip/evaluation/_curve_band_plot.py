"""``RocBandDisplay`` and ``PrecisionRecallBandDisplay``: curves with intervals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip._axes import new_axes
from sk_medsiglip._drawn_names import drawn
from sk_medsiglip._intervals import Bounds, Estimate
from sk_medsiglip._resampling import ranked_counts
from sk_medsiglip._splits import group_numbers
from sk_medsiglip.evaluation import _style as style
from sk_medsiglip.evaluation._answers import Question, ask_label
from sk_medsiglip.evaluation._figures import estimates, resamples

#: Values on the horizontal axis at which a band is computed.
_GRID = np.linspace(0, 1, 201)


class CurveBand(NamedTuple):
    """A curve with its band, and the area under it.

    At each value of the grid the band is the interval over resamples. The interval of
    the area is that of :func:`evaluate`.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    grid: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    area: float
    area_interval: Bounds


@dataclass(eq=False, repr=False)
class _BandDisplay(ABC):
    """Abstract display of a curve with a band over resamples of patients."""

    _metric: ClassVar[str]
    _area: ClassVar[str]
    _axes: ClassVar[tuple[str, str]]
    _drawstyle: ClassVar[str]
    _corner: ClassVar[str]

    curve: CurveBand
    _: KW_ONLY
    prevalence: float
    level: float = 0.95
    name: str | None = None
    label: Any = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        label: Any = None,
        groups: ArrayLike | None = None,
        n_bootstrap: int = 1000,
        level: float = 0.95,
        random_state: int = 0,
        name: str | None = None,
        ax: Any = None,
        color: Any = None,
    ) -> Self:
        """Draw the curve of a fitted classifier.

        Parameters
        ----------
        estimator : classifier
            Fitted classifier.
        X : array-like or list of n_samples images
            The test set.
        y : array-like of shape (n_samples,) or (n_samples, n_findings)
            True classes; or 1, 0, and NaN where a finding is not known.
        label : default=None
            The class or finding to draw, if there are several.
        groups : array-like of shape (n_samples,), default=None
            Patients, who are resampled with all their images. Without them single
            images are resampled, and the band is too narrow if patients have several.
        n_bootstrap : int, default=1000
            Number of resamples.
        level : float, default=0.95
            Confidence level of the band, at each value of the horizontal axis.
        random_state : int, default=0
            Seed of the random number generator.
        name : str, default=None
            Name in the legend. By default, the estimator's class.
        ax, color
            Parameters of :meth:`plot`.

        Returns
        -------
        display
            The display, drawn.
        """
        name = style.class_name(estimator, name)
        question = ask_label(name or "y_score", estimator, X, y, label)
        display = cls(
            cls._estimate(
                question, np.shape(y)[0], groups, n_bootstrap, level, random_state
            ),
            prevalence=float(question.ill.mean()),
            level=level,
            name=name,
            label=question.label,
        )
        return display.plot(ax, color=color)

    @classmethod
    def from_predictions(
        cls, y_true: ArrayLike, y_score: ArrayLike, **options: Any
    ) -> Self:
        """Draw the curve of given scores.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,) or (n_samples, n_findings)
            True labels, as in :meth:`from_estimator`.
        y_score : array-like
            Scores of the second class, of each class, or of each finding.
        **options
            The other parameters of :meth:`from_estimator`.

        Returns
        -------
        display
            The display, drawn.
        """
        return cls.from_estimator(y_score, y_true, y_true, **options)

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
        display
            The display, drawn.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        ax = new_axes(ax, (5, 5), "Drawing a curve")
        n_drawn = sum(line.get_label()[:1] != "_" for line in ax.get_lines())
        if color is None:
            color = style.COLOURS[n_drawn % len(style.COLOURS)]
        curve = self.curve
        low, high, note = curve.area_interval
        sure = f"no interval: {note}" if note else f"{low:.3f} to {high:.3f}"
        words = f"{self._area} {curve.area:.3f} ({sure})"
        self.band_ = style.draw_band(ax, curve.grid, curve.low, curve.high, color)
        if self.name is not None:
            words = f"{style.short(self.name)}: {words}"
        (self.line_,) = ax.plot(
            curve.x, curve.y, color=color, label=words, drawstyle=self._drawstyle
        )
        if not n_drawn:
            self._draw_chance(ax, color=style.FAINT, linestyle=":", linewidth=1)
        ax.set(xlabel=self._axes[0], ylabel=self._axes[1])
        ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        of = f"{drawn(self.label, 30)}; " if isinstance(self.label, str) else ""
        ax.set_title(f"{of}band: {self.level:.0%} interval over resamples", fontsize=10)
        longest = max(len(line.get_label()) for line in ax.get_lines())
        size = "small" if longest < 45 else "x-small"
        legend = style.small_legend(ax, fontsize=size, loc=self._corner)
        legend.set_in_layout(False)  # else a long legend would shrink the axes
        return style.finish(self, ax)

    @classmethod
    def _estimate(
        cls,
        question: Question,
        n_samples: int,
        groups: ArrayLike | None,
        n_bootstrap: int,
        level: float,
        random_state: int,
    ) -> CurveBand:
        """Return the curve, its band, and the area with its interval."""
        counts = resamples(n_samples, groups, n_bootstrap, level, random_state)
        patients = group_numbers(groups, n_samples)
        area = estimates(question, counts, (cls._metric,), patients)[cls._metric]
        return cls._band(question, counts, area, level)

    @classmethod
    def _band(
        cls,
        question: Question,
        counts: NDArray[np.integer],
        area: Estimate,
        level: float,
    ) -> CurveBand:
        """Return the sample's curve, with its band over the curves of all resamples."""
        drawn = np.full((len(counts), len(_GRID)), np.nan)
        sample = np.empty(0), np.empty(0)
        blocks = ranked_counts(question.ill, question.score, counts, question.rows)
        for some, ill, well in blocks:  # counts at every score
            pairs = list(zip(*cls._curves(ill[:, ::-1], well[:, ::-1]), strict=True))
            if some.start == 0:
                sample = pairs[0]
            for place, (x, y) in enumerate(pairs, some.start):
                if not np.isnan(x[-1] + y[-1]):
                    drawn[place] = cls._at_grid(x, y)
        tail = (1 - level) / 2
        known = drawn[1:][~np.isnan(drawn[1:, 0])]
        low = high = np.full(len(_GRID), np.nan)
        if len(known):
            low, high = np.quantile(known, [tail, 1 - tail], axis=0)
        return CurveBand(*sample, _GRID, low, high, area.value, area.interval(level))

    @staticmethod
    @abstractmethod
    def _curves(ill: Any, well: Any) -> tuple[Any, Any]:
        """Return the curve of each resample, given counts from the highest score on."""

    @staticmethod
    @abstractmethod
    def _at_grid(x: Any, y: Any) -> Any:
        """Return the heights of a curve at the values of the grid."""

    @abstractmethod
    def _draw_chance(self, ax: Any, **look: Any) -> None:
        """Draw the curve of a random classifier."""


class RocBandDisplay(_BandDisplay):
    """ROC curve with a band over resamples of patients.

    scikit-learn's ``RocCurveDisplay`` draws the same curve without the band.

    Parameters
    ----------
    curve : CurveBand
        The false positive rate ``x``, the sensitivity ``y``, and the band.
    prevalence : float
        Share of images with the label.
    level : float, default=0.95
        Confidence level of the band.
    name : str, default=None
        Name in the legend.
    label : default=None
        Class or finding. A string is shown in the title.

    Attributes
    ----------
    ax_, figure_
        The axes and figure of matplotlib.
    line_, band_
        The curve and its band.

    See Also
    --------
    evaluate : Compute metrics with intervals.

    Notes
    -----
    The band holds the middle ``level`` of the resampled curves at each value of the
    horizontal axis separately; a whole curve is less likely to lie inside it. The
    interval of the area is that of :func:`evaluate`.

    Examples
    --------
    >>> from sk_medsiglip.evaluation import RocBandDisplay
    >>> display = RocBandDisplay.from_predictions(
    ...     [0, 0, 1, 1, 0, 1], [0.1, 0.4, 0.35, 0.8, 0.2, 0.9], n_bootstrap=50)
    >>> round(display.curve.area, 3)
    0.889
    """

    _metric = "roc_auc"
    _area = "AUC"
    _axes = ("false positive rate (1 − specificity)", "sensitivity")
    _drawstyle = "default"
    _corner = "lower right"

    @staticmethod
    def _curves(ill: Any, well: Any) -> tuple[Any, Any]:
        """Return the false positive rate and the sensitivity."""
        return _shares(well), _shares(ill)

    @staticmethod
    def _at_grid(x: Any, y: Any) -> Any:
        return np.interp(_GRID, x, y)

    def _draw_chance(self, ax: Any, **look: Any) -> None:
        ax.plot([0, 1], [0, 1], **look)


class PrecisionRecallBandDisplay(_BandDisplay):
    """Precision-recall curve with a band over resamples of patients.

    scikit-learn's ``PrecisionRecallDisplay`` draws the same curve without the band.

    Parameters
    ----------
    curve : CurveBand
        The recall ``x``, the precision ``y``, and the band.
    prevalence : float
        Share of images with the label, which is the precision of a random classifier.
    level : float, default=0.95
        Confidence level of the band.
    name : str, default=None
        Name in the legend.
    label : default=None
        Class or finding. A string is shown in the title.

    Attributes
    ----------
    ax_, figure_
        The axes and figure of matplotlib.
    line_, band_
        The curve and its band.

    See Also
    --------
    RocBandDisplay : ROC curve. Its notes explain the band.

    Examples
    --------
    >>> from sk_medsiglip.evaluation import PrecisionRecallBandDisplay
    >>> display = PrecisionRecallBandDisplay.from_predictions(
    ...     [0, 0, 1, 1, 0, 1], [0.1, 0.4, 0.35, 0.8, 0.2, 0.9], n_bootstrap=50)
    >>> round(display.curve.area, 3)
    0.917
    """

    _metric = "average_precision"
    _area = "AP"
    _axes = ("recall (sensitivity)", "precision (positive predictive value)")
    _drawstyle = "steps-pre"
    _corner = "lower left"

    @staticmethod
    def _curves(ill: Any, well: Any) -> tuple[Any, Any]:
        """Return recall and precision, which start at 0 and 1 as in scikit-learn."""
        true = np.cumsum(ill, axis=1)
        flagged = true + np.cumsum(well, axis=1)
        precision = np.divide(true, flagged, out=np.ones_like(true), where=flagged > 0)
        return _shares(ill), np.insert(precision, 0, 1.0, axis=1)

    @staticmethod
    def _at_grid(x: Any, y: Any) -> Any:
        """Return the precision at the lowest recall that reaches a value."""
        at = np.searchsorted(x, np.maximum(_GRID - 1e-12, 1e-12))
        return y[np.minimum(at, len(y) - 1)]

    def _draw_chance(self, ax: Any, **look: Any) -> None:
        ax.axhline(self.prevalence, **look)


def roc_band(
    y_true: ArrayLike, y_score: ArrayLike, groups: ArrayLike | None = None
) -> CurveBand:
    """Return the curve of :class:`RocBandDisplay`, which is not drawn.

    Labels of one kind raise a ValueError.
    """
    question = ask_label("y_score", y_score, y_true, y_true, None)
    n = np.shape(y_true)[0]
    return RocBandDisplay._estimate(question, n, groups, 1000, 0.95, 0)


def _shares(counted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cumulative share at each threshold, starting at 0."""
    total = counted.sum(axis=1, keepdims=True)
    reached = np.cumsum(counted, axis=1)
    shares = np.divide(
        reached, total, out=np.full(reached.shape, np.nan), where=total > 0
    )
    return np.concatenate([np.zeros_like(total), shares], axis=1)
