"""Computation of conformal sets: scores, quantiles by patient, and coverage."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip._intervals import share_estimate
from sk_medsiglip.zero_shot._conformal_answers import Answers

#: Tolerance for sums of a few thousand weights.
_ROUNDING = 1e-9


def score_classes(
    probabilities: NDArray[np.float64], method: str
) -> NDArray[np.float64]:
    """Return the nonconformity score of each class and image, from 0 to 1.

    "lac" is 1 minus the probability of the class. "aps" is the sum of the probabilities
    of more likely classes, so that the most likely class is in every set.
    """
    if method == "lac":
        return 1 - probabilities
    order = np.argsort(-probabilities, axis=-1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=-1)
    sums = np.zeros_like(ranked)
    np.cumsum(ranked[..., :-1], axis=-1, out=sums[..., 1:])
    scores = np.empty_like(sums)
    np.put_along_axis(scores, order, sums, axis=-1)
    return scores


def class_quantiles(
    scores: NDArray[np.float64],
    labels: NDArray[np.intp],
    patients: NDArray[np.intp],
    weight: NDArray[np.float64],
    *,
    alpha: float,
    by_class: bool,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the quantiles of all classes, and the number of patients for each."""
    n_classes = scores.shape[-1]
    quantiles = np.empty((labels.shape[1], n_classes))
    counts = np.empty(quantiles.shape, dtype=np.intp)
    for column, truth in enumerate(labels.T):
        of_one = scores[:, column] if scores.ndim == 3 else scores
        of_truth = of_one[np.arange(len(truth)), truth]
        for at in range(n_classes):
            which = truth == at if by_class else truth >= 0
            quantiles[column, at], counts[column, at] = patient_quantile(
                of_truth[which], patients[which], alpha, weight[which]
            )
    return quantiles.reshape(scores.shape[1:]), counts.reshape(scores.shape[1:])


def patient_quantile(
    scores: NDArray[np.float64],
    patients: NDArray[np.intp],
    alpha: float,
    weight: NDArray[np.float64] | None = None,
) -> tuple[float, int]:
    """Return the quantile for images of new patients, and the number of patients.

    This is the weighted quantile of Lee, Barber and Willett (2023): each of K patients
    spreads a weight of 1 / (K + 1) over its images, and the remaining weight is at
    infinity, for the new patient. With one image each it is the usual
    ceil((K + 1) (1 - alpha))-th smallest score. It is infinite for too few patients.
    """
    weight = np.ones(len(patients)) if weight is None else weight
    member = np.unique(patients, return_inverse=True)[1]
    sizes = np.bincount(member, weight)
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum((weight / sizes[member])[order])
    wanted = (1 - alpha - _ROUNDING) * (len(sizes) + 1)
    at = int(np.searchsorted(reached, wanted))
    quantile = float(scores[order[at]]) if at < len(order) else np.inf
    return quantile, len(sizes)


def needed_patients(alpha: float) -> int:
    """Return the minimum number of patients for a finite quantile."""
    return max(1, ceil((1 - alpha) / alpha - _ROUNDING))


def say_few(
    answers: Answers,
    quantiles: NDArray[np.float64],
    n_patients: NDArray[np.intp],
    *,
    alpha: float,
    by_class: bool,
) -> str:
    """Return a sentence on the classes with too few patients."""
    shape = (-1, quantiles.shape[-1])
    counts = n_patients.reshape(shape)
    found = []
    for column, at in np.argwhere(np.isinf(quantiles).reshape(shape)).tolist():
        words = [str(answers.finding_names[column])] if answers.several else []
        if by_class:
            words.append(str(at if answers.several else answers.classes[at]))
        found.append(f"{' '.join(words) or 'all classes'}: {counts[column, at]}")
    return (
        f"alpha={alpha:g} needs {needed_patients(alpha)} labelled patients (images, "
        f"without groups); there are fewer of {', '.join(dict.fromkeys(found))}. Every "
        "set holds these classes: label more images, or raise alpha."
    )


def report_coverage(
    sets: NDArray[np.bool_],
    labels: NDArray[np.intp],
    patients: NDArray[np.intp],
    answers: Answers,
    level: float,
) -> pd.DataFrame:
    """Return coverage and set sizes for all images and for each true class."""
    classes = [0, 1] if answers.several else answers.classes.tolist()
    rows: list[dict[str, Any]] = []
    for column, truth in enumerate(labels.T):
        of_one = sets[:, column] if answers.several else sets
        kinds = [("any", truth >= 0)]
        kinds += [(label, truth == at) for at, label in enumerate(classes)]
        for label, which in kinds:
            name = {"finding": column, "truth": label}
            if answers.several:
                name["finding"] = answers.finding_names[column]
            figures = _row(of_one[which], truth[which], patients[which], level)
            rows.append(name | figures)
    table = pd.DataFrame(rows).astype({"truth": object})
    if answers.several:
        return table.set_index(["finding", "truth"])
    return table.drop(columns="finding").set_index("truth")


def _row(
    sets: NDArray[np.bool_],
    truth: NDArray[np.intp],
    patients: NDArray[np.intp],
    level: float,
) -> dict[str, float]:
    """Return coverage and sizes of some sets; each patient counts once."""
    _, member = np.unique(patients, return_inverse=True)
    covered = sets[np.arange(len(truth)), truth]
    size = sets.sum(axis=1)
    figures = pd.DataFrame(
        {
            "coverage": covered,
            "set_size": size,
            "single": size == 1,
            "empty": size == 0,
            "full": size == sets.shape[1],
        },
        dtype=np.float64,
    )
    by_patient = figures.groupby(member).mean()
    n_patients = len(by_patient)
    coverage, *sizes = by_patient.mean().to_numpy()
    share = share_estimate(by_patient["coverage"].to_numpy(), np.ones(n_patients))
    low, high, _ = share.interval(level)
    row = {"n": len(truth), "n_patients": n_patients, "coverage": coverage}
    row |= {"low": low, "high": high}
    return row | dict(zip(figures.columns[1:], sizes, strict=True))
