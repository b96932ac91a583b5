"""``HeadSearchCV`` compared with ``LinearProbe``, and with two plain searches.

Run ``python -m benchmarks.tuning``. Each draw takes other rows to learn from; the AUC
is that of rows kept apart. Phantoms and PneumoniaMNIST [1]_ (read from ``--data``, or
left out) are embedded by the demonstration checkpoint, whose figures say nothing of
medicine; the last two data sets are scikit-learn's own. All searches have the same
folds, score and number of candidates, which no load of the machine changes. ``Optuna``
is a loop over its sampler, with the heads and ranges of ``RandomizedSearchCV``, in
place of ``OptunaSearchCV`` of optuna-integration.

References
----------
.. [1] Yang et al., "MedMNIST v2", Scientific Data 2023; X-rays of Kermany et al., Cell
   2018; CC BY 4.0.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from numpy.typing import NDArray
from scipy.stats import loguniform, randint
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import (
    RandomizedSearchCV,
    StratifiedGroupKFold,
    cross_val_score,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from benchmarks._measure import setting, write_results
from benchmarks.demo_checkpoint import TEST_SEED, TRAIN_SEED, unseen_rows
from sk_medsiglip import LinearProbe, MedSigLIPEmbedder
from sk_medsiglip.datasets import fetch_pneumonia_mnist, make_chest_phantoms
from sk_medsiglip.exceptions import DatasetError
from sk_medsiglip.model_selection import HeadSearchCV

N_FOLDS = 5
FINDINGS = ("effusion", "nodule", "consolidation")
LIMIT_MEAN, LIMIT_DRAW = 0.002, 0.005

#: Heads and their settings, as RandomizedSearchCV takes them.
HEADS: list[tuple[Any, dict[str, Any]]] = [
    (LogisticRegression(max_iter=1000), {"C": loguniform(1e-4, 1e4)}),
    (SVC(), {"C": loguniform(1e-2, 1e3)}),
    (KNeighborsClassifier(), {"n_neighbors": randint(1, 60)}),
    (MLPClassifier(64, max_iter=100), {"alpha": loguniform(1e-5, 10)}),
    (HistGradientBoostingClassifier(), {"learning_rate": loguniform(0.02, 0.3)}),
]
STEPS = Pipeline([("scale", "passthrough"), ("head", LogisticRegression())])


class Rows(NamedTuple):
    """Rows to learn from, and rows kept apart."""

    X: NDArray[Any]
    y: NDArray[Any]
    groups: NDArray[Any]
    X_test: NDArray[Any]
    y_test: NDArray[Any]

    @property
    def folds(self) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Return the folds that all searches have."""
        return list(StratifiedGroupKFold(N_FOLDS).split(self.X, self.y, self.groups))


def ours(rows: Rows, n_trials: int, seed: int) -> Any:
    """Search by ``HeadSearchCV``."""
    search = HeadSearchCV(n_trials=n_trials, cv=rows.folds, random_state=seed)
    return search.fit(rows.X, rows.y, groups=rows.groups)


def at_random(rows: Rows, n_trials: int, seed: int) -> Any:
    """Search by ``RandomizedSearchCV``."""
    space = [
        {
            "scale": ["passthrough", StandardScaler()],
            "head": [head],
            **{f"head__{name}": one for name, one in ranges.items()},
        }
        for head, ranges in HEADS
    ]
    search = RandomizedSearchCV(
        STEPS,
        space,
        n_iter=n_trials,
        cv=rows.folds,
        scoring="roc_auc",
        random_state=seed,
    )
    return search.fit(rows.X, rows.y)


def by_optuna(rows: Rows, n_trials: int, seed: int) -> Any:
    """Search the same ranges by Optuna's own sampler."""

    def make(trial: Any) -> Any:
        number = trial.suggest_categorical("head", range(len(HEADS)))
        scale = trial.suggest_categorical("scale", [False, True])
        head, ranges = HEADS[number]
        for name, one in ranges.items():
            low, high = one.support()
            whole = isinstance(head, KNeighborsClassifier)
            ask = trial.suggest_int if whole else trial.suggest_float
            value = ask(f"{number}_{name}", low, high, log=True)
            head = head.__class__(**{**head.get_params(), name: value})
        return Pipeline(
            [("scale", StandardScaler() if scale else "passthrough"), ("head", head)]
        )

    def objective(trial: Any) -> float:
        made = make(trial)
        scores = cross_val_score(made, rows.X, rows.y, cv=rows.folds, scoring="roc_auc")
        return float(scores.mean())

    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed)
    )
    study.optimize(objective, n_trials=n_trials)
    return make(study.best_trial).fit(rows.X, rows.y)


def no_search(rows: Rows, n_trials: int, seed: int) -> Any:
    """Fit ``LinearProbe``, which chooses its penalty by folds of its own."""
    return LinearProbe(cv=rows.folds).fit(rows.X, rows.y, groups=rows.groups)


SEARCHES = {
    "HeadSearchCV": ours,
    "LinearProbe": no_search,
    "RandomizedSearchCV": at_random,
    "Optuna": by_optuna,
}


def phantom_rows(
    embedder: MedSigLIPEmbedder, n_labels: int, n_draws: int
) -> dict[str, list[Rows]]:
    """Return draws of rows for each finding, each draw of other patients."""
    test = make_chest_phantoms(600, random_state=TEST_SEED)
    X_test = embedder.transform(test.images)
    draws: dict[str, list[Rows]] = {f"phantoms, {name}": [] for name in FINDINGS}
    for draw in range(n_draws):
        train = make_chest_phantoms(n_labels, random_state=TRAIN_SEED + 100 + draw)
        X = embedder.transform(train.images)
        groups = np.unique(train.groups, return_inverse=True)[1]
        for name in FINDINGS:
            column = train.target_names.index(name)
            y, y_test = train.target[:, column], test.target[:, column]
            draws[f"phantoms, {name}"].append(Rows(X, y, groups, X_test, y_test))
    return draws


def pneumonia_rows(
    embedder: MedSigLIPEmbedder, data: Path | None, n_labels: int, n_draws: int
) -> list[Rows]:
    """Return draws with as many ill as well; none if the file is not here."""
    try:
        train, test = (fetch_pneumonia_mnist(data, subset=s) for s in ("train", "test"))
    except DatasetError as error:
        print(f"PneumoniaMNIST left out: {error}")
        return []
    kept = unseen_rows(train.images, test.images)
    X_test = embedder.transform(test.images)
    draws = []
    for draw in range(n_draws):
        rng = np.random.default_rng(draw)
        rows = np.concatenate(
            [
                rng.choice(kept[train.target[kept] == k], n_labels // 2, replace=False)
                for k in (0, 1)
            ]
        )
        rng.shuffle(rows)
        X = embedder.transform(train.images[rows])
        # Its patients are not told: each picture is one.
        draws.append(
            Rows(X, train.target[rows], np.arange(len(rows)), X_test, test.target)
        )
    return draws


def table_rows(
    X: NDArray[Any], y: NDArray[Any], n_labels: int, n_draws: int
) -> Iterator[Rows]:
    """Yield draws of a table, the rest of which is kept apart."""
    for draw in range(n_draws):
        order = np.random.default_rng(draw).permutation(len(y))
        rows, others = order[:n_labels], order[n_labels:]
        yield Rows(X[rows], y[rows], np.arange(n_labels), X[others], y[others])


def compare(draws: list[Rows], n_trials: int) -> dict[str, Any]:
    """Return the test AUCs of all searches, and how ours compares."""
    aucs: dict[str, list[float]] = {name: [] for name in SEARCHES}
    reports = []
    for seed, rows in enumerate(draws):
        for name, search in SEARCHES.items():
            with threadpool_limits(1):  # on so few rows threads cost every side more
                found = search(rows, n_trials, seed)
            score = get_scorer("roc_auc")(found, rows.X_test, rows.y_test)
            aucs[name].append(round(float(score), 5))
            if name == "HeadSearchCV":
                reports.append(found.search_report_)
        print(
            seed, {name: one[-1] for name, one in aucs.items()}, reports[-1], flush=True
        )
    means = {name: float(np.mean(one)) for name, one in aucs.items()}
    best = max(mean for name, mean in means.items() if name != "HeadSearchCV")
    gains = np.subtract(aucs["HeadSearchCV"], aucs["LinearProbe"])
    return {
        "test AUC": {
            name: {"mean": means[name], "of each draw": one}
            for name, one in aucs.items()
        },
        "mean below the best": best - means["HeadSearchCV"],
        "most below LinearProbe": float(-gains.min()),
        "replaced LinearProbe": sum("is taken" in one for one in reports),
    }


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of pneumoniamnist.npz")
    parser.add_argument("--labels", type=int, default=200)
    parser.add_argument("--trials", type=int, default=12, help="of each search")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="write no results")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    embedder = MedSigLIPEmbedder("demo")
    sizes = args.labels, args.draws
    cancer, digits = load_breast_cancer(), load_digits()
    tasks = phantom_rows(embedder, *sizes)
    tasks["PneumoniaMNIST"] = pneumonia_rows(embedder, args.data, *sizes)
    tasks["breast cancer"] = list(table_rows(cancer.data, cancer.target, *sizes))
    tasks["digits, 8"] = list(table_rows(digits.data, digits.target == 8, *sizes))
    results = setting(
        "numpy",
        "scikit-learn",
        "optuna",
        folds=N_FOLDS,
        labels=args.labels,
        draws=args.draws,
        trials=args.trials,
    )
    for name, draws in tasks.items():
        if draws:
            print(name, flush=True)
            results[name] = compare(draws, args.trials)
    told = [one for one in results.values() if isinstance(one, dict)]
    results["limits"] = {
        "mean below the best, at most": LIMIT_MEAN,
        "most of all data sets": max(one["mean below the best"] for one in told),
        "below LinearProbe in any draw, at most": LIMIT_DRAW,
        "most of all draws": max(one["most below LinearProbe"] for one in told),
    }
    print(results["limits"])
    if not args.dry:
        write_results("tuning", results)


if __name__ == "__main__":
    main()
