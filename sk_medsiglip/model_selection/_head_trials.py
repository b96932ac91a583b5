"""One trial of ``HeadSearchCV``: a classifier, fitted and scored fold by fold."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import optuna
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from optuna.trial import Trial, TrialState
from sklearn.base import clone
from sklearn.utils import _safe_indexing

from sk_medsiglip._labels import Labels
from sk_medsiglip._splits import group_numbers, make_folds
from sk_medsiglip.model_selection._each_label import fit_with_groups
from sk_medsiglip.model_selection._head_scores import mean_log_loss
from sk_medsiglip.model_selection._head_space import HeadSpace
from sk_medsiglip.model_selection._multilabel_splits import (
    MultilabelStratifiedGroupKFold,
)

#: Names under which a trial keeps the figures of its folds, and its error.
FOLDS, ERROR = "folds", "error"

Rows = NDArray[np.intp]
Fold = tuple[Rows, Rows]


@dataclass(frozen=True, eq=False)
class Objective:
    """The function that Optuna maximises: the mean score over the folds."""

    X: NDArray[np.floating]
    y: Any
    groups: NDArray[Any] | None
    weight: NDArray[np.float64] | None
    folds: list[Fold]
    scorer: Callable[..., float]
    space: HeadSpace
    n_jobs: int | None

    def __call__(self, trial: Trial, parallel: Parallel) -> float:
        estimator = self.space(trial)
        for other in trial.study.get_trials(False, [TrialState.COMPLETE]):
            if other.params == trial.params:  # the same settings cost nothing
                trial.set_user_attr(FOLDS, other.user_attrs[FOLDS])
                return float(other.value)  # type: ignore[arg-type]
        try:
            figures = parallel(
                delayed(self._score_fold)(estimator, fold) for fold in self.folds
            )
            mean = float(np.mean([one["test_score"] for one in figures]))
            if np.isnan(mean):
                raise ValueError("the score is NaN: a fold could not be scored.")
        except Exception as error:
            trial.set_user_attr(ERROR, f"{type(error).__name__}: {error}")
            # Optuna counts a pruned trial, and not one that was interrupted.
            raise optuna.TrialPruned from error
        trial.set_user_attr(FOLDS, figures)
        return mean

    def fit(self, estimator: Any, rows: Rows | slice = slice(None)) -> Any:
        """Fit a clone of an estimator to some rows."""
        groups = None if self.groups is None else self.groups[rows]
        weight = None if self.weight is None else self.weight[rows]
        y = _safe_indexing(self.y, rows)
        # Warnings about single folds would come many times.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            return fit_with_groups(clone(estimator), self.X[rows], y, groups, weight)

    def score(self, scorer: Callable[..., float], fitted: Any, rows: Rows) -> float:
        """Return the score of a fitted estimator on some rows."""
        weight = {} if self.weight is None else {"sample_weight": self.weight[rows]}
        y = _safe_indexing(self.y, rows)
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            return float(scorer(fitted, self.X[rows], y, **weight))

    def _score_fold(self, estimator: Any, fold: Fold) -> dict[str, float]:
        train, test = fold
        start = time.perf_counter()
        fitted = self.fit(estimator, train)
        fit_time = time.perf_counter() - start
        return {
            "test_score": self.score(self.scorer, fitted, test),
            "test_log_loss": self.score(mean_log_loss, fitted, test),
            "fit_time": fit_time,
            "score_time": time.perf_counter() - start - fit_time,
        }


def as_fitted(labels: Labels) -> Any:
    """Return labels as heads take them."""
    if labels.classes is not None:
        return labels.classes[labels.target]
    has_blanks = np.isnan(labels.target).any()
    target = labels.target if has_blanks else labels.target.astype(int)
    if labels.names is None:
        return target
    return pd.DataFrame(target, columns=labels.names)


def split_rows(
    labels: Labels,
    counts: NDArray[np.bool_],
    cv: Any,
    groups: NDArray[Any] | None,
    X: NDArray[np.floating],
) -> list[Fold]:
    """Return the folds that all heads share, as places among the rows that count.

    Several labels share one split too: steps before a head see no row that any label
    is scored on.
    """
    if isinstance(cv, Integral):
        known = labels.keep(counts)
        numbers = group_numbers(groups, len(X))[counts]
        n_groups, rarest = _rarest(known, numbers)
        if n_groups < 2:
            raise ValueError(
                f"{rarest} in fewer than two samples (or groups): folds cannot choose "
                "anything. Leave it out, or take PromptProbe, which needs no folds."
            )
        if known.classes is None:
            splitter = MultilabelStratifiedGroupKFold(min(int(cv), n_groups))
            return list(splitter.split(numbers, known.target, numbers))
    folds = make_folds(labels, cv, groups, X, counts)
    assert folds is not None  # no class is too rare
    return folds.keep(counts).pairs()


def _rarest(labels: Labels, groups: Rows) -> tuple[int, str]:
    """Return how many groups the rarest class or label value has, and its name."""
    found = []
    for i, target in enumerate(labels.by_label()):
        name, values = "y", labels.classes
        if values is None:
            names = labels.names
            name = f"column {i} of y" if names is None else repr(str(names[i]))
            values = np.array([0, 1])
        for place, value in enumerate(values.tolist()):
            n_groups = len(np.unique(groups[target == place]))
            found.append((n_groups, f"{name} is {value!r}"))
    return min(found, key=lambda one: one[0])
