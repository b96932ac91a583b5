"""Patients permuted within strata: what chance does to a column of metadata."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def permuted_rows(
    patient: NDArray[np.intp],
    stratum: NDArray[np.intp],
    n_draws: int,
    rng: np.random.Generator,
) -> NDArray[np.intp]:
    """Return for each draw and row the row whose value it takes, ``(n_draws, n_rows)``.

    Patients of one stratum change places. The images of a patient take the values of
    one other patient's images in turn, so that values which a patient's images share
    stay shared. ``patient`` and ``stratum`` are numbers from 0 on; the rows of a
    patient are of one stratum.
    """
    by_patient = np.argsort(patient, kind="stable")
    size = np.bincount(patient)
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    of_patient = np.zeros(len(size), np.intp)
    of_patient[patient] = stratum
    members = [np.flatnonzero(of_patient == one) for one in np.unique(stratum)]
    turn = np.zeros(len(patient), np.intp)
    turn[by_patient] = np.arange(len(patient)) - np.repeat(start, size)
    donors = np.arange(len(size))
    rows = np.empty((n_draws, len(patient)), np.intp)
    for draw in rows:
        for same in members:
            donors[same] = rng.permutation(same)
        donor = donors[patient]
        draw[:] = by_patient[start[donor] + turn % size[donor]]
    return rows


def p_value(observed: float, drawn: NDArray[np.floating]) -> float:
    """Return the share of draws as large as what was observed, which counts as one.

    Values that differ by rounding alone are equal.
    """
    rounding = 1e-9 * max(1.0, abs(observed))
    return float((1 + (drawn >= observed - rounding).sum()) / (1 + len(drawn)))
