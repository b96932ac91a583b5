"""Metadata exchanged between patients who carry the same labels; p-values."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray


def exchanges(
    patient: NDArray[np.intp],
    ill: NDArray[np.bool_],
    n_draws: int,
    rng: np.random.Generator,
) -> Iterator[NDArray[np.intp]]:
    """Yield for each draw the row whose metadata each row takes, ``(n_rows,)``.

    Patients with the same labels change places, and a row takes the metadata of a row
    with its label. Where the giving patient has fewer of these, some are given twice.
    """
    unit = 2 * patient + ill  # a patient's images with one label
    n_patients = int(patient.max()) + 1
    size = np.bincount(unit, minlength=2 * n_patients)
    start = np.cumsum(size) - size
    in_units = np.argsort(unit, kind="stable")
    rank = np.empty(len(unit), np.intp)
    rank[in_units] = np.arange(len(unit)) - start[unit[in_units]]
    pattern = (size.reshape(-1, 2) > 0) @ np.array([1, 2])
    alike = [np.flatnonzero(pattern == one) for one in np.unique(pattern)]
    giver = np.empty(n_patients, np.intp)
    for _ in range(n_draws):
        for patients in alike:
            giver[patients] = rng.permutation(patients)
        gives = 2 * giver[patient] + ill
        # Begin anywhere, so that the order of a patient's images has no part in it.
        first = (rng.random(len(size)) * size).astype(np.intp)
        yield in_units[start[gives] + (rank + first[gives]) % size[gives]]


def p_value(observed: float, drawn: NDArray[np.floating]) -> float:
    """Return the share of draws as large as what was observed, which counts as one.

    Values that differ by rounding alone are equal.
    """
    rounding = 1e-6 * max(1.0, abs(observed))
    return float((1 + (drawn >= observed - rounding).sum()) / (1 + len(drawn)))


def check_permutations(n_permutations: Any) -> None:
    """Raise if the number of permutations is invalid."""
    whole = isinstance(n_permutations, Integral) and n_permutations is not True
    if not whole or n_permutations < 19:
        raise ValueError(
            "n_permutations must be a whole number of at least 19, since fewer reach "
            f"no p-value of .05; got {n_permutations!r}."
        )
