"""Which images to label next: the queue of a session, and random draws.

Run ``python -m benchmarks.queue``. Labels are given by the truth, eight at a time, and
the area under the ROC curve is that of the session's classifier on other patients after
32, 64 and 128 labels. Each draw begins with half of the patients of the pool; both
sides see the same ones, with the same prompts, so that their differences are paired.
Phantoms and PneumoniaMNIST [1]_ are embedded by the demonstration checkpoint (its
figures say nothing of medicine); the rows of the digits are their pixels, and they have
no prompts. The rare finding is the nodule, thinned out to 2 % of the pool.
PneumoniaMNIST is read from ``--data``, or left out.

References
----------
.. [1] Yang et al., "MedMNIST v2", Scientific Data 2023; X-rays of Kermany et al., Cell
   2018; CC BY 4.0.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from benchmarks._measure import setting, write_results
from benchmarks.demo_checkpoint import (
    PNEUMONIA_PROMPTS,
    TEST_SEED,
    TRAIN_SEED,
    unseen_rows,
)
from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.datasets import fetch_pneumonia_mnist, make_chest_phantoms
from sk_medsiglip.exceptions import DatasetError
from sk_medsiglip.explore import ExploreSession
from training.prompts import EVALUATION_PROMPTS

N_LABELS = (32, 64, 128)
BATCH = 8
RARE, RARE_SHARE = "nodule", 0.02
DIGIT = 8
#: First seed of the draws. The constants of the queue were chosen on seeds 0 to 9.
SEED = 100


class Task(NamedTuple):
    """A pool to label from, and a test set, of one finding."""

    name: str
    X: NDArray[Any]
    y: NDArray[Any]
    groups: NDArray[Any]
    X_test: NDArray[Any]
    y_test: NDArray[Any]
    prompts: dict[str, Any] | None


def phantom_tasks(n_images: int, names: tuple[str, ...] | None = None) -> list[Task]:
    """Return the findings of phantoms, and one of them made rare."""
    embedder = MedSigLIPEmbedder("demo")
    pool = make_chest_phantoms(n_images, random_state=TRAIN_SEED)
    test = make_chest_phantoms(n_images, random_state=TEST_SEED)
    X, X_test = embedder.transform(pool.images), embedder.transform(test.images)
    tasks = []
    for column, name in enumerate(pool.target_names):
        y, y_test = pool.target[:, column], test.target[:, column]
        prompts = {name: EVALUATION_PROMPTS[name]}
        task = Task(name, X, y, pool.groups, X_test, y_test, prompts)
        if names is None or name in names:
            tasks.append(task)
        if name == RARE:
            kept = thin_out(y, RARE_SHARE)
            of = X[kept], y[kept], pool.groups[kept]
            rare = f"{name}, {RARE_SHARE:.0%} of the pool"
            tasks.append(Task(rare, *of, X_test, y_test, prompts))
    return tasks


def thin_out(y: NDArray[Any], share: float) -> NDArray[np.intp]:
    """Return all rows without the finding, and few with it."""
    rng = np.random.default_rng(0)
    ill, well = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    n_ill = round(share / (1 - share) * len(well))
    return np.sort(np.append(rng.choice(ill, n_ill, replace=False), well))


def pneumonia_task(data: Path) -> list[Task]:
    """Return PneumoniaMNIST, nothing if it is not here."""
    try:
        train, test = (fetch_pneumonia_mnist(data, subset=s) for s in ("train", "test"))
    except DatasetError as error:
        print(f"PneumoniaMNIST left out: {error}")
        return []
    embedder = MedSigLIPEmbedder("demo")
    keep = unseen_rows(train.images, test.images)
    X, y = embedder.transform(train.images[keep]), train.target[keep]
    patients = np.arange(len(keep))  # not told
    X_test = embedder.transform(test.images)
    prompts = PNEUMONIA_PROMPTS
    return [Task("PneumoniaMNIST", X, y, patients, X_test, test.target, prompts)]


def digits_task() -> Task:
    """Return handwritten digits of 8 x 8 pixels, one against the others."""
    found = load_digits()
    X, y = found.data.astype(np.float32), (found.target == DIGIT).astype(int)
    each, half = np.arange(len(X)), len(X) // 2
    return Task(
        f"digits, {DIGIT} or not", X[:half], y[:half], each[:half], X[half:], y[half:],
        None,
    )  # fmt: skip


def measure(task: Task, n_draws: int) -> dict[str, Any]:
    """Return the areas by number of labels, and the paired difference."""
    chosen, random = (
        np.array([list(areas(task, SEED + i, by_queue)) for i in range(n_draws)])
        for by_queue in (True, False)
    )
    found: dict[str, Any] = {"positives in the pool": float(task.y.mean())}
    for place, n_labels in enumerate(N_LABELS):
        gain = chosen[:, place, 0] - random[:, place, 0]
        low, high = interval(gain)
        found[f"{n_labels} labels"] = {
            "AUC, random": float(random[:, place, 0].mean()),
            "AUC, queue": float(chosen[:, place, 0].mean()),
            "queue - random": float(gain.mean()),
            "low": low,
            "high": high,
            "positives, random": float(random[:, place, 1].mean()),
            "positives, queue": float(chosen[:, place, 1].mean()),
        }
    return found


def interval(gain: NDArray[np.float64]) -> tuple[float, float]:
    """Return the interval of a mean over draws, by Student's t."""
    if len(gain) < 2:
        return float("nan"), float("nan")
    half = student.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain))
    return float(gain.mean() - half), float(gain.mean() + half)


def areas(task: Task, seed: int, by_queue: bool) -> Iterator[tuple[float, int]]:
    """Yield the area and the number of positives, at each number of labels."""
    rng = np.random.default_rng(seed)
    patients = rng.permutation(np.unique(task.groups))
    pool = np.flatnonzero(np.isin(task.groups, patients[: len(patients) // 2]))
    session = ExploreSession(
        task.X[pool], label=None if task.prompts else "label", prompts=task.prompts,
        groups=task.groups[pool], model="demo", random_state=seed,
    )  # fmt: skip
    truth = task.y[pool]
    at_random = rng.permutation(len(pool))
    for n_labels in range(BATCH, max(N_LABELS) + 1, BATCH):
        rows = (
            session.queue(BATCH) if by_queue else at_random[n_labels - BATCH : n_labels]
        )
        for value, word in ((0, "no"), (1, "yes")):
            session.label(rows[truth[rows] == value], session.columns[0], word)
        known = session.labels.iloc[:, 0]
        can_learn = task.prompts is not None or known.nunique() > 1
        if can_learn and (by_queue or n_labels in N_LABELS):
            session.refit(figures=False)
        if n_labels in N_LABELS:
            area = 0.5
            if session.classifier_ is not None:
                scores = session.classifier_.decision_function(task.X_test)
                area = float(roc_auc_score(task.y_test, scores))
            yield area, int((known == "yes").sum())


def main() -> None:
    """Read the command line, measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--dry", action="store_true", help="write no results")
    arguments = parser.parse_args()
    tasks = phantom_tasks(arguments.images)
    tasks += [*pneumonia_task(arguments.data), digits_task()]
    results: dict[str, Any] = setting(
        "numpy", "scikit-learn", draws=arguments.draws, batch=BATCH,
        images=arguments.images,
    )  # fmt: skip
    for task in tasks:
        results[task.name] = measure(task, arguments.draws)
        print(task.name, results[task.name], flush=True)
    if not arguments.dry:
        write_results("queue", results)


if __name__ == "__main__":
    main()
