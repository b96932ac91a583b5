"""What sets hold and how large they are, on images whose truth is known.

Only ``ConformalZeroShot`` imports this.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip._intervals import share_estimate
from sk_medsiglip.zero_shot._conformal_answers import Answers


def report_coverage(
    sets: NDArray[np.bool_],
    labels: NDArray[np.intp],
    patients: NDArray[np.intp],
    answers: Answers,
    level: float,
) -> pd.DataFrame:
    """Return coverage and sizes, of all images and of those of each true class.

    Parameters
    ----------
    sets : ndarray of shape (n_samples, n_classes) or (n_samples, n_findings, 2)
        Which classes are in each set.
    labels : ndarray of shape (n_samples, 1) or (n_samples, n_findings)
        Column of the true class, -1 where it is not known.
    patients : ndarray of shape (n_samples,)
        Number of each image's patient.
    answers : Answers
        Names the rows.
    level : float
        Confidence level of the intervals.

    Returns
    -------
    DataFrame
    """
    classes = [0, 1] if answers.several else answers.classes.tolist()
    rows: dict[Any, dict[str, float]] = {}
    for column, truth in enumerate(labels.T):
        of_one = sets[:, column] if answers.several else sets
        kinds = [("any", truth >= 0)]
        kinds += [(label, truth == at) for at, label in enumerate(classes)]
        for label, which in kinds:
            name = (answers.finding_names[column], label)
            rows[name if answers.several else label] = _row(
                of_one[which], truth[which], patients[which], level
            )
    index = (
        pd.MultiIndex.from_tuples(rows, names=["finding", "truth"])
        if answers.several
        else pd.Index(list(rows), name="truth", dtype=object)
    )
    return pd.DataFrame(list(rows.values()), index=index)


def _row(
    sets: NDArray[np.bool_],
    truth: NDArray[np.intp],
    patients: NDArray[np.intp],
    level: float,
) -> dict[str, float]:
    """Return coverage and sizes of some images' sets, each patient counted once.

    Parameters
    ----------
    sets : ndarray of shape (n_samples, n_classes)
        Which classes are in each set.
    truth : ndarray of shape (n_samples,)
        Column of the true class.
    patients : ndarray of shape (n_samples,)
        Number of each image's patient.
    level : float
        Confidence level of the interval, Wilson's by patient.

    Returns
    -------
    dict
        NaN throughout where there is no image.
    """
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
