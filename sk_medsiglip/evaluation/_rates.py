"""Sensitivity, specificity and their like, with intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import betaincinv

from sk_medsiglip._resampling import draw_sums, interval

__all__ = ["exact_interval", "measure_decisions"]


def measure_decisions(
    present: NDArray[np.bool_],
    flagged: NDArray[np.bool_],
    patients: NDArray[np.intp] | None,
    *,
    n_bootstrap: int,
    level: float,
    random_state: int | None,
) -> pd.DataFrame:
    """Return what decisions are worth.

    Parameters
    ----------
    present, flagged : ndarray of bool, shape (n_samples,)
        Whether a finding is there, and is said to be.
    patients : ndarray of shape (n_samples,) or None
        Number of each image's patient; resampled for the intervals. None takes exact
        intervals.
    n_bootstrap, level, random_state
        Of the intervals.

    Returns
    -------
    DataFrame
        A row a share; columns value, low, high and n.
    """
    hits, base = _shares(present, flagged)
    k, n = hits.sum(axis=0), base.sum(axis=0)
    if patients is None:
        bounds = [
            exact_interval(int(one), int(of), level)
            for one, of in zip(k, n, strict=True)
        ]
    else:
        bounds = _patient_intervals(
            hits, base, patients, n_bootstrap, level, random_state
        )
    value = np.divide(k, n, out=np.full(len(n), np.nan), where=n > 0)
    low, high = np.transpose(bounds)
    return pd.DataFrame(
        {"value": value, "low": low, "high": high, "n": n.astype(int)},
        index=["sensitivity", "specificity", "ppv", "npv", "prevalence", "flagged"],
    )


def _shares(
    present: NDArray[np.bool_], flagged: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what counts and out of what, a column a share as the report has them."""
    everybody = np.ones_like(present)
    of = [
        (present & flagged, present),
        (~present & ~flagged, ~present),
        (present & flagged, flagged),
        (~present & ~flagged, ~flagged),
        (present, everybody),
        (flagged, everybody),
    ]
    hits, base = zip(*of, strict=True)
    return np.column_stack(hits).astype(float), np.column_stack(base).astype(float)


def _patient_intervals(
    hits: NDArray[np.float64],
    base: NDArray[np.float64],
    patients: NDArray[np.intp],
    n_bootstrap: int,
    level: float,
    random_state: int | None,
) -> list[tuple[float, float]]:
    """Return the interval of each share over resampled patients."""
    _, patients = np.unique(patients, return_inverse=True)
    n_patients = int(patients.max()) + 1
    per_patient = np.zeros((n_patients, 2 * hits.shape[1]))
    np.add.at(per_patient, patients, np.hstack([hits, base]))
    sums = draw_sums(per_patient, n_bootstrap, random_state=random_state)
    drawn_hits, drawn_base = np.split(sums, 2, axis=1)
    drawn = np.divide(
        drawn_hits,
        drawn_base,
        out=np.full(drawn_hits.shape, np.nan),
        where=drawn_base > 0,
    )
    total_hits, total_base = np.split(per_patient.sum(axis=0), 2)
    bounds = []
    for at, (k, n) in enumerate(zip(total_hits, total_base, strict=True)):
        if k in (0, n):
            involved = int((per_patient[:, hits.shape[1] + at] > 0).sum())
            bounds.append(exact_interval(involved if k else 0, involved, level))
        else:
            low, high, _ = interval(drawn[:, at], level)
            bounds.append((low, high))
    return bounds


def exact_interval(k: int, n: int, level: float) -> tuple[float, float]:
    """Return Clopper and Pearson's interval of k in n."""
    if not n:
        return np.nan, np.nan
    tail = (1 - level) / 2
    low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return low, high
