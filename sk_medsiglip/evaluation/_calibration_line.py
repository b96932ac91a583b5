"""Calibration slope and intercept: whether probabilities are too bold, or too high."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit, stdtrit
from sklearn.linear_model import LogisticRegression

from sk_medsiglip._intervals import Estimate

__all__ = ["calibration_line"]

#: Probabilities of 0 and 1, which have no logit, count as the nearest float32.
_NEAREST = float(np.finfo(np.float32).eps)


def calibration_line(
    ill: NDArray[np.bool_],
    probability: NDArray[np.float64],
    who: NDArray[np.intp],
    n_patients: int,
) -> dict[str, Estimate]:
    """Return the slope and the intercept of logistic recalibration.

    The slope is that of a logistic regression of the labels on the logit of the
    probabilities: 1 is right, below 1 they are too extreme, above 1 too timid. The
    intercept is that of a regression with the slope held at 1 (calibration in the
    large): 0 is right, above 0 the finding is more frequent than the probabilities say
    [1]_.

    Parameters
    ----------
    ill : ndarray of bool, shape (n_samples,)
        Whether the finding is there.
    probability : ndarray of shape (n_samples,)
        From 0 to 1.
    who : ndarray of int, shape (n_samples,)
        Number of each sample's patient.
    n_patients : int
        Patients of the whole sample.

    Returns
    -------
    dict of str to Estimate
        "calibration_slope" and "calibration_intercept". The intervals are Student's,
        with the patients of the smaller side less one, and a variance by patient that
        leaves each patient out in turn (one step of it, CR3) [2]_. NaN where there is
        no such line: images of one kind only, and no slope where probabilities are all
        alike or tell both kinds apart without an error.

    References
    ----------
    .. [1] Van Calster et al., "Calibration: the Achilles heel of predictive analytics",
       BMC Medicine 2019.
    .. [2] Bell and McCaffrey, "Bias reduction in standard errors for linear regression
       with multi-stage samples", Survey Methodology 2002.
    """
    x = logit(np.clip(probability, _NEAREST, 1 - _NEAREST))
    scale = x.std() or 1.0
    Z = np.column_stack([np.ones_like(x), (x - x.mean()) / scale])
    smaller = min(len(np.unique(who[side])) for side in (ill, ~ill))

    def estimate(value: float, Z: Any, logits: Any, scale: float = 1) -> Estimate:
        """Return the last coefficient, with what it moves by without each patient."""
        moved, variance = np.zeros(n_patients), np.nan
        if smaller > 1 and not np.isnan(value):
            p = expit(logits)
            scores = np.zeros((n_patients, Z.shape[1]))
            information = np.zeros((n_patients, Z.shape[1], Z.shape[1]))
            np.add.at(scores, who, Z * (ill - p)[:, None])
            np.add.at(information, who, np.einsum("i,ij,ik->ijk", p * (1 - p), Z, Z))
            # Without a patient the others may tell no slope: no inverse, but a limit.
            rest = np.linalg.pinv(information.sum(axis=0) - information, hermitian=True)
            moved = (rest @ scores[:, :, None])[:, -1, 0] / scale
            variance = (1 - 1 / len(np.unique(who))) * (moved**2).sum()

        def bounds(outside: Any) -> tuple[Any, Any]:
            half = -stdtrit(max(1, smaller - 1), outside / 2) * np.sqrt(variance)
            return value / scale - half, value / scale + half

        few = f"{smaller} patient{'s' * (smaller != 1)} of a kind"
        return Estimate(float(value / scale), moved, bounds, few if smaller < 2 else "")

    slope = intercept = start = np.nan
    if smaller:
        low, high = logit(ill.mean()) - np.array([x.max() + 1, x.min() - 1])
        intercept = brentq(lambda a: (ill - expit(a + x)).sum(), low, high)
        if x[ill].min() < x[~ill].max() and x[~ill].min() < x[ill].max():
            line = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
            line.fit(Z[:, 1:], ill)
            start, slope = line.intercept_[0], line.coef_[0, 0]
    return {
        "calibration_slope": estimate(slope, Z, start + slope * Z[:, 1], scale),
        "calibration_intercept": estimate(intercept, Z[:, :1], intercept + x),
    }
