"""Held-out patients and folds that keep a patient's images together."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from sk_medsiglip.cli._errors import CommandError, TooFewError
from sk_medsiglip.cli._labels import Task

__all__ = ["Split", "check_enough", "make_folds", "split_patients", "too_rare"]

_FOLDS = 5
# One part in three is held out: its AUC must be steady enough to compare by.
_PARTS = 3
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Split:
    """Rows to learn from, rows held out, and folds of the former.

    Parameters
    ----------
    train, test : ndarray of int
        Rows of the collection; no patient is in both.
    folds : list of (ndarray, ndarray)
        Positions in ``train``, as ``GridSearchCV(cv=...)`` takes them.
    """

    train: Rows
    test: Rows
    folds: list[tuple[Rows, Rows]]


def split_patients(task: Task, groups: NDArray[Any] | None, seed: int) -> Split:
    """Hold out a third of the patients, and make folds of the others.

    Parameters
    ----------
    task : Task
        Its labels are spread evenly, as far as whole patients allow.
    groups : ndarray or None
        Patient of each image; None takes every image as a patient of its own.
    seed : int
        Of the shuffling.

    Returns
    -------
    Split
        Of five folds, or of fewer where a label is too rare.

    Raises
    ------
    CommandError
        If a label has fewer than three patients: one to hold out, two for folds.
    """
    # Groups of one image make StratifiedGroupKFold a StratifiedKFold.
    patients = np.arange(len(task.y)) if groups is None else groups
    scarcest, count = _scarcest(task, patients)
    if count < _PARTS:
        unit = "images" if groups is None else "patients"
        raise CommandError(
            f"Label {scarcest} has {count} {unit}; the comparison needs at least "
            f"{_PARTS} with it and {_PARTS} without: one to hold out, two for "
            "cross-validation. Add images, or leave that label out."
        )
    train, test = _split(task, patients, min(_PARTS, count), seed)[0]
    of_train = task.rows(train)
    _, count = _scarcest(of_train, patients[train])
    if count < 2:
        raise CommandError(
            f"Label {scarcest} is too rare: fewer than two patients are left to learn "
            "from. Add images, or leave that label out."
        )
    return Split(
        train, test, _split(of_train, patients[train], min(_FOLDS, count), seed)
    )


def check_enough(task: Task, groups: NDArray[Any] | None, wish: str) -> None:
    """Raise if all images are of one patient, or alike in every label.

    Parameters
    ----------
    task : Task
        The labels.
    groups : ndarray or None
        Patient of each image; None says nothing.
    wish : str
        The work that takes two of each, such as "Training".

    Raises
    ------
    TooFewError
        With the number of images and patients, and what is needed.
    """
    if groups is not None and len(np.unique(groups)) < 2:
        raise TooFewError(
            f"There is 1 patient only (images: {len(groups):,}). {wish} takes at least "
            "2 patients with each label and 2 without it, since images of one patient "
            "cannot tell patients apart. Is --group-column the column of patients?"
        )
    present = task.indicators()
    absent = task.y == 0 if task.kind == "findings" else ~present
    if not (present.any(axis=0) & absent.any(axis=0)).any():
        raise TooFewError(
            f"The images do not differ in {', '.join(task.names)} (images: "
            f"{len(task.y):,}). {wish} takes images with a label and images without it."
        )


def too_rare(task: Task, groups: NDArray[Any] | None) -> str:
    """Return which label has too few patients for folds, as a sentence."""
    patients = np.arange(len(task.y)) if groups is None else groups
    label, n = _scarcest(task, patients)
    unit = "image" if groups is None else "patient"
    return (
        f"There is no cross-validation, and nothing is known of the AUC: label {label} "
        f"has {n} {unit}{'' if n == 1 else 's'}, and folds need 2 {unit}s with each "
        "label and 2 without it."
    )


def make_folds(
    task: Task, groups: NDArray[Any] | None, seed: int
) -> list[tuple[Rows, Rows]]:
    """Return five folds that keep patients together, fewer where a label is rare.

    None, an empty list, where a label has fewer than two patients.
    """
    if task.kind == "findings":  # what is not known is spread like what is absent
        task = replace(task, y=np.nan_to_num(task.y).astype(np.int64))
    patients = np.arange(len(task.y)) if groups is None else groups
    n_folds = min(_FOLDS, _scarcest(task, patients)[1])
    return _split(task, patients, n_folds, seed) if n_folds > 1 else []


def _split(
    task: Task, patients: NDArray[Any], n_splits: int, seed: int
) -> list[tuple[Rows, Rows]]:
    folds = StratifiedGroupKFold(n_splits, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A rare combination of findings may have fewer members than there are folds.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return list(folds.split(patients, _strata(task, n_splits), patients))


def _strata(task: Task, n_splits: int) -> NDArray[np.intp]:
    """Return one class a row: of several findings the combination, or the rarest."""
    if task.kind != "findings":
        return np.unique(task.y, return_inverse=True)[1]
    _, combination, counts = np.unique(
        task.y, axis=0, return_inverse=True, return_counts=True
    )
    combination = combination.ravel()
    frequency = task.y.sum(axis=0)
    rarest = np.where(task.y == 1, frequency, len(task.y) + 1).argmin(axis=1)
    too_few = counts[combination] < 2 * n_splits
    return np.where(too_few, len(counts) + rarest, combination)


def _scarcest(task: Task, patients: NDArray[Any]) -> tuple[str, int]:
    """Return the label value with the fewest patients, and their number."""
    counts = {}
    for name, truth in zip(task.names, task.indicators().T, strict=True):
        counts[repr(name)] = len(np.unique(patients[truth]))
        counts[f"'not {name}'"] = len(np.unique(patients[~truth]))
    scarcest = min(counts, key=lambda name: counts[name])
    return scarcest, counts[scarcest]
