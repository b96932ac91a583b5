"""Metrics of one question, in the sample and in all resamples at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length

from sk_medsiglip._intervals import (
    Estimate,
    area_estimate,
    combine,
    resampled_estimate,
    share_estimate,
)
from sk_medsiglip._resampling import (
    area,
    check_resampling,
    draw_counts,
    ranked_counts,
)
from sk_medsiglip.evaluation._answers import Question
from sk_medsiglip.evaluation._calibration import calibration_line
from sk_medsiglip.evaluation._net_benefit import benefit_estimate, fixed, flagged_shares

DEFAULT_METRICS = (
    "roc_auc",
    "average_precision",
    "sensitivity@specificity=0.9",
    "specificity@sensitivity=0.9",
    "balanced_accuracy",
    "f1",
    "brier",
    "calibration_slope",
    "calibration_intercept",
    "ece",
)

_OF_DECISIONS = {
    *("accuracy", "balanced_accuracy", "f1", "npv", "ppv"),
    *("sensitivity", "specificity"),
}
_OF_PROBABILITIES = {"brier", "ece"}
#: Metrics whose intervals need no resamples.
BY_PATIENT = {"roc_auc", "prevalence", "flagged"} | _OF_DECISIONS
_AT = re.compile(r"(sensitivity|specificity)@(sensitivity|specificity)=(0?\.\d+)")
#: Metrics estimated by patient only; a number in a name is a share between 0 and 1.
FURTHER = re.compile(
    r"calibration_(slope|intercept)|(true|false)_(positives|negatives)"
    r"|(net_benefit@threshold|(ppv|npv)@prevalence)=0?\.\d*[1-9]\d*"
)
_BINS = 15  # bins of the calibration error, as in Guo et al. (2017)
# Tolerance for quotients of integers.
_ROUNDING = 1e-12

Figures = dict[str, NDArray[np.float64]]


def check_metrics(metrics: Any, *, further: bool = True) -> tuple[str, ...]:
    """Return checked names of metrics; ``further`` allows those of :data:`FURTHER`."""
    if metrics is None:
        return DEFAULT_METRICS
    wanted = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    known = {"roc_auc", "average_precision"} | _OF_DECISIONS | _OF_PROBABILITIES
    for name in wanted:
        at = _AT.fullmatch(str(name))
        if further and FURTHER.fullmatch(str(name)):
            continue
        if name not in known and (at is None or at[1] == at[2]):
            others = (
                ", calibration_slope, calibration_intercept, true_positives (and so "
                "on), 'net_benefit@threshold=0.1', 'ppv@prevalence=0.02', "
                "'npv@prevalence=0.02'"
            )
            raise ValueError(
                f"unknown metric {name!r}: choose among {', '.join(sorted(known))}"
                f"{others if further else ''}, 'sensitivity@specificity=0.9' and "
                "'specificity@sensitivity=0.9' at any level."
            )
    if not wanted:
        raise ValueError("metrics is empty; pass None for the default metrics.")
    return wanted


def figures(
    question: Question, counts: NDArray[np.integer], metrics: tuple[str, ...]
) -> Figures:
    """Compute metrics in every resample, NaN where one is undefined."""
    found: Figures = {}
    ranked = [m for m in metrics if m not in _OF_DECISIONS | _OF_PROBABILITIES]
    if ranked:
        found |= _of_ranks(question, counts, ranked)
    if _OF_DECISIONS & set(metrics):
        found |= _of_decisions(question, counts)
    if _OF_PROBABILITIES & set(metrics):
        found |= _of_probabilities(question, counts)
    return {name: found[name] for name in metrics}


def estimates(
    question: Question,
    counts: NDArray[np.integer],
    metrics: tuple[str, ...],
    patients: NDArray[np.intp] | None = None,
    *,
    resampled: bool = False,
) -> dict[str, Estimate]:
    """Return metrics with their intervals.

    The first row of ``counts`` is the sample itself, and the others are resamples.
    Given the patient of each sample, metrics whose interval is known use no resamples,
    unless ``resampled``.
    """
    by_patient = set() if patients is None or resampled else BY_PATIENT
    plain = tuple(one for one in metrics if not FURTHER.fullmatch(one))
    drawn = figures(question, counts, tuple(m for m in plain if m not in by_patient))
    # Its percentiles covered the true value in 0 to 16 % of data sets.
    notes = {"ece": "a calibration error is larger in resamples"}
    found = {
        name: resampled_estimate(one[0], one[1:], notes.get(name, ""))
        for name, one in drawn.items()
    }
    if patients is not None:
        who, n_patients = patients[question.rows], int(patients.max(initial=-1)) + 1
        for metric in set(metrics) - set(plain):
            found[metric] = _further(metric, question, who, n_patients)
        if by_patient:
            found |= _by_patient(question, metrics, who, n_patients)
    return {name: found[name] for name in metrics}


def _by_patient(
    question: Question,
    metrics: tuple[str, ...],
    who: NDArray[np.intp],
    n_patients: int,
) -> dict[str, Estimate]:
    """Return the area and the metrics of decisions, whose intervals are known."""
    found = {}
    if "roc_auc" in metrics:
        found["roc_auc"] = area_estimate(question.ill, question.score, who, n_patients)
    if BY_PATIENT & set(metrics) - {"roc_auc"}:
        cells = np.zeros((4, n_patients))
        if question.decision is not None:
            for cell, which in zip(cells, _cells(question), strict=True):
                cell += np.bincount(who, which, n_patients)
        found |= {m: share_estimate(*pair) for m, pair in _shares(*cells).items()}
        sides = found["sensitivity"], found["specificity"]
        found["balanced_accuracy"] = combine(sides, (0.5, 0.5))
        found["f1"] = found["jaccard"].mapped(_f1)
    return found


def _further(
    metric: str, question: Question, who: NDArray[np.intp], n_patients: int
) -> Estimate:
    """Return one of the metrics that match :data:`FURTHER`."""
    name, _, given = metric.partition("=")
    by_risk = name.startswith(("calibration", "net_benefit"))
    said: Any = question.probability if by_risk else question.decision
    if said is None:
        return fixed(np.nan, n_patients)
    if given:
        return _at_given(name, float(given), said, question.ill, who, n_patients)
    if by_risk:
        return calibration_line(question.ill, said, who, n_patients)[metric]
    hits = (question.ill == said) == name.startswith("true")
    hits &= said == name.endswith("positives")
    return fixed(float(hits.sum()), n_patients, "a count")


def resamples(
    n_samples: int,
    groups: ArrayLike | None,
    n_bootstrap: int,
    level: float,
    random_state: int,
) -> NDArray[np.int32]:
    """Return the count of each sample in each resample; the first row is all ones."""
    check_resampling(n_bootstrap, level)
    check_consistent_length(np.empty(n_samples), groups)
    counts = draw_counts(
        n_samples, n_bootstrap, groups=groups, random_state=random_state
    )
    return np.vstack([np.ones_like(counts[:1]), counts])


def _of_ranks(
    question: Question, counts: NDArray[np.integer], metrics: list[str]
) -> Figures:
    found = {name: np.full(len(counts), np.nan) for name in metrics}
    blocks = ranked_counts(question.ill, question.score, counts, question.rows)
    for some, ill, well in blocks:
        for name in metrics:
            curve = _OF_CURVES.get(name, partial(_at, name))
            found[name][some] = curve(ill, well)
    return found


def _average_precision(
    ill: NDArray[np.float64], well: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the sum of precisions, weighted by the recall that each threshold adds."""
    # From the highest score down: the number flagged at each threshold.
    true = np.cumsum(ill[:, ::-1], axis=1)
    flagged = true + np.cumsum(well[:, ::-1], axis=1)
    precision = np.divide(true, flagged, out=np.zeros_like(true), where=flagged > 0)
    return _ratio((precision * ill[:, ::-1]).sum(axis=1), ill.sum(axis=1))


_OF_CURVES: dict[str, Callable[[Any, Any], Any]] = {
    "roc_auc": area,
    "average_precision": _average_precision,
}


def _at(
    name: str, ill: NDArray[np.float64], well: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the best sensitivity at a given specificity, or the reverse."""
    match = _AT.fullmatch(name)
    assert match is not None  # check_metrics has checked it
    wanted, level = match[1], float(match[3])
    nobody = np.zeros((len(ill), 1))
    # Images that reach a threshold are flagged; the last one is above all scores.
    missed = np.concatenate([nobody, np.cumsum(ill, axis=1)], axis=1)
    spared = np.concatenate([nobody, np.cumsum(well, axis=1)], axis=1)
    n_ill, n_well = missed[:, -1:], spared[:, -1:]
    with np.errstate(invalid="ignore"):
        sensitivity, specificity = 1 - missed / n_ill, spared / n_well
    if wanted == "sensitivity":  # falls as thresholds rise; specificity rises
        at = (specificity < level - _ROUNDING).sum(axis=1)
        found = np.take_along_axis(
            sensitivity, np.minimum(at, sensitivity.shape[1] - 1)[:, None], axis=1
        )
    else:
        at = (sensitivity >= level - _ROUNDING).sum(axis=1) - 1
        found = np.take_along_axis(specificity, np.maximum(at, 0)[:, None], axis=1)
    defined = (n_ill[:, 0] > 0) & (n_well[:, 0] > 0)
    return np.where(defined, found[:, 0], np.nan)


def _of_decisions(question: Question, counts: NDArray[np.integer]) -> Figures:
    if question.decision is None:
        return dict.fromkeys(_OF_DECISIONS, np.full(len(counts), np.nan))
    cells = np.transpose(_cells(question)).astype(np.float64)
    found = {
        name: _ratio(*pair)
        for name, pair in _shares(*_sums(counts, question.rows, cells).T).items()
    }
    sides = found["sensitivity"] + found["specificity"]
    return found | {"balanced_accuracy": sides / 2, "f1": _f1(found["jaccard"])}


def _cells(question: Question) -> list[NDArray[np.bool_]]:
    """Return true positives, false negatives, false positives, true negatives."""
    ill, flagged = question.ill, question.decision
    assert flagged is not None  # the callers have checked it
    return [ill & flagged, ill & ~flagged, ~ill & flagged, ~ill & ~flagged]


def _shares(tp: Any, fn: Any, fp: Any, tn: Any) -> dict[str, tuple[Any, Any]]:
    """Return the numerator and the denominator of each share."""
    return {
        "accuracy": (tp + tn, tp + fn + fp + tn),
        "flagged": (tp + fp, tp + fn + fp + tn),
        "jaccard": (tp, tp + fn + fp),
        "npv": (tn, tn + fn),
        "ppv": (tp, tp + fp),
        "prevalence": (tp + fn, tp + fn + fp + tn),
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
    }


def _f1(jaccard: Any) -> Any:
    return 2 * jaccard / (1 + jaccard)


def _of_probabilities(question: Question, counts: NDArray[np.integer]) -> Figures:
    nothing = np.full(len(counts), np.nan)
    if question.probability is None:
        return {"brier": nothing, "ece": nothing}
    gap = question.ill - question.probability
    edges = np.linspace(0, 1, _BINS + 1)[1:-1]
    bins = np.searchsorted(edges, question.probability, side="left")
    columns = np.zeros((len(gap), _BINS + 2))
    columns[np.arange(len(gap)), bins] = gap
    columns[:, _BINS], columns[:, _BINS + 1] = gap**2, 1
    sums = _sums(counts, question.rows, columns)
    return {
        "brier": _ratio(sums[:, _BINS], sums[:, _BINS + 1]),
        "ece": _ratio(np.abs(sums[:, :_BINS]).sum(axis=1), sums[:, _BINS + 1]),
    }


def _sums(
    counts: NDArray[np.integer], rows: NDArray[np.intp], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum columns over the samples of each resample, weighted by their counts."""
    of_sample = np.zeros((counts.shape[1], columns.shape[1]))
    np.add.at(of_sample, rows, columns)
    result = np.empty((len(counts), columns.shape[1]))
    for start in range(0, len(counts), 256):  # avoids a float64 copy of all counts
        some = slice(start, start + 256)
        result[some] = counts[some].astype(np.float64) @ of_sample
    return result


def _ratio(
    part: NDArray[np.float64], whole: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _at_given(
    name: str, given: float, said: Any, ill: Any, who: Any, n: int
) -> Estimate:
    """Return a metric at a given threshold or prevalence."""
    if name.startswith("net_benefit"):
        return benefit_estimate(said >= given, ill, who, given, n_patients=n)
    if name.startswith("npv"):  # the PPV with the two classes exchanged
        said, ill, given = ~said, ~ill, 1 - given
    right, wrong = flagged_shares(said, ill, who, n)
    return _predictive_value(right, wrong, given)


def _predictive_value(right: Estimate, wrong: Estimate, prevalence: float) -> Estimate:
    """Return the predictive value of an answer at a prevalence, by Bayes' theorem.

    It is ``right * prevalence / (right * prevalence + wrong * (1 - prevalence))``. For
    the answer "present", ``right`` is the sensitivity and ``wrong`` the false positive
    rate. The interval follows from that of the ratio of the two shares (MOVER) [1]_.

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
