"""Numbers and vectors on both sides of a split, found in memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Finding", "find_near", "find_shared"]

#: Rows of the test and of the training side in one product: 16 MB of float32.
_TEST_BLOCK, _TRAIN_BLOCK = 1024, 4096

Rows = NDArray[np.intp]


class Finding(NamedTuple):
    """One patient or picture that is on both sides."""

    split: int
    train_row: int
    test_row: int
    n_train: int
    n_test: int
    cosine: float


def find_shared(
    split: int, number: Rows, train: Rows, test: Rows, cosine: float
) -> list[Finding]:
    """Return which numbers are on both sides.

    Parameters
    ----------
    split : int
        To be named in the findings.
    number : ndarray of shape (n_samples,), int
        Of each row's patient or picture; -1 is none.
    train, test : ndarray of int
        Rows.
    cosine : float
        To be named in the findings.

    Returns
    -------
    list of Finding
        By their first training row.
    """
    sides = [
        np.unique(number[rows], return_index=True, return_counts=True)
        for rows in (train, test)
    ]
    (in_train, first_train, n_train), (in_test, first_test, n_test) = sides
    both, i, j = np.intersect1d(in_train, in_test, True, return_indices=True)
    findings = [
        Finding(
            split,
            int(train[first_train[a]]),
            int(test[first_test[b]]),
            int(n_train[a]),
            int(n_test[b]),
            cosine,
        )
        for one, a, b in zip(both, i, j, strict=True)
        if one >= 0
    ]
    return sorted(findings)


def find_near(
    split: int,
    vectors: NDArray[np.float32],
    pictures: Rows,
    train: Rows,
    test: Rows,
    threshold: float,
) -> list[Finding]:
    """Return the test rows that have a near copy in training.

    Parameters
    ----------
    split : int
        To be named in the findings.
    vectors : ndarray of shape (n_samples, n_features), float32
        Of length 1, or 0 for what is not to be compared.
    pictures : ndarray of shape (n_samples,), int
        Rows of one number are the same picture, which is another kind of finding.
    train, test : ndarray of int
        Rows.
    threshold : float
        Cosine from which a copy is near.

    Returns
    -------
    list of Finding
        The nearest first.
    """
    findings = []
    for block in _blocks(test, _TEST_BLOCK):
        best = np.full(len(block), -np.inf)
        nearest = np.zeros(len(block), np.intp)
        n_near = np.zeros(len(block), np.intp)
        for others in _blocks(train, _TRAIN_BLOCK):
            cosines = vectors[block] @ vectors[others].T
            i, j = np.nonzero(cosines >= threshold)
            apart = pictures[block[i]] != pictures[others[j]]
            i, j = i[apart], j[apart]
            if not i.size:
                continue
            n_near += np.bincount(i, minlength=len(block))
            # Of each test row the highest comes last, and so is the one that stays.
            order = np.argsort(cosines[i, j], kind="stable")
            here, where = np.full(len(block), -np.inf), np.zeros(len(block), np.intp)
            here[i[order]] = cosines[i, j][order]
            where[i[order]] = others[j[order]]
            nearer = here > best
            best[nearer], nearest[nearer] = here[nearer], where[nearer]
        for row in np.flatnonzero(n_near):
            cosine = min(1.0, float(best[row]))
            counts = int(n_near[row]), 1
            findings.append(
                Finding(split, int(nearest[row]), int(block[row]), *counts, cosine)
            )
    return sorted(findings, key=lambda one: (-one.cosine, one.test_row))


def _blocks(rows: Rows, size: int) -> Iterator[Rows]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
