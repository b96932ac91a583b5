"""What fine-tuning gains and what it costs of what was known.

Run one part, or all of them in turn, on a quiet machine::

    python -m benchmarks.fine_tuning new-finding
    python -m benchmarks.fine_tuning other-scanner
    python -m benchmarks.fine_tuning pneumonia

``new-finding``: phantoms with a hiatal hernia, which the demonstration checkpoint never
saw, and reports that tell of it. ``other-scanner``: phantoms of a scanner with another
tone and edges, with reports of that scanner or with few labels. ``pneumonia``: real
X-rays of PneumoniaMNIST [1]_, read from ``--data``. The checkpoint is a demonstration
and knows nothing of medicine: its figures are a pattern, not a promise. Seeds of
phantoms are such as its training never saw; settings were chosen on other seeds than
those that are judged here, those of PneumoniaMNIST not at all.

References
----------
.. [1] Yang et al., "MedMNIST v2", Scientific Data 2023; X-rays of Kermany et al., Cell
   2018; CC BY 4.0.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Bunch

from benchmarks._measure import setting, write_results
from benchmarks.demo_checkpoint import (
    PNEUMONIA_PROMPTS,
    column_aucs,
    draw_rows,
    flatten,
    shrink,
    unseen_rows,
)
from sk_medsiglip import LinearProbe, MedSigLIPEmbedder, ZeroShotClassifier
from sk_medsiglip.datasets import fetch_pneumonia_mnist, make_chest_phantoms
from sk_medsiglip.evaluation import evaluate
from sk_medsiglip.exceptions import DatasetError
from sk_medsiglip.fine_tuning import MedSigLIPFineTuner
from training.prompts import EVALUATION_PROMPTS

TRAIN_SEED, TEST_SEED = 50_001, 50_002

# Words of the reports; the prompts that judge are worded otherwise.
HERNIA = (
    "There is a hiatal hernia.",
    "A hiatal hernia is seen.",
    "Hiatal hernia with an air-fluid level.",
)
NO_HERNIA = (
    "There is no hiatal hernia.",
    "No hiatal hernia is seen.",
    "No hiatal hernia.",
)
NEW = "hiatal hernia"
NEW_PROMPTS = {
    NEW: {
        "positive": ["this radiograph demonstrates a hiatal hernia"],
        "negative": ["this radiograph demonstrates no hiatal hernia"],
    }
}
PLAIN_PROMPTS = {
    "pneumonia": {"positive": ["pneumonia"], "negative": ["normal chest"]},
}

Pixels = NDArray[np.uint8]


def main() -> None:
    """Read the command line, measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts: dict[str, Callable[[argparse.Namespace], Any]] = {
        "new-finding": new_finding,
        "other-scanner": other_scanner,
        "pneumonia": pneumonia,
    }
    parser.add_argument("part", nargs="?", choices=list(parts))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--dry", action="store_true", help="write no results")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in [args.part] if args.part else parts:
        started = time.perf_counter()
        found = parts[name](args)
        if found is None:
            continue
        results = setting("numpy", "scikit-learn", "torch", "transformers", "peft")
        results |= {"training images": args.images, **found}
        results["minutes"] = round((time.perf_counter() - started) / 60, 1)
        print(json.dumps(results, indent=1))
        if not args.dry:
            write_results(f"fine_tuning_{name.replace('-', '_')}", results)


# A finding that the checkpoint never saw.


def new_finding(args: argparse.Namespace) -> dict[str, Any]:
    """Return zero-shot AUCs of the new finding and of the old ones."""
    train, y = with_hernias(args.images, TRAIN_SEED)
    test, y_test = with_hernias(args.test_images, TEST_SEED)
    rng = np.random.default_rng(TRAIN_SEED)
    told = [str(rng.choice(HERNIA if one else NO_HERNIA)) for one in y]
    reports = [[a, b] for a, b in zip(train.captions, told, strict=True)]
    before = zero_shot_aucs("demo", test, y_test)
    rows: dict[str, Any] = {"as it is": _new_and_old(before, before)}
    runs: dict[str, tuple[Any, dict[str, Any]]] = {
        "reports, keep": (reports, {"keep": EVALUATION_PROMPTS, "keep_weight": 2.0}),
        "reports": (reports, {}),
    }
    for name, (texts, settings) in runs.items():
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            # More to learn with than attention alone: old and new must both find room.
            tuner = tuned(
                scratch, epochs=8, lora_rank=16, lora_layers="all", **settings
            )
            tuner.fit(train.images, texts, groups=train.groups)
            seconds = time.perf_counter() - started
            after = zero_shot_aucs(tuner.as_embedder().model, test, y_test)
            rows[name] = _new_and_old(after, before) | {"seconds of fit": seconds}
            saved = Path(tuner.save(Path(scratch) / "saved"))
            size = sum(f.stat().st_size for f in saved.iterdir() if f.is_file())
        print(name, rows[name], flush=True)
    n_values = sum(p.numel() for p in network_of_demo().parameters())
    return {
        "test images": args.test_images,
        "trained values": tuner.n_trained_,
        "all values": n_values,
        "trained share": tuner.n_trained_ / n_values,
        "bytes of the saved folder": size,
        "zero-shot AUC": rows,
    }


def with_hernias(n: int, seed: int) -> tuple[Bunch, NDArray[np.int64]]:
    """Return phantoms; 40 % of the patients have a pouch with gas behind the heart."""
    phantoms = make_chest_phantoms(n, random_state=seed)
    rng = np.random.default_rng(seed)
    ill = {who: rng.random() < 0.4 for who in dict.fromkeys(phantoms.groups)}
    y = np.array([int(ill[who]) for who in phantoms.groups])
    down, across = np.mgrid[:128, :128]
    for row in np.flatnonzero(y):
        x, middle, radius = rng.uniform((61, 74, 9), (73, 84, 15))
        distance = np.hypot(across - x, (down - middle) / rng.uniform(0.8, 1))
        pouch = np.clip(radius - distance + 0.5, 0, 1)
        gas = pouch * np.clip(middle + rng.uniform(-4, 2) - down + 0.5, 0, 1)
        wall = np.clip(1.5 - np.abs(distance - radius), 0, 1)
        picture = phantoms.images[row].astype(np.float64)
        picture += rng.uniform(10, 25) * wall - rng.uniform(35, 70) * gas
        picture += rng.uniform(5, 15) * (pouch - gas)
        phantoms.images[row] = np.clip(picture, 0, 255).astype(np.uint8)
    return phantoms, y


def zero_shot_aucs(model: Any, test: Bunch, y_new: Any) -> dict[str, float]:
    """Return the AUC of each old finding, and of the new one."""
    embedder = MedSigLIPEmbedder(model, cache=False)
    X = embedder.transform(test.images)
    areas = old_aucs(model, X, test)
    new = ZeroShotClassifier(NEW_PROMPTS, model=model, cache=False).fit(X)
    areas[NEW] = float(roc_auc_score(y_new, new.decision_function(X).ravel()))
    return areas


def old_aucs(model: Any, X: NDArray[Any], test: Bunch) -> dict[str, float]:
    """Return the zero-shot AUC of each finding of the phantoms."""
    asked = ZeroShotClassifier(EVALUATION_PROMPTS, model=model, cache=False).fit(X)
    order = [list(asked.findings_).index(name) for name in test.target_names]
    scores = asked.decision_function(X)[:, order]
    return dict(zip(test.target_names, column_aucs(test.target, scores), strict=True))


def _new_and_old(areas: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    lost = [before[name] - areas[name] for name in areas if name != NEW]
    return {
        "new finding": areas[NEW],
        "old findings, mean": float(np.mean([v for k, v in areas.items() if k != NEW])),
        "lost, mean": float(np.mean(lost)),
        "lost, worst": float(np.max(lost)),
    }


# Another scanner.


def other_scanner(args: argparse.Namespace) -> dict[str, Any]:
    """Return AUCs of probes and of tuned encoders on pictures of another scanner."""
    train, test = (
        from_another_scanner(n, seed)
        for n, seed in ((args.images, TRAIN_SEED), (args.test_images, TEST_SEED))
    )
    frozen = MedSigLIPEmbedder("demo", cache=False)
    spaces = {
        "frozen": (frozen.transform(train.images), frozen.transform(test.images)),
        "raw pixels": (shrink(train.images), shrink(test.images)),
    }
    zero = {"frozen": _mean(old_aucs("demo", spaces["frozen"][1], test))}
    with tempfile.TemporaryDirectory() as scratch:
        by_reports = tuned(scratch).fit(
            train.images, train.captions, groups=train.groups
        )
        better = by_reports.as_embedder()
        name = f"tuned by {args.images:,} reports"
        spaces[name] = better.transform(train.images), better.transform(test.images)
        zero[name] = _mean(old_aucs(better.model, spaces[name][1], test))
    table: dict[str, dict[str, float]] = {}
    for n in (64, 512):
        draws = list(draw_rows(train.target, min(n, args.images), 3))
        for name, (X, X_test) in spaces.items():
            areas = [
                _probe(X[rows], train.target[rows], X_test, test) for rows in draws
            ]
            table.setdefault(f"probe, {name}", {})[f"{n} labels"] = float(
                np.mean(areas)
            )
        areas = [_classifier(train, rows, test) for rows in draws]
        table.setdefault("classification, tuned by the labels", {})[f"{n} labels"] = (
            float(np.mean(areas))
        )
        print(n, table, flush=True)
    return {
        "test images": args.test_images,
        "draws": 3,
        "zero-shot AUC": zero,
        "AUC": table,
    }


def from_another_scanner(n: int, seed: int) -> Bunch:
    """Return phantoms, darker and noisier, with edges enhanced by the console."""
    phantoms = make_chest_phantoms(
        n, gamma=(1.3, 1.5), exposure=(0.7, 0.85), noise=(0.03, 0.05), random_state=seed
    )
    for row, image in enumerate(phantoms.images):
        picture = image.astype(np.float64)
        picture += 1.5 * (picture - gaussian_filter(picture, 4))
        phantoms.images[row] = np.clip(picture, 0, 255).astype(np.uint8)
    return phantoms


def _probe(X: Any, target: Any, X_test: Any, test: Bunch) -> float:
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    return float(
        np.mean(
            [
                roc_auc_score(
                    test.target[:, k],
                    head.fit(X, target[:, k]).decision_function(X_test),
                )
                for k in range(target.shape[1])
            ]
        )
    )


def _classifier(train: Bunch, rows: NDArray[np.intp], test: Bunch) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        tuner = tuned(scratch, objective="classification", epochs=10)
        tuner.fit(train.images[rows], train.target[rows], groups=train.groups[rows])
        return float(
            np.mean(column_aucs(test.target, tuner.predict_proba(test.images)))
        )


# Real X-rays.


def pneumonia(args: argparse.Namespace) -> dict[str, Any] | None:
    """Return AUCs on the test split of PneumoniaMNIST, with intervals."""
    try:
        train, test = (
            fetch_pneumonia_mnist(args.data, subset=s) for s in ("train", "test")
        )
    except DatasetError as error:
        print(f"PneumoniaMNIST left out: {error}")
        return None
    keep = unseen_rows(train.images, test.images)
    rows = np.random.default_rng(0).permutation(keep)[: args.images]
    images, y = train.images[rows], train.target[rows]
    scores: dict[str, NDArray[Any]] = {
        "raw pixels, probe": _binary_probe(flatten(images), y, flatten(test.images))
    }
    prompt_sets = {"plain words": PLAIN_PROMPTS, "report's words": PNEUMONIA_PROMPTS}

    def judge(name: str, model: Any, prompts: dict[str, Any]) -> None:
        embedder = MedSigLIPEmbedder(model, cache=False)
        X, X_test = embedder.transform(images), embedder.transform(test.images)
        scores[f"{name}, probe"] = _binary_probe(X, y, X_test)
        for words, asked in prompts.items():
            head = ZeroShotClassifier(asked, model=model, cache=False).fit(X)
            scores[f"{name}, zero-shot, {words}"] = head.predict_proba(X_test)[:, 1]

    judge("as it is", "demo", prompt_sets)
    for words, asked in prompt_sets.items():
        with tempfile.TemporaryDirectory() as scratch:
            tuner = tuned(scratch, prompts=asked).fit(images, y)
            judge(f"contrastive, {words}", tuner.as_embedder().model, {words: asked})
    with tempfile.TemporaryDirectory() as scratch:
        tuner = tuned(scratch, objective="classification").fit(images, y)
        scores["classification"] = tuner.predict_proba(test.images)[:, 1]
    figures = evaluate(
        scores, test.images, test.target, metrics="roc_auc", data_set="PneumoniaMNIST"
    )
    figures = figures[figures["metric"] == "roc_auc"]
    return {
        "test images": len(test.images),
        "AUC": {
            row["estimator"]: {
                "value": float(row["value"]),
                "low": float(row["low"]),
                "high": float(row["high"]),
            }
            for _, row in figures.iterrows()
            if row["estimator"] in scores
        },
    }


def _binary_probe(X: Any, y: Any, X_test: Any) -> NDArray[Any]:
    return LinearProbe().fit(X, y).predict_proba(X_test)[:, 1]


# What all parts share.


def tuned(scratch: str, **settings: Any) -> MedSigLIPFineTuner:
    """Return a fine-tuner whose files go away with ``scratch``."""
    embedder = MedSigLIPEmbedder("demo", cache=scratch)
    return MedSigLIPFineTuner(
        embedder, **{"epochs": 5, "batch_size": 32, "random_state": 0} | settings
    )


def network_of_demo() -> Any:
    """Return the towers of the demonstration checkpoint."""
    from sk_medsiglip.encoder import find_checkpoint, load_network

    return load_network(find_checkpoint("demo"), "float32")


def _mean(areas: dict[str, float]) -> float:
    return float(np.mean(list(areas.values())))


if __name__ == "__main__":
    main()
