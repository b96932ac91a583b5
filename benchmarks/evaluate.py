"""``evaluate``: thousands of resamples at once, against a loop over scikit-learn.

Run ``python -m benchmarks.evaluate``, on a quiet machine. Scores are made up: 14
findings of 5,000 images, of patients with one to nine images each. The loop draws the
same patients and calls ``roc_auc_score`` for every resample and finding; it is run for
some resamples, and its time for all is computed from them. DeLong's test is compared
with the package MLstatkit, if that is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks._measure import in_turns, setting, write_results
from sk_medsiglip._resampling import auc_of_resamples, draw_counts
from sk_medsiglip.evaluation import delong_test, evaluate

FINDINGS = 14


def made_up(
    n: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.intp]]:
    """Return labels, scores and patients."""
    patients = np.repeat(np.arange(n), rng.integers(1, 10, n))[:n]
    shares = rng.uniform(0.03, 0.3, FINDINGS)
    y = (rng.random((n, FINDINGS)) < shares).astype(np.int64)
    scores = 1 / (1 + np.exp(-(2 * y - 1 + 1.5 * rng.normal(size=y.shape))))
    return y, scores, patients


def areas_at_once(
    y: NDArray[np.int64], scores: NDArray[np.float64], counts: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return the area of every resample and finding."""
    return np.stack(
        [auc_of_resamples(y[:, k], scores[:, k], counts) for k in range(FINDINGS)],
        axis=1,
    )


def areas_in_a_loop(
    y: NDArray[np.int64], scores: NDArray[np.float64], counts: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return the same, one call of scikit-learn's each."""
    result = np.empty((len(counts), FINDINGS))
    for i, drawn in enumerate(counts):
        rows = np.repeat(np.arange(len(y)), drawn)
        for k in range(FINDINGS):
            result[i, k] = roc_auc_score(y[rows, k], scores[rows, k])
    return result


def main() -> None:
    """Read the command line, measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--looped", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="write no results")
    arguments = parser.parse_args()
    y, scores, patients = made_up(arguments.images, np.random.default_rng(0))
    counts = draw_counts(len(y), arguments.resamples, groups=patients, random_state=0)
    some = counts[: arguments.looped]
    gap = np.abs(areas_at_once(y, scores, some) - areas_in_a_loop(y, scores, some))
    seconds = in_turns(
        arguments.repeats,
        {
            "areas": lambda: areas_at_once(
                y,
                scores,
                draw_counts(
                    len(y), arguments.resamples, groups=patients, random_state=0
                ),
            ),
            "loop": lambda: areas_in_a_loop(y, scores, some),
            "evaluate": lambda: evaluate(
                {"x": scores},
                patients[:, None],
                y,
                groups=patients,
                n_bootstrap=arguments.resamples,
            ),
        },
    )
    looped = seconds["loop"] * arguments.resamples / len(some)
    results: dict[str, Any] = {
        **setting(
            "numpy",
            "scikit-learn",
            images=arguments.images,
            findings=FINDINGS,
            resamples=arguments.resamples,
        ),
        "areas by patient": {
            "seconds": seconds["areas"],
            "loop over roc_auc_score, seconds": looped,
            "loop / ours": looped / seconds["areas"],
            "largest difference": gap.max(),
        },
        "evaluate, all eight metrics": {
            "seconds": seconds["evaluate"],
            "figures": 8 * (FINDINGS + 2),
        },
    }
    if importlib.util.find_spec("MLstatkit"):
        results["DeLong"] = against_mlstatkit(y, scores)
    for name, row in results.items():
        print(f"{name}: {row}")
    if not arguments.dry:
        write_results("evaluate", results)


def against_mlstatkit(
    y: NDArray[np.int64], scores: NDArray[np.float64]
) -> dict[str, float]:
    """Return the largest difference of p-values over pairs of findings' scores."""
    from MLstatkit import Delong_test

    gaps = []
    for k in range(1, FINDINGS):
        ours = delong_test(y[:, 0], scores[:, 0], scores[:, k])[1]
        theirs = Delong_test(y[:, 0], scores[:, 0], scores[:, k])[1]
        gaps.append(abs(ours - theirs))
    return {"pairs": len(gaps), "largest difference of p to MLstatkit": max(gaps)}


if __name__ == "__main__":
    main()
