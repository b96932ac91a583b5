"""Whether intervals hold the truth, and tests of gaps find none where there is none.

Run ``python -m benchmarks.coverage``. Scores are normal, of patients with one image, or
with one to five that are alike (correlation 0.5), higher where the finding is there.
Type I errors and operating points are shares of ``--draws`` data sets, seeds 0 to
draws - 1, all else of a quarter of them. Intervals are nominally of 95 %, tests of .05.

- *Gaps*: the subgroup's patients against the others of 120 or 300, AUC .85 in both:
  type I error of the permutation test. In a second setting the subgroup has a
  prevalence of .5 in place of .25. Power: AUC .80 in the subgroup, .95 elsewhere.
- *Intervals*: 3 to 30 patients with the finding among 100, AUC .7, .9, .98; and scores
  that miss three in ten of those with the finding. What they should hold is computed.
- *Pairs*: two classifiers of the same images, which differ by nothing.
- *Operating points*: the sensitivity of new images that a threshold chosen for .95 has.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks._measure import setting, write_results
from sk_medsiglip._intervals import Estimate, combine
from sk_medsiglip.evaluation import choose_operating_point, delong_test
from sk_medsiglip.evaluation._answers import Question
from sk_medsiglip.evaluation._figures import estimates, figures
from sk_medsiglip.evaluation._permutations import gap_p_value, permuted_members

DRAWS = 2000
PERMUTATIONS = 99
SIZES = (3, 5, 10, 20, 40)
METRICS = ("roc_auc", "sensitivity", "specificity", "accuracy", "brier")
SHARES = ("sensitivity", "ppv", "balanced_accuracy", "f1")
ALIKE = 0.5


def shift(auc: float) -> float:
    """Return how far apart two normals of this AUC are."""
    return float(norm.ppf(auc) * 2**0.5)


def draw(
    rng: np.random.Generator, n_patients: int, several: bool
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return whose each image is, and noise that a patient's images share."""
    images = rng.integers(1, 6, n_patients) if several else np.ones(n_patients, int)
    patients = np.repeat(np.arange(n_patients), images)
    shared = rng.standard_normal(n_patients)[patients] * ALIKE**0.5
    return patients, shared + rng.standard_normal(len(patients)) * (1 - ALIKE) ** 0.5


def question(ill: NDArray[np.bool_], score: NDArray[np.float64]) -> Question:
    """Return scores as answers; a calibrated enough probability makes Brier's."""
    return Question(
        "x", np.arange(len(ill)), ill, score, score > 1, 1 / (1 + np.exp(1 - score))
    )


def gap_values(
    asked: Question,
    patients: NDArray[np.intp],
    inside: NDArray[np.bool_],
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """Return the gap of each metric, first as it is, then of patients rearranged."""
    member = permuted_members([asked], inside, ~inside, patients, PERMUTATIONS, seed)
    own, rest = (figures(asked, side, METRICS) for side in (member, ~member))
    return {metric: own[metric] - rest[metric] for metric in METRICS}


def gaps(
    draws: int,
    n_patients: int,
    several: bool,
    aucs: tuple[float, float],
    prevalence: tuple[float, float],
) -> dict[str, dict[str, float]]:
    """Return of each metric and size the share of data sets with p of .05 or less."""
    found: dict[str, dict[str, float]] = {metric: {} for metric in METRICS}
    for size in SIZES:
        hits = dict.fromkeys(METRICS, 0)
        for seed in range(draws):
            rng = np.random.default_rng([seed, n_patients, size])
            patients, noise = draw(rng, n_patients, several)
            group = np.arange(n_patients) < size
            ill = rng.random(n_patients) < np.where(group, *prevalence)
            ill[[0, size]], ill[[1, size + 1]] = True, False  # both kinds on both sides
            apart = np.where(group, *map(shift, aucs))
            asked = question(ill[patients], noise + (ill * apart)[patients])
            values = gap_values(asked, patients, group[patients], seed)
            for metric, one in values.items():
                p_value, _ = gap_p_value(one)
                hits[metric] += p_value <= 0.05
        for metric in METRICS:
            found[metric][str(size)] = round(hits[metric] / draws, 4)
    return found


def truth(auc: float, missed: float, share: float) -> dict[str, float]:
    """Return what figures would be of endless images."""
    found = (1 - missed) * norm.sf(1 - shift(auc)) + missed * norm.sf(1)
    spared = norm.cdf(1)
    tp, fp = share * found, (1 - share) * (1 - spared)
    return {
        "roc_auc": (1 - missed) * auc + missed / 2,
        "sensitivity": found,
        "ppv": tp / (tp + fp),
        "balanced_accuracy": (found + spared) / 2,
        "f1": 2 * tp / (tp + fp + share),
    }


def intervals(draws: int, n_ill: int, several: bool, auc: float, missed: float) -> Any:
    """Return coverage and mean width of the intervals of one label, and of a mean."""
    metrics = ("roc_auc", *SHARES)
    counts = np.zeros((len(metrics) + 1, 3))
    n_patients, one_draw = 100, np.ones((1, 600), int)
    for seed in range(draws):
        rng = np.random.default_rng([seed, n_ill])
        patients, noise = draw(rng, n_patients, several)
        of_label = []
        for _ in range(2):  # the second label is of the same images
            ill = rng.permutation(n_patients) < n_ill
            seen = ill & (rng.random(n_patients) >= missed)
            other = rng.standard_normal(n_patients)[patients]
            mixed = (noise + other) / 2**0.5 + shift(auc) * seen[patients]
            asked = question(ill[patients], mixed)
            one = estimates(asked, one_draw[:, : len(patients)], metrics, patients)
            of_label.append(one)
        expected = truth(auc, missed, n_ill / n_patients)
        rows: list[tuple[Estimate, float]] = [
            (of_label[0][metric], expected[metric]) for metric in metrics
        ]
        mean = combine([one["roc_auc"] for one in of_label], [0.5, 0.5])
        rows.append((mean, expected["roc_auc"]))
        for count, (estimate, true) in zip(counts, rows, strict=True):
            low, high, _ = estimate.interval()
            if not np.isnan(low):
                count += [1, low - 1e-9 <= true <= high + 1e-9, high - low]
    return {
        name: {
            "covers": round(float(inside / n), 4),
            "width": round(float(width / n), 3),
            "given": round(float(n / draws), 3),
        }
        for name, (n, inside, width) in zip(
            (*metrics, "macro roc_auc"), counts, strict=True
        )
    }


def pairs(draws: int, n_ill: int, aucs: tuple[float, float]) -> dict[str, float]:
    """Return how often two classifiers of the same images are told apart."""
    ours = delong = contradicts = inside = 0
    for seed in range(draws):
        rng = np.random.default_rng([seed, n_ill])
        ill, patients = np.arange(100) < n_ill, np.arange(100)
        shared = rng.standard_normal(100) * 0.7**0.5
        scores = [
            shared + rng.standard_normal(100) * 0.3**0.5 + shift(auc) * ill
            for auc in aucs
        ]
        one_draw = np.ones((1, 100), int)
        difference = combine(
            [
                estimates(question(ill, s), one_draw, ("roc_auc",), patients)["roc_auc"]
                for s in scores
            ],
            [1, -1],
        )
        low, high, _ = difference.interval()
        p_value = difference.p_value()
        ours += p_value < 0.05
        delong += delong_test(ill, *scores)[1] < 0.05
        contradicts += (p_value < 0.05) != (low > 0 or high < 0)
        inside += low <= aucs[0] - aucs[1] <= high
    names = ("told apart", "told apart by DeLong's test", "contradicts", "covers")
    counted = (ours, delong, contradicts, inside)
    return {k: round(n / draws, 4) for k, n in zip(names, counted, strict=True)}


def operating_points(draws: int, **chosen: Any) -> dict[str, Any]:
    """Return the sensitivity that thresholds chosen for .95 have of new images."""
    found = {}
    for n_ill in (20, 50, 200):
        reached = np.empty(draws)
        for seed in range(draws):
            rng = np.random.default_rng([seed, n_ill])
            y = np.repeat([1, 0], [n_ill, 4 * n_ill])
            score = rng.standard_normal(len(y)) + 2 * y
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that twenty are few
                point = choose_operating_point(y, score, sensitivity=0.95, **chosen)
            reached[seed] = norm.sf(point.threshold - 2)
        found[str(n_ill)] = {
            "mean sensitivity": round(float(reached.mean()), 4),
            "below .95": round(float((reached < 0.95).mean()), 4),
        }
    return found


def measure(draws: int, n_jobs: int = 1) -> dict[str, Any]:
    """Return all sections."""
    same = (0.85, 0.85), (0.25, 0.25)
    other = (0.85, 0.85), (0.5, 0.25)
    worse = (0.80, 0.95), (0.25, 0.25)
    few = max(1, draws // 4)
    cases: dict[tuple[str, str], Any] = {}
    for name, n_draws, n_patients, several, aucs, prevalence in (
        ("type I, 120 patients", draws, 120, False, *same),
        ("type I, 300 patients", draws, 300, False, *same),
        ("type I, 120 patients, 1 to 5 images", draws, 120, True, *same),
        ("type I, 120 patients, other prevalence", draws, 120, False, *other),
        ("power, 120 patients", few, 120, False, *worse),
        ("power, 300 patients", few, 300, False, *worse),
    ):
        cases["gaps", name] = delayed(gaps)(
            n_draws, n_patients, several, aucs, prevalence
        )
    for n_ill in (3, 5, 10, 30):
        for auc, missed in ((0.7, 0.0), (0.9, 0.0), (0.98, 0.0), (0.98, 0.3)):
            for several in (False, True):
                name = f"{n_ill} with it, AUC {auc}"
                name += ", three in ten missed" if missed else ""
                name += ", 1 to 5 images" if several else ""
                cases["intervals", name] = delayed(intervals)(
                    few, n_ill, several, auc, missed
                )
    for n_ill in (5, 10, 30):
        for aucs in ((0.85, 0.85), (0.95, 0.8)):
            name = f"{n_ill} with it, AUC {aucs[0]} and {aucs[1]}"
            cases["pairs", name] = delayed(pairs)(few, n_ill, aucs)
    cases["operating points", "default"] = delayed(operating_points)(draws)
    cases["operating points", "confidence=.9"] = delayed(operating_points)(
        draws, confidence=0.9
    )
    found = Parallel(n_jobs=n_jobs)(cases.values())
    result: dict[str, Any] = {}
    for (section, name), one in zip(cases, found, strict=True):
        result.setdefault(section, {})[name] = one
    return result


def main() -> None:
    """Read the command line, measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--n-jobs", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="write no results")
    arguments = parser.parse_args()
    started = time.perf_counter()
    found = measure(arguments.draws, arguments.n_jobs)
    results = {
        **setting(
            "numpy",
            "scipy",
            draws=arguments.draws,
            permutations=PERMUTATIONS,
            seeds=f"0 to {arguments.draws - 1}",
        ),
        **found,
        "seconds": round(time.perf_counter() - started, 1),
    }
    if not arguments.dry:
        write_results("coverage", results)
    for section, rows in found.items():
        for name, row in rows.items():
            print(f"{section}, {name}: {row}")


if __name__ == "__main__":
    main()
