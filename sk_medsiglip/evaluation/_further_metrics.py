"""Further figures of a question: calibration, counts, and those at a given number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._intervals import Estimate, share_estimate
from sk_medsiglip.evaluation._calibration_line import calibration_line
from sk_medsiglip.evaluation._figures import FURTHER, Question
from sk_medsiglip.evaluation._net_benefit import benefit_estimate

__all__ = ["further_estimates"]


def further_estimates(
    question: Question, metrics: tuple[str, ...], patients: NDArray[np.intp]
) -> dict[str, Estimate]:
    """Return those of the figures that are not made of resamples or shares alone.

    Parameters
    ----------
    question : Question
        What was asked and answered.
    metrics : tuple of str
        Names of figures; those that do not fit :data:`FURTHER` are passed over.
    patients : ndarray of int, shape (n_samples,)
        Number of each sample's patient.

    Returns
    -------
    dict of str to Estimate
    """
    who, n = patients[question.rows], int(patients.max(initial=-1)) + 1
    found = {}
    for metric in filter(FURTHER.fullmatch, metrics):
        name, _, given = metric.partition("=")
        of_probability = name.startswith(("calibration", "net_benefit"))
        said = question.probability if of_probability else question.decision
        if said is None:
            found[metric] = _without_interval(np.nan, n)
        elif name.startswith("calibration"):
            found[metric] = calibration_line(question.ill, said, who, n)[metric]
        elif of_probability:
            at = float(given)
            found[metric] = benefit_estimate(
                said >= at, question.ill, who, at, n_patients=n
            )
        elif not given:
            right, kind = name.startswith("true"), name.endswith("positives")
            hits = (said == kind) & ((question.ill == said) == right)
            found[metric] = _without_interval(float(hits.sum()), n, "a count")
        else:
            found[metric] = _predictive_value(
                *(question.ill, said, float(given))
                if name.startswith("ppv")
                # The PPV of calling images free of the finding.
                else (~question.ill, ~said, 1 - float(given)),
                who,
                n,
            )
    return found


def _without_interval(value: float, n_patients: int, note: str = "") -> Estimate:
    nothing = np.zeros(n_patients)
    return Estimate(value, nothing, lambda outside: (outside * np.nan,) * 2, note)


def _predictive_value(
    ill: NDArray[np.bool_],
    said: NDArray[np.bool_],
    prevalence: float,
    who: NDArray[np.intp],
    n_patients: int,
) -> Estimate:
    """Return the predictive value of an answer at a prevalence, by Bayes' theorem.

    It is ``right * prevalence / (right * prevalence + wrong * (1 - prevalence))``, of
    how often the answer is given where it is right (the sensitivity, of the answer
    "present") and where it is wrong (1 - specificity). The interval is that of the
    ratio of the two shares (MOVER) [1]_, carried over.

    References
    ----------
    .. [1] Donner and Zou, "Closed-form confidence intervals for functions of the normal
       mean and standard deviation", Statistical Methods in Medical Research 2012.
    """
    right, wrong = (
        share_estimate(
            np.bincount(who, said & side, n_patients),
            np.bincount(who, side, n_patients),
        )
        for side in (ill, ~ill)
    )
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
    moved = right.influence * a - wrong.influence * b
    return Estimate(value, moved * odds / max(b + odds * a, 1e-12) ** 2, bounds)
