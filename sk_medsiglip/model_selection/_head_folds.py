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
        rarest, what = _rarest(labels, groups)
        if rarest < 2:
            raise _too_few(what, groups)
        cv = MultilabelStratifiedGroupKFold(min(int(cv), rarest))
    folds = make_folds(labels, cv, groups, X)
    if folds is None:
        raise _too_few(_rarest(labels, groups)[1], groups)
    return folds.pairs()


def _rarest(labels: Labels, groups: NDArray[Any] | None) -> tuple[int, str]:
    """Return in how many rows, or groups, the rarest class is, and which that is.

    Of several labels it is the rarest value of any.
    """
    of = np.arange(len(labels.target)) if groups is None else groups
    found = []
    for i, target in enumerate(labels.by_label()):
        if labels.classes is not None:
            named = {k: f"class {c!r}" for k, c in enumerate(labels.classes.tolist())}
        else:
            name = (
                f"column {i} of y"
                if labels.names is None
                else repr(str(labels.names[i]))
            )
            named = {value: f"{name} is {value} in" for value in (1, 0)}
        for value, what in named.items():
            found.append((len(np.unique(of[target == value])), what))
    return min(found, key=lambda one: one[0])


def _too_few(what: str, groups: NDArray[Any] | None) -> ValueError:
    has = "" if what.endswith(" in") else " has"
    unit = "samples" if groups is None else "groups"
    return ValueError(
        f"{what}{has} fewer than two {unit}: nothing can be chosen by "
        "cross-validation. Leave it out, or take PromptProbe, which needs no folds."
    )
