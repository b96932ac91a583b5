"""Further figures of a question: calibration, counts, and those at a given number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._intervals import Estimate
from sk_medsiglip.evaluation._calibration import calibration_line
from sk_medsiglip.evaluation._figures import FURTHER, Question
from sk_medsiglip.evaluation._net_benefit import benefit_estimate, fixed, flagged_shares


def further_estimates(
    question: Question, metrics: tuple[str, ...], patients: NDArray[np.intp]
) -> dict[str, Estimate]:
    """Return the figures that :data:`FURTHER` names; other names are passed over."""
    who, n = patients[question.rows], int(patients.max(initial=-1)) + 1
    found = {}
    for metric in filter(FURTHER.fullmatch, metrics):
        name, _, given = metric.partition("=")
        by_risk = name.startswith(("calibration", "net_benefit"))
        said: Any = question.probability if by_risk else question.decision
        if said is None:
            found[metric] = fixed(np.nan, n)
        elif given:
            found[metric] = _at(name, float(given), said, question.ill, who, n)
        elif by_risk:
            found[metric] = calibration_line(question.ill, said, who, n)[metric]
        else:
            hits = (question.ill == said) == name.startswith("true")
            hits &= said == name.endswith("positives")
            found[metric] = fixed(float(hits.sum()), n, "a count")
    return found


def _at(name: str, given: float, said: Any, ill: Any, who: Any, n: int) -> Estimate:
    """Return a figure at a given threshold or prevalence."""
    if name.startswith("net_benefit"):
        return benefit_estimate(said >= given, ill, who, given, n_patients=n)
    if name.startswith("npv"):  # the PPV of calling images free of the finding
        said, ill, given = ~said, ~ill, 1 - given
    right, wrong = flagged_shares(said, ill, who, n)
    return _predictive_value(right, wrong, given)


def _predictive_value(right: Estimate, wrong: Estimate, prevalence: float) -> Estimate:
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
    a, b = wrong.value, right.value
    odds = (1 - prevalence) / prevalence

    def bounds(outside: Any) -> tuple[Any, Any]:
        (la, ua), (lb, ub) = wrong.bounds(outside), right.bounds(outside)

        def root(x: Any, y: Any) -> Any:
            square = (a * b) ** 2 - x * y * (2 * a - x) * (2 * b - y)
            return np.sqrt(np.maximum(square, 0))

        with np.errstate(divide="ignore", invalid="ignore"):
            least = np.where(la == 0, 0, la * (2 * a - la) / (a * b + root(la, ub)))
            most = (a * b + root(ua, lb)) / (lb * (2 * b - lb))
        most = np.where(lb == 0, np.inf, most)
        return 1 / (1 + odds * most), 1 / (1 + odds * least)

    value = b / (b + odds * a) if a + b > 0 else np.nan
    moved = right.influence * a - wrong.influence * b
    return Estimate(value, moved * odds / max(b + odds * a, 1e-12) ** 2, bounds)
