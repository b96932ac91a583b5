"""ROC and precision-recall curves of a sample, and what they do in resamples of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._intervals import Bounds, Estimate
from sk_medsiglip._resampling import ranked_counts
from sk_medsiglip.evaluation._figures import Question, estimates

__all__ = ["CurveBand", "precision_recall_band", "roc_band"]

#: Places along the horizontal axis at which a band is known.
_GRID = np.linspace(0, 1, 201)


class CurveBand(NamedTuple):
    """A curve with its band, and the area under it.

    Parameters
    ----------
    x, y : ndarray of shape (n_points,)
        The curve of the sample.
    grid, low, high : ndarray of shape (n_grid,)
        The band: at each place the interval over resamples.
    area : float
        Of the sample.
    area_interval : Bounds
        As :func:`evaluate` gives it, or the reason why there is none.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    grid: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    area: float
    area_interval: Bounds


def roc_band(
    question: Question,
    counts: NDArray[np.integer],
    patients: NDArray[np.intp],
    level: float,
) -> CurveBand:
    """Return the share of the ill found, by the share of the well flagged.

    Parameters
    ----------
    question : Question
        Of one label.
    counts : ndarray of shape (1 + n_draws, n_samples)
        The sample itself first.
    patients : ndarray of int, shape (n_samples,)
        Number of each sample's patient.
    level : float
        Of the band, at each place by itself.

    Returns
    -------
    CurveBand
    """

    def curves(ill: Any, well: Any) -> tuple[Any, Any]:
        return _shares(well), _shares(ill)

    def at_grid(x: Any, y: Any) -> Any:
        return np.interp(_GRID, x, y)

    area = estimates(question, counts, ("roc_auc",), patients)["roc_auc"]
    return _band(question, counts, curves, at_grid, area, level)


def precision_recall_band(
    question: Question,
    counts: NDArray[np.integer],
    patients: NDArray[np.intp],
    level: float,
) -> CurveBand:
    """Return the share of the flagged that are ill, by the share of the ill found.

    Parameters
    ----------
    question, counts, patients, level
        As in :func:`roc_band`.

    Returns
    -------
    CurveBand
        Begins at recall 0 with precision 1, as scikit-learn's curve. The band is of
        the precision at the lowest recall that reaches a place.
    """

    def curves(ill: Any, well: Any) -> tuple[Any, Any]:
        true = np.cumsum(ill, axis=1)
        flagged = true + np.cumsum(well, axis=1)
        precision = np.divide(true, flagged, out=np.ones_like(true), where=flagged > 0)
        return _shares(ill), np.insert(precision, 0, 1.0, axis=1)

    def at_grid(x: Any, y: Any) -> Any:
        at = np.searchsorted(x, np.maximum(_GRID - 1e-12, 1e-12))
        return y[np.minimum(at, len(y) - 1)]

    metric = "average_precision"
    area = estimates(question, counts, (metric,), patients)[metric]
    return _band(question, counts, curves, at_grid, area, level)


def _shares(counted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return which share each threshold reaches, from none on."""
    total = counted.sum(axis=1, keepdims=True)
    reached = np.cumsum(counted, axis=1)
    shares = np.divide(
        reached, total, out=np.full(reached.shape, np.nan), where=total > 0
    )
    return np.concatenate([np.zeros_like(total), shares], axis=1)


def _band(
    question: Question,
    counts: NDArray[np.integer],
    curves: Callable[[Any, Any], tuple[Any, Any]],
    at_grid: Callable[[Any, Any], Any],
    area: Estimate,
    level: float,
) -> CurveBand:
    """Draw a curve of each resample, from counts at every score, the highest first."""
    drawn = np.full((len(counts), len(_GRID)), np.nan)
    sample = np.empty(0), np.empty(0)
    blocks = ranked_counts(question.ill, question.score, counts, question.rows)
    for some, ill, well in blocks:
        pairs = list(zip(*curves(ill[:, ::-1], well[:, ::-1]), strict=True))
        if some.start == 0:
            sample = pairs[0]
        for place, (x, y) in enumerate(pairs, some.start):
            if not np.isnan(x[-1] + y[-1]):
                drawn[place] = at_grid(x, y)
    tail = (1 - level) / 2
    known = drawn[1:][~np.isnan(drawn[1:, 0])]
    low = high = np.full(len(_GRID), np.nan)
    if len(known):
        low, high = np.quantile(known, [tail, 1 - tail], axis=0)
    return CurveBand(*sample, _GRID, low, high, area.value, area.interval(level))
