"""The trial of ``HeadSearchCV`` that is taken: ``LinearProbe``, or a better one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from sk_medsiglip._scoring import Answers, best_settings, mean_of_known
from sk_medsiglip._splits import group_numbers
from sk_medsiglip.model_selection._head_space import PROBE
from sk_medsiglip.model_selection._head_trials import Fold, Objective

#: Parts of the patients that are left out in turn for a standard error.
_N_BLOCKS = 25


def choose(
    trials: Sequence[FrozenTrial], results: dict[str, Any], objective: Objective
) -> tuple[int, str]:
    """Return the row of the trial that is taken, and a sentence that says why.

    The best of many trials is the best by luck, too: it replaces ``LinearProbe`` only
    where the paired difference by patient is above its standard error.
    """
    means, losses = results["mean_test_score"], results["mean_test_log_loss"]
    # The plainest first: it wins where trials are equal in both figures.
    plainness = [*objective.space.heads]
    heads = [trial.params["head"] for trial in trials]
    order = np.flatnonzero(results["state"] == "complete").tolist()
    order.sort(key=lambda i: plainness.index(heads[i]))
    best = order[int(best_settings(means[order], losses[order]))]
    probe = next((i for i in order if trials[i].params == PROBE), None)
    if probe is None:
        return best, (
            f"Of {len(trials)} trials, {heads[best]} scored best: {means[best]:.3f}."
        )
    others = f"{len(trials) - 1} other trials"
    if best == probe:
        return probe, (
            f"LinearProbe scored {means[probe]:.3f}, and none of {others} was better."
        )
    pair = [objective.space.make(trials[i].params) for i in (probe, best)]
    gain, error = _paired_gain(objective, pair)
    unit = "row" if objective.groups is None else "patient"
    compared = (
        f"{heads[best]}, the best of {others}, scored {means[best]:.3f} and "
        f"LinearProbe {means[probe]:.3f}; the difference by {unit}, {gain:.3f}, is "
    )
    if gain > error:
        return best, f"{compared}above its standard error of {error:.3f}: it is taken."
    return probe, (
        f"{compared}not above its standard error of {error:.3f}: LinearProbe is kept."
    )


def _paired_gain(objective: Objective, pair: Sequence[Any]) -> tuple[float, float]:
    """Return how much better the second estimator is out of fold, and its error.

    The standard error is the jackknife's, over blocks of whole patients, which holds
    for any score.
    """
    numbers = group_numbers(objective.groups, len(objective.X))
    block = np.random.default_rng(0).permutation(numbers.max() + 1)[numbers] % _N_BLOCKS
    parts = np.array([block != one for one in np.unique(block)] + [block >= 0])
    scores = [
        [_score_parts(objective, estimator, fold, parts) for fold in objective.folds]
        for estimator in pair
    ]
    first, second = mean_of_known(np.array(scores), axis=1)
    *without, gain = second - first
    return float(gain), float(np.sqrt(len(without) - 1) * np.std(without))


def _score_parts(
    objective: Objective, estimator: Any, fold: Fold, parts: NDArray[np.bool_]
) -> list[float]:
    """Return the scores of one fit on parts of the rows that its fold left out."""
    train, test = fold
    answers = Answers.of(objective.fit(estimator, train), objective.X[test])
    scores = []
    for part in parts[:, test]:
        score = np.nan  # where a class has no row left
        with warnings.catch_warnings(action="ignore"), suppress(ValueError):
            asked = answers.take(part)
            score = objective.score(objective.scorer, asked, test[part])
        scores.append(score)
    return scores
