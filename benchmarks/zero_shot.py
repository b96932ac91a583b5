"""Zero-shot: which scores rank, which can be believed, and what prompts are worth.

Run ``python -m benchmarks.zero_shot``. Images are embedded by the demonstration
checkpoint (a demonstration: its figures say nothing of medicine). Phantoms are of seeds
that its training never saw; what is learned is learned from other patients than it is
judged on. PneumoniaMNIST [1]_ is read from ``--data``, or left out: labels come from
one half of its test images, figures from the other. Wording of prompts was fixed before
any score was seen. Parity is with the ``zero-shot-image-classification`` pipeline of
transformers, on the demonstration and on a checkpoint of random weights.

References
----------
.. [1] Yang et al., "MedMNIST v2", Scientific Data 2023; X-rays of Kermany et al., Cell
   2018; CC BY 4.0.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from benchmarks._measure import in_turns, setting, write_results
from benchmarks.demo_checkpoint import PNEUMONIA_PROMPTS, TEST_SEED, TRAIN_SEED
from sk_medsiglip import (
    MedSigLIPEmbedder,
    PromptSearchCV,
    ZeroShotClassifier,
    make_zero_shot_pipeline,
)
from sk_medsiglip.datasets import fetch_pneumonia_mnist, make_chest_phantoms
from sk_medsiglip.encoder import DEMO_FOLDER
from sk_medsiglip.evaluation import expected_calibration_error
from sk_medsiglip.exceptions import DatasetError
from sk_medsiglip.prompts import load_prompt_set
from training.prompts import EVALUATION_PROMPTS

LABELS = (20, 50, 100, 200, 400)
#: Findings of the shipped set that phantoms have, by the phantoms' names.
SHIPPED = {
    "cardiomegaly": "cardiomegaly",
    "effusion": "pleural effusion",
    "pneumothorax": "pneumothorax",
    "consolidation": "consolidation",
    "nodule": "lung lesion",
    "device": "support devices",
}
_WAYS = ("temperature", "temperature_bias")


class Question(NamedTuple):
    """One binary question: rows to learn from, and rows to be judged by."""

    prompts: dict[str, Any]
    X: NDArray[Any]
    y: NDArray[Any]
    X_test: NDArray[Any]
    y_test: NDArray[Any]


def phantom_questions(embedder: MedSigLIPEmbedder, n: int) -> dict[str, Question]:
    """Return the six findings of phantoms."""
    learn = make_chest_phantoms(n, random_state=TRAIN_SEED)
    judge = make_chest_phantoms(n, random_state=TEST_SEED)
    X, X_test = embedder.transform(learn.images), embedder.transform(judge.images)
    return {
        name: Question(
            {name: EVALUATION_PROMPTS[name]},
            X,
            learn.target[:, k],
            X_test,
            judge.target[:, k],
        )
        for k, name in enumerate(learn.target_names)
    }


def pneumonia_question(embedder: MedSigLIPEmbedder, data: Path) -> Question | None:
    """Return PneumoniaMNIST's question, if the data set is there."""
    try:
        bunch = fetch_pneumonia_mnist(
            subset="test", data_home=data, download_if_missing=False
        )
    except DatasetError as error:
        print(f"left out: {error}")
        return None
    X, y = embedder.transform(bunch.images), bunch.target
    order = np.random.default_rng(0).permutation(len(y))
    learn, judge = np.array_split(order, 2)
    return Question(PNEUMONIA_PROMPTS, X[learn], y[learn], X[judge], y[judge])


def figures(clf: ZeroShotClassifier, q: Question) -> dict[str, float]:
    """Judge the probabilities of a fitted classifier."""
    present = clf.predict_proba(q.X_test)[:, 1]
    return {
        "ECE": expected_calibration_error(q.y_test, present),
        "log loss": log_loss(q.y_test, np.clip(present, 1e-15, 1 - 1e-15)),
        "AUC": roc_auc_score(q.y_test, present),
    }


def calibration(q: Question, n_draws: int) -> dict[str, Any]:
    """Calibrate by few labels, by prevalence, and not at all."""
    plain = {
        scoring: figures(
            ZeroShotClassifier(q.prompts, model="demo", scoring=scoring).fit(q.X), q
        )
        for scoring in ("softmax", "sigmoid", "cosine")
    }
    rows: dict[str, Any] = {f"none, {name}": one for name, one in plain.items()}
    prevalence = float(q.y_test.mean())
    known = ZeroShotClassifier(
        q.prompts, model="demo", calibrate="prevalence", prevalence=prevalence
    ).fit(q.X_test)
    rows["prevalence, no labels"] = figures(known, q)
    for how in _WAYS:
        clf = ZeroShotClassifier(q.prompts, model="demo", calibrate=how)
        for n in LABELS:
            drawn = []
            for seed in range(n_draws):
                some = _draw(q.y, n, seed)
                drawn.append(figures(clf.fit(q.X[some], q.y[some]), q))
            mean = {key: np.mean([one[key] for one in drawn]) for key in drawn[0]}
            change = max(abs(one["AUC"] - plain["softmax"]["AUC"]) for one in drawn)
            rows[f"{how}, {n} labels"] = {**mean, "largest change of AUC": change}
    return rows


def by_data_set(measured: dict[str, Any]) -> dict[str, Any]:
    """Return means over the phantoms' findings, PneumoniaMNIST, and ECE by finding."""
    findings = {name: one for name, one in measured.items() if name in SHIPPED}
    ways = list(next(iter(findings.values())))
    mean = {
        way: {
            key: (max if "change" in key else np.mean)(
                [one[way][key] for one in findings.values()]
            )
            for key in next(iter(findings.values()))[way]
        }
        for way in ways
    }
    shown = [way for way in ways if way.split(", ")[-1] in ("softmax", "200 labels")]
    return {
        "phantoms, mean of six findings": mean,
        **{name: one for name, one in measured.items() if name not in SHIPPED},
        "ECE by question": {
            name: {way: one[way]["ECE"] for way in [*shown, "prevalence, no labels"]}
            for name, one in measured.items()
        },
    }


def exclusive(
    questions: dict[str, Question], n_draws: int
) -> dict[str, dict[str, float]]:
    """Calibrate a choice between seven classes: one finding, or none."""
    names = list(questions)
    first = next(iter(questions.values()))

    def one_of(which: str) -> tuple[NDArray[Any], NDArray[Any]]:
        y = np.stack([getattr(q, f"y{which}") for q in questions.values()], axis=1)
        few = y.sum(axis=1) <= 1
        named = np.where(y.any(axis=1), np.array(names)[y.argmax(axis=1)], "none")
        return getattr(first, f"X{which}")[few], named[few]

    (X, y), (X_test, y_test) = one_of(""), one_of("_test")
    prompts: dict[str, Any] = {n: EVALUATION_PROMPTS[n]["positive"] for n in names}
    prompts["none"] = ["this radiograph demonstrates a normal chest"]

    def judge(clf: ZeroShotClassifier) -> dict[str, float]:
        shares = clf.predict_proba(X_test)
        return {
            "ECE": expected_calibration_error(y_test, shares, classes=clf.classes_),
            "log loss": log_loss(y_test, shares, labels=clf.classes_),
            "accuracy": accuracy_score(y_test, clf.predict(X_test)),
        }

    plain = ZeroShotClassifier(prompts, model="demo").fit(X)
    rows = {"none": judge(plain)}
    for how in _WAYS:
        clf = ZeroShotClassifier(prompts, model="demo", calibrate=how)
        for n in LABELS[1:]:
            drawn, moved = [], 0
            for seed in range(n_draws):
                some = _draw(y, n, seed)
                drawn.append(judge(clf.fit(X[some], y[some])))
                moved += int((clf.predict(X_test) != plain.predict(X_test)).sum())
            rows[f"{how}, {n} labels"] = {
                **{key: np.mean([one[key] for one in drawn]) for key in drawn[0]},
                "predictions moved": moved / n_draws / len(y_test),
            }
    return rows


def _draw(y: NDArray[Any], n: int, seed: int) -> NDArray[np.intp]:
    """Draw rows until there are two classes among them."""
    rng = np.random.default_rng(seed)
    while True:
        some = rng.choice(len(y), min(n, len(y)), replace=False)
        if len(np.unique(y[some])) > 1:
            return some


def cannot_be_trusted(questions: dict[str, Question]) -> dict[str, Any]:
    """Measure what raw scores look like where they mislead."""
    q = questions["effusion"]
    one_set = ZeroShotClassifier(
        {"a knee": "an X-ray of a knee", "a hand": "an X-ray of a hand"}, model="demo"
    ).fit(q.X_test)
    texts = EVALUATION_PROMPTS["effusion"]["positive"]
    several = ZeroShotClassifier(
        {"yes": texts, "no": EVALUATION_PROMPTS["effusion"]["negative"], "x": "a rib"},
        model="demo",
    ).fit(q.X_test)
    ill = q.y_test == 1
    sigmoid = expit(several.decision_function(q.X_test)[:, -1])  # "yes" sorts last

    learn = ZeroShotClassifier(q.prompts, model="demo", calibrate="temperature_bias")
    learn.fit(q.X, q.y)
    rare = _thin(q.y_test, 0.05)
    shifted = Question(q.prompts, q.X, q.y, q.X_test[rare], q.y_test[rare])
    told = ZeroShotClassifier(
        q.prompts,
        model="demo",
        calibrate="prevalence",
        prevalence=float(shifted.y_test.mean()),
    ).fit(shifted.X_test)
    return {
        "softmax over two wrong prompts (knee, hand) of chest images": {
            "mean largest probability": one_set.predict_proba(q.X_test)
            .max(axis=1)
            .mean(),
            "share over 0.9": (
                one_set.predict_proba(q.X_test).max(axis=1) > 0.9
            ).mean(),
        },
        "sigmoid of the prompt for effusion": {
            "median, images with it": np.median(sigmoid[ill]),
            "median, images without": np.median(sigmoid[~ill]),
            "AUC": roc_auc_score(ill, sigmoid),
        },
        "prevalence": {
            "labels from": float(q.y.mean()),
            "judged at": float(shifted.y_test.mean()),
            "ECE, as many ill as in the labels": figures(learn, q)["ECE"],
            "ECE, fewer ill": figures(learn, shifted)["ECE"],
            "mean probability, fewer ill": learn.predict_proba(shifted.X_test)[
                :, 1
            ].mean(),
            "ECE, fewer ill, prevalence told": figures(told, shifted)["ECE"],
        },
    }


def _thin(y: NDArray[Any], prevalence: float) -> NDArray[np.intp]:
    """Return all the healthy and as many of the ill as make the prevalence."""
    ill, well = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    n_ill = round(len(well) * prevalence / (1 - prevalence))
    return np.sort(np.r_[ill[:n_ill], well])


def shipped_questions(questions: dict[str, Question]) -> dict[str, Question]:
    """Return the same findings as the shipped set words them, several prompts each."""
    shipped = load_prompt_set("chest_xray_13")
    return {
        name: q._replace(prompts={name: shipped[SHIPPED[name]]})
        for name, q in questions.items()
    }


def ensembles(questions: dict[str, Question]) -> dict[str, dict[str, float]]:
    """Return the AUC of every ensemble, and of the first prompt a side alone."""
    rows: dict[str, dict[str, float]] = {}
    for name, q in questions.items():
        (pair,) = q.prompts.values()
        first = {name: {side: texts[0] for side, texts in pair.items()}}
        asked = {"first prompt a side": ZeroShotClassifier(first, model="demo")}
        for ensemble in ("embeddings", "scores", "max"):
            asked[ensemble] = ZeroShotClassifier(
                q.prompts, model="demo", ensemble=ensemble
            )
        for way, clf in asked.items():
            auc = roc_auc_score(q.y_test, clf.fit(q.X).decision_function(q.X_test))
            rows.setdefault(way, {})[name] = auc
    return {
        way: {**row, "mean": float(np.mean(list(row.values())))}
        for way, row in rows.items()
    }


def choosing(questions: dict[str, Question], n_draws: int) -> dict[str, Any]:
    """Compare what PromptSearchCV reports with what it gains on other patients."""
    rows = {}
    for n in (50, 100, 200):
        said, true, inside, beyond, wrong = [], [], [], 0, 0
        for q in questions.values():
            plain = ZeroShotClassifier(q.prompts, model="demo").fit(q.X)
            base = roc_auc_score(q.y_test, plain.decision_function(q.X_test))
            for seed in range(n_draws):
                some = _draw(q.y, n, seed)
                if np.bincount(q.y[some]).min() < 2:
                    continue
                search = PromptSearchCV(q.prompts, model="demo", n_bootstrap=500)
                report = search.fit(q.X[some], q.y[some]).report_.iloc[0]
                auc = roc_auc_score(q.y_test, search.decision_function(q.X_test))
                said.append(report["gain"])
                true.append(auc - base)
                inside.append(report["gain_low"] <= auc - base <= report["gain_high"])
                if not report["within_noise"]:
                    beyond += 1
                    wrong += int((auc - base) * report["gain"] < 0)
        rows[f"{n} labels"] = {
            "searches": len(said),
            "gain reported, mean": np.mean(said),
            "gain on other patients, mean": np.mean(true),
            "worst loss on other patients": min(true),
            "true gain inside the interval": np.mean(inside),
            "reported beyond noise": beyond,
            "of these with the wrong sign": wrong,
        }
    return rows


def parity(n_images: int) -> dict[str, Any]:
    """Compare with transformers' pipeline: scores, and time from pictures to scores."""
    import torch
    from transformers import SiglipConfig, SiglipModel, pipeline
    from transformers.utils import logging

    logging.set_verbosity_error()
    images = make_chest_phantoms(n_images, random_state=TEST_SEED).images
    pictures = [Image.fromarray(one).convert("RGB") for one in images]
    texts = [t for pair in EVALUATION_PROMPTS.values() for t in pair["positive"]]
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        random = Path(scratch) / "random"
        _copy_with_random_weights(random, SiglipConfig, SiglipModel, torch)
        for name, folder in (("demonstration", DEMO_FOLDER), ("random", random)):
            theirs = pipeline(
                "zero-shot-image-classification",
                model=str(folder),
                image_processor=str(folder),
                dtype=torch.float32,
                device="cpu",
            )

            def ask(theirs: Any = theirs) -> NDArray[np.float64]:
                answers = theirs(
                    pictures,
                    candidate_labels=texts,
                    hypothesis_template="{}",
                    batch_size=8,
                )
                by_text = [{a["label"]: a["score"] for a in one} for one in answers]
                return np.array([[one[text] for text in texts] for one in by_text])

            ours = make_zero_shot_pipeline(
                dict(enumerate(texts)),
                model=folder,
                resize="processor",
                device="cpu",
                cache=str(Path(scratch) / f"store-{name}"),
            )
            expected = ask()
            first = time.perf_counter()
            scores = expit(ours.fit(pictures).decision_function(pictures))
            first = time.perf_counter() - first
            seconds = in_turns(
                3,
                {
                    "theirs": ask,
                    "again": lambda ours=ours: ours.decision_function(pictures),
                },
            )
            rows[name] = {
                "largest difference of a sigmoid": np.abs(scores - expected).max(),
                "largest relative difference": np.abs(scores / expected - 1).max(),
                "speed over transformers, first time": seconds["theirs"] / first,
                "speed over transformers, again": seconds["theirs"] / seconds["again"],
            }
    return rows


def _copy_with_random_weights(
    folder: Path, config: Any, model: Any, torch: Any
) -> None:
    import shutil

    shutil.copytree(DEMO_FOLDER, folder)
    torch.manual_seed(0)
    network = model(config.from_pretrained(folder))
    torch.nn.init.constant_(network.logit_scale, 3.0)
    torch.nn.init.constant_(network.logit_bias, -2.0)
    network.save_pretrained(folder)


def main() -> None:
    """Read the command line, measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--dry", action="store_true", help="write no results")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)

    embedder = MedSigLIPEmbedder("demo")
    questions = phantom_questions(embedder, arguments.images)
    asked = dict(questions)
    if pneumonia := pneumonia_question(embedder, arguments.data):
        asked["PneumoniaMNIST"] = pneumonia
    shipped = shipped_questions(questions)
    results = {
        **setting(
            "numpy",
            "scikit-learn",
            "torch",
            "transformers",
            images=arguments.images,
            draws=arguments.draws,
        ),
        "calibration": by_data_set(
            {name: calibration(q, arguments.draws) for name, q in asked.items()}
        ),
        "exclusive": exclusive(questions, arguments.draws),
        "raw scores": cannot_be_trusted(questions),
        "ensembles": ensembles(shipped),
        "choosing prompts": choosing(shipped, max(1, arguments.draws // 2)),
        "parity": parity(min(200, arguments.images)),
    }
    for part, rows in results.items():
        if not isinstance(rows, dict):
            continue
        print(part)
        for name, row in rows.items():
            print(f"  {name}: {_rounded(row)}")
    if not arguments.dry:
        write_results("zero_shot", _rounded(results))


def _rounded(value: Any) -> Any:
    """Return numbers with four digits that count."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, float | np.floating):
        return float(f"{value:.4g}")
    return value.item() if isinstance(value, np.generic) else value


if __name__ == "__main__":
    main()
