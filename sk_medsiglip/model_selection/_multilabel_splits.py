"""Splits that keep patients whole and spread every label evenly."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import BaseCrossValidator, BaseShuffleSplit
from sklearn.utils import check_consistent_length, check_random_state, indexable
from sklearn.utils.multiclass import check_classification_targets

from sk_medsiglip._dealing import deal_groups
from sk_medsiglip._labels import check_indicator
from sk_medsiglip._splits import group_numbers

_DEFAULT_TEST_SIZE = 0.2
_NAMED = 5  # labels that a warning names
Rows = NDArray[np.intp]


class MultilabelStratifiedGroupKFold(BaseCrossValidator):
    """Folds of whole patients in which every label has nearly its share.

    Like :class:`~sklearn.model_selection.StratifiedGroupKFold`, for several labels at
    once, some of which may be unknown.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    shuffle : bool, default=False
        Whether to begin with folds drawn at random, to get several different splits.
        By default, the largest and rarest patients are dealt first.
    random_state : int, RandomState instance or None, default=None
        Seed of the random number generator, only with ``shuffle=True``. Without
        shuffling, folds are the same at every call.

    See Also
    --------
    MultilabelStratifiedGroupShuffleSplit : Hold one part out, several times.
    check_leakage : Check whether a split keeps pictures apart, too.

    Notes
    -----
    The splitter minimises the sum, over folds and over counts, of the squared
    difference between the fold's part of the count and ``1 / n_splits``. The counts are
    the number of images, of positives of each label and, if a label has blanks, of
    images with a known label: a blank is neither positive nor negative. A rare label
    counts as much as a common one. Groups are dealt out one by one, then moved and
    swapped while that helps; 20,000 images of 5,000 patients with 14 labels take less
    than a second.

    A patient with a tenth of all images, or with half of a label's positives, is kept
    whole whatever it does to the shares.

    Examples
    --------
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.model_selection import MultilabelStratifiedGroupKFold
    >>> phantoms = make_chest_phantoms(300, random_state=0)
    >>> X, y, patients = phantoms.images, phantoms.target, phantoms.groups
    >>> folds = MultilabelStratifiedGroupKFold(3)
    >>> for _, test in folds.split(X, y, patients):
    ...     print(len(test), y[test].sum(axis=0))
    100 [27 30 19 22 24 23]
    100 [28 29 19 23 25 23]
    100 [28 29 19 22 25 23]
    """

    # scikit-learn's routing reads it: groups are asked for unless told otherwise.
    __metadata_request__split: ClassVar[dict[str, Any]] = {"groups": True}

    def __init__(
        self, n_splits: int = 5, *, shuffle: bool = False, random_state: Any = None
    ) -> None:
        # Splitters have no fit: scikit-learn's, too, judge their parameters here.
        n_splits = _check_n_splits(n_splits, 2)
        if not isinstance(shuffle, bool | np.bool_):
            raise TypeError(f"shuffle must be True or False, got {shuffle!r}.")
        if not shuffle and random_state is not None:
            raise ValueError(
                "random_state has no effect while shuffle=False: leave it out, or pass "
                "shuffle=True."
            )
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state

    def split(
        self, X: ArrayLike, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[Rows, Rows]]:
        """Yield the training rows and the test rows, fold by fold.

        Parameters
        ----------
        X : array-like of length n_samples
            Only its length is used.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Classes; or 1, 0, and NaN where a label is not known. Names of the columns
            of a DataFrame appear in warnings.
        groups : array-like of shape (n_samples,), default=None
            Patients. By default, each row is a patient of its own.

        Yields
        ------
        train, test : ndarray of int

        Raises
        ------
        ValueError
            If there are fewer groups than folds, a group is missing, or ``y`` does not
            hold labels.

        Warns
        -----
        UserWarning
            If a label has fewer groups with it, or without it, than there are folds:
            some folds cannot judge it.
        """
        X, y, groups = indexable(X, y, groups)
        rng = check_random_state(self.random_state if self.shuffle else 0)
        counts, group_of_row = _count_groups(y, groups)
        n_groups = len(counts.sizes)
        if self.n_splits > n_groups:
            raise ValueError(
                f"Cannot have number of splits n_splits={self.n_splits} greater than "
                f"the number of groups: {n_groups}."
            )
        counts.warn_of_rare(self.n_splits, f"n_splits={self.n_splits}")
        shares = np.full(self.n_splits, 1 / self.n_splits)
        part = deal_groups(counts.table, shares, rng, at_random=bool(self.shuffle))
        fold = part[group_of_row]
        for i in range(self.n_splits):
            yield np.flatnonzero(fold != i), np.flatnonzero(fold == i)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds.

        Parameters
        ----------
        X, y, groups : ignored

        Returns
        -------
        int
        """
        return self.n_splits


class MultilabelStratifiedGroupShuffleSplit(BaseShuffleSplit):
    """Patients held out at random, every label in nearly its share, several times.

    Parameters
    ----------
    n_splits : int, default=10
        Number of splits.
    test_size : float, int or None, default=None
        Share or number of *images* to hold out, as near as whole patients allow. By
        default, the complement of ``train_size``, or 0.2.
    train_size : float, int or None, default=None
        Share or number of images to learn from. By default, the complement of
        ``test_size``. Images that both leave over are in neither part, and are spread
        as evenly.
    random_state : int, RandomState instance or None, default=None
        Seed of the random number generator.

    See Also
    --------
    MultilabelStratifiedGroupKFold : Hold each image out once.

    Notes
    -----
    :class:`~sklearn.model_selection.GroupShuffleSplit` measures sizes in groups, this
    class in images. Each split begins with patients drawn at random, which are then
    moved and swapped until the shares are right.

    Examples
    --------
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.model_selection import MultilabelStratifiedGroupShuffleSplit
    >>> phantoms = make_chest_phantoms(300, random_state=0)
    >>> splits = MultilabelStratifiedGroupShuffleSplit(
    ...     1, test_size=0.25, random_state=0)
    >>> train, test = next(
    ...     splits.split(phantoms.images, phantoms.target, phantoms.groups))
    >>> len(train), len(test)
    (225, 75)
    >>> set(phantoms.groups[train]) & set(phantoms.groups[test])
    set()
    """

    __metadata_request__split: ClassVar[dict[str, Any]] = {"groups": True}

    def __init__(
        self,
        n_splits: int = 10,
        *,
        test_size: float | None = None,
        train_size: float | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_splits = _check_n_splits(n_splits, 1)
        self.test_size = test_size
        self.train_size = train_size
        self.random_state = random_state

    def split(
        self, X: ArrayLike, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[Rows, Rows]]:
        """Yield the training rows and the test rows.

        Parameters
        ----------
        X, y, groups
            As in :meth:`MultilabelStratifiedGroupKFold.split`.

        Yields
        ------
        train, test : ndarray of int
            In rising order.

        Raises
        ------
        ValueError
            If there are fewer than two groups, sizes are invalid, or ``y`` does not
            hold labels.

        Warns
        -----
        UserWarning
            If a label has only one group with it, or without it.
        """
        X, y, groups = indexable(X, y, groups)
        rng = check_random_state(self.random_state)
        counts, group_of_row = _count_groups(y, groups)
        if len(counts.sizes) < 2:
            raise ValueError("all rows are of one group; at least two are needed.")
        shares = _shares(self.train_size, self.test_size, len(group_of_row))
        counts.warn_of_rare(2, "the two sides of a split")
        used = np.flatnonzero(shares > 0)  # nothing may be left over
        for _ in range(self.n_splits):
            part = deal_groups(counts.table, shares[used], rng, at_random=True)
            side = part[group_of_row]
            yield np.flatnonzero(side == 0), np.flatnonzero(side == 1)


def _check_n_splits(n_splits: Any, least: int) -> int:
    if not isinstance(n_splits, int | np.integer) or n_splits < least:
        raise ValueError(
            f"n_splits must be an integer of {least} or more, got {n_splits!r}."
        )
    return int(n_splits)


def _shares(train_size: Any, test_size: Any, n_rows: int) -> NDArray[np.float64]:
    """Return the shares of the training part, the test part, and the rest."""
    train, test = (
        _share(name, size, n_rows)
        for name, size in (("train_size", train_size), ("test_size", test_size))
    )
    if test is None:
        test = _DEFAULT_TEST_SIZE if train is None else 1 - train
    if train is None:
        train = 1 - test
    if train + test > 1 + 1e-9:
        raise ValueError(
            f"train_size={train_size} and test_size={test_size} exceed the "
            f"{n_rows} rows."
        )
    left = max(0.0, 1 - train - test)
    return np.array([train, test, left if left > 1e-9 else 0.0])


def _share(name: str, size: Any, n_rows: int) -> float | None:
    if size is None:
        return None
    if isinstance(size, int | np.integer) and not isinstance(size, bool):
        if 0 < size < n_rows:
            return int(size) / n_rows
    elif isinstance(size, float | np.floating) and 0 < size < 1:
        return float(size)
    raise ValueError(
        f"{name} must be a share between 0 and 1, or a number of rows between 1 and "
        f"{n_rows - 1}; got {size!r}."
    )


@dataclass(frozen=True, eq=False)
class _GroupCounts:
    """The counts of each group, ``(n_groups,)`` or ``(n_groups, n_labels)``.

    ``classes`` is whether every row has exactly one of the labels.
    """

    sizes: NDArray[np.float64]
    positives: NDArray[np.float64]
    known: NDArray[np.float64]
    names: list[Any]
    classes: bool

    @property
    def table(self) -> NDArray[np.float64]:
        """The counts to be spread evenly; known rows only where there are blanks."""
        has_blanks = (self.known < self.sizes[:, None]).any(axis=0)
        return np.column_stack([self.sizes, self.positives, self.known[:, has_blanks]])

    def warn_of_rare(self, wanted: int, what: str) -> None:
        """Warn if a label has fewer groups with it, or without it, than wanted."""
        with_it = (self.positives > 0).sum(axis=0)
        sides = {"with": with_it}
        if not self.classes:
            sides["without"] = (self.known > self.positives).sum(axis=0)
        for side, n_groups in sides.items():
            # A label without positives is constant, which scorers report.
            few = np.flatnonzero((n_groups < wanted) & (n_groups > 0))
            if few.size:
                shown = [f"{self.names[i]!r} ({n_groups[i]})" for i in few[:_NAMED]]
                more = f" and {few.size - _NAMED} more" if few.size > _NAMED else ""
                kind = "classes" if self.classes else "labels"
                warnings.warn(
                    f"fewer groups {side} these {kind} than {what}: "
                    f"{', '.join(shown)}{more}. Some parts have none of them, and "
                    "cannot be scored on them.",
                    UserWarning,
                    stacklevel=3,
                )


def _count_groups(y: Any, groups: Any) -> tuple[_GroupCounts, Rows]:
    """Return the counts, and the number of each row's group."""
    true, known, names, classes = _read_y(y)
    n_rows = len(true)
    check_consistent_length(true, groups)
    of_row = group_numbers(groups, n_rows)
    sides = np.hstack([np.ones((n_rows, 1)), true, known])
    sums = pd.DataFrame(sides).groupby(of_row).sum().to_numpy()
    positives, of_known = np.split(sums[:, 1:], 2, axis=1)
    return _GroupCounts(sums[:, 0], positives, of_known, names, classes), of_row


def _read_y(y: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_], list[Any], bool]:
    """Return the true and the known labels, names, and whether they are classes."""
    if y is None:
        raise ValueError("y is needed: the labels to be spread evenly.")
    columns = getattr(y, "columns", None)
    values = y.toarray() if scipy.sparse.issparse(y) else np.asarray(y)
    if not len(values):
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is needed.")
    if values.ndim not in (1, 2):
        raise ValueError(f"y must have one or two dimensions, got {values.shape}.")
    if values.ndim == 1 and not np.asarray(pd.isna(values)).any():
        check_classification_targets(values)
        classes, index = np.unique(values, return_inverse=True)
        true = index[:, None] == np.arange(len(classes))
        return true, np.ones_like(true), classes.tolist(), True
    table = check_indicator(values.reshape(len(values), -1))
    names = list(range(table.shape[1])) if columns is None else list(columns)
    return table == 1, ~np.isnan(table), names, False
