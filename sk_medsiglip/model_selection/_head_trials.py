"""The trials of ``HeadSearchCV``, fold by fold, and the choice among them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from sk_medsiglip._labels import Labels
from sk_medsiglip._scoring import Answers, best_settings, mean_of_known
from sk_medsiglip._splits import group_numbers, make_folds, with_cv_among
from sk_medsiglip.model_selection._each_label import fit_with_groups
from sk_medsiglip.model_selection._head_scores import mean_log_loss
from sk_medsiglip.model_selection._head_space import HEADS, PROBE, Space
from sk_medsiglip.model_selection._multilabel_splits import (
    MultilabelStratifiedGroupKFold,
)

#: Names under which a trial keeps the figures of its folds, and its error.
FOLDS, ERROR = "folds", "error"
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
#: Parts of the patients that are left out in turn for a standard error.
N_BLOCKS = 25

Rows = NDArray[np.intp]
Fold = tuple[Rows, Rows]


@dataclass(frozen=True, eq=False)
class Objective:
    """The function that Optuna makes large: the mean score over the folds.

    ``X``, ``y``, ``groups`` and ``weight`` hold all rows that the user passed, and
    ``folds`` and ``rows`` the places of those that count, since an estimator may have
    a ``cv`` of such places.
    """

    X: NDArray[np.floating]
    y: Any
    groups: NDArray[Any] | None
    weight: NDArray[np.float64] | None
    rows: Rows
    folds: list[Fold]
    scorer: Callable[..., float]
    space: Space
    error_score: Any

    def __call__(self, trial: Trial) -> float:
        try:
            with quiet_heads(self.space):
                estimator = self.space.make(trial)
                known = _repeat(trial)
                return self._mean_score(trial, estimator) if known is None else known
        except optuna.TrialPruned:
            raise
        except Exception as error:
            if self.error_score == "raise":
                raise
            trial.set_user_attr(ERROR, f"{type(error).__name__}: {error}")
            value = float(self.error_score)
            if not np.isnan(value):
                trial.set_user_attr(FOLDS, {"score": [value] * len(self.folds)})
            return value

    def make(self, trial: FrozenTrial) -> Any:
        """Return the classifier of a trial that is over, not fitted."""
        return self.space.make(FixedTrial(trial.params, number=trial.number))

    def fit(self, estimator: Any, rows: Rows) -> Any:
        """Fit an estimator to some rows."""
        if len(rows) < len(self.X):
            with_cv_among(estimator, rows, len(self.X))
        groups = None if self.groups is None else self.groups[rows]
        weight = None if self.weight is None else self.weight[rows]
        return fit_with_groups(
            estimator, self.X[rows], take(self.y, rows), groups, weight
        )

    def score(self, scorer: Callable[..., float], fitted: Any, rows: Rows) -> float:
        """Return the score of a fitted estimator on some rows."""
        weight = {} if self.weight is None else {"sample_weight": self.weight[rows]}
        return float(scorer(fitted, self.X[rows], take(self.y, rows), **weight))

    def difference(self, first: Any, second: Any) -> tuple[float, float]:
        """Return how much better the second estimator is out of fold, and its error.

        Both are asked about the same rows. The standard error is the jackknife's, over
        blocks of whole patients, which holds for any score.
        """
        numbers = group_numbers(self.groups, len(self.X))
        block = np.random.default_rng(0).permutation(numbers.max() + 1) % N_BLOCKS
        block = block[numbers]
        n_blocks = min(N_BLOCKS, len(np.unique(numbers[self.rows])))
        scores = np.full((2, n_blocks + 1, len(self.folds)), np.nan)
        for of_one, estimator in zip(scores, (first, second), strict=True):
            for fold, (train, test) in enumerate(self.folds):
                fitted = self.fit(clone(estimator), train)
                decision, proba = (
                    getattr(fitted, name)(self.X[test])
                    if hasattr(fitted, name)
                    else None
                    for name in ("decision_function", "predict_proba")
                )
                for left_out in range(n_blocks + 1):  # the last one is nobody
                    kept = block[test] != left_out
                    answers = Answers(
                        np.asarray(fitted.classes_),
                        None if decision is None else decision[kept],
                        None if proba is None else proba[kept],
                    )
                    with warnings.catch_warnings(), suppress(ValueError):
                        # A class may have no row left, which leaves NaN.
                        warnings.simplefilter("ignore")
                        score = self.score(self.scorer, answers, test[kept])
                        of_one[left_out, fold] = score
        gains = np.diff(mean_of_known(scores, axis=2), axis=0)[0]
        spread = ((gains[:-1] - gains[:-1].mean()) ** 2).sum()
        return float(gains[-1]), float(np.sqrt(spread * (n_blocks - 1) / n_blocks))

    def _mean_score(self, trial: Trial, estimator: Any) -> float:
        found: dict[str, list[float]] = {}
        pruned = False
        for step, (train, test) in enumerate(self.folds):
            times = [time.perf_counter()]
            fitted = self.fit(clone(estimator), train)
            times.append(time.perf_counter())
            figures = {
                "score": self.score(self.scorer, fitted, test),
                "log_loss": self.score(mean_log_loss, fitted, test),
            }
            times.append(time.perf_counter())
            figures["fit_time"], figures["score_time"] = np.diff(times).tolist()
            for name, value in figures.items():
                found.setdefault(name, []).append(value)
            trial.report(float(np.mean(found["score"])), step)
            if step + 1 < len(self.folds) and trial.should_prune():
                pruned = True
                break
        trial.set_user_attr(FOLDS, found)
        if pruned:
            raise optuna.TrialPruned
        value = float(np.mean(found["score"]))
        if np.isnan(value):
            trial.set_user_attr(ERROR, "no fold could be scored: the score is NaN.")
        return value


def choose(
    trials: Sequence[FrozenTrial], results: dict[str, Any], objective: Objective
) -> tuple[int, str]:
    """Return the row of the trial that is chosen, and a sentence that says why.

    The best of many trials is the best by luck, too: it replaces ``LinearProbe`` only
    where the paired difference by patient is above its standard error.
    """
    means, losses = results["mean_test_score"], results["mean_test_log_loss"]
    heads = [trial.params.get("head") for trial in trials]
    # The plainest first: of trials that are equal in both figures it wins.
    order = sorted(range(len(trials)), key=lambda i: HEADS.index(heads[i] or HEADS[0]))
    best = order[int(best_settings(means[order], losses[order]))]
    known = ~np.isnan(means)
    probes = [i for i in order if known[i] and trials[i].params == PROBE]
    if not objective.space.heads or not probes:
        name = heads[best] or "it"
        return best, f"Of {len(trials)} trials, {name} scored best: {means[best]:.3f}."
    probe, others = probes[0], f"{len(trials) - 1} other trials"
    said = f"LinearProbe scored {means[probe]:.3f}"
    if best == probe:
        return probe, f"{said}, and none of {others} was better."
    pair = [objective.make(trials[i]) for i in (probe, best)]
    gain, error = objective.difference(*pair)
    unit = "row" if objective.groups is None else "patient"
    verdict = "above" if gain > error else "not above"
    end = "it is taken" if gain > error else "LinearProbe is kept"
    return best if gain > error else probe, (
        f"{heads[best]}, the best of {others}, scored {means[best]:.3f} and "
        f"{said.replace(' scored', '')}; the difference by {unit}, {gain:.3f}, is "
        f"{verdict} its standard error of {error:.3f}: {end}."
    )


def split_rows(
    labels: Labels,
    cv: Any,
    groups: NDArray[Any] | None,
    X: NDArray[np.floating],
    counts: NDArray[np.bool_],
) -> list[Fold]:
    """Return the folds that all heads share, as places of the rows that count.

    Several labels share one split too: steps before a head see no row that any label
    is asked about.
    """
    kept = np.flatnonzero(counts)
    of_kept = kept if groups is None else groups[kept]
    known = labels.keep(counts)
    n_groups, rarest = _rarest(known, of_kept)
    if isinstance(cv, Integral) and n_groups < 2:
        unit = "samples" if groups is None else "groups"
        raise ValueError(
            f"{rarest} fewer than two {unit}: nothing can be chosen by "
            "cross-validation. Leave it out, or take PromptProbe, which needs no folds."
        )
    if isinstance(cv, Integral) and labels.classes is None:
        splitter = MultilabelStratifiedGroupKFold(min(int(cv), n_groups))
        pairs = splitter.split(kept, known.target, of_kept)
        return [(kept[train], kept[test]) for train, test in pairs]
    folds = make_folds(labels, cv, groups, X, counts)
    assert folds is not None  # no class is too rare
    sides = folds.pairs()
    return [(train[counts[train]], test[counts[test]]) for train, test in sides]


def _rarest(labels: Labels, groups: NDArray[Any]) -> tuple[int, str]:
    """Return how many groups the rarest class or label value has, and its name."""
    found = []
    for i, target in enumerate(labels.by_label()):
        if labels.classes is not None:
            names = [f"class {one!r} has" for one in labels.classes.tolist()]
        else:
            label = f"column {i} of y"
            if labels.names is not None:
                label = repr(str(labels.names[i]))
            names = [f"{label} is {value} in" for value in (0, 1)]
        for value, name in enumerate(names):
            found.append((len(np.unique(groups[target == value])), name))
    return min(found, key=lambda one: one[0])


def take(y: Any, rows: Rows) -> Any:
    """Return some rows of labels."""
    return y.iloc[rows] if isinstance(y, pd.DataFrame) else y[rows]


def _repeat(trial: Trial) -> float | None:
    """Return the score of a finished trial of the same settings, or None."""
    for other in trial.study.get_trials(deepcopy=False, states=_DONE):
        if other.params == trial.params and FOLDS in other.user_attrs:
            for name, value in other.user_attrs.items():
                trial.set_user_attr(name, value)
            if other.state is TrialState.PRUNED:
                raise optuna.TrialPruned
            return other.value
    return None


@contextmanager
def quiet_heads(space: Space) -> Iterator[None]:
    """Keep warnings of our own heads about single folds from coming a hundred times."""
    with warnings.catch_warnings():
        if space.heads:
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", UserWarning)
        yield
