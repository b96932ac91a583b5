"""Held-out patients, and folds that keep the images of a patient together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.cli._collection import LabelledImages, Task
from sk_medsiglip.cli._console import CommandError, TooFewError
from sk_medsiglip.model_selection import (
    MultilabelStratifiedGroupKFold,
    MultilabelStratifiedGroupShuffleSplit,
)

WITHOUT_PATIENTS = (
    "Without --group-column every image counts as a patient. If patients have several "
    "images, results on held-out images are too optimistic."
)
_FOLDS = 5
Rows = NDArray[np.intp]


def hold_out(data: LabelledImages, share: float, seed: int) -> tuple[Rows, Rows]:
    """Return training rows, and test rows from a share of the patients."""
    if not 0 < share < 1:
        raise CommandError(
            f"The share to hold out is {share:g}; it must be between 0 and 1, such as "
            "0.25."
        )
    check_enough(data, "A split")
    splitter = MultilabelStratifiedGroupShuffleSplit(
        1, test_size=share, random_state=seed
    )
    train, test = next(splitter.split(data.rows, data.y, data.groups))
    if not (len(train) and len(test)):
        raise TooFewError(
            f"{len(data.rows):,} images are too few to hold out a share of {share:g}."
        )
    return train, test


def make_folds(
    task: Task, groups: NDArray[Any] | None, seed: int
) -> list[tuple[Rows, Rows]]:
    """Return up to five folds by patient, none if a label is too rare."""
    n_folds = min(_FOLDS, _scarcest(task, groups)[1])
    if n_folds < 2:
        return []
    splitter = MultilabelStratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    return list(splitter.split(task.y, task.named_labels(), groups))


def check_enough(data: LabelledImages, purpose: str) -> None:
    """Raise if there is only one patient, or if all images have the same labels."""
    if data.groups is not None and len(np.unique(data.groups)) < 2:
        raise TooFewError(
            f"There is only 1 patient (images: {len(data.rows):,}). {purpose} needs at "
            "least 2 patients with each label and 2 without it. Is --group-column the "
            "column of patients?"
        )
    truth = data.task.truth()
    if not ((truth == 1).any(axis=0) & (truth == 0).any(axis=0)).any():
        raise TooFewError(
            f"The images do not differ in {', '.join(data.task.names)} (images: "
            f"{len(truth):,}). {purpose} needs images with a label and images without "
            "it."
        )


def too_rare(task: Task, groups: NDArray[Any] | None) -> str:
    """Return a sentence on the label with too few patients for folds."""
    label, n = _scarcest(task, groups)
    unit = "image" if groups is None else "patient"
    return (
        f"There is no cross-validation, so the AUC is unknown: label {label} has {n} "
        f"{unit}{'' if n == 1 else 's'}, and folds need 2 {unit}s with each label and "
        "2 without it."
    )


def _scarcest(task: Task, groups: NDArray[Any] | None) -> tuple[str, int]:
    """Return the label or absence with the fewest patients, and their number."""
    patients = np.arange(len(task.y)) if groups is None else groups
    counts = {}
    for name, truth in zip(task.names, task.truth().T, strict=True):
        counts[repr(name)] = len(np.unique(patients[truth == 1]))
        counts[f"'not {name}'"] = len(np.unique(patients[truth == 0]))
    scarcest = min(counts, key=lambda name: counts[name])
    return scarcest, counts[scarcest]
