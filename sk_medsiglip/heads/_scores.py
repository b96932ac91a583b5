"""Scores of every fold, penalty and label, from known logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from sk_medsiglip._labels import Labels
from sk_medsiglip._scoring import Answers, find_scorer
from sk_medsiglip._splits import Folds


def score_decisions(
    decision: NDArray[np.floating],
    labels: Labels,
    folds: Folds,
    scoring: Any,
    sample_weight: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    """Return the scores on the rows left out by each fold."""
    if labels.classes is None:
        return np.array(
            [
                _score_one(
                    decision[..., label],
                    labels.target[:, label],
                    np.array([0, 1]),
                    folds.test if folds.test.ndim == 2 else folds.test[..., label],
                    scoring,
                    sample_weight,
                )
                for label in range(labels.target.shape[1])
            ]
        )
    if decision.shape[-1] == 1:
        decision = decision[..., 0]
    return _score_one(
        decision, labels.target, labels.classes, folds.test, scoring, sample_weight
    )


def choose_cautiously(scores: NDArray[np.float64]) -> int:
    """Return the first setting within one standard error of the best."""
    lack = scores[:, [np.nanmean(scores, axis=0).argmax()]] - scores
    lack = lack[~np.isnan(lack).any(axis=1)]
    error = lack.std(axis=0) / np.sqrt(max(len(lack) - 1, 1))
    return int((lack.mean(axis=0) <= error).argmax())


def _score_one(
    decision: NDArray[np.floating],
    target: NDArray[Any],
    classes: NDArray[Any],
    test: NDArray[np.bool_],
    scoring: Any,
    sample_weight: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    """Score one question: logits ``(n_folds, n_settings, n_samples[, n_classes])``."""
    n_folds, n_settings = decision.shape[:2]
    scores = np.full((n_folds, n_settings), np.nan)
    known = ~np.isnan(target.astype(np.float64))
    ever = test.any(axis=0) & known
    n_answers = ever.sum() if sample_weight is None else sample_weight[ever].sum()
    wrong = 1 / (n_answers + 2) if scoring is None else 0.0
    for fold in range(n_folds):
        asked = np.flatnonzero(test[fold] & known)
        if not asked.size:
            continue
        truth = target[asked].astype(np.intp)
        weight = None if sample_weight is None else sample_weight[asked]
        logits = decision[fold][:, asked].astype(np.float64)
        if scoring in (None, "neg_log_loss"):
            losses = _log_losses(logits, truth, wrong)
            scores[fold] = -np.average(losses, axis=1, weights=weight)
        elif scoring == "accuracy":
            chosen = logits > 0 if logits.ndim == 2 else logits.argmax(axis=2)
            hits = chosen == truth
            scores[fold] = np.average(hits, axis=1, weights=weight)
        else:
            scorer = find_scorer(scoring, classes)
            extra = {} if weight is None else {"sample_weight": weight}
            for setting in range(n_settings):
                of_rows = logits[setting].reshape(len(asked), -1)
                answers = Answers.of_logits(classes, of_rows)
                given = asked[:, None], classes[truth]
                scores[fold, setting] = scorer(answers, *given, **extra)
    return scores


def _log_losses(
    logits: NDArray[np.float64], truth: NDArray[np.intp], wrong: float
) -> NDArray[np.float64]:
    """Return the loss of each setting and sample, if labels may be ``wrong``."""
    if logits.ndim == 2:
        margin = np.where(truth == 1, logits, -logits)
        return np.logaddexp(0, -margin) + wrong * margin
    own = np.take_along_axis(logits, truth[None, :, None], axis=2)[..., 0]
    others = (logits.sum(axis=2) - own) / (logits.shape[2] - 1)
    return logsumexp(logits, axis=2) - own + wrong * (own - others)
