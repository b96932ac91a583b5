"""Measure the built-in checkpoint: zero-shot, few labels, unseen scanners, real X-rays.

Run from the repository's root::

    python -m benchmarks.demo_checkpoint

Phantoms come from seeds that training never used, prompts are worded as no training
caption is, and the shifted settings lie outside the ranges of training. PneumoniaMNIST
is read from ``--data`` (or downloaded); no image of it was trained on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Bunch

from sk_medsiglip import MedSigLIPEmbedder, ZeroShotClassifier
from sk_medsiglip.datasets import fetch_pneumonia_mnist, make_chest_phantoms
from sk_medsiglip.encoder import find_checkpoint
from sk_medsiglip.exceptions import DatasetError
from training.prompts import EVALUATION_PROMPTS, shared_with_training

RESULTS = Path(__file__).parent / "results" / "demo_checkpoint.json"
LABELS = (8, 32, 128, 512)
TRAIN_SEED, TEST_SEED = 20_001, 20_002

# Training saw habitus 0 to 1, rotation -6 to 6, gamma 0.75 to 1.3, noise to 0.03 (to
# 0.036 with what training adds).
SETTINGS: dict[str, dict] = {
    "as in training": {},
    "noise 0.04 to 0.07": {"noise": (0.04, 0.07)},
    "gamma 1.35 to 1.6": {"gamma": (1.35, 1.6)},
    "gamma 0.55 to 0.7": {"gamma": (0.55, 0.7)},
    "habitus 1.05 to 1.4": {"habitus": (1.05, 1.4)},
    "rotation -12 to 12": {"rotation": (-12.0, 12.0)},
    "all shifted": {
        "noise": (0.03, 0.05),
        "gamma": (1.3, 1.5),
        "habitus": (0.8, 1.3),
        "rotation": (-10.0, 10.0),
    },
}
WITH_LABELS = ("as in training", "all shifted")

# Chosen before any score was seen.
PNEUMONIA_PROMPTS = {
    "pneumonia": {
        "positive": [
            "this radiograph demonstrates pneumonia",
            "this radiograph demonstrates consolidation",
        ],
        "negative": [
            "this radiograph demonstrates no pneumonia",
            "this radiograph demonstrates a normal chest",
        ],
    }
}


def main() -> None:
    """Read the command line, measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if shared := shared_with_training():
        raise SystemExit(f"Prompts that training has seen: {shared}")
    started = time.perf_counter()
    embedder = MedSigLIPEmbedder(arguments.model, cache=False)
    results: dict = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("numpy", "scikit-learn", "torch", "transformers")
            },
        },
        "model": arguments.model,
        "revision": find_checkpoint(arguments.model).revision,
        "test_images": arguments.images,
        "label_draws": arguments.draws,
        "phantoms": {
            name: measure_phantoms(embedder, arguments, name) for name in SETTINGS
        },
        "pneumonia_mnist": measure_pneumonia(embedder, arguments),
    }
    results["seconds"] = round(time.perf_counter() - started, 1)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(as_markdown(results))


def measure_phantoms(
    embedder: MedSigLIPEmbedder, arguments: argparse.Namespace, setting: str
) -> dict:
    """Return the AUCs in one setting of the generator."""
    ranges = SETTINGS[setting]
    test = make_chest_phantoms(arguments.images, random_state=TEST_SEED, **ranges)
    vectors = embedder.transform(test.images)
    zero_shot = ZeroShotClassifier(
        EVALUATION_PROMPTS, model=embedder.model, cache=False
    ).fit(vectors)
    # Columns of the scores are in the order of the prompts.
    order = [list(zero_shot.findings_).index(name) for name in test.target_names]
    scores = zero_shot.decision_function(vectors)[:, order]
    each = column_aucs(test.target, scores)
    result = {
        "zero_shot": float(np.mean(each)),
        "zero_shot_each": dict(zip(test.target_names, each, strict=True)),
        "zero_shot_visible": visible_auc(test, scores),
    }
    if setting in WITH_LABELS:
        train = make_chest_phantoms(arguments.images, random_state=TRAIN_SEED, **ranges)
        draws = {n: list(draw_rows(train.target, n, arguments.draws)) for n in LABELS}
        spaces = {
            "probe": (embedder.transform(train.images), vectors),
            "raw_pixels": (shrink(train.images), shrink(test.images)),
        }
        for space, (X_train, X_test) in spaces.items():
            result[space] = {
                str(n): summary(
                    np.mean(fit_and_score(X_train, train.target, rows, X_test, test))
                    for rows in draws[n]
                )
                for n in LABELS
            }
    print(f"{setting}: zero-shot {result['zero_shot']:.3f}", flush=True)
    return result


def measure_pneumonia(
    embedder: MedSigLIPEmbedder, arguments: argparse.Namespace
) -> dict | None:
    """Return the AUCs on the 624 real test images, None if the set is not here."""
    try:
        train, test = (
            fetch_pneumonia_mnist(arguments.data, subset=subset)
            for subset in ("train", "test")
        )
    except DatasetError as error:
        print(f"PneumoniaMNIST left out: {error}")
        return None
    keep = unseen_rows(train.images, test.images)
    images, target = train.images[keep], train.target[keep]
    vectors = embedder.transform(test.images)
    zero_shot = ZeroShotClassifier(
        PNEUMONIA_PROMPTS, model=embedder.model, cache=False
    ).fit(vectors)
    result: dict = {
        "zero_shot": float(
            roc_auc_score(test.target, zero_shot.decision_function(vectors))
        )
    }
    draws = {n: list(draw_balanced(target, n, arguments.draws)) for n in LABELS}
    spaces = {
        "probe": (embedder.transform(images), vectors),
        "raw_pixels": (flatten(images), flatten(test.images)),
    }
    for space, (X_train, X_test) in spaces.items():
        result[space] = {
            str(n): summary(
                roc_auc_score(
                    test.target,
                    head().fit(X_train[rows], target[rows]).decision_function(X_test),
                )
                for rows in draws[n]
            )
            for n in LABELS
        }
    return result


def head() -> ClassifierMixin:
    """Return the probe; one for embeddings and raw pixels alike."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))


def fit_and_score(X_train, target, rows, X_test, test: Bunch) -> list[float]:
    """Return one AUC a finding for a head fitted on some rows."""
    return [
        float(
            roc_auc_score(
                test.target[:, column],
                head()
                .fit(X_train[rows], target[rows, column])
                .decision_function(X_test),
            )
        )
        for column in range(target.shape[1])
    ]


def draw_rows(target: np.ndarray, n_labels: int, n_draws: int):
    """Yield random rows in which every finding is both present and absent."""
    rng = np.random.default_rng(0)
    for _ in range(n_draws):
        while True:
            rows = rng.choice(len(target), n_labels, replace=False)
            present = target[rows].mean(axis=0)
            if ((present > 0) & (present < 1)).all():
                yield rows
                break


def draw_balanced(target: np.ndarray, n_labels: int, n_draws: int):
    """Yield rows with as many positives as negatives."""
    rng = np.random.default_rng(0)
    for _ in range(n_draws):
        yield np.concatenate(
            [
                rng.choice(np.flatnonzero(target == value), n_labels // 2, False)
                for value in (0, 1)
            ]
        )


def unseen_rows(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return rows of distinct pictures, none of which is in ``others``."""
    seen = {picture.tobytes() for picture in others}
    rows = []
    for row, picture in enumerate(images):
        key = picture.tobytes()
        if key not in seen:
            seen.add(key)
            rows.append(row)
    return np.array(rows)


def visible_auc(test: Bunch, scores: np.ndarray) -> float:
    """Return the macro AUC without the findings of which captions name a sign only."""
    each = []
    for column, name in enumerate(test.target_names):
        named = (test.facts[f"{name}_sign"] != 1).to_numpy()
        each.append(roc_auc_score(test.target[named, column], scores[named, column]))
    return float(np.mean(each))


def column_aucs(target: np.ndarray, scores: np.ndarray) -> list[float]:
    """Return one AUC a column."""
    return [
        float(roc_auc_score(target[:, i], scores[:, i])) for i in range(target.shape[1])
    ]


def shrink(images: np.ndarray) -> np.ndarray:
    """Return 32 x 32 pixels: the mean of each 4 x 4 block."""
    blocks = images.reshape(len(images), 32, 4, 32, 4).mean(axis=(2, 4))
    return blocks.reshape(len(images), -1) / 255


def flatten(images: np.ndarray) -> np.ndarray:
    """Return all pixels of each image as a row."""
    return images.reshape(len(images), -1) / 255


def summary(values) -> dict[str, float]:
    """Return mean and standard deviation over label draws."""
    values = list(values)
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}


def as_markdown(results: dict) -> str:
    """Return the tables for the checkpoint's README."""
    phantoms = results["phantoms"]
    lines = ["| phantoms | zero-shot macro AUC | without barely visible findings |"]
    lines += ["| --- | --- | --- |"]
    for name, row in phantoms.items():
        lines.append(
            f"| {name} | {row['zero_shot']:.3f} | {row['zero_shot_visible']:.3f} |"
        )
    each = {name: phantoms[name]["zero_shot_each"] for name in WITH_LABELS}
    names = list(each[WITH_LABELS[0]])
    lines += ["", f"| zero-shot AUC | {' | '.join(names)} |"]
    lines += ["| --- |" + " --- |" * len(names)]
    for setting, row in each.items():
        lines.append(
            f"| {setting} | {' | '.join(f'{row[name]:.3f}' for name in names)} |"
        )
    counts = " | ".join(f"{n} labels" for n in LABELS)
    lines += ["", f"| AUC | zero-shot | {counts} |"]
    lines += ["| --- | --- |" + " --- |" * len(LABELS)]
    sets = {f"phantoms, {name}": phantoms[name] for name in WITH_LABELS}
    if results["pneumonia_mnist"]:
        sets["PneumoniaMNIST test (624)"] = results["pneumonia_mnist"]
    for name, row in sets.items():
        for space, words in (("probe", "linear probe"), ("raw_pixels", "raw pixels")):
            zero_shot = f"{row['zero_shot']:.3f}" if space == "probe" else ""
            cells = " | ".join(f"{row[space][str(n)]['mean']:.3f}" for n in LABELS)
            lines.append(f"| {name}, {words} | {zero_shot} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
