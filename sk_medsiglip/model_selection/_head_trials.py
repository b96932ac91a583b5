"""One trial of ``HeadSearchCV``: a candidate, fold by fold, until it is hopeless."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, Trial, TrialState
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline
from sklearn.utils.class_weight import compute_class_weight
from threadpoolctl import ThreadpoolController

from sk_medsiglip._scoring import Answers, best_settings
from sk_medsiglip._splits import with_cv_among
from sk_medsiglip.heads import fit_logistic_path
from sk_medsiglip.model_selection._group_fits import fit_with_groups
from sk_medsiglip.model_selection._head_scores import mean_log_loss
from sk_medsiglip.model_selection._head_space import Candidate, HeadSpace

__all__ = ["Objective", "SearchData", "fit_candidate", "quiet_heads", "take"]

#: Under these names a trial keeps what its values alone do not tell.
FOLDS, CHOSEN, ERROR, TRACEBACK = "folds", "chosen", "error", "traceback"

#: Below so many values threads wait for each other longer than they compute.
SMALL = 2_000_000

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]


@dataclass(frozen=True, eq=False)
class SearchData:
    """What every trial learns from and is asked.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Embeddings.
    y : ndarray or DataFrame
        Labels, as the heads take them.
    classes : ndarray or None
        Sorted; None for several labels.
    groups : ndarray or None
        Patients.
    folds : list of (ndarray, ndarray)
        Rows to learn from and rows to be asked.
    scorer : callable
        Of ``(estimator, X, y)``.
    weight : ndarray of shape (n_samples,) or None
        Weights of the rows.
    """

    X: NDArray[np.floating]
    y: Any
    classes: NDArray[Any] | None
    groups: NDArray[Any] | None
    folds: list[Fold]
    scorer: Callable[..., float]
    weight: NDArray[np.float64] | None = None

    def judge(self, fitted: Any, rows: NDArray[np.intp]) -> tuple[float, float]:
        """Return the score of a fitted estimator on some rows, and its log loss."""
        weight = {} if self.weight is None else {"sample_weight": self.weight[rows]}
        asked = (fitted, self.X[rows], take(self.y, rows))
        return float(self.scorer(*asked, **weight)), mean_log_loss(*asked, **weight)


@dataclass(frozen=True, eq=False)
class Objective:
    """What a trial is worth, as Optuna calls it.

    Parameters
    ----------
    data : SearchData
        The task.
    space : callable
        From a trial to a candidate.
    error_score : "raise" or float
        Whether an error ends the search, or what the trial counts as; NaN is the worst.
    """

    data: SearchData
    space: Callable[[Any], Candidate]
    error_score: Any

    def __call__(self, trial: Trial) -> float:
        """Return the mean over folds, or say that it is not worth going on."""
        try:
            few = self.data.X.size < SMALL
            with quiet_heads(isinstance(self.space, HeadSpace)), _threads(one=few):
                candidate = self.space(trial)
                if (twin := _twin(trial)) is not None:
                    return _repeat(trial, twin)
                return self._run(trial, candidate)
        except optuna.TrialPruned:
            raise
        except Exception as error:
            if self.error_score == "raise":
                raise
            said = "".join(traceback.format_exception_only(error)).strip()
            trial.set_user_attr(ERROR, said)
            trial.set_user_attr(TRACEBACK, traceback.format_exc(limit=-3))
            value = float(self.error_score)
            if not np.isnan(value):
                scores = [value] * len(self.data.folds)
                trial.set_user_attr(FOLDS, {"score": scores, "fit": [], "ask": []})
            return value

    def _run(self, trial: Trial, candidate: Candidate) -> float:
        """Ask fold by fold; of a path, all penalties at once."""
        rows: list[NDArray[np.float64]] = []  # (scores, log losses) of a fold
        times: list[tuple[float, float]] = []
        at_once = _solves_all_folds_at_once(candidate)
        pruned = False
        for step, (scores, *seconds) in enumerate(self._folds(candidate, at_once)):
            rows.append(scores)
            times.append((seconds[0], seconds[1]))
            trial.report(float(_best(rows)[1]), step)
            last = step + 1 == len(self.data.folds)
            # Where all folds are there already nothing is saved by stopping.
            if not (last or at_once) and trial.should_prune():
                pruned = True
                break
        best, value = _best(rows)
        trial.set_user_attr(
            FOLDS,
            {
                "score": [float(one[0, best]) for one in rows],
                "log_loss": [float(one[1, best]) for one in rows],
                "fit": [one[0] for one in times],
                "ask": [one[1] for one in times],
            },
        )
        if candidate.Cs is not None:
            trial.set_user_attr(CHOSEN, {"C": float(candidate.Cs[best])})
        if pruned:
            raise optuna.TrialPruned
        if np.isnan(value):
            trial.set_user_attr(ERROR, "no fold could be scored: the score is NaN.")
        return value

    def _folds(
        self, candidate: Candidate, at_once: bool
    ) -> Iterator[tuple[NDArray[np.float64], float, float]]:
        """Yield each fold's scores and log losses, and seconds of fit and score."""
        if candidate.Cs is None:
            for train, test in self.data.folds:
                start = time.perf_counter()
                fitted = fit_candidate(clone(candidate.estimator), self.data, train)
                middle = time.perf_counter()
                judged = np.array(self.data.judge(fitted, test))[:, None]
                yield judged, middle - start, time.perf_counter() - middle
            return
        trains = [train for train, _ in self.data.folds]
        parts = [trains] if at_once else [[train] for train in trains]
        tests = iter(test for _, test in self.data.folds)
        for part in parts:
            start = time.perf_counter()
            decision = self._solve(candidate, part)
            solved = (time.perf_counter() - start) / len(part)
            for logits in decision:
                start = time.perf_counter()
                test = next(tests)
                classes = self.data.classes
                answers = [Answers.of_logits(classes, one[test]) for one in logits]
                judged = np.array([self.data.judge(one, test) for one in answers]).T
                yield judged, solved, time.perf_counter() - start

    def _solve(
        self, candidate: Candidate, trains: list[NDArray[np.intp]]
    ) -> NDArray[np.floating]:
        """Return logits of all rows, fold by fold and penalty by penalty.

        What is fitted before the head, and weights that even classes out, come from
        the rows of one fold; then ``trains`` holds one.
        """
        rows, head = self.data.X, candidate.estimator
        if isinstance(head, Pipeline):
            before = clone(head[:-1])
            before.fit(rows[trains[0]])
            rows, head = before.transform(rows), head[-1]
        weight = self.data.weight
        if head.class_weight is not None:
            weight = _balanced(np.asarray(self.data.y), trains[0], weight)
        y, folds = np.asarray(self.data.y), [(train, None) for train in trains]
        assert candidate.Cs is not None
        path = fit_logistic_path(rows, y, candidate.Cs, folds, sample_weight=weight)
        return path.decision


def fit_candidate(estimator: Any, data: SearchData, rows: NDArray[np.intp]) -> Any:
    """Fit an estimator to some rows; groups reach folds in it that ask for them."""
    groups, weight = (
        None if one is None else one[rows] for one in (data.groups, data.weight)
    )
    if len(rows) < len(data.X):
        with_cv_among(estimator, rows, len(data.X))
    return fit_with_groups(estimator, data.X[rows], take(data.y, rows), groups, weight)


def take(y: Any, rows: NDArray[np.intp]) -> Any:
    """Return some rows of labels."""
    return y.iloc[rows] if isinstance(y, pd.DataFrame) else y[rows]


def _solves_all_folds_at_once(candidate: Candidate) -> bool:
    """Tell whether nothing that a fold needs must be fitted to it first."""
    if candidate.Cs is None:
        return False
    head, stateless = candidate.estimator, True
    if isinstance(head, Pipeline):
        stateless = all(not step.__sklearn_tags__().requires_fit for step in head[:-1])
        head = head[-1]
    return stateless and head.class_weight is None


def _balanced(
    y: NDArray[Any], train: NDArray[np.intp], weight: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return weights of all rows that even out the classes of those learned from."""
    if y.ndim == 2:
        return np.column_stack([_balanced(one, train, weight) for one in y.T])
    weight = np.ones(len(y)) if weight is None else weight.copy()
    known = ~pd.isna(y)
    learned = train[known[train]]
    classes = np.unique(y[learned])
    of_class = compute_class_weight(
        "balanced", classes=classes, y=y[learned], sample_weight=weight[learned]
    )
    for name, one in zip(classes, of_class, strict=True):
        weight[known & (y == name)] *= one
    return weight


def _best(rows: list[NDArray[np.float64]]) -> tuple[int, float]:
    """Return the best setting of a path so far, and its mean over folds."""
    scores, losses = np.array(rows).mean(axis=0)
    best = int(best_settings(scores, losses))
    return best, float(scores[best])


def _twin(trial: Trial) -> FrozenTrial | None:
    """Return a finished trial of the very same settings."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    for other in trial.study.get_trials(deepcopy=False, states=states):
        if other.params == trial.params and FOLDS in other.user_attrs:
            return other
    return None


def _repeat(trial: Trial, twin: FrozenTrial) -> float:
    """Give the answers of a trial that asked the same."""
    for name in (FOLDS, CHOSEN, ERROR):
        if name in twin.user_attrs:
            trial.set_user_attr(name, twin.user_attrs[name])
    for step, value in twin.intermediate_values.items():
        trial.report(value, step)
    if twin.value is None or twin.state is TrialState.PRUNED:
        raise optuna.TrialPruned
    return twin.value


def _threads(*, one: bool) -> AbstractContextManager[Any]:
    return _libraries().limit(limits=1) if one else nullcontext()


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()  # looks through what is loaded: some ms


@contextmanager
def quiet_heads(ours: bool) -> Iterator[None]:
    """Keep what our own heads say of single folds from being said a hundred times."""
    with warnings.catch_warnings():
        if ours:
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", UserWarning)
        yield
