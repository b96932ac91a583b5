"""A validation split in which patients never cross, and every label can be judged."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["split_patients"]

# Random orders of patients that are tried; the one whose labels are shared out best
# is taken.
_TRIES = 200


def split_patients(
    groups: NDArray[np.intp],
    fraction: float,
    target: NDArray[np.floating] | None,
    names: list[str],
    seed: int,
) -> NDArray[np.bool_]:
    """Choose the rows of validation.

    Parameters
    ----------
    groups : ndarray of shape (n_samples,), int
        Patients.
    fraction : float
        Share of the rows, as nearly as whole patients allow.
    target : ndarray of shape (n_samples, n_labels) or None
        1, 0, and NaN where a label is not known. Shares of positives are kept, and
        both sides of the split get positives and negatives.
    names : list of str
        Of the labels, for messages.
    seed : int
        Equal seeds give equal splits.

    Returns
    -------
    ndarray of shape (n_samples,), bool
        True in validation.

    Raises
    ------
    ValueError
        If there are fewer than two patients, or a label cannot be on both sides.
    """
    patients, sizes = np.unique(groups, return_counts=True)
    if len(patients) < 2:
        raise ValueError(
            "All rows are of one patient; a validation split needs others. Pass "
            "validation_fraction=None, or groups with several patients."
        )
    rng = np.random.default_rng([seed, 1])
    best: NDArray[np.bool_] | None = None
    least, lacking = np.inf, ""
    for _ in range(_TRIES if target is not None else 1):
        order = rng.permutation(len(patients))
        n_taken = 1 + np.argmin(
            np.abs(np.cumsum(sizes[order])[:-1] - fraction * len(groups))
        )
        chosen = np.isin(groups, patients[order[:n_taken]])
        if target is None:
            return chosen
        lack = _lacking(target, chosen, names)
        if lack:
            lacking = lack
            continue
        cost = _unevenness(target, chosen)
        if cost < least:
            best, least = chosen, cost
    if best is None:
        raise ValueError(
            f"No validation split of {fraction:.0%} of the rows by whole patients can "
            f"judge every label: {lacking}. Use a larger validation_fraction, more "
            "patients, or validation_fraction=None."
        )
    return best


def _lacking(
    target: NDArray[np.floating], chosen: NDArray[np.bool_], names: list[str]
) -> str:
    """Return what one side of a split has nothing of."""
    for side, rows in (("validation", chosen), ("training", ~chosen)):
        for word, value in (("positives", 1), ("negatives", 0)):
            none = np.flatnonzero(~(target[rows] == value).any(axis=0))
            if none.size:
                return f"{side} would have no {word} of {names[none[0]]!r}"
    return ""


def _unevenness(target: NDArray[np.floating], chosen: NDArray[np.bool_]) -> float:
    gap = np.nanmean(target[chosen], axis=0) - np.nanmean(target[~chosen], axis=0)
    return float(np.abs(gap).sum())


def one_column_a_class(index: NDArray[Any], n_classes: int) -> NDArray[np.float64]:
    """Return 1 in the column of each row's class, else 0."""
    return np.eye(n_classes)[index]
