"""Conformal sets: how often they hold the truth, how large they are, what breaks them.

Run ``python -m benchmarks.conformal``. Phantoms are of a seed that training never used,
embedded once by the demonstration checkpoint (a demonstration: its figures say nothing
of medicine). Every figure is a mean over 20 splits of patients into those that
calibrate and those that are judged, at ``alpha=0.1``. Each patient counts once.

"Imaged more often" draws six images of every patient and keeps one where the finding is
absent: patients with many images differ from the rest, as they do in a hospital.
"Shifted" judges phantoms of other scanners and builds than those that calibrated, "more
ill" phantoms that have each finding with a probability of 0.6 in place of 0.25.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GroupShuffleSplit
from sklearn.utils import Bunch

from benchmarks._measure import setting, write_results
from benchmarks.demo_checkpoint import SETTINGS, TEST_SEED
from sk_medsiglip import MedSigLIPEmbedder, ZeroShotClassifier
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.zero_shot import ConformalZeroShot
from training.prompts import EVALUATION_PROMPTS

ALPHA = 0.1
SPLITS = 20
FIGURES = ["coverage", "set_size", "single", "empty", "full"]
NORMAL = "this radiograph demonstrates a normal chest"


def embedded(embedder: MedSigLIPEmbedder, n: int, seed: int, **ranges: Any) -> Bunch:
    """Return phantoms with their embeddings."""
    drawn = make_chest_phantoms(n, random_state=seed, **ranges)
    drawn.X = embedder.transform(drawn.pop("images"))
    return drawn


def over_splits(
    clf: ZeroShotClassifier,
    X: NDArray[Any],
    y: NDArray[Any],
    groups: NDArray[Any],
    *,
    know_patients: bool = True,
    other: tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None = None,
    **params: Any,
) -> pd.DataFrame:
    """Return the mean report; ``other`` is judged in place of the left-out patients."""
    fitted = FrozenEstimator(clf.fit(X))
    reports = []
    splits = GroupShuffleSplit(SPLITS, test_size=0.5, random_state=0)
    for calibrate, test in splits.split(X, y, groups):
        conformal = ConformalZeroShot(fitted, alpha=ALPHA, **params).fit(
            X[calibrate],
            y[calibrate],
            groups=groups[calibrate] if know_patients else None,
        )
        judged = other or (X[test], y[test], groups[test])
        reports.append(conformal.coverage_report(*judged[:2], groups=judged[2]))
    return sum(report[FIGURES] for report in reports) / len(reports)


def of_findings(report: pd.DataFrame) -> dict[str, Any]:
    """Return the figures of six findings, in all images and where one is present."""
    every = report.xs("any", level="truth")
    present = report.xs(1, level="truth")["coverage"]
    return {
        "mean": every.mean().round(4).to_dict(),
        "coverage": every["coverage"].round(4).to_dict(),
        "coverage_present": present.round(4).to_dict(),
    }


def of_classes(report: pd.DataFrame) -> dict[str, Any]:
    """Return the figures of an exclusive question."""
    return {
        "all": report.loc["any"].round(4).to_dict(),
        "coverage": report["coverage"].drop("any").round(4).to_dict(),
    }


def exclusive(drawn: Bunch) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return images with one finding at most, and which of them it is."""
    few = drawn.target.sum(axis=1) <= 1
    names = np.array(drawn.target_names)[drawn.target.argmax(axis=1)]
    y = np.where(drawn.target.any(axis=1), names, "none")
    return drawn.X[few], y[few], drawn.groups[few]


def imaged_more_often(
    embedder: MedSigLIPEmbedder, n: int, finding: str
) -> dict[str, Any]:
    """Return coverage with and without patients, where the ill have more images."""
    drawn = embedded(embedder, n, TEST_SEED, views_per_patient=6)
    column = drawn.target_names.index(finding)
    y = drawn.target[:, column]
    first = ~pd.Series(drawn.groups).duplicated().to_numpy()
    keep = (y == 1) | first
    clf = ZeroShotClassifier({finding: EVALUATION_PROMPTS[finding]}, model="demo")
    result = {}
    for name, know in [("with groups", True), ("without groups", False)]:
        report = over_splits(
            clf, drawn.X[keep], y[keep], drawn.groups[keep], know_patients=know
        )
        result[name] = report.loc["any"].round(4).to_dict()
    return result


def main() -> None:
    """Read the command line, measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    arguments = parser.parse_args()
    started = time.perf_counter()
    embedder = MedSigLIPEmbedder("demo", cache=False)
    drawn = embedded(embedder, arguments.images, TEST_SEED)
    n_other = arguments.images // 2
    others = {
        "shifted": embedded(
            embedder, n_other, TEST_SEED + 1, **SETTINGS["all shifted"]
        ),
        "more_ill": embedded(embedder, n_other, TEST_SEED + 1, prevalence=0.6),
    }
    of_demo = (drawn.X, drawn.target, drawn.groups)
    prompts = {
        name: EVALUATION_PROMPTS[name]["positive"] for name in drawn.target_names
    }
    findings = ZeroShotClassifier(
        {name: EVALUATION_PROMPTS[name] for name in drawn.target_names}, model="demo"
    )
    question = ZeroShotClassifier({**prompts, "none": NORMAL}, model="demo")
    X, y, groups = exclusive(drawn)
    results: dict[str, Any] = {
        **setting(
            "numpy", "scikit-learn", images=arguments.images, splits=SPLITS, alpha=ALPHA
        ),
        "findings": {
            conditional: of_findings(
                over_splits(findings, *of_demo, conditional=conditional)
            )
            for conditional in ("none", "class")
        },
        "exclusive": {
            f"{method}, {conditional}": of_classes(
                over_splits(
                    question, X, y, groups, method=method, conditional=conditional
                )
            )
            for method in ("lac", "aps")
            for conditional in ("none", "class")
        },
        "exclusive_accuracy": float((question.fit(X).predict(X) == y).mean().round(4)),
        **{
            name: {
                conditional: of_findings(
                    over_splits(
                        findings,
                        *of_demo,
                        other=(judged.X, judged.target, judged.groups),
                        conditional=conditional,
                    )
                )
                for conditional in ("none", "class")
            }
            for name, judged in others.items()
        },
        "imaged_more_often": imaged_more_often(
            embedder, arguments.images, "consolidation"
        ),
    }
    results["seconds"] = round(time.perf_counter() - started, 1)
    write_results("conformal", results)
    for name in ("findings", *others):
        for conditional, row in results[name].items():
            worst = min(row["coverage_present"].values())
            print(f"{name}, {conditional}: {row['mean']}, present at worst {worst}")
    for name, row in results["exclusive"].items():
        print(f"exclusive, {name}: {row['all']}")
    print(f"imaged more often: {results['imaged_more_often']}")


if __name__ == "__main__":
    main()
