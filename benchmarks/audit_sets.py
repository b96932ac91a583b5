"""Slices, novel images and drift: how many planted ones the audit finds.

Run ``python -m benchmarks.audit_sets slices``, ``... novelty --rows FOLDER`` and ``...
drift --rows FOLDER``. With ``--pneumonia HOME`` the
second also reads PneumoniaMNIST. ``FOLDER`` keeps the rows of the phantoms, which the
demonstration checkpoint embeds once: a pattern, not a promise about MedSigLIP. Settings
were chosen on seeds from 100 on; seeds from 0 on are reported.

Slices: scores of 1,200 patients with one to three images, prevalence .25, an area of
.92, and a part that all images of a patient share; six columns of metadata. In one
pair of levels, about 8 % of patients, the area is lower. No image is needed for that.

Novelty: the gate learns from 1,500 phantoms, or from PneumoniaMNIST, and is asked about
files of installed packages, and about other images of its own kind that are inverted or
turned. False alarms are those on phantoms of other patients. Phantoms with a finding
that the training images lack are asked about, too.

Drift: 150 patients against 100 others, plain or with a fault.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from benchmarks._audit_rows import audit_rows, phantoms
from benchmarks._measure import best_of, setting, write_results
from sk_medsiglip.audit import NoveltyGate, drift_test, worst_slices
from sk_medsiglip.datasets import fetch_pneumonia_mnist
from sk_medsiglip.embedding import MedSigLIPEmbedder

ALPHA = 0.05
AREA = 0.92
PLANTED = ("sex = F & site = A", "site = A & sex = F")
FINDINGS = (
    "cardiomegaly",
    "effusion",
    "pneumothorax",
    "consolidation",
    "nodule",
    "device",
)
N_PATIENTS = (150, 100)
Rows = NDArray[np.floating]


# --- slices -----------------------------------------------------------------------


def draw_scores(
    seed: int, n_patients: int, drop: float
) -> tuple[NDArray[Any], NDArray[Any], pd.DataFrame, NDArray[Any]]:
    """Return labels, scores, metadata and patients."""
    rng = np.random.default_rng([seed, 24])
    patients = np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients))
    y = (rng.random(n_patients) < 0.25)[patients].astype(int)
    columns = {"scanner": "XYZ", "sex": "FM", "year": "6789", "ward": "NS"}
    metadata = pd.DataFrame(
        {
            name: rng.choice(list(levels), n_patients)[patients]
            for name, levels in columns.items()
        }
    )
    shares = [0.16, 0.21, 0.21, 0.21, 0.21]
    metadata["site"] = rng.choice(list("ABCDE"), n_patients, p=shares)[patients]
    metadata["view"] = rng.choice(["frontal", "lateral"], len(patients))
    inside = ((metadata["site"] == "A") & (metadata["sex"] == "F")).to_numpy()
    mean = np.sqrt(2) * norm.ppf(np.where(inside, AREA - drop, AREA))
    shared, own = rng.normal(size=n_patients)[patients], rng.normal(size=len(y))
    score = y * mean + np.sqrt(0.5) * (shared + own)
    return y, score, metadata, patients


def measure_slices(seeds: list[int]) -> dict[str, Any]:
    """Count the sets in which a slice is found, and in which it is the planted one."""
    found: dict[str, Any] = {}
    for n_patients, drop in [(1200, 0.3), (1200, 0.15), (2400, 0.15), (1200, 0.0)]:
        tables = []
        for seed in seeds:
            y, score, metadata, patients = draw_scores(seed, n_patients, drop)
            tables.append(worst_slices(y, score, metadata, groups=patients))
        first = [table.iloc[0] for table in tables]
        alarms = [one["p_value"] <= ALPHA for one in first]
        right = [
            alarm and one["slice"] in PLANTED
            for alarm, one in zip(alarms, first, strict=True)
        ]
        planted = [table.loc[table["slice"].isin(PLANTED)].iloc[0] for table in tables]
        kind = f"area lower by {drop}" if drop else "nothing planted"
        found[f"{n_patients} patients, {kind}"] = {
            "sets": len(seeds),
            "slices tested": int(np.mean([len(table) for table in tables])),
            "a slice is found": int(sum(alarms)),
            "the planted one comes first": int(sum(right)) if drop else 0,
            "findable loss of the planted slice": round(
                float(np.mean([one["findable"] for one in planted])), 3
            ),
        }
    y, score, metadata, patients = draw_scores(100, 1200, 0.3)
    found["seconds, 1200 patients"] = round(
        best_of(3, lambda: worst_slices(y, score, metadata, groups=patients)), 2
    )
    return found


# --- novelty ----------------------------------------------------------------------


def package_images(rng: np.random.Generator) -> dict[str, list[NDArray[Any]]]:
    """Return other images from files of installed packages, and parts of them."""
    import pydicom.data
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    from skimage.io import imread

    def parts(name: str, side: int, n: int = 19) -> list[NDArray[Any]]:
        whole = imread(folder / name)
        places = [
            [int(rng.integers(0, size - side + 1)) for size in whole.shape[:2]]
            for _ in range(n)
        ]
        return [whole, *(whole[i : i + side, j : j + side] for i, j in places)]

    slices = [
        pydicom.data.get_testdata_file(name)
        for name in ("CT_small.dcm", "MR_small.dcm")
    ]
    return {
        "fundus": parts("retina.jpg", 700),
        "histology": parts("ihc.png", 256),
        "text": [*parts("page.png", 150, 9), *parts("text.png", 120, 9)],
        "blank": [np.full((128, 128), grey, np.uint8) for grey in (0, 64, 192, 255)],
        "CT and MR slices": slices,
    }


def changed(images: NDArray[Any]) -> dict[str, list[NDArray[Any]]]:
    """Return images of the same kind, inverted and turned."""
    turned = [np.rot90(one, 1 + i % 3).copy() for i, one in enumerate(images)]
    return {"inverted": list(255 - images), "turned": turned}


def areas(
    gate: NoveltyGate, ordinary: Rows, others: dict[str, Rows]
) -> dict[str, float]:
    """Return the area under the ROC curve of the gate's scores for each kind."""
    scores = -gate.score_samples(ordinary)
    found = {}
    for kind, rows in others.items():
        novel = -gate.score_samples(rows)
        labels = np.r_[np.zeros(len(scores)), np.ones(len(novel))]
        area = roc_auc_score(labels, np.r_[scores, novel])
        found[kind] = round(float(area), 4)
    return found


def embed(images: dict[str, Any], path: Path) -> dict[str, Rows]:
    """Return the rows of images by kind, embedded once."""
    if not path.exists():
        embedder = MedSigLIPEmbedder("demo", cache=False)
        rows = {kind: embedder.transform(some) for kind, some in images.items()}
        np.savez(path, **rows)
    with np.load(path) as stored:
        return dict(stored)


def measure_novelty(seeds: list[int], folder: Path, n_changed: int) -> dict[str, Any]:
    """Measure areas, false alarms, and what the gate cannot see."""
    by_seed, alarms, unseen = [], [], []
    for seed, other in zip(seeds, [*seeds[1:], seeds[0]], strict=True):
        X, y, groups = audit_rows(seed, folder=folder)
        new, new_y, new_groups = audit_rows(other, folder=folder)
        gate = NoveltyGate(ALPHA).fit(X, groups=groups)
        novel = pd.Series(gate.predict(new) == -1)
        alarms.append(novel.groupby(new_groups).mean().mean())
        unseen.append(_unseen_finding(X, y, groups, new, new_y))
        if n_changed:
            images = phantoms(seed, n_changed).images
            others = package_images(np.random.default_rng([seed, 24]))
            path = folder / f"others-{seed}-{n_changed}.npz"
            rows = embed({**others, **changed(images)}, path)
            by_seed.append(areas(gate, new, rows))
    found: dict[str, Any] = {
        "phantoms": {
            "sets": len(seeds),
            "false alarms at .05, by patient": round(float(np.mean(alarms)), 4),
            "smallest and largest of a set": [
                round(float(one), 4) for one in (min(alarms), max(alarms))
            ],
            "area, a finding that training images lack": {
                name: round(float(np.mean([one[name] for one in unseen])), 3)
                for name in unseen[0]
            },
        }
    }
    if by_seed:
        table = pd.DataFrame(by_seed)
        found["phantoms"]["area, mean"] = table.mean().round(4).to_dict()
        found["phantoms"]["area, least"] = table.min().to_dict()
    return found


def _unseen_finding(
    X: Rows, y: NDArray[Any], groups: NDArray[Any], new: Rows, new_y: NDArray[Any]
) -> dict[str, float]:
    """Return the areas for findings of which the training images have none."""
    found = {}
    for k, name in enumerate(FINDINGS):
        ill = pd.Series(y[:, k]).groupby(groups).transform("max").to_numpy() == 1
        gate = NoveltyGate(ALPHA).fit(X[~ill], groups=groups[~ill])
        score = -gate.score_samples(new)
        found[name] = float(roc_auc_score(new_y[:, k], score))
    return found


def measure_pneumonia(home: Path, folder: Path, n_images: int) -> dict[str, Any]:
    """Measure a gate that learns from small chest radiographs of children."""
    rng = np.random.default_rng([0, 24])  # the files are in an order of their own
    images = rng.permutation(fetch_pneumonia_mnist(home).images)
    test = rng.permutation(fetch_pneumonia_mnist(home, subset="test").images)[:250]
    ordinary = images[n_images : n_images + 250]
    rows = embed(
        {
            "training": images[:n_images],
            "ordinary": ordinary,
            "test": test,
            **package_images(rng),
            **changed(ordinary),
        },
        folder / f"others-pneumonia-{n_images}.npz",
    )
    gate = NoveltyGate(ALPHA).fit(rows.pop("training"))
    kept = rows.pop("ordinary")
    return {
        "training images": n_images,
        "false alarms at .05, other training images": _share_novel(gate, kept),
        "called novel at .05, test images": _share_novel(gate, rows.pop("test")),
        "area": areas(gate, kept, rows),
    }


def _share_novel(gate: NoveltyGate, rows: Rows) -> float:
    return round(float((gate.predict(rows) == -1).mean()), 4)


# --- drift ------------------------------------------------------------------------


def measure_drift(seeds: list[int], folder: Path, n_draws: int) -> dict[str, Any]:
    """Measure how often sets without and with a fault are found to differ."""
    found: dict[str, Any] = {}
    plain = {seed: audit_rows(seed, folder=folder) for seed in seeds}
    for fault in (None, "strong scanner", "block of 12 px"):
        p_values, sizes, started = [], [], time.perf_counter()
        for seed in seeds:
            X, _, groups = plain[seed]
            new = X
            if fault is not None:
                new, _, groups = audit_rows(seed, fault, n_images=800, folder=folder)
            names = np.unique(groups)
            for draw in range(n_draws if fault is None else max(1, n_draws // 10)):
                names = np.random.default_rng([seed, draw]).permutation(names)
                n_reference, n_new = N_PATIENTS
                reference = np.isin(groups, names[:n_reference])
                others = np.isin(groups, names[n_reference:][:n_new])
                result = drift_test(
                    X[: len(groups)][reference],
                    new[others],
                    groups_reference=groups[reference],
                    groups_new=groups[others],
                    n_permutations=199,
                    random_state=draw,
                )
                p_values.append(result.p_value)
                sizes.append(result.auc)
        found["nothing planted" if fault is None else fault] = {
            "sets": len(seeds),
            "draws": len(p_values),
            "share found at .05": round(float(np.mean(np.array(p_values) <= ALPHA)), 4),
            "area, mean": round(float(np.mean(sizes)), 3),
            "seconds a test": round((time.perf_counter() - started) / len(p_values), 3),
        }
    return found


def time_drift(n_rows: int = 20_000, width: int = 192) -> float:
    """Return the seconds of a test of rows of the demonstration checkpoint's width."""
    X = np.random.default_rng(0).normal(size=(n_rows, width)).astype(np.float32)
    patients, n = np.arange(n_rows) // 2, 3 * n_rows // 5
    groups = {"groups_reference": patients[:n], "groups_new": patients[n:]}
    return round(best_of(3, lambda: drift_test(X[:n], X[n:], **groups)), 2)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("piece", choices=["slices", "novelty", "drift"])
    parser.add_argument("--rows", type=Path, default=Path("audit_rows"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(20)))
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--changed", type=int, default=120)
    parser.add_argument("--pneumonia", type=Path, default=None)
    parser.add_argument("--dry", action="store_true", help="write no results")
    options = parser.parse_args()
    seeds = options.seeds
    results = setting("numpy", "scipy", "scikit-learn")
    if options.piece == "slices":
        results |= measure_slices(seeds)
    elif options.piece == "drift":
        results |= measure_drift(seeds, options.rows, options.draws)
        results["seconds, 20000 rows"] = time_drift()
    else:
        results |= measure_novelty(seeds, options.rows, options.changed)
        if options.pneumonia:
            results["PneumoniaMNIST"] = measure_pneumonia(
                options.pneumonia, options.rows, 1000
            )
    if options.dry:
        print(results)
    else:
        write_results(f"audit_{options.piece}", results)


if __name__ == "__main__":
    main()
