"""Optuna's study of ``HeadSearchCV``: its storage, its trials and ``cv_results_``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback, Study
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import rankdata
from sklearn.exceptions import FitFailedWarning
from threadpoolctl import threadpool_limits

from sk_medsiglip._warning import warn_user
from sk_medsiglip.cache import holding
from sk_medsiglip.model_selection._head_space import PROBE
from sk_medsiglip.model_selection._head_trials import ERROR, FOLDS, Objective

_NAME = "head-search"
#: States of trials that count; a trial that was interrupted is in another.
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
#: Number of values below which threads wait for each other longer than they compute.
_SMALL = 2_000_000


def open_study(storage: str | os.PathLike[str] | None, seed: int) -> Study:
    """Return a study, made if it is not there yet."""
    where: Any = None if storage is None else os.fspath(storage)
    alone: AbstractContextManager[None] = nullcontext()
    if where is not None and "://" not in where:
        if where.endswith((".db", ".sqlite", ".sqlite3")):
            # Two processes that create the tables of a new file at once would fail.
            alone = holding(Path(f"{where}.lock"))
            where = f"sqlite:///{where}"
        else:
            where = JournalStorage(JournalFileBackend(where))
    with alone:
        return optuna.create_study(
            study_name=_NAME,
            storage=where,
            # Processes that share a storage must not draw the same.
            sampler=optuna.samplers.TPESampler(seed=seed if where is None else None),
            direction="maximize",
            load_if_exists=True,
        )


def begin(study: Study, objective: Objective, told: dict[str, Any] | None) -> None:
    """Note data and settings in a new study; refuse a stored one of others."""
    first, marks = objective.space.first_trials(), {}
    if told is not None:
        held = {name: getattr(objective, name) for name in ("X", "groups", "weight")}
        told = held | told | {"y": np.asarray(objective.y), "cv": objective.folds}
        marks = {name: joblib.hash(value) for name, value in told.items()}
    # In this order: another process may note them just now.
    trials = study.get_trials(deepcopy=False)
    known = study.user_attrs.get("fingerprint", {})
    differ = [name for name in marks if known.get(name) != marks[name]]
    if not known and not trials:
        study.set_user_attr("fingerprint", marks)
        for params in first:
            study.enqueue_trial(params, skip_if_exists=True)
    elif differ:
        raise ValueError(
            f"the search in the storage was begun with other {', '.join(differ)}: its "
            "trials do not apply to these. To continue it, fit with the same; to begin "
            "anew, give another storage."
        )
    elif PROBE in first and not any(
        trial.params == PROBE and trial.state in _DONE for trial in trials
    ):  # the process that had begun with it was stopped
        study.enqueue_trial(PROBE)


def run_trials(
    study: Study, objective: Objective, n_trials: int, timeout: float | None, bar: bool
) -> list[FrozenTrial]:
    """Run trials until the study holds enough of them, and return these."""
    left = n_trials - len(study.get_trials(deepcopy=False, states=_DONE))
    if left > 0:
        with (
            threadpool_limits(1 if objective.X.size < _SMALL else None),
            joblib.Parallel(objective.n_jobs) as parallel,  # the same for all trials
        ):
            study.optimize(
                lambda trial: objective(trial, parallel),
                n_trials=left,
                timeout=timeout,
                callbacks=[MaxTrialsCallback(n_trials, states=_DONE)],
                show_progress_bar=bar,
            )
    return study.get_trials(states=_DONE)[:n_trials]


def detached(study: Study) -> Study:
    """Return a copy of the study in memory, without its storage, for pickling."""
    alone = optuna.create_study(study_name=_NAME, direction="maximize")
    alone.add_trials(t for t in study.get_trials() if t.state is not TrialState.WAITING)
    return alone


def cv_results(trials: Sequence[FrozenTrial], n_splits: int) -> dict[str, Any]:
    """Return the trials as the ``cv_results_`` of scikit-learn's searches."""
    failed = np.array([ERROR in trial.user_attrs for trial in trials])
    params = [trial.params for trial in trials]
    results: dict[str, Any] = {"params": params}
    for name in dict.fromkeys(name for one in params for name in one):
        results[f"param_{name}"] = np.ma.array(
            [one.get(name) for one in params],
            mask=[name not in one for one in params],
            dtype=object,
        )
    folds = [trial.user_attrs.get(FOLDS, []) for trial in trials]
    blank = [np.nan] * n_splits
    for name in ("fit_time", "score_time", "test_log_loss", "test_score"):
        values = np.array([[fold[name] for fold in one] or blank for one in folds])
        if name == "test_score":
            for split, scores in enumerate(values.T):
                results[f"split{split}_test_score"] = scores
        results[f"mean_{name}"] = values.mean(axis=1)
        results[f"std_{name}"] = values.std(axis=1)
    # Means that differ by rounding alone have one rank.
    ranked = np.nan_to_num(results["mean_test_score"], nan=-np.inf).round(12)
    results["rank_test_score"] = rankdata(-ranked, method="min").astype(np.int32)
    results["trial"] = np.array([trial.number for trial in trials])
    results["state"] = np.where(failed, "failed", "complete")
    return results


def check_some_scored(trials: Sequence[FrozenTrial], timeout: float | None) -> None:
    """Warn of failed trials; raise if there is nothing to choose from."""
    errors = [t.user_attrs[ERROR] for t in trials if ERROR in t.user_attrs]
    if len(errors) == len(trials):
        raise ValueError(
            f"no trial of {len(trials)} could be scored (timeout={timeout}). The first "
            f"error: {errors[0] if errors else 'none'}"
        )
    if errors:
        warn_user(
            f"{len(errors)} of {len(trials)} trials failed and count as the worst; the "
            f"first by: {errors[0]}",
            FitFailedWarning,
        )
