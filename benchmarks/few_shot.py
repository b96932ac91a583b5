"""Heads with few labels: which is best with how many, and by how much.

Run ``python -m benchmarks.few_shot``. Images are embedded by the demonstration
checkpoint (a demonstration: its figures say nothing of medicine). Phantoms are of seeds
that its training never saw, learned from and judged by different patients; the figure
is the mean over six findings. PneumoniaMNIST [1]_ is read from ``--data``, or left out.
Every number of labels is drawn anew for each seed, as many with as without the finding.
Wording of prompts was fixed before any score was seen; the constants of PromptProbe and
the 16 images that prompts count as in the closed forms were not, they were chosen on
draws of these very sets. A head that was given prompts should lose at most .01 of the
AUC of zero-shot up to 16 labels of each class, for every finding.

References
----------
.. [1] Yang et al., "MedMNIST v2", Scientific Data 2023; X-rays of Kermany et al., Cell
   2018; CC BY 4.0.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks._measure import setting, write_results
from benchmarks.demo_checkpoint import (
    PNEUMONIA_PROMPTS,
    TEST_SEED,
    TRAIN_SEED,
    flatten,
    shrink,
    unseen_rows,
)
from sk_medsiglip import (
    LinearProbe,
    MedSigLIPEmbedder,
    PromptProbe,
    PrototypeClassifier,
    SSTextClassifier,
    TipAdapterClassifier,
    ZeroShotClassifier,
)
from sk_medsiglip.datasets import fetch_pneumonia_mnist, make_chest_phantoms
from sk_medsiglip.exceptions import DatasetError
from training.prompts import EVALUATION_PROMPTS

LABELS = (1, 2, 4, 8, 16, 64)
ROUNDING = 1e-4  # of AUC: two images that float32 ties
FINE_TUNED_UP_TO = 16  # of each class; beyond, fine-tuned keys take long


class Task(NamedTuple):
    """One finding: embeddings and raw pixels, to learn from and to be judged by."""

    name: str
    X: NDArray[Any]
    pixels: NDArray[Any]
    y: NDArray[Any]
    groups: NDArray[Any]
    X_test: NDArray[Any]
    pixels_test: NDArray[Any]
    y_test: NDArray[Any]
    zero_shot: ZeroShotClassifier


def phantom_tasks(embedder: MedSigLIPEmbedder, n: int) -> list[Task]:
    """Return the six findings of phantoms."""
    train = make_chest_phantoms(n, random_state=TRAIN_SEED)
    test = make_chest_phantoms(2000, random_state=TEST_SEED)
    X, X_test = embedder.transform(train.images), embedder.transform(test.images)
    tasks = []
    for column, name in enumerate(train.target_names):
        prompts = {name: EVALUATION_PROMPTS[name]}
        tasks.append(
            Task(
                name,
                X,
                shrink(train.images),
                train.target[:, column],
                train.groups,
                X_test,
                shrink(test.images),
                test.target[:, column],
                ZeroShotClassifier(prompts, model="demo").fit(X),
            )
        )
    return tasks


def pneumonia_tasks(embedder: MedSigLIPEmbedder, data: Path) -> list[Task]:
    """Return PneumoniaMNIST as a task, none if it is not here."""
    try:
        train, test = (fetch_pneumonia_mnist(data, subset=s) for s in ("train", "test"))
    except DatasetError as error:
        print(f"PneumoniaMNIST left out: {error}")
        return []
    keep = unseen_rows(train.images, test.images)
    X = embedder.transform(train.images[keep])
    return [
        Task(
            "pneumonia",
            X,
            flatten(train.images[keep]),
            train.target[keep],
            np.arange(len(keep)),  # its patients are not told
            embedder.transform(test.images),
            flatten(test.images),
            test.target,
            ZeroShotClassifier(PNEUMONIA_PROMPTS, model="demo").fit(X),
        )
    ]


def methods(task: Task, n: int, seed: int) -> dict[str, Callable[[], Any]]:
    """Return what is compared, by name; each call makes a new one."""
    z = task.zero_shot
    named: dict[str, Callable[[], Any]] = {
        "kNN": lambda: KNeighborsClassifier(min(5, n)),
        "LogisticRegression": lambda: LogisticRegression(max_iter=1000),
        "LinearProbe": LinearProbe,
        "PromptProbe": lambda: PromptProbe(z),
        "SSTextClassifier": lambda: SSTextClassifier(z),
        "TipAdapterClassifier": lambda: TipAdapterClassifier(z),
        "PrototypeClassifier": lambda: PrototypeClassifier(z),
    }
    if n <= FINE_TUNED_UP_TO:
        named["TipAdapterClassifier, fine-tuned"] = lambda: TipAdapterClassifier(
            z, fine_tune=True, random_state=seed
        )
    return named


def judge(y: NDArray[Any], probability: NDArray[Any]) -> tuple[float, float]:
    """Return AUC and log loss."""
    return (
        float(roc_auc_score(y, probability)),
        float(log_loss(y, np.clip(probability, 1e-7, 1 - 1e-7))),
    )


def draw(task: Task, n: int, seed: int) -> NDArray[np.intp]:
    """Return ``n`` rows with and ``n`` without the finding."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.choice(np.flatnonzero(task.y == one), n, replace=False) for one in (0, 1)]
    )


def measure(tasks: list[Task], n_seeds: int) -> dict[str, Any]:
    """Return tables of each method and number of labels, over draws and tasks."""
    found: dict[str, dict[str, list[list[tuple[float, float]]]]] = {}
    for n in LABELS:
        if any(np.bincount(task.y).min() < n for task in tasks):
            continue
        for seed in range(n_seeds):
            of_seed: dict[str, list[tuple[float, float]]] = {}
            for task in tasks:
                rows = draw(task, n, seed)
                for name, make in methods(task, n, seed).items():
                    head = make()
                    takes = hasattr(head, "_parameter_constraints") and "cv" in vars(
                        head
                    )
                    extra = {"groups": task.groups[rows]} if takes else {}
                    head.fit(task.X[rows], task.y[rows], **extra)
                    score = judge(task.y_test, head.predict_proba(task.X_test)[:, 1])
                    of_seed.setdefault(name, []).append(score)
                pixels = make_pipeline(
                    StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)
                ).fit(task.pixels[rows], task.y[rows])
                score = judge(task.y_test, pixels.predict_proba(task.pixels_test)[:, 1])
                of_seed.setdefault("raw pixels, LogisticRegression", []).append(score)
            for name, scores in of_seed.items():
                found.setdefault(name, {}).setdefault(str(n), []).append(scores)
        print(n, flush=True)
    zero = np.array(
        [judge(t.y_test, t.zero_shot.predict_proba(t.X_test)[:, 1]) for t in tasks]
    )
    tables: dict[str, Any] = {}
    for name, by_size in found.items():
        for n, scores in by_size.items():
            for figure, value in summarize(np.array(scores), zero).items():
                row = tables.setdefault(figure, {}).setdefault(
                    name, {"0": None} | {str(n): None for n in LABELS}
                )
                row[n] = value
    for i, figure in enumerate(("AUC", "log loss")):
        row = {"0": float(zero[:, i].mean())} | {str(n): None for n in LABELS}
        tables[figure] = {"zero-shot": row} | tables[figure]
    return tables


def summarize(scores: NDArray[Any], zero: NDArray[Any]) -> dict[str, float]:
    """Return the figures of one method at one number of labels.

    Parameters
    ----------
    scores : ndarray of shape (n_draws, n_tasks, 2)
        AUC and log loss.
    zero : ndarray of shape (n_tasks, 2)
        Those of zero-shot.
    """
    gain = scores[..., 0] - zero[:, 0]
    figures = {}
    for i, figure in enumerate(("AUC", "log loss")):
        of_draws = scores[..., i].mean(axis=1)
        figures[figure] = of_draws.mean()
        figures[f"{figure}, standard deviation over draws"] = of_draws.std(ddof=1)
    figures |= {
        "AUC less that of zero-shot": gain.mean(),
        "AUC less that of zero-shot, lowest of the findings": gain.mean(axis=0).min(),
        "share of fits below the AUC of zero-shot": (gain < -ROUNDING).mean(),
        "share of fits with a log loss above a coin's": (
            scores[..., 1] > np.log(2)
        ).mean(),
    }
    return {figure: float(value) for figure, value in figures.items()}


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--dry", action="store_true", help="write no results")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    embedder = MedSigLIPEmbedder("demo")
    results = setting("numpy", "scikit-learn", seeds=args.seeds, images=args.images)
    results["phantoms, mean of six findings"] = measure(
        phantom_tasks(embedder, args.images), args.seeds
    )
    if tasks := pneumonia_tasks(embedder, args.data):
        results["PneumoniaMNIST, demonstration encoder"] = measure(tasks, args.seeds)
    for name, tables in results.items():
        if isinstance(tables, dict) and "AUC" in tables:
            print(name)
            for method, row in tables["AUC"].items():
                cells = (f"{v:.3f}" if v is not None else "  –  " for v in row.values())
                print(f"{method:34}", " ".join(cells))
    if not args.dry:
        write_results("few_shot", results)


if __name__ == "__main__":
    main()
