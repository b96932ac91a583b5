"""Figures of one question, in the sample and in every resample at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
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
#: Figures whose intervals need no resamples.
BY_PATIENT = {"roc_auc", "prevalence", "flagged"} | _OF_DECISIONS
_AT = re.compile(r"(sensitivity|specificity)@(sensitivity|specificity)=(0?\.\d+)")
#: Figures of another file; a number in a name is a share between 0 and 1.
FURTHER = re.compile(
    r"calibration_(slope|intercept)|(true|false)_(positives|negatives)"
    r"|(net_benefit@threshold|(ppv|npv)@prevalence)=0?\.\d*[1-9]\d*"
)
_BINS = 15  # of the calibration error, as Guo et al. (2017) have it
# Sums of weights are whole numbers, quotients of them nearly what they should be.
_ROUNDING = 1e-12

Figures = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Question:
    """Whether something is so, of some samples, and what an estimator says.

    ``rows`` are places among all samples, of which one may come more than once; ``ill``
    tells where it is so. There is no ``decision`` if nobody said from which score on it
    is so, and no ``probability`` if the estimator gives none.
    """

    label: Any
    rows: NDArray[np.intp]
    ill: NDArray[np.bool_]
    score: NDArray[np.float64]
    decision: NDArray[np.bool_] | None
    probability: NDArray[np.float64] | None

    @property
    def risk(self) -> NDArray[np.float64]:
        """Probabilities, which users can compare with a threshold; else scores."""
        return self.score if self.probability is None else self.probability

    def among(self, chosen: NDArray[np.bool_]) -> Question:
        """Return the question asked of some samples only."""
        kept = chosen[self.rows]
        parts: Any = self.rows, self.ill, self.score, self.decision, self.probability
        of_some: Any = [None if one is None else one[kept] for one in parts]
        return Question(self.label, *of_some)

    def of_patients(self, patients: NDArray[np.intp], how: str) -> Question:
        """Return the question asked of whole patients, each in the first sample's row.

        With "max" the highest score counts and any flagged image flags the patient;
        with "mean" the mean score, and more than half of the images must flag.
        """
        _, first = np.unique(patients, return_index=True)
        ids, who = np.unique(patients[self.rows], return_inverse=True)

        def joined(values: Any, how: str = how) -> Any:
            return values if values is None else pd.Series(values).groupby(who).agg(how)

        decision = joined(self.decision)
        return Question(
            self.label,
            first[ids],
            joined(self.ill, "max").to_numpy(),
            joined(self.score).to_numpy(),
            None if decision is None else decision.to_numpy() > 0.5,
            None if self.probability is None else joined(self.probability).to_numpy(),
        )


def check_metrics(metrics: Any, *, further: bool = True) -> tuple[str, ...]:
    """Return names of metrics, checked; those of :data:`FURTHER` if they may come."""
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
        raise ValueError("metrics is empty; leave it None for the default ones.")
    return wanted


def figures(
    question: Question, counts: NDArray[np.integer], metrics: tuple[str, ...]
) -> Figures:
    """Compute figures in every resample, NaN where one is not defined."""
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
) -> dict[str, Estimate]:
    """Return figures with their intervals.

    The first row of ``counts`` is the sample itself, the others are resamples. With the
    number of each sample's patient, intervals need no resamples where one is known.
    """
    by_patient = set() if patients is None else BY_PATIENT
    drawn = figures(question, counts, tuple(m for m in metrics if m not in by_patient))
    # Percentiles of it hold the truth 0 to 16 % of the time.
    notes = {"ece": "a calibration error is larger in resamples"}
    found = {
        name: resampled_estimate(one[0], one[1:], notes.get(name, ""))
        for name, one in drawn.items()
    }
    if patients is None:
        return found
    who, n_patients = patients[question.rows], int(patients.max(initial=-1)) + 1
    if "roc_auc" in metrics:
        found["roc_auc"] = area_estimate(question.ill, question.score, who, n_patients)
    if _OF_DECISIONS & set(metrics):
        cells = np.zeros((4, n_patients))
        if question.decision is not None:
            for cell, which in zip(cells, _cells(question), strict=True):
                cell += np.bincount(who, which, n_patients)
        shares = {m: share_estimate(*pair) for m, pair in _shares(*cells).items()}
        sides = shares["sensitivity"], shares["specificity"]
        found |= shares | {
            "balanced_accuracy": combine(sides, (0.5, 0.5)),
            "f1": shares["jaccard"].mapped(_f1),
        }
    return {name: found[name] for name in metrics}


def resamples(
    n_samples: int,
    groups: ArrayLike | None,
    n_bootstrap: int,
    level: float,
    random_state: int,
) -> NDArray[np.int32]:
    """Return how often each sample is in each resample, the sample itself first."""
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
    """Return the sum of precisions, weighted by what each threshold adds to recall."""
    # From the highest score down: so many are flagged at this threshold.
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
    """Return the best sensitivity at a specificity, or the reverse."""
    match = _AT.fullmatch(name)
    assert match is not None  # check_metrics has seen to it
    wanted, level = match[1], float(match[3])
    nobody = np.zeros((len(ill), 1))
    # Flagged is whoever reaches a score; above the highest nobody does.
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
    """Return who was found, missed, flagged in vain, and rightly spared."""
    ill, flagged = question.ill, question.decision
    assert flagged is not None  # the callers have seen to it
    return [ill & flagged, ill & ~flagged, ~ill & flagged, ~ill & ~flagged]


def _shares(tp: Any, fn: Any, fp: Any, tn: Any) -> dict[str, tuple[Any, Any]]:
    """Return of each share what counts, and out of what."""
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
    """Sum columns over the samples of each resample, as often as they were drawn."""
    of_sample = np.zeros((counts.shape[1], columns.shape[1]))
    np.add.at(of_sample, rows, columns)
    result = np.empty((len(counts), columns.shape[1]))
    for start in range(0, len(counts), 256):  # no float64 copy of all counts
        some = slice(start, start + 256)
        result[some] = counts[some].astype(np.float64) @ of_sample
    return result


def _ratio(
    part: NDArray[np.float64], whole: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
