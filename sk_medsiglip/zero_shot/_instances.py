"""Zero-shot classification of bags: scores of instances, and their pooling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._bags import check_bags, is_bags, iter_bags
from sk_medsiglip._embeddings import check_embeddings
from sk_medsiglip.prompts import Question
from sk_medsiglip.zero_shot._scores import cosines

AGGREGATES = {"max", "mean", "top-k mean"}
#: Number of values that are read at once, 32 MiB of float32.
_VALUES_AT_ONCE = 2**23


def check_rows_or_bags(estimator: Any, X: Any, *, reset: bool = True) -> Any:
    """Return rows as a checked matrix, or bags as an array of three axes."""
    if not is_bags(X):
        return check_embeddings(estimator, X, reset=reset)
    width = None if reset else estimator.n_features_in_
    bags = check_bags(X, width=width, estimator=estimator, values=False)
    if reset:
        estimator.n_features_in_ = int(bags.shape[2])
    return bags


def iter_cosines(
    bags: Any, vectors: NDArray[np.floating], starts: NDArray[np.intp] | None = None
) -> Iterator[NDArray[np.floating]]:
    """Yield cosines of a few bags at a time, ``(n, n_instances, n_answers)``.

    They are NaN for missing instances.
    """
    n_instances, width = bags.shape[1:]
    batch = max(1, _VALUES_AT_ONCE // (n_instances * width))
    for _, block, present in iter_bags(bags, batch):
        found = cosines(block.reshape(-1, width), vectors, starts)
        found[~present.ravel()] = np.nan
        yield found.reshape(*present.shape, -1)


@dataclass(frozen=True)
class Pooling:
    """Pooling of the scores of a bag's instances.

    ``n_best`` holds the number of instances that count, None for all. It has an entry
    for each finding, or one for exclusive classes.
    """

    n_best: tuple[int | None, ...]
    is_pairs: bool

    def pool(self, scores: NDArray[Any], finding: int = 0) -> NDArray[Any]:
        """Pool the scores of one question, ``(n, n_instances, n_answers, ...)``.

        For findings instances are ranked by present minus absent, so that both answers
        come from the same instances. For exclusive classes each is ranked separately.
        """
        n_best = self.n_best[finding]
        if n_best is None:
            return np.nanmean(scores, axis=1)
        rank = scores
        if self.is_pairs:
            rank = scores[:, :, 1:2] - scores[:, :, 0:1]
        if n_best == 1:
            best = np.nanargmax(rank, axis=1, keepdims=True)
        else:  # NaN is sorted to the end
            best = np.argsort(-rank, axis=1, kind="stable")[:, :n_best]
        return np.nanmean(np.take_along_axis(scores, best, axis=1), axis=1)

    def pool_all(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Pool the scores of one question, or of each of several findings."""
        if scores.ndim == 3:
            return self.pool(scores)
        each = [self.pool(scores[:, :, i], i) for i in range(scores.shape[2])]
        return np.stack(each, axis=1)


def make_pooling(aggregate: Any, top_k: int, question: Question) -> Pooling:
    """Return the pooling of the parameters for a question."""
    names = question.labels.tolist()
    if isinstance(aggregate, Mapping):
        if not question.is_pairs:
            raise ValueError(
                "aggregate can be a dict for findings only. For exclusive classes pass "
                f"one of {_named()}."
            )
        if set(aggregate) != set(names):
            raise ValueError(
                f"aggregate has entries for {list(aggregate)}, and the findings are "
                f"{names}; pass an entry for each of these."
            )
        chosen = [aggregate[name] for name in names]
    else:
        chosen = [aggregate] * (len(names) if question.is_pairs else 1)
    n_best = {"max": 1, "mean": None, "top-k mean": top_k}
    for one in chosen:
        if not isinstance(one, str) or one not in n_best:
            raise ValueError(f"aggregate must be one of {_named()}; got {one!r}.")
    return Pooling(tuple(n_best[one] for one in chosen), question.is_pairs)


def _named() -> str:
    return ", ".join(map(repr, sorted(AGGREGATES)))
