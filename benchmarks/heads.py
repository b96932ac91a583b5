"""LinearProbe and scikit-learn's ways to the same solutions.

Run ``python -m benchmarks.heads``. Made-up rows of 1152 float32 whose variance falls
off as that of embeddings does; the same folds and penalties, 5 x 10, for all; scoring
and the refit are part of every time. Each side in its best setting: with two jobs
scikit-learn's workers have one BLAS thread each, with one job all. scikit-learn keeps
its own tolerance and gets steps enough to meet it; how far each side's objective of the
refit ends above the best known one is part of the figures.

Where scikit-learn-intelex is installed (``pip install scikit-learn-intelex``), its
patched ``LogisticRegressionCV`` runs in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, log_softmax
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.multioutput import MultiOutputClassifier

from benchmarks._measure import best_of, in_turns, setting, write_results
from sk_medsiglip.heads import LinearProbe, fit_logistic_path

WIDTH = 1152
CS = np.logspace(-4, 4, 10)
STEPS = 1000


def make_rows(n: int, n_answers: int, several: bool = False) -> tuple[Any, Any]:
    """Return rows like embeddings, and classes, or several labels, that they tell."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((n, WIDTH))
    spread = 1 / np.sqrt(1 + np.arange(WIDTH))
    turn = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0]
    X = (hidden * spread) @ turn + rng.standard_normal(WIDTH)
    signal = hidden[:, :100] @ rng.standard_normal((100, n_answers)) / 5
    noisy = signal + rng.logistic(size=signal.shape)
    if several:
        y = (noisy > 1).astype(int)
    else:
        y = (noisy[:, 0] > 0).astype(int) if n_answers == 1 else noisy.argmax(axis=1)
    return X.astype(np.float32), y


def logistic_cv(cv: Any, n_jobs: int) -> LogisticRegressionCV:
    """Return scikit-learn's own, set to the same work."""
    return LogisticRegressionCV(
        Cs=CS,
        cv=cv,
        scoring="neg_log_loss",
        max_iter=STEPS,
        n_jobs=n_jobs,
        l1_ratios=(0,),
        use_legacy_attributes=False,
    )


def grid_search(cv: Any, n_jobs: int) -> GridSearchCV:
    """Return the search that most people write."""
    return GridSearchCV(
        LogisticRegression(max_iter=STEPS),
        {"C": CS},
        cv=cv,
        scoring="neg_log_loss",
        n_jobs=n_jobs,
    )


def objective(X: Any, y: Any, model: Any, C: float) -> float:
    """Return the penalised objective of a fit of all rows, in float64."""
    coef = np.asarray(model.coef_, np.float64)
    logits = X.astype(np.float64) @ coef.T + np.asarray(model.intercept_, np.float64)
    if logits.shape[1] == 1:
        losses = -log_expit(np.where(y == 1, logits[:, 0], -logits[:, 0]))
    else:
        losses = -log_softmax(logits, axis=1)[np.arange(len(y)), y]
    return float(C * losses.sum() + 0.5 * (coef**2).sum())


def excess(X: Any, y: Any, model: Any) -> float:
    """Return how far a refit ends above the best known objective, as a share."""
    C = float(model.C_) if hasattr(model, "C_") else model.best_params_["C"]
    fitted = getattr(model, "best_estimator_", model)
    best = fit_logistic_path(X.astype(np.float64), y, [C], tol=1e-13)
    best_value = objective(X, y, _Row(best.coef[0, 0], best.intercept[0, 0]), C)
    return objective(X, y, fitted, C) / best_value - 1


class _Row:
    def __init__(self, coef: Any, intercept: Any) -> None:
        self.coef_, self.intercept_ = coef, intercept


def measure(X: Any, y: Any, n_repeats: int, peers: dict[str, Any]) -> dict[str, Any]:
    """Return seconds of ours and of every peer, each in turns with ours."""
    cv = list(StratifiedKFold(5).split(X, y))
    figures: dict[str, Any] = {}
    ours = LinearProbe(CS, cv=cv)
    ours.fit(X, y)  # once, so that nobody pays for imports
    for name, (make, n_jobs) in peers.items():
        peer = make(cv, n_jobs)
        best = in_turns(
            n_repeats, {"ours": partial(ours.fit, X, y), name: partial(peer.fit, X, y)}
        )
        found = peer.C_ if hasattr(peer, "C_") else peer.best_params_["C"]
        figures[name] = {
            "s": best[name],
            "ours in the same turns, s": best["ours"],
            "times as long as ours": best[name] / best["ours"],
            "objective above the best": excess(X, y, peer),
            "C": float(found),
        }
        print(name, figures[name], flush=True)
    return {
        "memory of a fit, MB": peak_memory(lambda: ours.fit(X, y)),
        "ours": {
            "s": min(one["ours in the same turns, s"] for one in figures.values()),
            "objective above the best": excess(X, y, ours),
            "C": float(ours.C_),
            "steps, most": int(ours.n_iter_.max()),
        },
        **figures,
    }


def peak_memory(work: Callable[[], object]) -> float:
    """Return the most memory that numpy held at a time, beyond what was there."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def measure_labels(n: int) -> dict[str, Any]:
    """Return the figures of fourteen labels."""
    X, Y = make_rows(n, 14, several=True)
    cv = list(KFold(5).split(X))
    ours = LinearProbe(CS, cv=cv)
    sides: dict[str, Callable[[], object]] = {"ours": lambda: ours.fit(X, Y)}
    figures: dict[str, Any] = {}
    for n_jobs in (2,):  # with one job twice the minutes
        peer = MultiOutputClassifier(logistic_cv(cv, 1), n_jobs=n_jobs)
        name = f"MultiOutputClassifier(LogisticRegressionCV), n_jobs={n_jobs}"
        best = in_turns(1, {**sides, name: partial(peer.fit, X, Y)})
        best["ours"] = min(best["ours"], best_of(1, sides["ours"]))
        figures[name] = {
            "s": best[name],
            "ours in the same turns, s": best["ours"],
            "times as long as ours": best[name] / best["ours"],
        }
        print(name, figures[name], flush=True)
    figures["memory of a fit, MB"] = peak_memory(lambda: ours.fit(X, Y))
    return figures


def with_intelex(n: int) -> dict[str, Any] | None:
    """Return the seconds of the patched estimator, in a process of its own."""
    if importlib.util.find_spec("sklearnex") is None:
        return None
    script = (
        "import json, sys, time, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from sklearnex import patch_sklearn; patch_sklearn(verbose=False)\n"
        "from benchmarks.heads import logistic_cv, make_rows\n"
        "from sklearn.model_selection import StratifiedKFold\n"
        "X, y = make_rows(int(sys.argv[1]), 1)\n"
        "cv = list(StratifiedKFold(5).split(X, y))\n"
        "best = []\n"
        "for _ in range(2):\n"
        "    start = time.perf_counter()\n"
        "    logistic_cv(cv, 1).fit(X, y)\n"
        "    best.append(time.perf_counter() - start)\n"
        "print(json.dumps(min(best)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(n)], capture_output=True, text=True
    )
    if ran.returncode:
        print("scikit-learn-intelex:", ran.stderr[-300:])
        return None
    X, y = make_rows(n, 1)
    cv = list(StratifiedKFold(5).split(X, y))
    ours = best_of(3, lambda: LinearProbe(CS, cv=cv).fit(X, y))
    seconds = float(json.loads(ran.stdout.splitlines()[-1]))
    return {"s": seconds, "ours, s": ours, "times as long as ours": seconds / ours}


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="write no results")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    results = setting("numpy", "scipy", "scikit-learn", width=WIDTH, folds=5, Cs=10)
    peers: dict[str, Any] = {
        "LogisticRegressionCV, n_jobs=2": (logistic_cv, 2),
        "LogisticRegressionCV, n_jobs=1": (logistic_cv, 1),
        "GridSearchCV, n_jobs=2": (grid_search, 2),
    }
    cases: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {
        "two classes, 200 rows": make_rows(200, 1),
        f"two classes, {args.rows:,} rows": make_rows(args.rows, 1),
        f"five classes, {args.rows:,} rows": make_rows(args.rows, 5),
    }
    for name, (X, y) in cases.items():
        print(name, flush=True)
        chosen, n_repeats = peers, args.repeats
        if len(X) < 1000:
            n_repeats *= 5
        if "five" in name:  # minutes a fit; with one job more than twelve
            n_repeats = 1
            chosen = {k: v for k, v in peers.items() if k.endswith("CV, n_jobs=2")}
            chosen.pop("GridSearchCV, n_jobs=2")
        results[name] = measure(X, y, n_repeats, chosen)
        print(results[name]["ours"], results[name]["memory of a fit, MB"], flush=True)
    results[f"fourteen labels, {args.rows:,} rows"] = measure_labels(args.rows)
    if intelex := with_intelex(args.rows):
        results["scikit-learn-intelex, two classes"] = intelex
        print(intelex)
    if not args.dry:
        write_results("heads", results)


if __name__ == "__main__":
    main()
