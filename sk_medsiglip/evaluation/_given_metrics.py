"""Figures at a given number: net benefit at a threshold, PPV at another prevalence."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._intervals import Estimate, share_estimate
from sk_medsiglip.evaluation._net_benefit import benefit_estimate

__all__ = ["GIVEN", "given_estimate", "predictive_value"]

#: Names of these figures; the number is a share between 0 and 1.
GIVEN = re.compile(r"(net_benefit@threshold|(ppv|npv)@prevalence)=0?\.\d*[1-9]\d*")


def given_estimate(
    metric: str,
    ill: NDArray[np.bool_],
    decision: NDArray[np.bool_] | None,
    probability: NDArray[np.float64] | None,
    who: NDArray[np.intp],
    n_patients: int,
) -> Estimate | None:
    """Return a figure at a given number, or None if there is nothing to compute it of.

    Parameters
    ----------
    metric : str
        A name that fits :data:`GIVEN`.
    ill : ndarray of bool, shape (n_samples,)
        Whether the finding is there.
    decision, probability : ndarray of shape (n_samples,) or None
        What is predicted, and how likely the finding is said to be.
    who : ndarray of int, shape (n_samples,)
        Number of each sample's patient.
    n_patients : int
        Patients of the whole sample.

    Returns
    -------
    Estimate or None
    """
    name, _, given = metric.partition("=")
    number = float(given)
    if name.startswith("net_benefit"):
        if probability is None:
            return None
        treated = probability >= number
        return benefit_estimate(treated, ill, who, number, n_patients=n_patients)
    if decision is None:
        return None
    # The NPV is the PPV of calling images free of the finding.
    if name.startswith("npv"):
        ill, decision, number = ~ill, ~decision, 1 - number
    right, wrong = (
        share_estimate(
            np.bincount(who, decision & side, n_patients),
            np.bincount(who, side, n_patients),
        )
        for side in (ill, ~ill)
    )
    return predictive_value(right, wrong, number)


def predictive_value(right: Estimate, wrong: Estimate, prevalence: float) -> Estimate:
    """Return the predictive value of an answer at a prevalence, by Bayes' theorem.

    Parameters
    ----------
    right, wrong : Estimate
        How often the answer is given where it is right (the sensitivity, of the answer
        "present"), and where it is wrong (1 - specificity).
    prevalence : float
        Share of those about whom it is right; taken as known.

    Returns
    -------
    Estimate
        ``right * prevalence / (right * prevalence + wrong * (1 - prevalence))``. The
        interval is that of the ratio of the two shares (MOVER) [1]_, carried over.

    References
    ----------
    .. [1] Donner and Zou, "Closed-form confidence intervals for functions of the normal
       mean and standard deviation", Statistical Methods in Medical Research 2012.
    """
    a, b = wrong.value, right.value
    odds = (1 - prevalence) / prevalence

    def bounds(outside: Any) -> tuple[Any, Any]:
        (la, ua), (lb, ub) = wrong.bounds(outside), right.bounds(outside)

        def root(x: Any, y: Any) -> Any:
            return np.sqrt(
                np.maximum((a * b) ** 2 - x * y * (2 * a - x) * (2 * b - y), 0)
            )

        with np.errstate(divide="ignore", invalid="ignore"):
            least = np.where(la == 0, 0, la * (2 * a - la) / (a * b + root(la, ub)))
            most = np.where(
                lb == 0, np.inf, (a * b + root(ua, lb)) / (lb * (2 * b - lb))
            )
        return 1 / (1 + odds * most), 1 / (1 + odds * least)

    value = b / (b + odds * a) if a + b > 0 else np.nan
    return Estimate(value, right.influence * a - wrong.influence * b, bounds)
