"""Folds of a search: the same for every head, and for all labels together."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._labels import Labels
from sk_medsiglip._splits import make_folds
from sk_medsiglip.model_selection._multilabel_splits import (
    MultilabelStratifiedGroupKFold,
)

__all__ = ["split_labels"]

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]


def split_labels(
    labels: Labels, cv: Any, groups: NDArray[Any] | None, X: NDArray[np.floating]
) -> list[Fold]:
    """Return rows to learn from and rows to be asked, fold by fold.

    Of several labels all share one split: what is fitted before a head sees no row
    that any label is asked about.

    Parameters
    ----------
    labels : Labels
        Of the rows.
    cv : int, splitter or iterable
        A number shrinks to the rows (or groups) of the rarest class, or of the rarest
        value of a label.
    groups : ndarray or None
        Such as patients.
    X : ndarray of shape (n_samples, n_features)
        Handed to splitters.

    Raises
    ------
    ValueError
        If a class, or a value of a label, is not in two folds.
    """
    if isinstance(cv, Integral) and labels.classes is None:
        cv = MultilabelStratifiedGroupKFold(min(int(cv), _rarest(labels, groups)))
    folds = make_folds(labels, cv, groups, X)
    if folds is None:
        raise _too_few()
    return [
        (np.flatnonzero(train), np.flatnonzero(test))
        for train, test in zip(folds.train, folds.test, strict=True)
    ]


def _rarest(labels: Labels, groups: NDArray[Any] | None) -> int:
    """Return in how many rows, or groups, the rarest value of any label is."""
    of = np.arange(len(labels.target)) if groups is None else groups
    fewest = min(
        len(np.unique(of[target == value]))
        for target in labels.by_label()
        for value in (0, 1)
    )
    if fewest < 2:
        raise _too_few()
    return fewest


def _too_few() -> ValueError:
    return ValueError(
        "a class, or a value of a label, has fewer than two samples (or groups): "
        "nothing can be chosen by cross-validation. Leave that label out, or take "
        "PromptProbe, which needs no folds."
    )
