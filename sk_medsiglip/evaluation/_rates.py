"""Sensitivity, specificity and their like, with intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip._intervals import share_estimate

__all__ = ["measure_decisions"]


def measure_decisions(
    present: NDArray[np.bool_],
    flagged: NDArray[np.bool_],
    patients: NDArray[np.intp],
    *,
    level: float,
) -> pd.DataFrame:
    """Return what decisions are worth.

    Parameters
    ----------
    present, flagged : ndarray of bool, shape (n_samples,)
        Whether a finding is there, and is said to be.
    patients : ndarray of shape (n_samples,)
        Number of each image's patient.
    level : float
        Confidence level of the intervals.

    Returns
    -------
    DataFrame
        A row a share; columns value, low, high and n.
    """
    everybody = np.ones_like(present)
    shares = {
        "sensitivity": (present & flagged, present),
        "specificity": (~present & ~flagged, ~present),
        "ppv": (present & flagged, flagged),
        "npv": (~present & ~flagged, ~flagged),
        "prevalence": (present, everybody),
        "flagged": (flagged, everybody),
    }
    rows = {}
    for name, (hits, base) in shares.items():
        counted = (np.bincount(patients, one.astype(float)) for one in (hits, base))
        share = share_estimate(*counted)
        low, high, _ = share.interval(level)
        rows[name] = (share.value, low, high, int(base.sum()))
    columns = ["value", "low", "high", "n"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)
