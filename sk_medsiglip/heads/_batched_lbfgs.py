"""L-BFGS on many penalised logistic problems that share one matrix of features.

All problems step together, so each step is two matrix products for any number of
problems: features x directions, and features' x residuals. The line search needs none,
since logits are linear along a direction. Problems are removed as they converge.

A problem is ``min sum_i c_i loss(z_i w) + 1/2 sum_j a_j w_j^2``. If the columns of the
features are nearly orthogonal (``_eigenbasis``), the Hessian is nearly diagonal, and
its diagonal ``h lambda_j + a_j`` is a preconditioner that makes problems independent of
their scale and conditioning.

References
----------
.. [1] Nocedal and Wright, "Numerical Optimization", 2nd ed., algorithm 7.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.heads._logistic_loss import (
    BinaryLoss,
    Point,
    SoftmaxLoss,
    array_namespace,
)

MEMORY = 10  # pairs of steps and changes of the gradient
MOST_TRIALS = 20  # lengths tried in one line search
FLAT = 0.4  # a length is accepted if the slope has fallen to this fraction
NOTHING = 1e-9  # fraction of the first objective that counts as zero
LEAVE_AT = 0.25  # converged fraction that is removed, since removal copies the rest


@dataclass(eq=False)
class Minimum:
    """Results of the problems."""

    weights: Any
    logits: Any
    objective: NDArray[np.float64]
    n_iter: NDArray[np.intp]
    converged: NDArray[np.bool_]


def minimize(
    features: Any,
    loss: BinaryLoss | SoftmaxLoss,
    penalty: Any,
    *,
    offset: Any = None,
    energy: Any = None,
    tol: float,
    max_iter: int,
) -> Minimum:
    """Minimise all problems, starting from zero.

    Features may be any object that can be multiplied like a matrix, with the mean
    squares of its columns as ``energy``.
    """
    return _Descent(features, loss, penalty, offset, energy).run(tol, max_iter)


class _Pair(NamedTuple):
    """A step, its change of the gradient, and their product for each problem."""

    step: Any
    change: Any
    curvature: Any


class _Descent:
    """The active problems, side by side, and the results of the others."""

    def __init__(
        self, features: Any, loss: Any, penalty: Any, offset: Any, energy: Any
    ) -> None:
        xp = self._xp = array_namespace(features)
        self._features, self._loss, self._penalty = features, loss, penalty
        self._n_classes = loss.n_classes
        n_problems = loss.weights.shape[1]
        n_columns = n_problems * self._n_classes
        self._weights = self._zeros(features.shape[1], n_columns)
        start = self._zeros(features.shape[0], n_columns)
        if offset is not None:
            start = start + offset
        # lambda of the preconditioner, for a curvature whose sum over samples is 1.
        if energy is None:
            energy = (features**2).sum(0) / features.shape[0]
        self._energy = energy[:, None]
        self._epsilon = float(xp.finfo(features.dtype).eps)
        self._pairs: list[_Pair] = []
        self._active = np.arange(n_problems)
        self._arrive(loss.look(start, start, self._zeros(n_columns)))
        self._start = self._value
        self._result = Minimum(
            xp.zeros_like(self._weights),
            xp.zeros_like(start),
            np.zeros(n_problems),
            np.zeros(n_problems, dtype=np.intp),
            np.zeros(n_problems, dtype=bool),
        )

    def run(self, tol: float, max_iter: int) -> Minimum:
        stuck = np.zeros(len(self._active), dtype=bool)
        # A smaller tolerance would be below the rounding error of the objective.
        tol = max(tol, 1e-3 * self._epsilon)
        for n_steps in range(max_iter + 1):
            above = 0.5 * self._dot(self._gradient, self._solve(self._gradient))
            done = stuck | (
                above <= tol * np.maximum(self._value, NOTHING * self._start)
            )
            if done.all() or n_steps == max_iter:
                self._leave(np.ones_like(done), done, n_steps)
                break
            if done.mean() >= LEAVE_AT:
                self._leave(done, done, n_steps)
                stuck = stuck[~done]
            stuck = self._step()
        return self._result

    def _step(self) -> NDArray[np.bool_]:
        """Move all problems; return a mask of those that could not be moved."""
        direction = self._direction()
        point, length = self._search(direction, self._features @ direction)
        step = direction * self._spread(length)
        before = self._gradient
        self._weights = self._weights + step
        self._arrive(point)
        self._remember(step, self._gradient - before)
        return length == 0

    def _arrive(self, point: Point) -> None:
        """Make a point the present state of the problems."""
        self._point = point
        shrunk = self._penalty * self._weights
        self._gradient = self._features.T @ point.residuals + shrunk
        self._penalised = 0.5 * self._dot(self._weights, shrunk)
        self._value = self._host(point.loss) + self._penalised
        curvature = self._cast(point.curvature)
        self._scale = self._energy * curvature + self._penalty
        # Without curvature and penalty, avoid a division by zero.
        self._scale = self._xp.where(self._scale > 0, self._scale, 1.0)

    def _solve(self, gradient: Any) -> Any:
        """Apply the preconditioner, which approximates the inverse of the Hessian."""
        solved = gradient / self._scale
        if self._n_classes == 1:
            return solved
        # Moving all classes together does not change probabilities, but only increases
        # the penalty. Without this, most steps would correct rounding errors in that
        # direction.
        by_class = solved.reshape(len(solved), self._n_classes, -1)
        centred = by_class - by_class.mean(1)[:, None]
        return centred.reshape(solved.shape)

    def _direction(self) -> Any:
        """Return the directions of all problems by the two-loop recursion."""
        rest = -self._gradient
        shares = []
        for pair in reversed(self._pairs):
            share = self._dot(pair.step, rest) / pair.curvature
            rest = rest - self._spread(share) * pair.change
            shares.append(share)
        direction = self._solve(rest)
        if self._pairs:
            last = self._pairs[-1]
            bent = self._dot(last.change, self._solve(last.change))
            size = np.where(bent > 0, last.curvature / np.where(bent > 0, bent, 1), 1)
            direction = direction * self._spread(size)
        for pair, share in zip(self._pairs, reversed(shares), strict=True):
            share = share - self._dot(pair.change, direction) / pair.curvature
            direction = direction + self._spread(share) * pair.step
        return direction

    def _remember(self, step: Any, change: Any) -> None:
        curvature = self._dot(step, change)
        # The pair of a problem that did not move must have no effect.
        usable = curvature > 0
        keep = self._spread(usable)
        self._pairs.append(
            _Pair(step * keep, change * keep, np.where(usable, curvature, 1.0))
        )
        del self._pairs[:-MEMORY]

    def _search(self, direction: Any, way: Any) -> tuple[Point, NDArray[np.float64]]:
        """Find the step length of each problem, at which its slope is nearly zero.

        The objective is convex, so its slope increases along the direction: lengths are
        secants between one with a negative and one with a positive slope.
        """
        shrunk = self._penalty * direction
        bend, tilt = self._dot(direction, shrunk), self._dot(self._weights, shrunk)
        start = self._dot(self._gradient, direction)
        # The approximate rounding error of a sum of many losses.
        slack = 10 * self._epsilon * self._value
        line = _Line(start)
        todo = np.arange(len(start))
        point = found = self._look(todo, way, line.length)
        for _ in range(MOST_TRIALS):
            length = line.length[todo]
            slope = self._fold(found.slope) + tilt[todo] + length * bend[todo]
            gain = self._value[todo] - self._penalised[todo] - self._host(found.loss)
            gain = gain - length * tilt[todo] - 0.5 * length**2 * bend[todo]
            lower = gain >= -slack[todo]
            good = lower & (np.abs(slope) <= FLAT * np.abs(start[todo]))
            if good.all():
                return point, line.length
            line.narrow(todo, slope, lower)
            todo = todo[~good]
            line.draw(todo)
            found = self._look(todo, way, line.length[todo])
            point = self._merge(point, found, todo)
        line.length[todo] = line.low[todo]  # the longest with a negative slope
        found = self._look(todo, way, line.length[todo])
        return self._merge(point, found, todo), line.length

    def _look(self, todo: NDArray[np.intp], way: Any, length: Any) -> Point:
        """Evaluate some problems, each at its length along its direction."""
        loss, logits = self._loss, self._point.logits
        if len(todo) < len(self._active):
            columns = self._columns(todo)
            loss, logits, way = loss.keep(todo), logits[:, columns], way[:, columns]
        return loss.look(logits, way, self._spread(length))

    def _merge(self, point: Point, found: Point, todo: NDArray[np.intp]) -> Point:
        """Insert the new values of some problems into those of all."""
        columns = self._columns(todo)
        point.logits[:, columns] = found.logits
        point.residuals[:, columns] = found.residuals
        point.loss[todo] = found.loss
        point.curvature[columns] = found.curvature
        return point

    # --------------------------------------------------------------- coming and going

    def _leave(
        self, going: NDArray[np.bool_], done: NDArray[np.bool_], n_steps: int
    ) -> None:
        """Write down the results of some problems, and go on with the others."""
        gone, left = np.flatnonzero(going), np.flatnonzero(~going)
        names = self._active[gone]
        ours = self._columns(gone)
        firsts = np.arange(self._n_classes) * len(self._result.objective)
        theirs = (firsts[:, None] + names).reshape(-1)
        self._result.weights[:, theirs] = self._weights[:, ours]
        self._result.logits[:, theirs] = self._point.logits[:, ours]
        self._result.objective[names] = self._value[gone]
        self._result.n_iter[names] = n_steps
        self._result.converged[names] = done[gone]
        columns = self._columns(left)
        self._active = self._active[left]
        if not left.size:
            return
        self._loss = self._loss.keep(left)
        if self._penalty.shape[1] > 1:
            self._penalty = self._penalty[:, columns]
        self._weights = self._weights[:, columns]
        self._gradient = self._gradient[:, columns]
        self._scale = self._scale[:, columns]
        self._value, self._penalised = self._value[left], self._penalised[left]
        self._start = self._start[left]
        self._point = Point(
            self._point.logits[:, columns],
            self._point.residuals[:, columns],
            self._point.loss[left],
            self._point.curvature[columns],
            self._point.slope[columns],
        )
        self._pairs = [
            _Pair(pair.step[:, columns], pair.change[:, columns], pair.curvature[left])
            for pair in self._pairs
        ]

    # ------------------------------------------------- numbers per problem, per column

    def _columns(self, problems: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the columns of some of the active problems."""
        firsts = np.arange(self._n_classes) * len(self._active)
        return (firsts[:, None] + problems).reshape(-1)

    def _spread(self, values: NDArray[Any]) -> Any:
        """Repeat the number of each problem for its columns, on the device in use."""
        if self._n_classes > 1:
            values = np.tile(values, self._n_classes)
        return self._cast(values)

    def _fold(self, values: Any) -> NDArray[np.float64]:
        """Return the sum over the columns of each problem."""
        values = self._host(values)
        if self._n_classes > 1:
            values = values.reshape(self._n_classes, -1).sum(0)
        return values

    def _dot(self, one: Any, other: Any) -> NDArray[np.float64]:
        """Return the scalar product of two directions for each problem."""
        return self._fold((one * other).sum(0, dtype=self._xp.float64))

    def _host(self, values: Any) -> NDArray[np.float64]:
        return values if isinstance(values, np.ndarray) else values.cpu().numpy()

    def _cast(self, values: Any) -> Any:
        if self._xp is np:
            return np.asarray(values, dtype=self._features.dtype)
        return self._xp.as_tensor(values).to(self._features)

    def _zeros(self, *shape: int) -> Any:
        features = self._features
        return self._xp.zeros(shape, dtype=features.dtype, device=features.device)


class _Line:
    """Step lengths, one per problem: the last one tried, and bounds for the next."""

    def __init__(self, slope: NDArray[np.float64]) -> None:
        self.length = np.ones(len(slope))
        self.low, self.low_slope = np.zeros(len(slope)), slope.copy()
        self.high = np.full(len(slope), np.inf)
        self.high_slope = np.zeros(len(slope))

    def narrow(
        self,
        problems: NDArray[np.intp],
        slope: NDArray[np.float64],
        lower: NDArray[np.bool_],
    ) -> None:
        """Use the last lengths as bounds: lower ones where the slope is negative."""
        falls = lower & (slope < 0)
        down, up = problems[falls], problems[~falls]
        self.low[down], self.low_slope[down] = self.length[down], slope[falls]
        self.high[up], self.high_slope[up] = self.length[up], slope[~falls]

    def draw(self, problems: NDArray[np.intp]) -> None:
        """Set the next lengths by the secant, but not too close to the bounds."""
        low, high = self.low[problems], self.high[problems]
        fall, rise = -self.low_slope[problems], self.high_slope[problems]
        bounded = np.isfinite(high)
        width = np.where(bounded, high, 0) - low
        share = np.clip(fall / np.maximum(fall + rise, 1e-300), 0.1, 0.9)
        # A negative slope where the objective has increased is a rounding error: halve.
        share = np.where(rise > 0, share, 0.5)
        beyond = np.maximum(4 * self.length[problems], 1.0)
        self.length[problems] = np.where(bounded, low + share * width, beyond)
