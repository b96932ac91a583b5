"""Permutation test of the gap between a subgroup and the others.

Under the null hypothesis, images with the same label are alike inside and outside the
subgroup, so that patients with the same label pattern are exchangeable. The test is
valid for subgroups of any size, while resamples of three patients are not.
"""

from __future__ import annotations

from itertools import combinations, product
from math import comb, prod

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.evaluation._answers import Question

_LARGEST_P = 0.05  # a test that cannot reach it is not reported
_ROUNDING = 1e-9


def permuted_members(
    questions: list[Question],
    inside: NDArray[np.bool_],
    outside: NDArray[np.bool_],
    patients: NDArray[np.intp],
    n_draws: int,
    random_state: int,
) -> NDArray[np.bool_]:
    """Permute patients with the same label pattern between a subgroup and the rest.

    If a patient has images on both sides, those with the same label pattern are
    permuted. The first row is the observed subgroup. The others are all other
    arrangements, or ``n_draws`` random ones if there are more.
    """
    n_samples = len(patients)
    asked = np.zeros(n_samples, dtype=bool)
    for question in questions:
        asked[question.rows] = True
    asked &= inside | outside
    straddles = np.isin(patients, np.intersect1d(
        patients[inside & asked], patients[outside & asked]
    ))  # fmt: skip
    # The units to permute: patients, or single images of patients on both sides.
    whole = np.where(straddles, patients.max() + 1 + np.arange(n_samples), patients)
    _, unit = np.unique(whole[asked], return_inverse=True)
    traits = np.zeros((unit.max(initial=-1) + 1, 2 * len(questions) + 1), dtype=int)
    traits[unit, -1] = np.where(straddles, 1 + patients, 0)[asked]
    place = np.cumsum(asked) - 1
    for k, question in enumerate(questions):
        own = asked[question.rows]
        traits[unit[place[question.rows[own]]], 2 * k + question.ill[own]] = 1
    member = np.zeros(len(traits), dtype=bool)
    member[unit] = inside[asked]
    _, stratum = np.unique(traits, axis=0, return_inverse=True)
    arranged = _arrangements(member, stratum.ravel(), n_draws, random_state)
    result = np.zeros((len(arranged), n_samples), dtype=bool)
    result[:, asked] = arranged[:, unit]
    return result


def _arrangements(
    member: NDArray[np.bool_],
    stratum: NDArray[np.intp],
    n_draws: int,
    random_state: int,
) -> NDArray[np.bool_]:
    """Return the observed arrangement, then all others or random ones."""
    strata = [np.flatnonzero(stratum == one) for one in np.unique(stratum)]
    n_inside = [int(member[units].sum()) for units in strata]
    ways = [comb(len(units), k) for units, k in zip(strata, n_inside, strict=True)]
    n_all = prod(ways)
    if n_all <= 1 + n_draws:
        choices = [
            combinations(units.tolist(), k)
            for units, k in zip(strata, n_inside, strict=True)
        ]
        every = np.zeros((n_all, len(member)), dtype=bool)
        for row, chosen in zip(every, product(*choices), strict=True):
            row[[unit for some in chosen for unit in some]] = True
        others = every[(every != member).any(axis=1)]
    else:
        keys = np.random.default_rng(random_state).random((n_draws, len(member)))
        shuffled = np.argsort(stratum + keys, axis=1)
        others = np.empty(keys.shape, dtype=bool)
        in_order = member[np.argsort(stratum, kind="stable")]
        np.put_along_axis(others, shuffled, np.tile(in_order, (n_draws, 1)), axis=1)
    return np.vstack([member, others])


def gap_p_value(gaps: NDArray[np.float64]) -> tuple[float, str]:
    """Return the two-sided p-value of a gap, and a note on the gap that can be found.

    The p-value is NaN if values of 0.05 or less cannot occur.
    """
    if np.isnan(gaps[0]):
        return np.nan, ""
    # Undefined gaps count as large, which makes the p-value larger.
    sizes = np.sort(np.nan_to_num(np.abs(gaps), nan=np.inf))
    at_least = 1 - np.searchsorted(sizes, sizes - _ROUNDING) / len(sizes)
    found = np.flatnonzero((at_least <= _LARGEST_P) & np.isfinite(sizes))
    if not len(found):
        return np.nan, "too few patients to say whether they differ"
    p_value = 1 - np.searchsorted(sizes, abs(gaps[0]) - _ROUNDING) / len(sizes)
    needed = sizes[found[0]]
    return float(p_value), f"a true gap of {needed:.3f} is found half the time"
