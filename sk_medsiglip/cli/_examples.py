"""Which images the overview shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.cli._labels import Task
from sk_medsiglip.cli._plot import Example
from sk_medsiglip.images import read_image

__all__ = ["held_out_examples", "nearest_examples"]

_N_EXAMPLES = 4


def held_out_examples(
    paths: Sequence[Any],
    task: Task,
    test: NDArray[np.intp],
    scores: NDArray[np.floating],
) -> list[Example]:
    """Return held-out images of different labels, with their zero-shot scores."""
    truth = task.indicators()
    _, first = np.unique(truth[test], axis=0, return_index=True)
    # Of those with the fewest findings at once: a picture of one thing each.
    first = first[np.argsort(truth[test][first].sum(axis=1), kind="stable")]
    others = np.setdiff1d(np.arange(len(test)), first)
    chosen = test[np.concatenate([first, others])[:_N_EXAMPLES]]
    return [
        Example(
            read_image(paths[row]),
            task.labels_of(row),
            tuple(truth[row].tolist()),
            scores[row],
        )
        for row in chosen.tolist()
    ]


def nearest_examples(
    paths: Sequence[Any], task: Task, nearest: list[tuple[int, float]]
) -> list[Example]:
    """Return the images nearest to the sentence, with cosine and labels."""
    return [
        Example(read_image(paths[row]), f"cosine {cosine:.3f}\n{task.labels_of(row)}")
        for row, cosine in nearest
    ]
