"""Permutation test of the gap between a subgroup and the others.

Under the hypothesis that is tested, images with the same label are alike in the
subgroup and outside, so that patients of one label pattern may change places. That
holds at every size of the subgroup; resamples of three patients do not.
"""

from __future__ import annotations

from itertools import combinations, product
from math import comb, prod

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.evaluation._answers import Question

_LARGEST_P = 0.05  # a test that cannot reach it says nothing
_ROUNDING = 1e-9


def permuted_members(
    questions: list[Question],
    inside: NDArray[np.bool_],
    outside: NDArray[np.bool_],
    patients: NDArray[np.intp],
    n_draws: int,
    random_state: int,
) -> NDArray[np.bool_]:
    """Let patients of one label pattern change places between a subgroup and the rest.

    Of a patient with images on both sides the images change places, those of one label
    pattern. The first row is the subgroup as it is; the others are all arrangements,
    each once, or ``n_draws`` where there are more.
    """
    n_samples = len(patients)
    asked = np.zeros(n_samples, dtype=bool)
    for question in questions:
        asked[question.rows] = True
    asked &= inside | outside
    straddles = np.isin(patients, np.intersect1d(
        patients[inside & asked], patients[outside & asked]
    ))  # fmt: skip
    # The units that change places: patients, or images of a patient on both sides.
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
    """Return the arrangement there is, then all others, or some drawn at random."""
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
    """Return the p-value of a gap, and a note on the gap that could be found.

    The p-value is two-sided, and NaN where none of 0.05 or less can be reached.
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
