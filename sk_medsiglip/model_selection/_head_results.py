"""``cv_results_``: the trials of a study as scikit-learn's searches show theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import rankdata

from sk_medsiglip.model_selection._head_study import is_counted
from sk_medsiglip.model_selection._head_trials import CHOSEN, ERROR, FOLDS

__all__ = ["cv_results"]

_PARTS = ("score", "log_loss", "fit", "ask")
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}


def cv_results(trials: Sequence[FrozenTrial], n_splits: int) -> dict[str, Any]:
    """Return one row a trial that is done, in the order of their numbers.

    Parameters
    ----------
    trials : sequence of FrozenTrial
        Of the study.
    n_splits : int
        Folds.
    """
    done = [trial for trial in trials if is_counted(trial)]
    table = {part: np.full((len(done), n_splits), np.nan) for part in _PARTS}
    for i, trial in enumerate(done):
        for part, rows in table.items():
            values = trial.user_attrs.get(FOLDS, {}).get(part, [])
            rows[i, : len(values)] = values
    results: dict[str, Any] = {}
    for part, name in (("fit", "fit_time"), ("ask", "score_time")):
        known = np.ma.masked_invalid(table[part])
        results[f"mean_{name}"] = known.mean(axis=1).filled(np.nan)
        results[f"std_{name}"] = known.std(axis=1).filled(np.nan)
    params = [{**t.params, **t.user_attrs.get(CHOSEN, {})} for t in done]
    for name in dict.fromkeys(name for one in params for name in one):
        column = np.ma.MaskedArray(np.empty(len(done), dtype=object), mask=True)
        for i, one in enumerate(params):
            if name in one:
                column[i] = one[name]
        results[f"param_{name}"] = column
    results["params"] = params
    for split in range(n_splits):
        results[f"split{split}_test_score"] = table["score"][:, split]
    # NaN where a fold is missing: means over different folds do not compare.
    means = table["score"].mean(axis=1)
    results["mean_test_score"] = means
    results["mean_test_log_loss"] = table["log_loss"].mean(axis=1)
    results["std_test_score"] = table["score"].std(axis=1)
    lowest = np.nanmin(means) - 1 if not np.isnan(means).all() else 0.0
    # What differs by rounding alone is one rank.
    told = np.where(np.isnan(means), lowest, means).round(12)
    ranks = rankdata(-told, method="min")
    results["rank_test_score"] = ranks.astype(np.int32)
    results["trial"] = np.array([trial.number for trial in done], dtype=np.intp)
    results["state"] = np.array([_state(trial) for trial in done])
    return results


def _state(trial: FrozenTrial) -> str:
    # By its error: with a number as error_score a failed trial has a value.
    return "failed" if ERROR in trial.user_attrs else _STATES[trial.state]
