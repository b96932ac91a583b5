"""Splits by patient: how even are labels and sizes, and how long does it take.

Run ``python -m benchmarks.splits``. Tables are made up after ChestX-ray14 [1]_: its
fourteen findings at their published shares, few patients with many images (3.6 on the
mean, up to 184), and findings that stay with a patient. Figures are means over several
tables, seconds those of the fastest.

What others do with several labels: GroupKFold looks at none; StratifiedGroupKFold takes
one class a row, here the row's set of findings, or its rarest finding;
iterative-stratification spreads several labels but knows no patients, so it is given
rows (and tears patients), or patients (each with what any of its images has).

References
----------
.. [1] Wang et al., "ChestX-ray8", CVPR 2017.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, GroupShuffleSplit, StratifiedGroupKFold

from benchmarks._measure import setting, write_results
from sk_medsiglip.model_selection import (
    MultilabelStratifiedGroupKFold,
    MultilabelStratifiedGroupShuffleSplit,
)

FOLDS = 5
#: Shares of images with each of the fourteen findings, after [1]_.
SHARES = (
    *(0.177, 0.119, 0.103, 0.056, 0.052, 0.047, 0.042, 0.030, 0.025, 0.022, 0.021),
    *(0.015, 0.013, 0.002),
)
MOST_IMAGES = 184
#: Beyond, one class a set of findings takes minutes and gigabytes.
SETS_UP_TO = 5_000

Table = tuple[NDArray[Any], NDArray[np.intp]]
Pairs = list[tuple[NDArray[np.intp], NDArray[np.intp]]]


def make_table(n_patients: int, seed: int, blanks: float = 0.0) -> Table:
    """Return findings of every image, and its patient."""
    rng = np.random.default_rng(seed)
    n_images = 1 + np.floor(1.5 * rng.pareto(1.35, n_patients)).astype(int)
    groups = np.repeat(np.arange(n_patients), np.minimum(n_images, MOST_IMAGES))
    # A patient's own risk, the same in all images; it lowers the mean share a little.
    logit = np.log(np.array(SHARES) / (1 - np.array(SHARES))) - 0.9
    risk = rng.normal(0, 1.5, (n_patients, len(SHARES)))[groups]
    y = (rng.random(risk.shape) < 1 / (1 + np.exp(-logit - risk))).astype(float)
    y[rng.random(y.shape) < blanks] = np.nan
    return y, groups


def rarest_finding(y: NDArray[Any]) -> NDArray[np.intp]:
    """Return a class a row: its rarest finding, or none."""
    frequency = np.nansum(y, axis=0)
    rank = np.where(y == 1, frequency, np.inf)
    return np.where((y == 1).any(axis=1), rank.argmin(axis=1), y.shape[1])


def ways(n_patients: int) -> dict[str, Callable[[NDArray[Any], Any], Pairs]]:
    """Return the ways to make folds, by name."""
    found: dict[str, Callable[[NDArray[Any], Any], Pairs]] = {
        "ours": lambda y, g: list(MultilabelStratifiedGroupKFold(FOLDS).split(y, y, g)),
        "ours, shuffled": lambda y, g: list(
            MultilabelStratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(
                y, y, g
            )
        ),
        "GroupKFold": lambda y, g: list(GroupKFold(FOLDS).split(y, y, g)),
        "StratifiedGroupKFold, rarest finding": lambda y, g: list(
            StratifiedGroupKFold(FOLDS).split(y, rarest_finding(y), g)
        ),
    }
    if n_patients <= SETS_UP_TO:
        found["StratifiedGroupKFold, set of findings"] = lambda y, g: list(
            StratifiedGroupKFold(FOLDS).split(
                y, np.unique(np.nan_to_num(y), axis=0, return_inverse=True)[1], g
            )
        )
    if importlib.util.find_spec("iterstrat") is not None:
        found["iterative-stratification, rows"] = iterative_rows
        found["iterative-stratification, patients"] = iterative_patients
    return found


def iterative_rows(y: NDArray[Any], groups: Any) -> Pairs:
    """Split rows, whoever they are of."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    y = np.nan_to_num(y).astype(int)
    folds = MultilabelStratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return list(folds.split(y, y))


def iterative_patients(y: NDArray[Any], groups: Any) -> Pairs:
    """Split patients, each with what any image has."""
    has = np.zeros((groups.max() + 1, y.shape[1]), int)
    np.maximum.at(has, groups, np.nan_to_num(y).astype(int))
    return [
        (np.flatnonzero(np.isin(groups, some)), np.flatnonzero(np.isin(groups, others)))
        for some, others in iterative_rows(has, None)
    ]


def judge(y: NDArray[Any], groups: Any, pairs: Pairs, share: float) -> dict[str, float]:
    """Return how uneven folds are."""
    overall = np.nanmean(y, axis=0)
    shares = np.array([np.nanmean(y[test], axis=0) for _, test in pairs])
    off = np.abs(shares / overall - 1)
    sizes = np.array([len(test) for _, test in pairs]) / (share * len(y))
    torn = [len(np.intersect1d(groups[train], groups[test])) for train, test in pairs]
    return {
        "share of a label off by, mean, %": 100 * float(off.mean()),
        "share of a label off by, worst, %": 100 * float(off.max(axis=(0, 1))),
        "fold size off by, worst, %": 100 * float(np.abs(sizes - 1).max()),
        "folds without one of the labels": float((shares == 0).sum()),
        "patients on both sides, of a fold": float(np.mean(torn)),
    }


def compare(
    tables: Sequence[Table],
    sides: dict[str, Callable[[NDArray[Any], Any], Pairs]],
    share: float,
) -> dict[str, dict[str, float]]:
    """Return the mean figures of every side, and the best seconds."""
    results: dict[str, dict[str, float]] = {}
    for name, work in sides.items():
        judged, seconds = [], []
        for y, groups in tables:
            start = time.perf_counter()
            with warnings.catch_warnings():
                # Rare labels: of them is what the figures speak of.
                warnings.simplefilter("ignore", UserWarning)
                pairs = work(y, groups)
            seconds.append(time.perf_counter() - start)
            judged.append(judge(y, groups, pairs, share))
        means = {key: float(np.mean([one[key] for one in judged])) for key in judged[0]}
        results[name] = {"s": min(seconds), **means}
    return results


def held_out(n_draws: int) -> dict[str, Callable[[NDArray[Any], Any], Pairs]]:
    """Return the ways to hold patients out, by name."""
    size = {"n_splits": n_draws, "test_size": 1 / FOLDS, "random_state": 0}
    ours = MultilabelStratifiedGroupShuffleSplit(**size)
    return {
        "ours": lambda y, g: list(ours.split(y, y, g)),
        "GroupShuffleSplit": lambda y, g: list(
            GroupShuffleSplit(**size).split(y, y, g)
        ),
    }


def measure(sizes: Sequence[int], n_tables: int) -> dict[str, Any]:
    """Return all figures."""
    results: dict[str, Any] = {}
    for n in sizes:
        tables = [make_table(n, seed) for seed in range(n_tables)]
        images = float(np.mean([len(groups) for _, groups in tables]))
        results[f"{n:,} patients"] = {
            "images, mean": images,
            **compare(tables, ways(n), 1 / FOLDS),
        }
    some = sizes[len(sizes) // 2]
    tables = [make_table(some, seed, blanks=0.3) for seed in range(n_tables)]
    results[f"{some:,} patients, three labels in ten blank"] = compare(
        tables, ways(some), 1 / FOLDS
    )
    tables = [make_table(some, seed) for seed in range(n_tables)]
    results[f"{some:,} patients, a fifth held out, ten times"] = compare(
        tables, held_out(10), 1 / FOLDS
    )
    return results


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--patients", type=int, nargs="+", default=[300, 1_000, 5_000, 30_000]
    )
    parser.add_argument("--tables", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="write no results")
    options = parser.parse_args()
    peers = {}
    if importlib.util.find_spec("iterstrat") is not None:
        peers["iterative-stratification"] = version("iterative-stratification")
    results = {
        **setting("numpy", "scipy", "scikit-learn", folds=FOLDS, labels=len(SHARES)),
        **peers,
        "tables": options.tables,
        **measure(options.patients, options.tables),
    }
    if options.dry:
        print(results)
    else:
        write_results("splits", results)


if __name__ == "__main__":
    main()
