"""Groups, such as patients, and folds that keep them whole."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Number
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import (
    PredefinedSplit,
    RepeatedStratifiedKFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    check_cv,
)
from sklearn.pipeline import Pipeline

from sk_medsiglip._labels import Labels

#: Splitters of scikit-learn's that take one question, not a table of several labels.
_OF_ONE_QUESTION = (StratifiedKFold, StratifiedGroupKFold, RepeatedStratifiedKFold)
#: Texts that tables have for an id that is missing.
BLANKS = ("", "nan", "none", "<na>", "nat")


def check_groups(groups: ArrayLike, n_samples: int | None = None) -> NDArray[Any]:
    """Return group ids as a one-dimensional array, or raise ValueError.

    Missing ids are refused, since blanks are not one patient, and so are ids of several
    types: 7 and "7" may be one patient or two.
    """
    given = one_column(groups)
    if n_samples is not None and len(given) != n_samples:
        raise ValueError(
            f"groups holds {len(given)} ids for {n_samples} samples; pass one a sample."
        )
    blank = np.asarray(pd.isna(given))
    if given.dtype.kind in "OUT":
        # NumPy writes the NaN among texts as "nan".
        blank = blank | [
            isinstance(one, str) and one.strip().casefold() in BLANKS for one in given
        ]
    if n_blank := int(blank.sum()):
        raise ValueError(
            f"groups is missing for {n_blank} of {len(given)} samples (None, NaN, NA, "
            "their names as texts, or an empty text): name their patients, or leave "
            "these samples out."
        )
    if given.dtype.kind == "O":
        kinds = {_kind_of_id(one): one for one in given.tolist()}
        if len(kinds) > 1:
            shown = " and ".join(f"{one!r}" for one in kinds.values())
            raise ValueError(
                f"groups holds ids of several types, such as {shown}: whether two are "
                "one patient is not known. Make them alike, for example by "
                "pandas.Series(groups).astype(str)."
            )
    return np.asarray(given.tolist()) if isinstance(groups, list | tuple) else given


def group_numbers(groups: Any, n_samples: int | None = None) -> NDArray[np.intp]:
    """Return the number of each sample's group, from 0, in the order they come.

    Without groups each of ``n_samples`` is one by itself.
    """
    if groups is None and n_samples is not None:
        return np.arange(n_samples)
    return pd.factorize(check_groups(groups, n_samples))[0]


def one_column(groups: ArrayLike) -> NDArray[Any]:
    """Return ids as a one-dimensional array; ids of a list keep their own types."""
    # A list of 7 and "7", or of "a" and NaN, would become texts unseen.
    kept = object if isinstance(groups, list | tuple) else None
    given: NDArray[Any] = np.asarray(groups, dtype=kept)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != 1:
        raise ValueError(
            f"groups must hold one id a sample, shape (n_samples,); got {given.shape}."
        )
    return given


def _kind_of_id(value: Any) -> str:
    """Return the name of an id's type; all numbers are alike, all texts too."""
    if isinstance(value, Number | np.generic) and not isinstance(value, str | bytes):
        return "number"
    return "text" if isinstance(value, str) else type(value).__name__


@dataclass(frozen=True, eq=False)
class Folds:
    """Samples to learn from and samples to be tested on, fold by fold.

    Labels that have folds of their own add a last axis; a label with fewer folds than
    others has empty ones.
    """

    train: NDArray[np.bool_]
    test: NDArray[np.bool_]

    def keep(self, rows: NDArray[Any], label: int | None = None) -> Folds:
        """Return the folds of some rows, and of one label where each has its own."""
        train, test = (
            one[:, rows] if label is None or one.ndim == 2 else one[:, rows, label]
            for one in (self.train, self.test)
        )
        return Folds(train, test)

    def pairs(self) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Return rows to learn from and rows to be tested on, fold by fold."""
        if self.train.ndim == 3:
            raise ValueError(
                "cv splits each of several labels by itself, and one split for all is "
                "needed: give a number, or MultilabelStratifiedGroupKFold."
            )
        sides = zip(self.train, self.test, strict=True)
        return [(np.flatnonzero(a), np.flatnonzero(b)) for a, b in sides]


def make_folds(
    labels: Labels,
    cv: Any,
    groups: NDArray[Any] | None,
    X: NDArray[np.floating],
    counts: NDArray[np.bool_] | None = None,
) -> Folds | None:
    """Split samples into folds; return None where a class has too few for two.

    A number of folds is stratified, keeps groups together, and shrinks to the number of
    samples (or groups) of the rarest class. With several labels each is split by
    itself, among the samples where it is known. Any other ``cv`` splits all samples:
    its indices are those of the rows that the user passed. ``counts`` marks the samples
    that count, such as those with a weight above 0.
    """
    n_samples = len(X)
    cv = 5 if cv is None else cv
    if not isinstance(cv, Integral):
        return _split_as_told(labels, check_cv(cv), groups, X)
    targets = [target.astype(np.float64) for target in labels.by_label()]
    if counts is not None:
        targets = [np.where(counts, target, np.nan) for target in targets]
    wanted = np.array([_n_folds(target, int(cv), groups) for target in targets])
    n_folds = wanted.max()
    if not n_folds:
        return None
    fold = np.full((n_samples, len(targets)), -1)  # that leaves a row out
    for n in np.unique(wanted[wanted > 0]):
        for_these = np.flatnonzero(wanted == n)
        fold[:, for_these] = _stratify([targets[k] for k in for_these], n, groups)
    each = np.arange(n_folds)[:, None, None]
    test = fold == each
    train = (fold >= 0) & ~test & (each < wanted)
    if labels.classes is not None:
        return Folds(train[:, :, 0], test[:, :, 0])
    return Folds(train, test)


def with_cv_among(estimator: Any, rows: NDArray[Any], n_samples: int) -> Any:
    """Renumber the indices in an estimator's ``cv`` for some of the rows.

    They name rows that the user passed, of which the estimator will see a part.
    """
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    cv = last.get_params(deep=False).get("cv")
    splits = cv is None or isinstance(cv, Integral) or hasattr(cv, "split")
    if splits and not isinstance(cv, PredefinedSplit):
        return estimator
    place = np.full(n_samples, -1)
    place[rows] = np.arange(len(place[rows]))
    pairs = [[place[side] for side in pair] for pair in check_cv(cv).split(place)]
    kept = [(train[train >= 0], test[test >= 0]) for train, test in pairs]
    left = [pair for pair in kept if all(map(len, pair))]
    if not left:
        raise ValueError(
            f"cv of {type(last).__name__} holds indices, and none of its splits has "
            "rows of both sides among those that are fitted: pass a number, or a "
            "splitter such as GroupKFold(5)."
        )
    last.set_params(cv=left)
    return estimator


def _split_as_told(
    labels: Labels, splitter: Any, groups: NDArray[Any] | None, X: NDArray[np.floating]
) -> Folds:
    """Split all samples; those with unknown labels are a class of their own."""
    targets = [labels.target]
    if isinstance(splitter, _OF_ONE_QUESTION):
        targets = labels.by_label()
    if targets[0].ndim == 1:
        targets = [np.nan_to_num(target, nan=-1) for target in targets]
    splits = [list(splitter.split(X, target, groups)) for target in targets]
    masks = np.zeros((2, len(splits[0]), len(X), len(splits)), dtype=bool)
    for k, pairs in enumerate(splits):
        for i, pair in enumerate(pairs):
            for side, rows in zip(masks, pair, strict=True):
                side[i, rows, k] = True
    train, test = masks if len(splits) > 1 else masks[..., 0]
    return Folds(train, test)


def _n_folds(
    target: NDArray[np.float64], n_folds: int, groups: NDArray[Any] | None
) -> int:
    """Return how many folds can all hold every class; 0 if two cannot."""
    known = ~np.isnan(target)
    of = np.flatnonzero(known) if groups is None else groups[known]
    y = target[known]
    classes = np.unique(y)
    if len(classes) < 2:
        return 0
    smallest = min(len(np.unique(of[y == one])) for one in classes)
    n_folds = min(n_folds, smallest)
    return n_folds if n_folds > 1 else 0


def _stratify(
    targets: list[NDArray[np.float64]], n_folds: int, groups: NDArray[Any] | None
) -> NDArray[np.intp]:
    """Return the fold that tests each row, ``(n_samples, n_targets)``, or -1."""
    fold = np.full((len(targets[0]), len(targets)), -1)
    if groups is None:
        for of_target, target in zip(fold.T, targets, strict=True):
            known = np.flatnonzero(~np.isnan(target))
            splits = StratifiedKFold(n_folds).split(known, target[known])
            for i, (_, asked) in enumerate(splits):
                of_target[known[asked]] = i
        return fold
    names, member = np.unique(groups, return_inverse=True)
    classes = [np.unique(target[~np.isnan(target)]) for target in targets]
    counts = np.zeros((len(targets), len(names), max(map(len, classes))))
    for of_target, target, own in zip(counts, targets, classes, strict=True):
        for k, one in enumerate(own):
            of_target[:, k] = np.bincount(member, target == one, len(names))
    # Targets with fewer classes are dealt by themselves: an empty class would count.
    for n_classes in {len(own) for own in classes}:
        alike = [k for k, own in enumerate(classes) if len(own) == n_classes]
        fold[:, alike] = _deal(counts[alike, :, :n_classes], n_folds)[:, member].T
    fold[np.isnan(np.column_stack(targets))] = -1
    return fold


def _deal(counts: NDArray[np.float64], n_folds: int) -> NDArray[np.intp]:
    """Deal groups to folds as ``StratifiedGroupKFold`` does, all targets at once."""
    n_targets, n_groups, n_classes = counts.shape
    each = np.arange(n_targets)
    order = np.argsort(-np.std(counts, axis=2), axis=1, kind="stable")
    fold = np.zeros((n_targets, n_groups), np.intp)
    held = np.zeros((n_targets, n_folds, n_classes))
    total = counts.sum(axis=1)[:, None, None]
    proposals = np.eye(n_folds)[:, :, None]
    for group in order.T:
        arrives = counts[each, group]
        shares = (held[:, None] + proposals * arrives[:, None, None]) / total
        # As means, to the last digit, without their overhead: this is a loop of groups.
        gaps = shares - np.add.reduce(shares, axis=2, keepdims=True) / n_folds
        spread = np.sqrt(np.add.reduce(gaps * gaps, axis=2) / n_folds)
        uneven = np.add.reduce(spread, axis=2) / n_classes
        size = np.add.reduce(held, axis=2)
        pairs = zip(uneven.tolist(), size.tolist(), strict=True)
        best = [_best_fold(*pair) for pair in pairs]
        fold[each, group] = best
        held[each, best] += arrives
    return fold


def _best_fold(uneven: list[float], size: list[float]) -> int:
    """Return the fold that stays most even; of folds as good, the smallest.

    One after the other, since "as good" is a matter of rounding, not an order.
    """
    best = 0
    for i in range(1, len(uneven)):
        least = uneven[best]
        alike = abs(uneven[i] - least) <= 1e-8 + 1e-5 * abs(least)
        if uneven[i] < least or (alike and size[i] < size[best]):
            best = i
    return best
