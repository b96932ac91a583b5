"""The loss of bags: logits of instances, pooled softly, and a logit of the whole.

Rows of logits are bag after bag: one for each instance, then one for the whole bag. The
logit of a bag is ``log(mean_j exp(4 s_j)) / 4`` over the instances that are there, plus
that of the whole. A mean rather than a sum: a bag of many instances that say nothing
scores as a bag of few.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sk_medsiglip.heads._logistic_loss import (
    BLOCK,
    BinaryLoss,
    Point,
    SoftmaxLoss,
    array_namespace,
)

# How close to the maximum instances are pooled; 0 would be their mean. Few labels allow
# small logits only, of which 1 takes little more than the mean: AUC .780 with 1, .786
# with 4 on planted spots at 200 labels (demonstration checkpoint, mean of four sets). 8
# did no better, nor did another value at 2,000 labels.
SHARPNESS = 4.0


@dataclass(frozen=True, eq=False)
class PooledLoss:
    """Loss of bags, from the loss of their pooled logits."""

    of_bags: BinaryLoss | SoftmaxLoss
    present: Any  # (n_bags, n_instances), bool

    @property
    def n_classes(self) -> int:
        """Columns a problem."""
        return self.of_bags.n_classes

    @property
    def weights(self) -> Any:
        """Weights of the bags, a column a problem."""
        return self.of_bags.weights

    def keep(self, problems: Any) -> PooledLoss:
        """Return the loss of some of the problems."""
        return replace(self, of_bags=self.of_bags.keep(problems))

    def look(self, start: Any, way: Any, length: Any) -> Point:
        """Return what is at ``start + length * way``; ``length`` is one a column."""
        xp = array_namespace(start)
        n_bags, n_instances = self.present.shape
        n_columns = start.shape[1]
        by_bag = n_bags, n_instances + 1, n_columns
        start, way = start.reshape(by_bag), way.reshape(by_bag)
        logits, residuals = xp.empty_like(start), xp.empty_like(start)
        loss = curvature = slope = 0.0
        step = max(1, BLOCK // ((n_instances + 1) * n_columns))
        for first in range(0, n_bags, step):
            rows = slice(first, first + step)
            logits[rows] = start[rows] + length * way[rows]
            pooled, shares = pool(logits[rows], self.present[rows])
            some_loss, of_bags, some_curvature = self.of_bags.look_at(rows, pooled)
            residuals[rows, :-1] = of_bags[:, None] * shares
            residuals[rows, -1] = of_bags
            loss = loss + some_loss
            curvature = curvature + some_curvature
            slope = slope + (residuals[rows] * way[rows]).sum((0, 1), dtype=xp.float64)
        flat = -1, n_columns
        return Point(
            logits.reshape(flat), residuals.reshape(flat), loss, curvature, slope
        )


def pool(logits: Any, present: Any) -> tuple[Any, Any]:
    """Return logits of bags, and the share that each instance has in its bag's.

    ``logits`` is ``(n_bags, n_instances + 1, n_columns)``, the last row of a bag being
    the logit of the whole.
    """
    xp = array_namespace(logits)
    parts, whole = logits[:, :-1], logits[:, -1]
    is_padded = not present.all()
    if is_padded:
        parts = xp.where(present[:, :, None], parts, -xp.inf)
    top = xp.amax(parts, 1)
    powers = xp.exp(SHARPNESS * (parts - top[:, None]))
    total = powers.sum(1)
    count = present.sum(1, dtype=total.dtype)[:, None]
    pooled = top + xp.log(total / count) / SHARPNESS
    return pooled + whole, powers / total[:, None]
