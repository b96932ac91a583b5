"""Which images to label next: the queue of a session, random draws, scikit-activeml.

Run ``python -m benchmarks.queue``. Labels are given by the truth, eight at a time, and
the area under the ROC curve is that of the session's classifier on other patients after
32, 64 and 128 labels. Each draw begins with half of the patients of the pool; all
sides see the same ones, with the same prompts, so that their differences are paired.
The strategies of scikit-activeml ask the classifier of the session, refitted after each
eight labels as for the queue. Of seven, the one with the highest mean area on each set
is compared; it was found on other draws.
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
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from benchmarks._measure import read_results, setting, write_results
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
#: First seed of the draws. The constants of the queue were chosen on seeds 0 to 9, and
#: so were the strategies of scikit-activeml.
SEED, FIRST_SEED = 100, 0

Rows = NDArray[np.intp]
#: Returns the next rows to label, of a session and what is known: 0, 1, or NaN.
Chooser = Callable[[ExploreSession, NDArray[np.float64], int], Rows]


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


def by_queue(session: ExploreSession, known: NDArray[np.float64], seed: int) -> Rows:
    """Return what the session asks for next."""
    return session.queue(BATCH)


def at_random(session: ExploreSession, known: NDArray[np.float64], seed: int) -> Rows:
    """Return the next of the rows in a random order, the same at each call."""
    order = np.random.default_rng([seed, 1]).permutation(len(known))
    n_known = int(np.isfinite(known).sum())
    return order[n_known : n_known + BATCH]


def by_strategy(make: Callable[..., Any]) -> Chooser:
    """Return a chooser that asks a strategy of scikit-activeml."""
    from skactiveml import pool
    from skactiveml.classifier import SklearnClassifier

    def choose(session: ExploreSession, known: NDArray[np.float64], seed: int) -> Rows:
        strategy = make(random_state=seed + int(np.isfinite(known).sum()))
        asked: dict[str, Any] = {}
        if not isinstance(strategy, pool.TypiClust | pool.MaxHerding):
            if session.classifier_ is None:  # without prompts, before two labels
                return at_random(session, known, seed)
            classifier = SklearnClassifier(session.classifier_, classes=[0, 1])
            name = "estimator" if isinstance(strategy, pool.Clue) else "clf"
            asked = {name: classifier, f"fit_{name}": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # clusters of rows that are equal
            found = strategy.query(session.X, known, batch_size=BATCH, **asked)
        return np.asarray(found, dtype=np.intp)

    return choose


def strategies() -> dict[str, Chooser]:
    """Return strategies of scikit-activeml for batches, on rows of a frozen network."""
    from skactiveml import pool

    makers = {
        "margin": partial(pool.UncertaintySampling, "margin_sampling"),
        "BADGE": pool.Badge,
        "CLUE": pool.Clue,
        "DropQuery": pool.DropQuery,
        "FALCUN": pool.Falcun,
        "TypiClust": pool.TypiClust,
        "MaxHerding": pool.MaxHerding,
    }
    return {name: by_strategy(make) for name, make in makers.items()}


def measure(
    task: Task, n_draws: int, theirs: Mapping[str, Chooser], n_tried: int
) -> dict[str, Any]:
    """Return the areas by number of labels, and the paired differences."""
    sides: dict[str, Chooser] = {"random": at_random, "queue": by_queue}
    results: dict[str, Any] = {"positives in the pool": float(task.y.mean())}
    if theirs:
        tried = {
            name: float(draws(task, choose, FIRST_SEED, n_tried)[..., 0].mean())
            for name, choose in theirs.items()
        }
        best = max(tried, key=lambda name: tried[name])
        sides["theirs"] = theirs[best]
        results["scikit-activeml's best"] = best
        results["mean AUC of its strategies on other draws"] = tried
    found = {name: draws(task, choose, SEED, n_draws) for name, choose in sides.items()}
    for place, n_labels in enumerate(N_LABELS):
        at = {name: values[:, place] for name, values in found.items()}
        others = [name for name in at if name != "queue"]
        results[f"{n_labels} labels"] = {
            **{f"AUC, {name}": float(at[name][:, 0].mean()) for name in at},
            **{
                key: value
                for name in others
                for key, value in gain(name, at["queue"] - at[name]).items()
            },
            **{f"positives, {name}": float(at[name][:, 1].mean()) for name in at},
        }
    return results


def draws(task: Task, choose: Chooser, first: int, n: int) -> NDArray[np.float64]:
    """Return area and number of positives, (draws, numbers of labels, 2)."""
    return np.array([list(areas(task, first + i, choose)) for i in range(n)])


def gain(name: str, differences: NDArray[np.float64]) -> dict[str, float]:
    """Return the mean of paired differences, and its interval by Student's t."""
    values = differences[:, 0]
    half = float("nan")
    if len(values) > 1:
        half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1)
        half /= np.sqrt(len(values))
    mean = float(values.mean())
    return {
        f"queue - {name}": mean,
        f"low, {name}": float(mean - half),
        f"high, {name}": float(mean + half),
    }


def areas(task: Task, seed: int, choose: Chooser) -> Iterator[tuple[float, int]]:
    """Yield the area and the number of positives, at each number of labels."""
    rng = np.random.default_rng(seed)
    patients = rng.permutation(np.unique(task.groups))
    pool = np.flatnonzero(np.isin(task.groups, patients[: len(patients) // 2]))
    session = ExploreSession(
        task.X[pool], label=None if task.prompts else "label", prompts=task.prompts,
        groups=task.groups[pool], model="demo", random_state=seed,
    )  # fmt: skip
    truth = task.y[pool]
    known = np.full(len(pool), np.nan)
    if task.prompts is not None:
        session.refit(figures=False)
    for n_labels in range(BATCH, max(N_LABELS) + 1, BATCH):
        rows = choose(session, known, seed)
        known[rows] = truth[rows]
        for value, word in ((0, "no"), (1, "yes")):
            session.label(rows[truth[rows] == value], session.columns[0], word)
        can_learn = task.prompts is not None or len(np.unique(known[known >= 0])) > 1
        if can_learn and (choose is not at_random or n_labels in N_LABELS):
            session.refit(figures=False)
        if n_labels in N_LABELS:
            area = 0.5
            if session.classifier_ is not None:
                scores = session.classifier_.decision_function(task.X_test)
                area = float(roc_auc_score(task.y_test, scores))
            yield area, int((known == 1).sum())


def main() -> None:
    """Read the command line, measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--tried", type=int, default=3, help="draws to choose by")
    parser.add_argument("--only", nargs="+", help="sets to measure; others are kept")
    parser.add_argument("--dry", action="store_true", help="write no results")
    arguments = parser.parse_args()
    tasks = phantom_tasks(arguments.images)
    tasks += [*pneumonia_task(arguments.data), digits_task()]
    results: dict[str, Any] = {} if arguments.only is None else read_results("queue")
    results |= setting(
        "numpy", "scikit-learn", "scikit-activeml", draws=arguments.draws, batch=BATCH,
        images=arguments.images, tried=arguments.tried,
    )  # fmt: skip
    theirs = strategies()
    named = {task.name: task for task in tasks}
    for name in arguments.only or named:
        results[name] = measure(named[name], arguments.draws, theirs, arguments.tried)
        print(name, results[name], flush=True)
        if not arguments.dry:
            write_results("queue", results)


if __name__ == "__main__":
    main()
