"""``HeadSampler``: Optuna's TPE, whose draws depend on a trial's number only."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

__all__ = ["HeadSampler"]

#: Trials drawn at random before the sampler learns from them.
STARTUP = 12
#: Of later ones each so many is drawn at random as well: where a space has branches,
#: an early lead of one would keep the others from being looked at again.
RANDOM_EVERY = 5


class HeadSampler(BaseSampler):
    """Draw each head once at usual settings, then as the tree-structured Parzen does.

    Parameters
    ----------
    seed : int
        With the number of a trial it decides what is drawn, given the trials before:
        in whatever process, and after a stop as without.
    first : callable or None
        From the number of a trial to settings, or None when there are no more.
    """

    def __init__(
        self, seed: int, first: Callable[[int], dict[str, Any] | None] | None = None
    ) -> None:
        self._seed = seed
        self._first = first
        self._fixed: dict[str, Any] = {}
        self._drawn: BaseSampler = RandomSampler(seed)

    def reseed_rng(self) -> None:
        """Do nothing: numbers of trials differ already."""

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Begin the numbers of this trial."""
        first = None if self._first is None else self._first(trial.number)
        self._fixed = first or {}
        seed = int(
            np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0]
        )
        if (
            trial.number < STARTUP
            or trial.number % RANDOM_EVERY == 0
            or _was_repeated(study, trial.number - 1)
        ):
            self._drawn = RandomSampler(seed)
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._drawn = TPESampler(
                seed=seed, multivariate=True, group=True, n_startup_trials=STARTUP
            )

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return what is drawn together."""
        return self._drawn.infer_relative_search_space(study, trial)

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Draw it."""
        return self._drawn.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a value of a first trial, or draw one."""
        if param_name in self._fixed:
            value = self._fixed[param_name]
            if _holds(param_distribution, value):
                return value
        return self._drawn.sample_independent(
            study, trial, param_name, param_distribution
        )


def _was_repeated(study: Study, number: int) -> bool:
    """Tell whether a trial drew what one before it had drawn: there is no more here."""
    trials = study.get_trials(deepcopy=False)
    drawn = next((one.params for one in trials if one.number == number), {})
    return bool(drawn) and any(
        one.params == drawn for one in trials if one.number < number
    )


def _holds(distribution: Any, value: Any) -> bool:
    """Tell whether a value can be drawn: ranges depend on the data."""
    if hasattr(distribution, "choices"):
        return value in distribution.choices
    return distribution.low <= value <= distribution.high
