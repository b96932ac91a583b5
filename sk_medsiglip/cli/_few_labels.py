"""How many labels a head needs to overtake the prompts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_medsiglip.cli._labels import Task

__all__ = ["FEW", "few_labels_auc", "possible_sizes"]

FEW = (8, 32, 128)


def possible_sizes(task: Task) -> list[int]:
    """Return the numbers of labels that can be drawn: each class at least once."""
    n_classes = max(len(np.unique(y)) for y in task.questions())
    return [size for size in FEW if n_classes <= size < len(task.y)]


def few_labels_auc(
    X: NDArray[np.float32],
    task: Task,
    X_test: NDArray[np.float32],
    task_test: Task,
    *,
    n_labels: int,
    n_draws: int,
    seed: int,
) -> list[float]:
    """Return the macro AUC of heads trained on a few labelled images, one a draw.

    Parameters
    ----------
    X, task
        Embeddings and labels to draw from.
    X_test, task_test
        Held-out patients.
    n_labels : int
        Images drawn: one of each class, the others at random. For several findings,
        drawn for each anew.
    n_draws : int
        Number of draws.
    seed : int
        Of the draws.

    Returns
    -------
    list of float
    """
    aucs = []
    for draw in range(n_draws):
        rng = np.random.default_rng([seed, n_labels, draw])
        columns = []
        for name, y in zip(task.names, task.questions(), strict=False):
            rows = _draw(y, n_labels, rng)
            head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            head.fit(X[rows], y[rows])
            if task.kind == "findings":
                columns.append(Task("finding", (name,), y).scores(head, X_test))
            else:
                columns.append(task.scores(head, X_test))
        scores = np.hstack(columns)
        aucs.append(float(np.mean(list(task_test.aucs(scores).values()))))
    return aucs


def _draw(y: NDArray, n_labels: int, rng: np.random.Generator) -> NDArray[np.intp]:
    order = rng.permutation(len(y))
    firsts = order[np.unique(y[order], return_index=True)[1]]
    others = order[~np.isin(order, firsts)]
    return np.concatenate([firsts, others[: n_labels - len(firsts)]])
