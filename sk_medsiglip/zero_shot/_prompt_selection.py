"""Greedy choice of prompts for one choice between answers, and how far to go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import rankdata

from sk_medsiglip._labels import Labels
from sk_medsiglip._scoring import best_settings
from sk_medsiglip._splits import make_folds
from sk_medsiglip.zero_shot._prompt_cosines import Choice, log_odds


@dataclass(frozen=True, eq=False)
class Selection:
    """Which prompts were chosen, and how.

    Parameters
    ----------
    weights : ndarray of shape (n_prompts,)
        How often each was taken; those given if nothing was better.
    n_steps : int
        Additions made; 0 for the prompts as they were given.
    scores : ndarray of shape (n_steps_tried + 1,)
        Mean over the folds after each addition, on the rows left out.
    """

    weights: NDArray[np.float64]
    n_steps: int
    scores: NDArray[np.float64]


def select(
    choice: Choice,
    rows: NDArray[np.intp],
    *,
    scoring: str,
    max_steps: int,
    cv: int,
    groups: NDArray | None,
) -> Selection:
    """Choose prompts on some rows, and on these alone.

    Parameters
    ----------
    choice : Choice
        Between which answers.
    rows : ndarray
        Places among the known images that may be looked at.
    scoring : {"roc_auc", "neg_log_loss"}
        What is made large.
    max_steps : int
        Additions at most.
    cv : int
        Folds that say after how many additions to stop.
    groups : ndarray of shape (n_known,) or None
        Patients.

    Returns
    -------
    Selection

    Notes
    -----
    Each addition takes the prompt that improves the score most, one that was taken
    before again if that is best: prompts become weights, as in the ensemble selection
    of Caruana et al. (ICML 2004). The first one of every answer replaces all that were
    given. Where the rows left out do not gain, nothing is chosen.
    """
    target = choice.target[rows]
    labels = Labels(np.arange(len(choice.classes)), target)
    of_groups = None if groups is None else groups[rows]
    folds = make_folds(labels, cv, of_groups, choice.cosines.images[rows])
    if folds is None:
        return Selection(choice.weights, 0, np.array([np.nan]))
    pairs = [
        (rows[test], _path(choice, rows[train], scoring, max_steps))
        for train, test in folds.pairs()
    ]
    mean, log_mean = (
        np.nanmean(
            [
                [quality(choice.logits(w)[at], choice.target[at], one) for w in path]
                for at, path in pairs
            ],
            axis=0,
        )
        for one in (scoring, "neg_log_loss")
    )
    best = int(best_settings(mean, -log_mean))
    weights = _path(choice, rows, scoring, best)[best]
    return Selection(weights, best, mean)


def quality(
    logits: NDArray[np.float64], target: NDArray[np.intp], scoring: str
) -> float:
    """Score logits.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_answers)
        Of the answers.
    target : ndarray of shape (n_samples,)
        Index of the true one.
    scoring : {"roc_auc", "neg_log_loss"}
        The area under the ROC curve, of several classes the mean of each against the
        rest; or the mean logarithm of the probability of the truth.

    Returns
    -------
    float
        NaN if no class has samples on both sides.
    """
    return float(_qualities(logits[..., None], target, scoring)[0])


def _path(
    choice: Choice, rows: NDArray[np.intp], scoring: str, max_steps: int
) -> list[NDArray[np.float64]]:
    """Return the weights after 0, 1, ... additions."""
    members = choice.members
    n_answers, n_prompts = members.shape
    target = choice.target[rows]
    cosines = choice.cosines.images[rows]
    among = choice.cosines.prompts
    answer_of = members.argmax(axis=0)

    weights = choice.weights.copy()
    opened = np.zeros(n_answers, dtype=bool)  # holds chosen prompts, not given ones
    path = [weights]
    for _ in range(max_steps):
        best, best_score = None, (-np.inf, -np.inf)
        means = choice.cosines.with_mean(members * weights)[rows]
        for answer in range(n_answers):
            own = np.flatnonzero(answer_of == answer)
            if len(own) == 1:
                continue
            start = weights * members[answer] * opened[answer]
            # The mean after one more: its cosine from sums, its length from products.
            sums = (cosines @ start)[:, None] + cosines[:, own]
            squares = start @ among @ start + 2 * (start @ among[:, own]) + 1
            tried = np.repeat(means[:, :, None], len(own), axis=2)
            tried[:, answer] = sums / np.sqrt(np.maximum(squares, 1e-12))
            found = _qualities(choice.logit_scale * tried, target, scoring)
            # Among those that rank alike, the most likely: log loss of these alone.
            tied = np.flatnonzero(found == np.nanmax(found, initial=-np.inf))
            if not tied.size:
                continue
            logs = _qualities(
                choice.logit_scale * tried[:, :, tied], target, "neg_log_loss"
            )
            score = (float(found[tied[0]]), float(logs.max()))
            if score > best_score:
                best_score = score
                best = (answer, int(own[tied[logs.argmax()]]), start)
        if best is None:
            path.append(weights)
            continue
        answer, prompt, start = best
        weights = weights * (1 - members[answer]) + start
        weights[prompt] += 1
        opened[answer] = True
        path.append(weights)
    return path


def _qualities(
    logits: NDArray[np.float64], target: NDArray[np.intp], scoring: str
) -> NDArray[np.float64]:
    """Score several columns at once, ``(n_samples, n_answers, n_tried)``."""
    n_answers = logits.shape[1]
    if scoring == "neg_log_loss":
        own = np.take_along_axis(logits, target[:, None, None], axis=1)[:, 0]
        return (own - logsumexp(logits, axis=1)).mean(axis=0)
    told = [1] if n_answers == 2 else np.unique(target).tolist()
    each = [_areas(log_odds(logits, k), target == k) for k in told]
    return np.mean(each, axis=0)


def _areas(scores: NDArray[np.float64], ill: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the area under the ROC curve of every column."""
    n_ill, n_well = int(ill.sum()), int((~ill).sum())
    if not (n_ill and n_well):
        return np.full(scores.shape[1], np.nan)
    ranks = rankdata(scores, axis=0)
    wins = ranks[ill].sum(axis=0) - n_ill * (n_ill + 1) / 2
    return wins / (n_ill * n_well)
