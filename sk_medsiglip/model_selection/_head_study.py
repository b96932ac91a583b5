"""Runs the trials of ``HeadSearchCV`` in an Optuna study, and reads them again."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import rankdata
from sklearn.exceptions import FitFailedWarning
from threadpoolctl import threadpool_limits

from sk_medsiglip._progress import progress_bar
from sk_medsiglip.model_selection._head_trials import ERROR, FOLDS, Objective

#: Seconds between signs of life of a trial on a database, and after how many without
#: one it is run again.
HEARTBEAT, GRACE = 10, 60
#: Below so many values threads wait for each other longer than they compute.
SMALL = 2_000_000
SQLITE = (".db", ".sqlite", ".sqlite3")
JOURNAL = (".journal", ".jsonl", ".log")


def open_study(
    where: str | None, name: str, seed: int, sampler: Any, pruner: Any
) -> optuna.Study:
    """Return a study, made if it is not there yet."""
    storage = None if where is None else _open_storage(where)
    return optuna.create_study(
        study_name=name,
        storage=storage,
        sampler=sampler or _Sampler(seed),
        pruner=pruner or optuna.pruners.MedianPruner(5, n_warmup_steps=1),
        direction="maximize",
        load_if_exists=True,
    )


class _Sampler(optuna.samplers.TPESampler):
    """Optuna's sampler, whose draws depend on the seed and a trial's number alone.

    So a search that was stopped goes on as it would have gone on, and processes that
    share a storage do not draw the same.
    """

    def __init__(self, seed: int, number: int = 0) -> None:
        self.first_seed = seed
        of_trial = np.random.SeedSequence([seed, number]).generate_state(1)[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            super().__init__(
                seed=int(of_trial), multivariate=True, group=True, n_startup_trials=12
            )

    def reseed_rng(self) -> None:
        """Do nothing: the numbers of trials differ already."""

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.__init__(self.first_seed, trial.number)  # type: ignore[misc]


def _open_storage(where: str) -> BaseStorage:
    """Return the storage of a file, its kind told by the name, or of a URL."""
    url, kind = where, Path(where).suffix.lower()
    if "://" not in where:
        if not Path(where).absolute().parent.is_dir():
            raise FileNotFoundError(
                f"the folder of storage={where!r} does not exist; make it first."
            )
        if kind in JOURNAL:
            return JournalStorage(JournalFileBackend(where))
        if kind not in SQLITE:
            raise ValueError(
                f"storage must be an SQLite file ({', '.join(SQLITE)}), a journal "
                f"({', '.join(JOURNAL)}) or a URL of Optuna's, got {where!r}."
            )
        url = f"sqlite:///{where}"
    settings = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {}
    for wait in (0.1, 1.0, None):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return RDBStorage(
                    url,
                    engine_kwargs=settings,
                    heartbeat_interval=HEARTBEAT,
                    grace_period=GRACE,
                    heartbeat_stale_trial_callback=(
                        optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=3)
                    ),
                )
        except Exception as error:
            # Of several processes that begin at once one makes the tables.
            if wait is None or "sqlalchemy" not in type(error).__module__:
                raise
            time.sleep(wait)
    raise AssertionError  # the loop returns or raises


def begin(study: optuna.Study, objective: Objective, scoring: Any, seed: int) -> None:
    """Note the data and settings of a new study; refuse one of others."""
    marks = {
        "X": joblib.hash(objective.X),
        "y": joblib.hash([np.asarray(objective.y), objective.weight]),
        "groups": joblib.hash(objective.groups),
        "cv": joblib.hash(objective.folds),
        "scoring": _identity(scoring),
        "space": _identity(objective.space.identity),
        "random_state": str(seed),
    }
    # In this order: another process may note them just now.
    trials = study.get_trials(deepcopy=False)
    known = study.user_attrs.get("fingerprint", {})
    differ = [name for name in marks if known.get(name) != marks[name]]
    if not known and not trials:
        study.set_user_attr("fingerprint", marks)
        for params in objective.space.first:
            study.enqueue_trial(params, skip_if_exists=True)
    elif differ:
        raise ValueError(
            f"the study {study.study_name!r} in the storage was begun with other "
            f"{', '.join(differ)}: its trials do not apply to these. To continue it, "
            "fit with the same; to begin anew, give another study_name, or another "
            "storage."
        )


def _identity(value: Any) -> str:
    """Return a text by which another process knows a function or an object again."""
    try:
        return joblib.hash(value)
    except Exception:  # a lambda, for one, cannot be pickled
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value))}"


def run_trials(
    study: optuna.Study,
    objective: Objective,
    n_trials: int,
    timeout: float | None,
    callbacks: Iterable[Any],
    verbose: int,
    worker: int,
) -> None:
    """Run trials in this process until the study holds enough of them."""
    if worker:  # the others draw by the seed as it is
        study.sampler.reseed_rng()

    def n_done() -> int:
        return len(counted(study.get_trials(deepcopy=False)))

    def show_and_stop(*_: Any) -> None:
        bar.update(1)
        if n_done() >= n_trials:
            study.stop()

    done = n_done()
    if done >= n_trials:
        return
    threads = 1 if objective.X.size < SMALL else None
    with (
        quiet_optuna(verbose),
        threadpool_limits(threads),
        progress_bar(
            n_trials, desc="trials", unit="trial", verbose=verbose, done=done
        ) as bar,
    ):
        every = [*callbacks, show_and_stop]
        study.optimize(objective, timeout=timeout, callbacks=every)


def counted(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that are done: finished, given up, or failed by an error.

    Those that were interrupted, or whose process died, are not.
    """
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    return [t for t in trials if t.state in done or ERROR in t.user_attrs]


def check_some_scored(
    trials: Sequence[FrozenTrial], error_score: Any, timeout: float | None
) -> None:
    """Warn of failed trials; raise if there is nothing to choose from."""
    errors = [t.user_attrs[ERROR] for t in trials if ERROR in t.user_attrs]
    within = "" if timeout is None else f" within timeout={timeout} s"
    if not trials:
        raise ValueError(
            f"no trial has ended{within}: nothing can be chosen. Give it more time."
        )
    if all(ERROR in t.user_attrs or t.state is TrialState.PRUNED for t in trials):
        raise ValueError(
            f"no trial of {len(trials)} could be scored. The first one: "
            f"{errors[0] if errors else 'the pruner gave it up.'}\n"
            "error_score='raise' shows where an error comes from."
        )
    if errors:
        worst = np.isnan(error_score)
        warnings.warn(
            f"{len(errors)} of {len(trials)} trials failed and count as "
            f"{'the worst' if worst else error_score}; the first by: {errors[0]}",
            FitFailedWarning,
            stacklevel=4,
        )


def detached(study: optuna.Study) -> optuna.Study:
    """Return a copy of the study in memory, without its storage, for pickling."""
    alone = optuna.create_study(study_name=study.study_name, direction="maximize")
    for name, value in study.user_attrs.items():
        alone.set_user_attr(name, value)
    trials = study.get_trials()
    alone.add_trials(t for t in trials if t.state is not TrialState.WAITING)
    return alone


@contextmanager
def quiet_optuna(verbose: int) -> Iterator[None]:
    """Keep Optuna's own log still, unless ``verbose`` is above 1."""
    before = optuna.logging.get_verbosity()
    if verbose <= 1:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def cv_results(trials: Sequence[FrozenTrial], n_splits: int) -> dict[str, Any]:
    """Return the trials as the ``cv_results_`` of scikit-learn's searches."""
    figures = {
        name: np.full((len(trials), n_splits), np.nan)
        for name in ("fit_time", "score_time", "log_loss", "score")
    }
    for i, trial in enumerate(trials):
        for name, values in trial.user_attrs.get(FOLDS, {}).items():
            figures[name][i, : len(values)] = values
    results: dict[str, Any] = {}
    for name in ("fit_time", "score_time"):
        known = np.ma.masked_invalid(figures[name])
        results[f"mean_{name}"] = known.mean(axis=1).filled(np.nan)
        results[f"std_{name}"] = known.std(axis=1).filled(np.nan)
    params = [trial.params for trial in trials]
    for name in dict.fromkeys(name for one in params for name in one):
        results[f"param_{name}"] = np.ma.array(
            [one.get(name) for one in params],
            mask=[name not in one for one in params],
            dtype=object,
        )
    results["params"] = params
    scores = figures["score"]
    for split in range(n_splits):
        results[f"split{split}_test_score"] = scores[:, split]
    # NaN where a fold is missing: means over different folds do not compare.
    means = scores.mean(axis=1)
    results["mean_test_score"] = means
    results["mean_test_log_loss"] = figures["log_loss"].mean(axis=1)
    results["std_test_score"] = scores.std(axis=1)
    # Means that differ by rounding alone have one rank.
    ranked = np.where(np.isnan(means), -np.inf, means).round(12)
    results["rank_test_score"] = rankdata(-ranked, method="min").astype(np.int32)
    results["trial"] = np.array([trial.number for trial in trials], dtype=np.intp)
    states = ["failed" if ERROR in t.user_attrs else t.state.name for t in trials]
    results["state"] = np.array([state.lower() for state in states])
    return results
