"""The logistic losses of many problems at once, elementwise on their logits.

Columns are problems. Problems of several classes have a column per class: first the
columns of the first class for all problems, then those of the second. Arrays are of
numpy or torch, which share the names of the functions used here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

# Approximate number of elements in a block of rows, which fits into the cache of a CPU.
BLOCK = 65_536


class Point(NamedTuple):
    """Values and derivatives of all problems at some logits."""

    logits: Any
    residuals: Any
    loss: Any
    curvature: Any
    slope: Any


class _Loss(ABC):
    """Abstract loss that processes rows in blocks."""

    def look(self, start: Any, way: Any, length: Any) -> Point:
        """Evaluate the logits ``start + length * way``, with a length per column."""
        xp = array_namespace(start)
        n_samples, n_columns = start.shape
        logits, residuals = xp.empty_like(start), xp.empty_like(start)
        loss = curvature = slope = 0.0
        step = max(1, BLOCK // max(1, n_columns))
        for first in range(0, n_samples, step):
            rows = slice(first, first + step)
            logits[rows] = start[rows] + length * way[rows]
            some_loss, some_residuals, some_curvature = self.look_at(rows, logits[rows])
            residuals[rows] = some_residuals
            loss = loss + some_loss
            curvature = curvature + some_curvature
            slope = slope + (some_residuals * way[rows]).sum(0, dtype=xp.float64)
        return Point(logits, residuals, loss, curvature, slope)

    @abstractmethod
    def look_at(self, rows: slice, logits: Any) -> tuple[Any, Any, Any]:
        """Return loss, residuals and curvature of some samples."""


@dataclass(frozen=True, eq=False)
class BinaryLoss(_Loss):
    """Log loss of problems of two classes, one column each."""

    signs: Any
    weights: Any
    n_classes = 1  # columns per problem

    def keep(self, problems: Any) -> BinaryLoss:
        """Return the loss of some of the problems."""
        return replace(
            self, signs=self.signs[:, problems], weights=self.weights[:, problems]
        )

    def look_at(self, rows: slice, logits: Any) -> tuple[Any, Any, Any]:
        xp = array_namespace(logits)
        signs, weights = self.signs[rows], self.weights[rows]
        margins = logits * signs
        small = xp.exp(-xp.abs(margins))  # never overflows
        losses = xp.log1p(small) - xp.clip(margins, None, 0.0)
        wrong = xp.where(margins < 0, 1.0, small) / (1.0 + small)
        weighted = weights * wrong
        return (
            (weights * losses).sum(0, dtype=xp.float64),
            -signs * weighted,
            (weighted * (1.0 - wrong)).sum(0, dtype=xp.float64),
        )


@dataclass(frozen=True, eq=False)
class SoftmaxLoss(_Loss):
    """Log loss of problems of several classes, all with the same labels."""

    onehot: Any
    weights: Any

    @property
    def n_classes(self) -> int:
        """Number of columns per problem."""
        return int(self.onehot.shape[1])

    def keep(self, problems: Any) -> SoftmaxLoss:
        """Return the loss of some of the problems."""
        return replace(self, weights=self.weights[:, problems])

    def look_at(self, rows: slice, logits: Any) -> tuple[Any, Any, Any]:
        xp = array_namespace(logits)
        onehot, weights = self.onehot[rows][:, :, None], self.weights[rows]
        scores = logits.reshape(len(logits), self.n_classes, -1)
        # Scores are taken relative to that of the label, and other classes are summed
        # separately, so that the small loss of a confident hit keeps its digits.
        above = scores - (scores * onehot).sum(1)[:, None]
        top = xp.amax(above, 1)
        powers = xp.exp(above - top[:, None])
        others = powers * (1.0 - onehot)
        rest, total = others.sum(1), powers.sum(1)
        losses = xp.where(top > 0, top + xp.log(total), xp.log1p(rest))
        wrong = (others + rest[:, None] * onehot) / total[:, None]
        weighted = wrong * weights[:, None]
        residuals = weighted * (1.0 - 2.0 * onehot)
        curvature = (weighted * (1.0 - wrong)).sum(0, dtype=xp.float64)
        return (
            (weights * losses).sum(0, dtype=xp.float64),
            residuals.reshape(logits.shape),
            curvature.reshape(-1),
        )


def array_namespace(array: Any) -> Any:
    """Return the module of an array, numpy or torch."""
    if type(array).__module__ == "torch":
        import torch

        return torch
    import numpy

    return numpy
