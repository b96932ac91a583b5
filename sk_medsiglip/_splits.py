"""Folds for choosing a penalty, also where labels are few or not known."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, check_cv

from sk_medsiglip._labels import Labels

__all__ = ["Folds", "make_folds"]


@dataclass(frozen=True, eq=False)
class Folds:
    """Who learns and who is asked, fold by fold.

    Parameters
    ----------
    train, test : bool ndarrays
        ``(n_folds, n_samples)``, or ``(n_folds, n_samples, n_labels)`` where every
        label has folds of its own. A label with fewer folds than others has empty ones.
    """

    train: NDArray[np.bool_]
    test: NDArray[np.bool_]


def make_folds(
    labels: Labels, cv: Any, groups: NDArray[Any] | None, X: NDArray[np.floating]
) -> Folds | None:
    """Split the samples.

    Parameters
    ----------
    labels : Labels
        Of the samples.
    cv : int, splitter or iterable
        A number of folds is stratified, keeps groups together, and shrinks to the
        number of samples (or groups) of the rarest class. With several labels each is
        split by itself, among the samples where it is known.
    groups : ndarray of shape (n_samples,) or None
        Such as patients.
    X : ndarray of shape (n_samples, n_features)
        Handed to splitters, which look at its length.

    Returns
    -------
    Folds or None
        None if no class can be in two folds.
    """
    n_samples = len(X)
    if not isinstance(cv, Integral):
        # Splitters that do not look at y take any of it.
        pairs = list(
            check_cv(cv, labels.target, classifier=True).split(X, labels.target, groups)
        )
        train = np.zeros((len(pairs), n_samples), dtype=bool)
        test = np.zeros_like(train)
        for i, (learns, asked) in enumerate(pairs):
            train[i, learns] = True
            test[i, asked] = True
        return Folds(train, test)
    tests = [_stratified(target, int(cv), groups) for target in labels.by_label()]
    n_folds = max(map(len, tests))
    if not n_folds:
        return None
    test = np.zeros((n_folds, n_samples, len(tests)), dtype=bool)
    train = np.zeros_like(test)
    for label, (target, folds) in enumerate(zip(labels.by_label(), tests, strict=True)):
        known = ~np.isnan(target.astype(np.float64))
        for i, asked in enumerate(folds):
            test[i, asked, label] = True
            train[i, :, label] = known & ~test[i, :, label]
    if labels.classes is not None:
        return Folds(train[:, :, 0], test[:, :, 0])
    return Folds(train, test)


def _stratified(
    target: NDArray[Any], n_folds: int, groups: NDArray[Any] | None
) -> list[NDArray[np.intp]]:
    """Return the rows that each fold leaves out; none if a class cannot be split."""
    known = np.flatnonzero(~np.isnan(target.astype(np.float64)))
    y = target[known]
    classes = np.unique(y)
    if len(classes) < 2:
        return []
    of = known if groups is None else groups[known]
    smallest = min(len(np.unique(of[y == one])) for one in classes)
    n_folds = min(n_folds, smallest)
    if n_folds < 2:
        return []
    if groups is None:
        splits = StratifiedKFold(n_folds).split(y, y)
    else:
        splits = StratifiedGroupKFold(n_folds).split(y, y, of)
    return [known[asked] for _, asked in splits]
