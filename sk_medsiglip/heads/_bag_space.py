"""Coordinates for problems on bags: instances whitened, without a copy of them.

A score of whitened instances is a score of the instances themselves, so the whitening
is folded into the weights and into their gradient, and bags are only ever read. Beside
the instances stands a part that is not pooled: the pooled row of an image where there
is one, whitened too, and the constant.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from sk_medsiglip._bags import iter_bags
from sk_medsiglip.heads._bag_loss import PooledLoss, pool

# Values of a piece of bags that is multiplied at a time: 64 MB in float32.
_PIECE = 2**24

# Values that are held in float32, 4 GiB, where X is lazy or of another type; of larger
# arrays, pieces are read at every step.
_MOST_HELD = 2**30

# Parts of the problems that are solved together on such larger arrays: 3.2 GB of logits
# in place of the bags that are not held spare seven of eight readings.
_PARTS_OF_LARGE = 8

# Instances that whitening looks at, spread evenly over the bags: a hundred for each of
# MedSigLIP's 1152 directions. All of 10,000 bags would cost as much as several steps.
_MOST_INSTANCES = 2**17

# Share of the mean variance that is added to that of each direction, where there are as
# many bags as directions: those in which instances hardly differ are not blown up to
# the size of others. Of these few labels cannot tell which matter. On planted spots 0.1
# was best for 200 labels, and 0.01 for 2,000 (demonstration checkpoint, width 192).
_SHRINKAGE = 0.1

# Standard deviation of the pooled row's coordinates, where that of instances is 1. With
# 1 the row's weights are as cheap as those of instances, and few labels are explained
# by it rather than by a small part: AUC .79 on planted spots, .81 with 0.3 and without
# the row (demonstration checkpoint, 200 labels). With 0.3 findings that fill the image
# were as well told as without.
_WHOLE_DEVIATION = 0.3


@dataclass(frozen=True, eq=False)
class Whitening:
    """A change of coordinates after which all directions have the same variance."""

    mean: NDArray[np.float32]  # (width,)
    basis: NDArray[np.float32]  # (width, width)


@dataclass(frozen=True, eq=False)
class BagSpace:
    """Bags in whitened coordinates, and the way back to coefficients."""

    rows: BagFeatures
    present: NDArray[np.bool_]  # (n_bags, n_instances)
    of_instances: Whitening
    of_whole: Whitening | None

    @property
    def width(self) -> int:
        """Number of columns of ``rows``."""
        return self.rows.shape[1]

    @property
    def parts_at_once(self) -> int:
        """Parts of the problems solved together, each of which reads all bags."""
        return 1 if math.prod(self.rows.X.shape) <= _MOST_HELD else _PARTS_OF_LARGE

    @property
    def penalty(self) -> NDArray[np.float32]:
        """Penalty of each column: that of the constant, the last, is 0."""
        penalty = np.ones(self.width, np.float32)
        penalty[-1] = 0
        return penalty

    @property
    def energy(self) -> NDArray[np.float32]:
        """Mean squares of the columns, which whitening makes 1 for instances."""
        whole = self.rows.whole
        of_instances = np.ones(self.width - whole.shape[1], np.float32)
        return np.hstack([of_instances, (whole**2).mean(axis=0)])

    def wrap(self, loss: Any) -> PooledLoss:
        """Return the loss of the logits of instances, from that of bags."""
        return PooledLoss(loss, self.present)

    def decision(self, logits: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the logits of bags from those of their instances."""
        n_bags, n_instances = self.present.shape
        by_bag = logits.reshape(n_bags, n_instances + 1, -1)
        return pool(by_bag, self.present)[0]

    def coefficients(
        self, weights: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return coefficients of instances, then of the whole, and intercepts."""
        coef = np.zeros((weights.shape[1], 0))
        intercept = weights[-1].astype(np.float64)
        start = 0
        for one in (self.of_instances, self.of_whole):
            if one is not None:
                stop = start + one.basis.shape[1]
                some = (one.basis @ weights[start:stop]).T.astype(np.float64)
                intercept = intercept - some @ one.mean
                coef, start = np.hstack([coef, some]), stop
        return coef, intercept


class BagFeatures:
    """The matrix of the problems: a row an instance, and one more for each bag.

    It multiplies as an array does. Columns are the whitened coordinates of instances,
    then those of the whole bag, of which the last is the constant.
    """

    dtype = np.dtype(np.float32)
    device = "cpu"

    def __init__(
        self,
        X: Any,
        n_instances: int,
        whitening: Whitening,
        whole: NDArray[np.float32],
        *,
        is_whole: bool,
    ) -> None:
        self.X, self.n_instances = X, n_instances
        self.whitening, self.whole = whitening, whole
        self._is_whole = is_whole
        self.shape = (
            len(X) * (n_instances + 1),
            whitening.basis.shape[1] + whole.shape[1],
        )

    @property
    def T(self) -> _Transposed:
        """The matrix, transposed."""
        return _Transposed(self)

    def __matmul__(self, directions: NDArray[np.float32]) -> NDArray[np.float32]:
        rank = self.whitening.basis.shape[1]
        weights = self.whitening.basis @ directions[:rank]
        shift = self.whitening.mean @ weights
        n_columns = weights.shape[1]
        logits = np.empty((len(self.X), self.n_instances + 1, n_columns), np.float32)
        logits[:, -1] = self.whole @ directions[rank:]
        for rows, block in self.blocks():
            found = block.reshape(-1, len(weights)) @ weights - shift
            found = found.reshape(*block.shape[:2], n_columns)
            logits[rows, :-1] = found[:, : self.n_instances]
        return logits.reshape(-1, n_columns)

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Return the bags piece by piece."""
        step = _bags_a_piece(self.X)
        if self._is_whole:  # nothing to convert, and checked before
            for start in range(0, len(self.X), step):
                rows = slice(start, start + step)
                yield rows, self.X[rows]
            return
        for rows, block, _ in iter_bags(self.X, step):
            yield rows, block


class _Transposed:
    """The features, transposed, for gradients."""

    def __init__(self, features: BagFeatures) -> None:
        self._features = features

    def __matmul__(self, residuals: NDArray[np.float32]) -> NDArray[np.float32]:
        of, n_columns = self._features, residuals.shape[1]
        by_bag = residuals.reshape(len(of.X), -1, n_columns)
        gradient = np.zeros((of.X.shape[2], n_columns), np.float32)
        for rows, block in of.blocks():
            some = np.zeros((*block.shape[:2], n_columns), np.float32)
            some[:, : of.n_instances] = by_bag[rows, :-1]
            gradient += block.reshape(-1, len(gradient)).T @ some.reshape(-1, n_columns)
        total = by_bag[:, :-1].sum((0, 1), dtype=np.float64).astype(np.float32)
        gradient -= of.whitening.mean[:, None] * total
        return np.vstack([of.whitening.basis.T @ gradient, of.whole.T @ by_bag[:, -1]])


def make_bag_space(
    X: Any, weight: NDArray[np.float64], *, pooled_row: bool
) -> BagSpace:
    """Find the coordinates for some bags, in one reading."""
    n_bags, n_all, width = X.shape
    n_instances = n_all - pooled_row
    present = np.empty((n_bags, n_instances), dtype=bool)
    last = np.empty((n_bags if pooled_row else 0, width), np.float32)
    is_plain = isinstance(X, np.ndarray) and X.dtype == np.float32
    held = None
    if not is_plain and math.prod(X.shape) <= _MOST_HELD:
        held = np.empty(X.shape, np.float32)
    moments = _Moments(width)
    stride = max(1, n_bags * n_instances // _MOST_INSTANCES)
    for rows, block, there in read_bags(X, pooled_row=pooled_row):
        present[rows] = there
        if pooled_row:
            last[rows] = block[:, -1]
        if held is not None:
            held[rows] = block
        some = slice(-rows.start % stride, None, stride)
        count = there[some].sum(axis=1)
        moments.add(
            block[some, :n_instances][there[some]],
            # A bag counts once, however many instances it has.
            np.repeat(weight[rows][some] / count, count),
        )
    shrinkage = min(1.0, _SHRINKAGE * width / weight.sum())
    of_instances, of_whole = moments.whitening(shrinkage), None
    whole = np.ones((n_bags, 1), np.float32)
    if pooled_row:
        moments = _Moments(width)
        moments.add(last, weight)
        of_whole = moments.whitening(shrinkage, _WHOLE_DEVIATION)
        whole = np.hstack([(last - of_whole.mean) @ of_whole.basis, whole])
    features = BagFeatures(
        X if held is None else held,
        n_instances,
        of_instances,
        whole,
        is_whole=held is not None or (is_plain and bool(present.all())),
    )
    return BagSpace(features, present, of_instances, of_whole)


def read_bags(
    X: Any, *, pooled_row: bool
) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.bool_]]]:
    """Return bags piece by piece, and which instances are there beside the pooled row.

    The pooled row, if any, is the last of a bag; all bags must have it, and others.
    """
    for rows, block, present in iter_bags(X, _bags_a_piece(X)):
        if pooled_row:
            parts = present[:, :-1]
            lacking = np.flatnonzero(~(present[:, -1] & parts.any(axis=1)))
            if lacking.size:
                raise ValueError(
                    "with pooled_row=True the last instance of a bag is its pooled "
                    "row, and others come before it; this does not hold for bag "
                    f"{rows.start + lacking[0]}. Pass pooled_row=False if the last "
                    "instance is one like the others."
                )
            present = parts
        yield rows, block, present


def _bags_a_piece(X: Any) -> int:
    return max(1, _PIECE // (X.shape[1] * X.shape[2]))


class _Moments:
    """Mean and covariance of weighted vectors that come in pieces."""

    def __init__(self, width: int) -> None:
        self._near: Any = None  # the mean, so that squares keep their digits
        self._weight = 0.0
        self._sum = np.zeros(width)
        self._products = np.zeros((width, width))

    def add(self, vectors: NDArray[np.float32], weight: NDArray[np.float64]) -> None:
        """Add some vectors."""
        if self._near is None:
            self._near = vectors.mean(axis=0)
        vectors = vectors - self._near
        weighted = vectors * weight[:, None].astype(np.float32)
        self._weight += weight.sum()
        self._sum += weighted.sum(axis=0, dtype=np.float64)
        self._products += vectors.T @ weighted

    def whitening(self, shrinkage: float, deviation: float = 1.0) -> Whitening:
        """Return the change of coordinates after which all deviations are this."""
        mean = self._sum / self._weight
        covariance = self._products / self._weight - np.outer(mean, mean)
        values, vectors = scipy.linalg.eigh(covariance, check_finite=False)
        values = np.maximum(values, 0)
        added = shrinkage * values.mean()
        scale = np.sqrt(values + added) if added > 0 else np.ones_like(values)
        basis = (vectors * (deviation / scale)).astype(np.float32)
        return Whitening((self._near + mean).astype(np.float32), basis)
