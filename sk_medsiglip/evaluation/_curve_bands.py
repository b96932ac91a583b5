"""ROC and precision-recall curves of a sample, and what they do in resamples of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._intervals import Bounds
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
    drawn = np.full((len(counts), len(_GRID)), np.nan)
    x = y = np.empty(0)
    for some, ill, well in _ranked(question, counts):
        found, flagged = _shares(ill), _shares(well)
        if some.start == 0:
            x, y = flagged[0], found[0]
        for place, (one, other) in enumerate(zip(flagged, found, strict=True)):
            if not np.isnan(one[-1] + other[-1]):
                drawn[some.start + place] = np.interp(_GRID, one, other)
    return _as_band(x, y, drawn, question, counts, patients, "roc_auc", level)


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
    drawn = np.full((len(counts), len(_GRID)), np.nan)
    x = y = np.empty(0)
    for some, ill, well in _ranked(question, counts):
        recall = _shares(ill)[:, 1:]
        true = np.cumsum(ill, axis=1)
        flagged = true + np.cumsum(well, axis=1)
        precision = np.divide(true, flagged, out=np.ones_like(true), where=flagged > 0)
        if some.start == 0:
            x, y = np.r_[0.0, recall[0]], np.r_[1.0, precision[0]]
        for place, (one, other) in enumerate(zip(recall, precision, strict=True)):
            if not np.isnan(one[-1]):
                at = np.searchsorted(one, np.maximum(_GRID - 1e-12, 1e-12))
                drawn[some.start + place] = other[np.minimum(at, len(other) - 1)]
    return _as_band(x, y, drawn, question, counts, patients, "average_precision", level)


def _ranked(
    question: Question, counts: NDArray[np.integer]
) -> list[tuple[slice, NDArray[np.float64], NDArray[np.float64]]]:
    """Count at every score, the highest first."""
    blocks = ranked_counts(question.ill, question.score, counts, question.rows)
    return [(some, ill[:, ::-1], well[:, ::-1]) for some, ill, well in blocks]


def _shares(counted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return which share each threshold reaches, from none on."""
    total = counted.sum(axis=1, keepdims=True)
    reached = np.cumsum(counted, axis=1)
    shares = np.divide(
        reached, total, out=np.full(reached.shape, np.nan), where=total > 0
    )
    return np.concatenate([np.zeros_like(total), shares], axis=1)


def _as_band(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    drawn: NDArray[np.float64],
    question: Question,
    counts: NDArray[np.integer],
    patients: NDArray[np.intp],
    metric: str,
    level: float,
) -> CurveBand:
    tail = (1 - level) / 2
    known = drawn[1:][~np.isnan(drawn[1:, 0])]
    low = high = np.full(len(_GRID), np.nan)
    if len(known):
        low, high = np.quantile(known, [tail, 1 - tail], axis=0)
    area = estimates(question, counts, (metric,), patients)[metric]
    return CurveBand(x, y, _GRID, low, high, area.value, area.interval(level))
