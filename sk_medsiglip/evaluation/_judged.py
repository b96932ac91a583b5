"""Rows of the table that ``evaluate`` returns: metrics, differences and gaps."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._intervals import Bounds, Estimate, combine
from sk_medsiglip.evaluation._answers import Question, Truth
from sk_medsiglip.evaluation._figures import FURTHER, estimates
from sk_medsiglip.evaluation._permutations import gap_p_value, permuted_members

Judge = Callable[[Question, tuple[str, ...]], dict[str, Estimate]]

#: Suffix of a subgroup's name for the gap between it and the others.
REST = " - rest"
# Patients on each side below which intervals of resampled gaps cover too little.
_FEW = 100


@dataclass(frozen=True, eq=False)
class Figure:
    """A row of the table, before its interval is computed."""

    estimator: str
    label: Any
    metric: str
    subgroup: str
    estimate: Estimate
    n: int
    n_positive: int
    #: The p-value of a gap, and its note. Differences use that of their interval.
    tested: tuple[float, str] | None = None
    is_difference: bool = False
    few: int | None = None

    def row(self, level: float) -> tuple[Any, ...]:
        """Return the row, without Holm's p-value, which depends on all rows."""
        estimate = self.estimate
        low, high, note = estimate.interval(level)
        if self.few is not None and estimate.draws is not None:
            low, high, note = Bounds(np.nan, np.nan, f"{self.few} patients")
        notes = [f"no interval: {note}"] if note else []
        p_value = estimate.p_value() if self.is_difference else np.nan
        if self.tested is not None:
            p_value = self.tested[0]
            notes += [self.tested[1]] if self.tested[1] else []
        n_undefined = (
            0 if estimate.draws is None else int(np.isnan(estimate.draws).sum())
        )
        asked = self.estimator, self.label, self.metric, self.subgroup
        found = estimate.value, low, high, p_value, np.nan
        return *asked, *found, self.n, self.n_positive, n_undefined, "; ".join(notes)


@dataclass(frozen=True, eq=False)
class Measure:
    """Computes the metrics of all labels, with their mean and pooled over labels."""

    metrics: tuple[str, ...]
    truth: Truth
    left_out: set[int]

    def __call__(
        self,
        name: str,
        subgroup: str,
        questions: list[Question],
        chosen: NDArray[np.bool_],
        judge: Judge,
    ) -> list[Figure]:
        """Return the metrics of one estimator on some of the samples."""
        exclusive = self.truth.kind == "classes"
        names = self.metrics
        if exclusive and "sensitivity" not in names:
            names = (*names, "sensitivity")
        asked = [question.among(chosen) for question in questions]
        each = [judge(question, names) for question in asked]
        found = [
            Figure(name, question.label, metric, subgroup, of_label[metric],
                   len(question.ill), int(question.ill.sum()))
            for question, of_label in zip(asked, each, strict=True)
            for metric in self.metrics
        ]  # fmt: skip
        if len(asked) == 1:
            return found
        pooled = _pool(asked)
        micro = judge(pooled, names)
        whole = [one for k, one in enumerate(each) if k not in self.left_out]
        shares = [1 / len(whole)] * len(whole) if whole else [np.nan]
        # The mean is over the same labels in all subgroups, so it can be undefined.
        mean = {m: combine([one[m] for one in whole or [micro]], shares) for m in names}
        with_any = np.unique(pooled.rows[pooled.ill])
        sizes = {
            "macro": (int(chosen.sum()), len(with_any)),
            "micro": (len(pooled.ill), int(pooled.ill.sum())),
        }
        of_all = {"macro": mean, "micro": micro}
        if exclusive:  # one answer per image, as in scikit-learn
            same = {
                "accuracy": micro["sensitivity"],
                "balanced_accuracy": mean["sensitivity"],
            }
            if "brier" in self.metrics:
                same["brier"] = combine([micro["brier"]], [len(asked)])
            of_all = {label: {**one, **same} for label, one in of_all.items()}
        return found + [
            Figure(name, label, metric, subgroup, one[metric], *sizes[label])
            for metric in self.metrics
            for label, one in of_all.items()
        ]


def _pool(questions: list[Question]) -> Question:
    """Join the questions of all labels into one."""

    def joined(parts: list[Any]) -> Any:
        return None if any(one is None for one in parts) else np.concatenate(parts)

    names = ("rows", "ill", "score", "decision", "probability")
    parts = [joined([getattr(one, name) for one in questions]) for name in names]
    return Question("micro", *parts)


def differences(a: list[Figure], b: list[Figure]) -> list[Figure]:
    """Return the paired differences of two estimators."""
    return [
        replace(
            one,
            estimator=f"{one.estimator} - {other.estimator}",
            estimate=combine([one.estimate, other.estimate], [1, -1]),
            is_difference=True,
        )
        for one, other in zip(a, b, strict=True)
    ]


def gaps(
    found: list[Figure],
    members: Mapping[str, NDArray[np.bool_]],
    asked: Mapping[str, list[Question]],
    measure: Measure,
    judge: Judge,
    patients: NDArray[np.intp],
    permutation: Mapping[str, Any],
) -> list[Figure]:
    """Return the difference between each subgroup and the rest, for each estimator.

    Calibration errors are left out, since they are larger in smaller groups, and so
    are metrics that a permutation of patients cannot test.
    """
    metrics = [m for m in measure.metrics if m != "ece" and not FURTHER.fullmatch(m)]
    measure = replace(measure, metrics=tuple(metrics))
    of = {(f.estimator, f.label, f.metric, f.subgroup): f for f in found}
    rows = []
    for subgroup, chosen in members.items():
        variable = subgroup.partition("=")[0]
        alike = [m for s, m in members.items() if s.startswith(f"{variable}=")]
        known = chosen if subgroup == "all" else np.any(alike, axis=0)
        rest = known & ~chosen
        if not metrics or not rest.any():
            continue
        few = min(len(np.unique(patients[side])) for side in (chosen, rest))
        for name, questions in asked.items():
            by = partial(measure, name, "")
            permuted = _permuted_gaps(
                by, questions, measure.truth, chosen, rest, patients, permutation
            )
            for other in by(questions, rest, judge):
                own = of[name, other.label, other.metric, subgroup]
                gap = replace(
                    own,
                    subgroup=f"{subgroup}{REST}",
                    estimate=combine([own.estimate, other.estimate], [1, -1]),
                    tested=gap_p_value(permuted[other.label, other.metric]),
                    few=few if few < _FEW else None,
                )
                rows.append(gap)
    return rows


def _permuted_gaps(
    measure: Callable[..., list[Figure]],
    questions: list[Question],
    truth: Truth,
    chosen: NDArray[np.bool_],
    rest: NDArray[np.bool_],
    patients: NDArray[np.intp],
    permutation: Mapping[str, Any],
) -> dict[tuple[Any, str], NDArray[np.float64]]:
    """Return each gap, observed first and then with permuted patients."""
    found = {}
    # Each finding is permuted by its own labels, and their mean by all labels.
    singly = [[one] for one in questions] if truth.kind == "findings" else []
    for some in [questions, *singly]:
        inside = permuted_members(some, chosen, rest, patients, **permutation)
        sides = [
            measure(some, chosen | rest, lambda q, m, c=counts: estimates(q, c, m))
            for counts in (inside, (chosen | rest) & ~inside)
        ]
        for own, other in zip(*sides, strict=True):
            gap = combine([own.estimate, other.estimate], [1, -1])
            assert gap.draws is not None  # counts were given without patients
            found[own.label, own.metric] = np.r_[gap.value, gap.draws]
    return found


def labels_of_one_kind(questions: list[Question]) -> set[int]:
    """Return the positions of labels of one kind, with a warning that names them."""
    single = {
        k for k, one in enumerate(questions) if one.ill.all() or not one.ill.any()
    }
    if single:
        names = ", ".join(repr(str(questions[k].label)) for k in sorted(single))
        warnings.warn(
            f"{names}: images of one kind only. Areas and sensitivities are undefined, "
            'and "macro" is the mean of the other labels.',
            UserWarning,
            stacklevel=4,
        )
    return single
