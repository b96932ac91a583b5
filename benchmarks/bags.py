"""Bags: small findings in images and studies, beside one pooled row and its rivals.

Run ``python -m benchmarks.bags``. Phantoms [1]_ are embedded by the demonstration
checkpoint (a demonstration: its figures say nothing of medicine), whose patches are 16
of 128 pixels, so that a cell is one patch. Spots are Gaussians 3 to 12 pixels across
(four standard deviations), added to the brightness in a lung of half of the images.

- *place known* is an oracle: a probe on the one cell in which the spot lies, or a cell
  of the lungs in an image without one.
- *trained with places* is a probe on labelled cells, its scores pooled by max.
- *rows* is ``LinearProbe`` on the pooled row of the image.

Studies have 85 phantoms, one of which may show a nodule. ``--parts`` runs some of the
comparisons and keeps the figures of the others; embeddings are kept in ``--store``.
Run *speed* alone on a quiet machine, and *store* alone, as both measure the memory of
the whole process.

References
----------
.. [1] ``sk_medsiglip.datasets.make_chest_phantoms``.
.. [2] Yang et al., "MedMNIST v2", Scientific Data 2023; X-rays of Kermany et al., Cell
   2018; CC BY 4.0.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks._bags_large import measure_speed, measure_store
from benchmarks._measure import setting, write_results
from benchmarks.demo_checkpoint import unseen_rows
from sk_medsiglip import (
    BagProbe,
    EmbeddingCache,
    LinearProbe,
    MedSigLIPEmbedder,
    MedSigLIPPatchEmbedder,
)
from sk_medsiglip.datasets import fetch_pneumonia_mnist, make_chest_phantoms
from sk_medsiglip.exceptions import DatasetError

GRID = 8
SIZES = ((3, 6), (6, 9), (9, 12))  # pixels of 128
BRIGHTNESS = (90, 150)  # of 255
LABELS = (200, 2000)
SLICES = 85
#: Findings that spots are planted beside: all but the nodule, which is a spot itself.
BESIDE = ["cardiomegaly", "effusion", "pneumothorax", "consolidation", "device"]
#: Findings of slices: in the first case all but one slice of a study look alike.
SLICE_KINDS = {"nodules alone": ["nodule"], "among other findings": None}
TRAIN_SEED, TEST_SEED = 41_000, 42_000

_RESULTS = Path(__file__).parent / "results" / "bags.json"

Array = NDArray[Any]


# ------------------------------------------------------------------------------ data


def plant_spots(images: Array, brightness: float, seed: int) -> dict[str, Array]:
    """Add a spot to half of the images; return them with labels, sizes and cells.

    Images without a spot have the cell of one that was not drawn.
    """
    rng = np.random.default_rng(seed)
    images, n = images.copy(), len(images)
    height = images.shape[1]
    down, across = np.mgrid[:height, :height]
    y = rng.permutation(np.arange(n) % 2)
    size, cell = rng.uniform(3, 12, n), np.empty(n, np.intp)
    for i in range(n):
        top, left = _place_in_lung(images[i], rng)
        cell[i] = top * GRID // height * GRID + left * GRID // height
        if y[i]:
            distance = np.hypot(down - top, across - left)
            spot = brightness * np.exp(-(distance**2) / (2 * (size[i] / 4) ** 2))
            images[i] = np.clip(images[i] + spot, 0, 255).astype(np.uint8)
    return {"images": images, "y": y, "size": size, "cell": cell}


def _place_in_lung(image: Array, rng: np.random.Generator) -> tuple[int, int]:
    """Return a pixel in the darker half of the fields where lungs are."""
    height = image.shape[0]
    down, across = np.mgrid[:height, :height] / height
    field = (down > 0.25) & (down < 0.6) & (abs(abs(across - 0.5) - 0.2) < 0.1)
    dark = np.flatnonzero(field & (image < np.median(image[field])))
    top, left = divmod(int(rng.choice(dark)), height)
    return top, left


def embed(images: Array, store: Path) -> Array:
    """Return bags of cells, the pooled row last."""
    embedder = MedSigLIPEmbedder("demo", cache=EmbeddingCache(store))
    patches = MedSigLIPPatchEmbedder(embedder, grid=GRID, pooled_row=True, lazy=False)
    return patches.fit_transform(list(images))


def spots_of(n: int, brightness: float, seed: int, store: Path) -> dict[str, Array]:
    """Return phantoms with spots, embedded."""
    phantoms = make_chest_phantoms(n, findings=BESIDE, random_state=seed)
    made = plant_spots(phantoms.images, brightness, seed)
    bags = embed(made.pop("images"), store)
    return {"bags": bags, "groups": phantoms.groups, "target": phantoms.target, **made}


# --------------------------------------------------------------------- planted spots


def compare_on_spots(train: dict[str, Array], test: dict[str, Array]) -> dict[str, Any]:
    """Return the scores of test images by all sides."""
    y, groups = train["y"], train["groups"]
    cells, cells_test = train["bags"][:, :-1], test["bags"][:, :-1]
    rows, rows_test = train["bags"][:, -1], test["bags"][:, -1]
    each, each_test = np.arange(len(y)), np.arange(len(test["y"]))
    by_row = LinearProbe().fit(rows, y, groups=groups)
    known = LinearProbe().fit(cells[each, train["cell"]], y, groups=groups)
    of_cell = np.zeros(cells.shape[:2], int)
    of_cell[each, train["cell"]] = y
    placed = LinearProbe().fit(
        cells.reshape(-1, cells.shape[2]),
        of_cell.ravel(),
        groups=np.repeat(groups, cells.shape[1]),
    )
    flat = cells_test.reshape(-1, cells.shape[2])
    placed_scores = placed.decision_function(flat).reshape(cells_test.shape[:2])
    parts = BagProbe().fit(cells, y, groups=groups)
    both = BagProbe(pooled_row=True).fit(train["bags"], y, groups=groups)
    return {
        "rows, LinearProbe": by_row.decision_function(rows_test),
        "BagProbe": parts.decision_function(cells_test),
        "BagProbe, pooled_row=True": both.decision_function(test["bags"]),
        "trained with places, max of cells": placed_scores.max(axis=1),
        "place known": known.decision_function(cells_test[each_test, test["cell"]]),
    }


def auc_by_size(test: dict[str, Array], score: Array) -> dict[str, float]:
    """Return the AUC of all spots, and of those of each size, against no spot."""
    y, size = test["y"], test["size"]
    found = {"all": float(roc_auc_score(y, score))}
    for low, high in SIZES:
        asked = (y == 0) | ((size >= low) & (size < high))
        found[f"{low} to {high} px"] = float(roc_auc_score(y[asked], score[asked]))
    return found


def measure_spots(store: Path, n_seeds: int, n_test: int) -> dict[str, Any]:
    """Return AUC by brightness and number of labels, the mean over seeds."""
    tables: dict[str, Any] = {}
    for seed in range(n_seeds):
        for brightness in BRIGHTNESS:
            train = spots_of(max(LABELS), brightness, TRAIN_SEED + seed, store)
            test = spots_of(n_test, brightness, TEST_SEED + seed, store)
            for n in LABELS:
                scores = compare_on_spots({k: v[:n] for k, v in train.items()}, test)
                table = tables.setdefault(f"brightness {brightness}, {n} labels", {})
                for name, score in scores.items():
                    table.setdefault(name, []).append(auc_by_size(test, score))
                    print(brightness, seed, n, name, table[name][-1], flush=True)
    return {key: mean_of_seeds(table) for key, table in tables.items()}


def mean_of_seeds(table: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return the mean of each figure over seeds."""
    return {
        name: {key: float(np.mean([one[key] for one in each])) for key in each[0]}
        for name, each in table.items()
    }


# --------------------------------------------------------------- one slice of a study


def make_studies(
    rows: Array, is_nodule: Array, n: int, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Return bags of slices, labels of studies and of slices."""
    ill, well = np.flatnonzero(is_nodule), np.flatnonzero(is_nodule == 0)
    y = np.arange(n) % 2
    of_slice = np.zeros((n, SLICES), int)
    taken = np.array([rng.choice(well, SLICES, replace=False) for _ in range(n)])
    for i in np.flatnonzero(y):
        place = rng.integers(SLICES)
        taken[i, place], of_slice[i, place] = rng.choice(ill), 1
    return rows[taken], y, of_slice


def measure_studies(
    store: Path, n_seeds: int, n_images: int, kinds: Sequence[str] = tuple(SLICE_KINDS)
) -> dict[str, Any]:
    """Return AUC of studies by how their slices are put together."""
    embedder = MedSigLIPEmbedder("demo", cache=EmbeddingCache(store))
    tables: dict[str, Any] = {}
    for kind in kinds:
        pools = []
        for seed in (TRAIN_SEED, TEST_SEED):
            made = make_chest_phantoms(
                n_images, findings=SLICE_KINDS[kind], random_state=seed
            )
            is_nodule = made.target[:, made.target_names.index("nodule")]
            pools.append((embedder.transform(list(made.images)), is_nodule))
        tables |= compare_on_studies(pools, kind, n_seeds)
    return tables


def compare_on_studies(
    pools: list[tuple[Array, Array]], kind: str, n_seeds: int
) -> dict[str, Any]:
    """Return AUC of studies made of slices for training and for testing."""
    tables: dict[str, Any] = {}
    for n in (100, 400):
        table = tables.setdefault(f"{n} studies, {kind}", {})
        for seed in range(n_seeds):
            rng = np.random.default_rng(seed)
            X, y, of_slice = make_studies(*pools[0], n, rng)
            X_test, y_test, _ = make_studies(*pools[1], 400, rng)
            flat = X_test.reshape(-1, X.shape[2])
            labelled = LinearProbe().fit(
                X.reshape(-1, X.shape[2]),
                of_slice.ravel(),
                groups=np.repeat(np.arange(n), SLICES),
            )
            scores = {"BagProbe": BagProbe().fit(X, y).decision_function(X_test)}
            for name, pooled in {"mean": np.mean, "max": np.max}.items():
                probe = LinearProbe().fit(pooled(X, axis=1), y)
                found = probe.decision_function(pooled(X_test, axis=1))
                scores[f"{name} of vectors, LinearProbe"] = found
            of_slices = labelled.decision_function(flat).reshape(X_test.shape[:2])
            scores["trained on labelled slices, max"] = of_slices.max(axis=1)
            for name, score in scores.items():
                auc = float(roc_auc_score(y_test, score))
                table.setdefault(name, []).append({"AUC": auc})
                print(n, seed, name, round(auc, 4), flush=True)
    return {key: mean_of_seeds(table) for key, table in tables.items()}


# ------------------------------------------------------------------- ordinary findings


def measure_ordinary(store: Path, data: Path, n_seeds: int) -> dict[str, Any]:
    """Return AUC where nothing is small: findings of phantoms, and PneumoniaMNIST."""
    tables: dict[str, Any] = {}
    for seed in range(n_seeds):
        train, test = (
            make_chest_phantoms(n, random_state=one + 100 + seed)
            for n, one in ((max(LABELS), TRAIN_SEED), (1000, TEST_SEED))
        )
        X, X_test = embed(train.images, store), embed(test.images, store)
        for n in LABELS:
            table = tables.setdefault(f"phantoms, {n} labels", {})
            some = X[:n], train.target[:n], train.groups[:n]
            compare_ordinary(table, *some, X_test, test.target, train.target_names)
    try:
        sets = [fetch_pneumonia_mnist(data, subset=s) for s in ("train", "test")]
    except DatasetError as error:
        print(f"PneumoniaMNIST left out: {error}")
        return {key: mean_of_seeds(table) for key, table in tables.items()}
    keep = unseen_rows(sets[0].images, sets[1].images)
    X, X_test = embed(sets[0].images[keep], store), embed(sets[1].images, store)
    y = sets[0].target[keep]
    for n in (200, len(y)):
        which = n if n < len(y) else "all"
        table = tables.setdefault(f"PneumoniaMNIST, {which} labels", {})
        for seed in range(n_seeds if n < len(y) else 1):
            rows = np.random.default_rng(seed).permutation(len(y))[:n]
            some = X[rows], y[rows, None], np.arange(n)
            compare_ordinary(table, *some, X_test, sets[1].target[:, None], ["AUC"])
    return {key: mean_of_seeds(table) for key, table in tables.items()}


def compare_ordinary(
    table: dict[str, Any],
    X: Array,
    Y: Array,
    groups: Array,
    X_test: Array,
    Y_test: Array,
    names: list[str],
) -> None:
    """Add the AUC of each finding by rows, by cells, and by both."""
    probes: dict[str, tuple[Any, Callable[[Array], Array]]] = {
        "rows, LinearProbe": (LinearProbe(), lambda bags: bags[:, -1]),
        "BagProbe": (BagProbe(), lambda bags: bags[:, :-1]),
        "BagProbe, pooled_row=True": (BagProbe(pooled_row=True), lambda bags: bags),
    }
    for name, (probe, part) in probes.items():
        found = {}
        for finding, y, y_test in zip(names, Y.T, Y_test.T, strict=True):
            probe.fit(part(X), y, groups=groups)
            score = probe.decision_function(part(X_test))
            found[finding] = float(roc_auc_score(y_test, score))
        table.setdefault(name, []).append(found)
        print(len(X), name, {k: round(v, 4) for k, v in found.items()}, flush=True)


# ---------------------------------------------------------------------------- margins


def find_margins(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the differences of AUC that are asked for, by comparison."""
    margins = {}
    for key, table in results.get("spots", {}).items():
        ours = table["BagProbe"]["all"]
        margins[key] = {
            "BagProbe - rows": ours - table["rows, LinearProbe"]["all"],
            "BagProbe - trained with places": (
                ours - table["trained with places, max of cells"]["all"]
            ),
        }
    for key, table in results.get("studies", {}).items():
        margins[key] = {
            f"BagProbe - {name}": table["BagProbe"]["AUC"] - other["AUC"]
            for name, other in table.items()
            if name != "BagProbe"
        }
    for key, table in results.get("ordinary", {}).items():
        ours, rows = table["BagProbe, pooled_row=True"], table["rows, LinearProbe"]
        margins[key] = {"with the row - rows, least": min_difference(ours, rows)}
    return margins


def min_difference(ours: Mapping[str, float], others: Mapping[str, float]) -> float:
    """Return the least difference over the findings."""
    return min(ours[finding] - others[finding] for finding in ours)


# -------------------------------------------------------------------------------- all


def main() -> None:
    """Measure, print and write down."""
    parts = ("spots", "studies", "ordinary", "speed", "store")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="*", default=parts, choices=parts)
    parser.add_argument("--store", type=Path, default=Path("bags_store"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--bags", type=int, default=10_000)
    parser.add_argument("--stored-bags", type=int, default=20_000)
    parser.add_argument("--dry", action="store_true", help="write no results")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    results = setting("numpy", "scikit-learn", "torch", seeds=args.seeds)
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "spots": lambda: measure_spots(args.store, args.seeds, args.test_images),
        "studies": lambda: measure_studies(args.store, args.seeds, 6000),
        "ordinary": lambda: measure_ordinary(args.store, args.data, args.seeds),
        "speed": lambda: measure_speed(args.bags, 1152, 100),
        "store": lambda: measure_store(args.stored_bags, 100_000, 1152),
    }
    if _RESULTS.exists():  # parts that are not run keep their figures
        results = {**json.loads(_RESULTS.read_text("utf-8")), **results}
    for part in args.parts:
        results[part] = measures[part]()
        print(json.dumps(results[part], indent=1), flush=True)
    results["margins"] = find_margins(results)
    if not args.dry:
        write_results("bags", results)


if __name__ == "__main__":
    main()
