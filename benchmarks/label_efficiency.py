"""``label_efficiency`` of a linear probe, against fitting its draws one by one.

Run ``python -m benchmarks.label_efficiency``, on a quiet machine. Made-up rows of 1152
float32, as in ``benchmarks.heads``, with 14 findings; a quarter is the test set. The
loops draw the same rows: one over ``LinearProbe.fit``, which solves the folds,
penalties and findings of one draw together, one over scikit-learn's
``LogisticRegressionCV`` for each finding, the same folds and penalties. Both are run
for some draws and findings of each size, and their time for all is computed from them.
The figures of ours include splitting, drawing and scoring; those of the loops fitting
only. Seconds of processors, of all cores together, stand beside those that pass: on a
machine that others use they are the ones to compare.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from benchmarks._measure import setting, write_results
from benchmarks.heads import CS, WIDTH, logistic_cv, make_rows
from sk_medsiglip.evaluation import label_efficiency
from sk_medsiglip.heads import LinearProbe

FINDINGS = 14
SIZES = (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
# Smaller draws lack folds and cost next to nothing; scikit-learn's loop takes minutes.
LOOPED, LOOPED_LOGISTIC = (64, 128, 256, 512, 1024, 2048), (64, 256, 1024)


class Cost(NamedTuple):
    """What work takes."""

    s: float
    cpu_s: float

    def times(self, n: float) -> Cost:
        return Cost(self.s * n, self.cpu_s * n)


def cost(work: Callable[[], object]) -> Cost:
    """Return how long work takes, and how long processors worked."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - start, time.process_time() - busy)


def total(costs: dict[str, Cost]) -> Cost:
    """Return the sum over sizes."""
    return Cost(*(float(one) for one in np.sum(list(costs.values()), axis=0)))


def looped(
    X: NDArray[Any],
    y: NDArray[Any],
    groups: NDArray[Any],
    n_repeats: int,
    sizes: tuple[int, ...],
    fit: Callable[..., object],
    n_findings: int,
) -> dict[str, Cost]:
    """Return the cost of all repeats of each size, from one draw of each."""
    rng = np.random.default_rng(1)
    found = {}
    for size in sizes:
        rows = rng.permutation(len(X))[:size]
        some = y[rows][:, :n_findings]
        one = cost(lambda rows=rows, some=some: fit(X[rows], some, groups[rows]))
        found[str(size)] = one.times(n_repeats * FINDINGS / n_findings)
        print(size, found[str(size)], flush=True)
    return found


def fit_probe(X: NDArray[Any], y: NDArray[Any], groups: NDArray[Any]) -> None:
    """Fit all findings of a draw."""
    LinearProbe(CS).fit(X, y, groups=groups)


def fit_logistic(X: NDArray[Any], y: NDArray[Any], groups: NDArray[Any]) -> None:
    """Fit each finding of a draw, as scikit-learn does, with two jobs."""
    for label in y.T:
        folds = list(StratifiedGroupKFold(5).split(X, label, groups))
        logistic_cv(folds, 2).fit(X, label)


def as_row(one: Cost) -> dict[str, float]:
    """Return a row of the results."""
    return {"s": one.s, "processor s": one.cpu_s}


def main() -> None:
    """Read the command line, measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--dry", action="store_true", help="write no results")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    X, y = make_rows(arguments.images, FINDINGS, several=True)
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(len(X)), rng.integers(1, 4, len(X)))[: len(X)]

    def ours(sizes: tuple[int, ...], tol: float = 1e-7) -> tuple[Cost, Any]:
        tables = []
        found = cost(
            lambda: tables.append(
                label_efficiency(
                    {"probe": LinearProbe(CS, tol=tol)},
                    X,
                    y,
                    sizes,
                    groups=patients,
                    n_repeats=arguments.repeats,
                )
            )
        )
        macro = tables[0][tables[0]["label"] == "macro"]
        print(sizes, tol, found, flush=True)
        return found, macro.groupby("size")["score"].mean()

    ours((8,))  # once, so that nobody pays for imports
    (whole, curve), (short, _) = ours(SIZES), ours(SIZES[:-1])
    loose, moved = ours(SIZES, 1e-4)
    some, _ = ours(LOOPED_LOGISTIC)
    probes = looped(X, y, patients, arguments.repeats, LOOPED, fit_probe, FINDINGS)
    fit_logistic(X[:64], y[:64, :1], patients[:64])  # once, to start the jobs
    logistic = looped(
        X, y, patients, arguments.repeats, LOOPED_LOGISTIC, fit_logistic, 1
    )
    results = {
        **setting(
            "numpy",
            "scikit-learn",
            images=arguments.images,
            width=WIDTH,
            findings=FINDINGS,
            repeats=arguments.repeats,
            sizes=list(SIZES),
        ),
        "label_efficiency": as_row(whole),
        f"up to {SIZES[-2]} labels": as_row(short),
        "LinearProbe(tol=1e-4)": {
            **as_row(loose),
            "largest change of a macro mean": float((moved - curve).abs().max()),
        },
        f"loop over LinearProbe.fit, {min(LOOPED)} labels and more": {
            **as_row(total(probes)),
            "s / ours": total(probes).s / whole.s,
            "processor s / ours": total(probes).cpu_s / whole.cpu_s,
        },
        "64, 256 and 1024 labels only": {
            "s": some.s,
            "loop over LogisticRegressionCV, s": total(logistic).s,
            "LogisticRegressionCV / ours": total(logistic).s / some.s,
        },
    }
    print(results)
    if not arguments.dry:
        write_results("label_efficiency", results)


if __name__ == "__main__":
    main()
