"""Training examples: images with texts or labels, and their patients.

They are checked against each other before any image is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip._labels import Labels, check_labels
from sk_medsiglip._splits import check_groups
from sk_medsiglip.encoder import Checkpoint
from sk_medsiglip.fine_tuning._settings import Settings
from sk_medsiglip.fine_tuning._texts import (
    KeptTexts,
    TrueTexts,
    caption_texts,
    kept_texts,
    prompt_texts,
    text_tokens,
)
from sk_medsiglip.images import image_rows

# Minimum number of rows with a label, and of rows without it.
_FEWEST = 2

# Number of random orders of patients to try; the most balanced split is used.
_TRIES = 200


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows to train on. ``texts`` is None for classification."""

    sources: Sequence[Any]
    patients: NDArray[np.intp]
    labels: Labels | None
    texts: TrueTexts | None
    token_ids: NDArray[np.int64] | None
    kept: KeptTexts | None
    kept_token_ids: NDArray[np.int64] | None

    @property
    def has_exclusive_classes(self) -> bool:
        """Whether each image has one of three or more classes."""
        labels = self.labels
        return labels is not None and labels.classes is not None and labels.n_rows > 1

    @cached_property
    def targets(self) -> NDArray[Any] | None:
        """Targets of the classifier: indices of classes; or 1, 0 and NaN."""
        if self.texts is not None or self.labels is None:
            return None
        kind = np.int64 if self.has_exclusive_classes else np.float64
        return self.labels.target.astype(kind)

    def split(self, fraction: float | None, seed: int) -> NDArray[np.bool_]:
        """Return which rows are left out for validation."""
        if fraction is None:
            return np.zeros(len(self.sources), dtype=bool)
        table, names = (None, []) if self.labels is None else _table(self.labels)
        return split_patients(self.patients, fraction, table, names, seed)


def check_examples(
    settings: Settings,
    X: ArrayLike,
    y: Any,
    groups: ArrayLike | None,
    checkpoint: Checkpoint,
) -> Examples:
    """Check images, texts or labels, and patients against each other."""
    sources = image_rows(X)
    if y is None:
        raise ValueError(
            "MedSigLIPFineTuner requires y to be passed, but the target y is None. "
            "Pass captions or labels."
        )
    patients = np.arange(len(sources))
    if groups is not None:
        # Sorted by name, so that the split does not depend on the order of rows.
        names = check_groups(groups, len(sources)).astype(str)
        patients = np.unique(names, return_inverse=True)[1]
    labels, texts = None, None
    if settings.classifies or settings.prompts is not None:
        labels = check_labels(None, sources, y)
        _check_counts(labels)
    if not settings.classifies:
        texts = (
            caption_texts(y, len(sources))
            if labels is None
            else prompt_texts(settings.prompts, settings.templates, y, labels)
        )
    kept = kept_texts(settings.keep)
    return Examples(
        sources,
        patients,
        labels,
        texts,
        None if texts is None else text_tokens(texts, checkpoint),
        kept,
        None if kept is None else text_tokens(kept, checkpoint),
    )


def _table(labels: Labels) -> tuple[NDArray[np.float64], list[str]]:
    """Return a column of 1, 0 and NaN for each class or label, and their names."""
    if labels.classes is not None:
        table = np.eye(len(labels.classes))[labels.target]
        return table, [str(one) for one in labels.classes]
    n = labels.target.shape[1]
    names = list(map(str, range(n))) if labels.names is None else labels.names
    return labels.target, [str(name) for name in names]


def _check_counts(labels: Labels) -> None:
    """Raise if a class or label has too few images with it, or without it."""
    table, names = _table(labels)
    for value, word in ((1, "positive"), (0, "negative")):
        count = (table == value).sum(axis=0)
        few = np.flatnonzero(count < _FEWEST)
        if not few.size:
            continue
        name, rows = names[few[0]], np.flatnonzero(table[:, few[0]] == value)
        if labels.classes is None:
            raise ValueError(
                f"column {name!r} of y has {len(rows)} {word} rows. A label needs at "
                "least two of either kind. Add images, or drop the column."
            )
        raise ValueError(
            f"class {name!r} has one image, row {rows[0]}. A class needs at least two, "
            "and little can be learned from fewer than ten. Add images, merge it with "
            "another class, or drop the row."
        )


def positive_weights(
    given: Any, examples: Examples, rows: NDArray[np.intp]
) -> NDArray[np.float32] | None:
    """Return the weights of positives, or of classes, computed for "balanced"."""
    labels = examples.labels
    if given is None or labels is None:
        return None
    exclusive, n_needed = examples.has_exclusive_classes, labels.n_rows
    if isinstance(given, str):
        target = labels.target[rows]
        if exclusive:
            count = np.bincount(target, minlength=n_needed)
            return (len(target) / (n_needed * count)).astype(np.float32)
        table = target.reshape(len(target), -1)
        balance = (table == 0).sum(axis=0) / (table == 1).sum(axis=0)
        return balance.astype(np.float32)
    weights = np.asarray(given, dtype=np.float64).ravel()
    if weights.size == 1 and not exclusive:
        weights = np.repeat(weights, n_needed)
    if weights.size != n_needed or not np.isfinite(weights).all() or weights.min() <= 0:
        raise ValueError(
            f"pos_weight must be {n_needed} positive numbers, one for each "
            f"{'class' if exclusive else 'label'}, or 'balanced'; got {given!r}."
        )
    return weights.astype(np.float32)


def split_patients(
    patients: NDArray[np.intp],
    fraction: float,
    target: NDArray[np.floating] | None,
    names: list[str],
    seed: int,
) -> NDArray[np.bool_]:
    """Choose the validation rows by whole patients.

    Each label (a column of 1, 0 and NaN) has positives and negatives on both sides, and
    about the same share of positives.
    """
    members, sizes = np.unique(patients, return_counts=True)
    if len(members) < 2:
        raise ValueError(
            "All rows belong to one patient, and a validation split needs several. "
            "Pass validation_fraction=None, or groups with several patients."
        )
    rng = np.random.default_rng([seed, 1])
    best: NDArray[np.bool_] | None = None
    least, missing = np.inf, ""
    for _ in range(_TRIES):
        order = rng.permutation(len(members))
        n_taken = 1 + np.argmin(
            np.abs(np.cumsum(sizes[order])[:-1] - fraction * len(patients))
        )
        chosen = np.isin(patients, members[order[:n_taken]])
        if target is None:
            return chosen
        if lacks := _missing_side(target, chosen, names):
            missing = lacks
            continue
        gap = np.nanmean(target[chosen], axis=0) - np.nanmean(target[~chosen], axis=0)
        cost = float(np.abs(gap).sum())
        if cost < least:
            best, least = chosen, cost
    if best is None:
        raise ValueError(
            f"No split by patient into {fraction:.0%} validation rows was found in "
            f"which every label can be scored: {missing}. Use a larger "
            "validation_fraction, more patients, or validation_fraction=None."
        )
    return best


def _missing_side(
    target: NDArray[np.floating], chosen: NDArray[np.bool_], names: list[str]
) -> str:
    """Return a sentence on a label without positives or negatives on one side."""
    for side, rows in (("validation", chosen), ("training", ~chosen)):
        for word, value in (("positives", 1), ("negatives", 0)):
            none = np.flatnonzero(~(target[rows] == value).any(axis=0))
            if none.size:
                return f"{side} would have no {word} of {names[none[0]]!r}"
    return ""
