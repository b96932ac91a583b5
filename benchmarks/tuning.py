"""``HeadSearchCV`` and other searches over the same heads and settings, at equal time.

Run ``python -m benchmarks.tuning``. Embeddings come from the demonstration checkpoint
(a demonstration: its figures say nothing of medicine). Learned from are labels of a
finding that it tells badly, on phantoms, and PneumoniaMNIST [1]_, read from ``--data``
or left out; the truth is the area under the ROC curve on images of other patients. Each
draw takes other rows, and all searches the same ones, one after another.

All have the same space, folds and score: scikit-learn's searches and
``OptunaSearchCV`` of optuna-integration by a classifier whose parameters say which head
it is. The grid has two or three values a setting, nine of the penalty, in an order
drawn at random; grid and random search are asked for one candidate after another until
time is over. All run with one job and one thread. ``LinearProbe`` stands for not
searching: what is printed as its best score is nested cross-validation.

Optimism is what ``best_score_`` promises too much: its difference to nested
cross-validation, on the same rows, and to the truth.

References
----------
.. [1] Yang et al., "MedMNIST v2", Scientific Data 2023; X-rays of Kermany et al., Cell
   2018; CC BY 4.0.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FixedTrial
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    ParameterGrid,
    StratifiedGroupKFold,
    cross_val_score,
)
from threadpoolctl import threadpool_limits

from benchmarks._measure import setting, write_results
from benchmarks.demo_checkpoint import TEST_SEED, TRAIN_SEED, unseen_rows
from sk_medsiglip import LinearProbe, MedSigLIPEmbedder
from sk_medsiglip.datasets import fetch_pneumonia_mnist, make_chest_phantoms
from sk_medsiglip.exceptions import DatasetError
from sk_medsiglip.model_selection import HeadSearchCV
from sk_medsiglip.model_selection._head_space import HEADS, Facts, HeadSpace

FINDING = "nodule"
N_FOLDS = 5

SPACE: dict[str, Any] = {
    "head": CategoricalDistribution(HEADS),
    "preprocessing": CategoricalDistribution(
        ["none", "normalize", "standardize", "pca"]
    ),
    "pca_components": CategoricalDistribution([8, 16, 32, 64]),
    "class_weight": CategoricalDistribution([None, "balanced"]),
    "C": FloatDistribution(1e-4, 1e4, log=True),
    "svm_C": FloatDistribution(1e-2, 1e3, log=True),
    "knn_neighbors": IntDistribution(1, 100, log=True),
    "knn_weights": CategoricalDistribution(["uniform", "distance"]),
    "mlp_width": IntDistribution(16, 256, log=True),
    "mlp_alpha": FloatDistribution(1e-5, 10.0, log=True),
    "mlp_learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
    "boosting_learning_rate": FloatDistribution(0.02, 0.3, log=True),
    "boosting_leaves": IntDistribution(2, 32, log=True),
    "boosting_min_leaf": IntDistribution(2, 50, log=True),
    "boosting_l2": FloatDistribution(1e-3, 10.0, log=True),
}

_BEFORE: dict[str, list[Any]] = {"preprocessing": ["none", "standardize"]}
_WEIGHT: dict[str, list[Any]] = {"class_weight": [None, "balanced"]}
GRID: list[dict[str, list[Any]]] = [
    {"head": ["logistic"], "C": np.logspace(-4, 4, 9).tolist(), **_BEFORE, **_WEIGHT},
    {"head": ["svm"], "svm_C": [0.1, 1.0, 10.0], **_BEFORE, **_WEIGHT},
    {"head": ["knn"], "knn_neighbors": [5, 15, 45], **_BEFORE},
    {"head": ["prototypes"], **_WEIGHT},
    {"head": ["mlp"], "mlp_alpha": [1e-4, 0.1], "mlp_width": [32, 128], **_BEFORE},
    {
        "head": ["boosting"],
        "boosting_learning_rate": [0.03, 0.1],
        "boosting_leaves": [4, 16],
    },
]


class AnyHead(ClassifierMixin, BaseEstimator):
    """The heads of ``HeadSearchCV`` as one classifier with flat parameters."""

    def __init__(
        self,
        head="logistic",
        preprocessing="standardize",
        pca_components=16,
        class_weight=None,
        C=1.0,
        svm_C=1.0,
        knn_neighbors=15,
        knn_weights="distance",
        mlp_width=64,
        mlp_alpha=1e-3,
        mlp_learning_rate=1e-3,
        boosting_learning_rate=0.1,
        boosting_leaves=8,
        boosting_min_leaf=10,
        boosting_l2=1e-3,
    ):
        for name, value in list(locals().items())[1:]:
            if name != "__class__":
                setattr(self, name, value)

    def fit(self, X, y):
        facts = Facts(len(X), X.shape[1], False, 0)
        candidate = HeadSpace(HEADS, facts)(FixedTrial(self.get_params()))
        if candidate.Cs is not None:
            candidate = candidate.with_chosen({"C": self.C})
        self.fitted_ = candidate.estimator.fit(X, y)
        self.classes_ = self.fitted_.classes_
        return self

    def predict(self, X):
        return self.fitted_.predict(X)

    def decision_function(self, X):
        if hasattr(self.fitted_, "decision_function"):
            return self.fitted_.decision_function(X)
        return self.fitted_.predict_proba(X)[:, 1]


class Rows(NamedTuple):
    """Rows to learn from, and rows that tell the truth."""

    X: NDArray[Any]
    y: NDArray[Any]
    groups: NDArray[Any]
    X_test: NDArray[Any]
    y_test: NDArray[Any]

    @property
    def folds(self) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Return the folds that all searches have."""
        return list(StratifiedGroupKFold(N_FOLDS).split(self.X, self.y, self.groups))


class Found(NamedTuple):
    """What a search came to."""

    best: float
    estimator: Any
    trials: int


def ours(rows: Rows, seconds: float, seed: int) -> Found:
    """Search by ``HeadSearchCV``."""
    search = HeadSearchCV(
        n_trials=100_000, timeout=seconds, cv=rows.folds, random_state=seed
    ).fit(rows.X, rows.y, groups=rows.groups)
    return Found(search.best_score_, search, len(search.cv_results_["params"]))


def integration(rows: Rows, seconds: float, seed: int) -> Found:
    """Search by optuna-integration."""
    from optuna_integration import OptunaSearchCV

    search = OptunaSearchCV(
        AnyHead(),
        SPACE,
        cv=rows.folds,
        scoring="roc_auc",
        n_trials=None,
        timeout=seconds,
        random_state=seed,
        verbose=0,
    ).fit(rows.X, rows.y)
    return Found(search.best_score_, search.best_estimator_, search.n_trials_)


def one_by_one(
    rows: Rows, seconds: float, candidates: Iterator[dict[str, Any]]
) -> Found:
    """Ask ``GridSearchCV`` for candidates until time is over."""
    end = time.monotonic() + seconds
    best: tuple[float, dict[str, Any]] = (-np.inf, {})
    n = 0
    for params in candidates:
        if time.monotonic() > end:
            break
        search = GridSearchCV(
            AnyHead(), _listed(params), cv=rows.folds, scoring="roc_auc", refit=False
        ).fit(rows.X, rows.y)
        n += 1
        best = max(best, (search.best_score_, params), key=lambda pair: pair[0])
    return Found(float(best[0]), AnyHead(**best[1]).fit(rows.X, rows.y), n)


def grid(rows: Rows, seconds: float, seed: int) -> Found:
    """Search a grid, as far as time allows."""
    every = list(ParameterGrid(GRID))
    order = np.random.default_rng(seed).permutation(len(every))
    return one_by_one(rows, seconds, (every[i] for i in order))


def at_random(rows: Rows, seconds: float, seed: int) -> Found:
    """Search by random draws, as ``RandomizedSearchCV`` does."""
    rng = np.random.default_rng(seed)
    return one_by_one(
        rows,
        seconds,
        ({k: _draw(d, rng) for k, d in SPACE.items()} for _ in iter(int, 1)),
    )


def no_search(rows: Rows, seconds: float, seed: int) -> Found:
    """Fit ``LinearProbe``, which chooses its penalty by folds of its own."""
    probe = LinearProbe(cv=rows.folds).fit(rows.X, rows.y, groups=rows.groups)
    auc = cross_val_score(
        clone(probe).set_params(cv=N_FOLDS),
        rows.X,
        rows.y,
        cv=rows.folds,
        scoring="roc_auc",
    )
    return Found(float(auc.mean()), probe, 1)


SEARCHES: dict[str, Callable[[Rows, float, int], Found]] = {
    "HeadSearchCV": ours,
    "OptunaSearchCV": integration,
    "RandomizedSearchCV": at_random,
    "GridSearchCV": grid,
    "LinearProbe, no search": no_search,
}


def _draw(distribution: Any, rng: np.random.Generator) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[rng.integers(len(distribution.choices))]
    low, high = np.log([distribution.low, distribution.high])
    value = float(np.exp(rng.uniform(low, high)))
    whole = isinstance(distribution, IntDistribution)
    return round(value) if whole else float(np.clip(value, *np.exp([low, high])))


def _listed(params: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: [value] for name, value in params.items()}


def phantom_rows(embedder: MedSigLIPEmbedder, n_labels: int, n: int) -> Iterator[Rows]:
    """Yield draws of rows, each of other patients."""
    column = None
    test = make_chest_phantoms(2000, random_state=TEST_SEED)
    X_test = embedder.transform(test.images)
    for draw in range(n):
        train = make_chest_phantoms(n_labels, random_state=TRAIN_SEED + 100 + draw)
        column = train.target_names.index(FINDING)
        yield Rows(
            embedder.transform(train.images),
            train.target[:, column],
            np.unique(train.groups, return_inverse=True)[1],
            X_test,
            test.target[:, column],
        )


def pneumonia_rows(
    embedder: MedSigLIPEmbedder, data: Path, n_labels: int, n: int
) -> Iterator[Rows]:
    """Yield draws, as many with as without pneumonia; none if it is not here."""
    try:
        train, test = (fetch_pneumonia_mnist(data, subset=s) for s in ("train", "test"))
    except DatasetError as error:
        print(f"PneumoniaMNIST left out: {error}")
        return
    keep = unseen_rows(train.images, test.images)
    X, y = embedder.transform(train.images[keep]), train.target[keep]
    X_test = embedder.transform(test.images)
    for draw in range(n):
        rng = np.random.default_rng(draw)
        each = min(n_labels // 2, *np.bincount(y))
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(y == k), each, replace=False) for k in (0, 1)]
        )
        rng.shuffle(rows)
        # Its patients are not told: each picture is one.
        yield Rows(X[rows], y[rows], np.arange(len(rows)), X_test, test.target)


def compare(draws: list[Rows], seconds: float) -> dict[str, Any]:
    """Run all searches on all draws, and return means and deviations of figures."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SEARCHES}
    for seed, rows in enumerate(draws):
        for name, search in SEARCHES.items():
            start = time.perf_counter()
            with threadpool_limits(1):  # on so few rows threads cost every side more
                one = search(rows, seconds, seed)
            spent = time.perf_counter() - start
            score = roc_auc_score(rows.y_test, _decide(one.estimator, rows.X_test))
            found[name].append(
                {
                    "best score": one.best,
                    "test AUC": float(score),
                    "trials": one.trials,
                    "s": spent,
                }
            )
            print(seed, name, found[name][-1], flush=True)
    results: dict[str, Any] = {}
    for name, figures in found.items():
        results[name] = {
            key: float(np.mean([one[key] for one in figures])) for key in figures[0]
        }
        results[name]["test AUC of each draw"] = [one["test AUC"] for one in figures]
    results["finished grid, candidates"] = len(ParameterGrid(GRID))
    return results


def _decide(estimator: Any, X: NDArray[Any]) -> NDArray[Any]:
    if hasattr(estimator, "decision_function"):
        return estimator.decision_function(X)
    return estimator.predict_proba(X)[:, 1]


def optimism(draws: list[Rows], n_trials: int) -> dict[str, Any]:
    """Compare ``best_score_`` with nested cross-validation and with the truth."""
    best, nested, truth = [], [], []
    for seed, rows in enumerate(draws):
        search = HeadSearchCV(n_trials=n_trials, random_state=seed, cv=N_FOLDS)
        search.fit(rows.X, rows.y, groups=rows.groups)
        best.append(search.best_score_)
        truth.append(roc_auc_score(rows.y_test, _decide(search, rows.X_test)))
        outer = []
        for train, test in rows.folds:
            inner = HeadSearchCV(n_trials=n_trials, random_state=seed, cv=N_FOLDS)
            inner.fit(rows.X[train], rows.y[train], groups=rows.groups[train])
            outer.append(roc_auc_score(rows.y[test], _decide(inner, rows.X[test])))
        nested.append(np.mean(outer))
        print("optimism", seed, best[-1], nested[-1], truth[-1], flush=True)
    return {
        "trials": n_trials,
        "best score": float(np.mean(best)),
        "nested cross-validation": float(np.mean(nested)),
        "test AUC": float(np.mean(truth)),
        "best score above nested": float(np.mean(best) - np.mean(nested)),
        "best score above test": float(np.mean(best) - np.mean(truth)),
        "nested above test": float(np.mean(nested) - np.mean(truth)),
    }


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of pneumoniamnist.npz")
    parser.add_argument("--labels", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each search")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--nested-trials", type=int, default=30)
    parser.add_argument("--dry", action="store_true", help="write no results")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    embedder = MedSigLIPEmbedder("demo")
    results = setting(
        "numpy",
        "scikit-learn",
        "optuna",
        "optuna-integration",
        folds=N_FOLDS,
        labels=args.labels,
        draws=args.draws,
        **{"s of each search": args.seconds},
    )
    tasks = {
        f"phantoms, {FINDING}": list(phantom_rows(embedder, args.labels, args.draws)),
        "PneumoniaMNIST": list(
            pneumonia_rows(embedder, args.data, args.labels, args.draws)
        ),
    }
    for name, draws in tasks.items():
        if draws:
            print(name, flush=True)
            results[name] = compare(draws, args.seconds)
            results[f"{name}, optimism"] = optimism(draws, args.nested_trials)
            print(results[f"{name}, optimism"], flush=True)
    if not args.dry:
        write_results("tuning", results)


if __name__ == "__main__":
    main()
