"""Choices between answers by cosines with single prompts, and greedy selection.

The cosine of an image with the mean of some prompts is the mean of its cosines, divided
by the length of the mean. Vectors are therefore compared only once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import rankdata

from sk_medsiglip._labels import Labels
from sk_medsiglip._scoring import best_settings
from sk_medsiglip._splits import make_folds
from sk_medsiglip.embedding import MedSigLIPTextEmbedder
from sk_medsiglip.prompts import Question, encode_question
from sk_medsiglip.zero_shot._instances import Pooling, iter_cosines
from sk_medsiglip.zero_shot._scores import cosines

Pairs = list[tuple[NDArray[np.intp], NDArray[np.intp]]]


@dataclass(frozen=True, eq=False)
class Choice:
    """A choice between answers, for the images whose answer is known.

    Exclusive classes are a single choice. Each finding is a choice between absent and
    present.
    """

    name: str  # name of the finding, "" for exclusive classes
    classes: NDArray  # (n_answers,)
    prompts: list[NDArray[np.intp]]  # indices of the texts of each answer
    rows: NDArray[np.intp]  # (n_known,), the images
    target: NDArray[np.intp]  # (n_known,), index of the answer
    # Cosines of images and prompts, (n_known, n_prompts); for bags those of instances,
    # (n_known, n_instances, n_prompts), with NaN for missing ones.
    images: NDArray[np.float64]
    among: NDArray[np.float64]  # (n_prompts, n_prompts), cosines of prompts
    weights: NDArray[np.float64]  # (n_prompts,), as given
    logit_scale: float
    pooling: Pooling | None = None  # for bags
    place: int = 0  # index of the finding in the pooling

    @property
    def members(self) -> NDArray[np.float64]:
        """Mask of the prompts of each answer, ``(n_answers, n_prompts)``, 0 or 1."""
        sizes = [len(rows) for rows in self.prompts]
        answer = np.repeat(np.arange(len(sizes)), sizes)
        return (answer == np.arange(len(sizes))[:, None]).astype(np.float64)

    def cosines(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return cosines of images and answers, without prompts of weight 0."""
        return self.pooled(self.unpooled(weights))

    def unpooled(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return cosines of answers with images, or with the instances of bags."""
        of_answers = self.members * weights
        squares = np.einsum("ij,jk,ik->i", of_answers, self.among, of_answers)
        return (self.images @ of_answers.T) / np.sqrt(np.maximum(squares, 1e-12))

    def pooled(self, cosines: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return cosines of bags from those of instances; those of images as given."""
        return self.pooling.pool(cosines, self.place) if self.pooling else cosines

    def logits(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return logits without the bias, which is the same for all answers."""
        return self.logit_scale * self.cosines(weights)

    def folds(
        self, cv: int, groups: NDArray | None, rows: NDArray[np.intp] | None = None
    ) -> Pairs | None:
        """Return folds of all or some known images, or None for too few images."""
        rows = np.arange(len(self.rows)) if rows is None else rows
        labels = Labels(np.arange(len(self.classes)), self.target[rows])
        of_rows = None if groups is None else groups[rows]
        folds = make_folds(labels, cv, of_rows, self.images[rows])
        if folds is None:
            return None
        return [(rows[train], rows[test]) for train, test in folds.pairs()]


def encode_choices(
    question: Question,
    labels: Labels,
    X: Any,
    embedder: MedSigLIPTextEmbedder,
    pooling: Pooling | None = None,
) -> list[Choice]:
    """Encode every prompt once, and compare images or bags with each."""
    encoded = encode_question(question, X.shape[-1], embedder)
    vectors = encoded.prompt_vectors.astype(np.float64)
    are_bags = len(X.shape) == 3
    if are_bags:
        parts = [part.astype(np.float64) for part in iter_cosines(X, vectors)]
        images = np.concatenate(parts)
    else:
        images = cosines(X.astype(np.float64), vectors).astype(np.float64, copy=False)
    among = vectors @ vectors.T
    given = question.weights
    weights = np.ones(len(vectors)) if given is None else np.concatenate(given)
    places = np.split(np.arange(len(vectors)), encoded.starts[1:])
    if question.is_pairs:
        names = [str(name) for name in question.labels]
        answers = [places[i : i + 2] for i in range(0, len(places), 2)]
        classes = np.array([0, 1])
    else:
        names, answers, classes = [""], [places], question.labels
    choices = []
    asked = zip(names, answers, labels.by_label(), strict=True)
    for place, (name, of_answer, target) in enumerate(asked):
        known = np.flatnonzero(~np.isnan(target.astype(np.float64)))
        used = np.concatenate(of_answer)
        choices.append(
            Choice(
                name,
                classes,
                of_answer,
                known,
                target[known].astype(np.intp),
                images[known][..., used],
                among[np.ix_(used, used)],
                weights[used],
                encoded.logit_scale,
                pooling if are_bags else None,
                place,
            )
        )
    return choices


def log_odds(logits: NDArray[np.float64], answer: int) -> NDArray[np.float64]:
    """Return the log odds of an answer against all others.

    They have the order of the probability, and do not saturate.
    """
    others = np.delete(logits, answer, axis=1)
    rest = others[:, 0] if others.shape[1] == 1 else logsumexp(others, axis=1)
    return logits[:, answer] - rest


def select(
    choice: Choice,
    rows: NDArray[np.intp],
    *,
    scoring: str,
    max_steps: int,
    cv: int,
    groups: NDArray | None,
) -> tuple[NDArray[np.float64], int]:
    """Choose prompts on some rows, and return their weights and the number of steps.

    Each step adds the prompt that improves the score most, possibly one that was added
    before, so that prompts get weights, as in the ensemble selection of Caruana et al.
    (ICML 2004). The first one of an answer replaces all its given prompts. Nothing is
    chosen without a gain on the held-out rows of the folds.
    """
    pairs = choice.folds(cv, groups, rows)
    if pairs is None:
        return choice.weights, 0
    paths = [_path(choice, train, scoring, max_steps) for train, _ in pairs]
    mean, log_mean = (
        np.nanmean(
            [
                [
                    _qualities(choice.logits(w)[test, :, None], choice.target[test], by)
                    for w in path
                ]
                for (_, test), path in zip(pairs, paths, strict=True)
            ],
            axis=0,
        )[:, 0]
        for by in (scoring, "neg_log_loss")
    )
    best = int(best_settings(mean, -log_mean))
    return _path(choice, rows, scoring, best)[best], best


def _path(
    choice: Choice, rows: NDArray[np.intp], scoring: str, max_steps: int
) -> list[NDArray[np.float64]]:
    """Return the weights after 0, 1, ... steps."""
    members = choice.members
    n_answers, n_prompts = members.shape
    target = choice.target[rows]
    images, among = choice.images[rows], choice.among
    answer_of = members.argmax(axis=0)

    weights = choice.weights.copy()
    opened = np.zeros(n_answers, dtype=bool)  # answers whose prompts were chosen
    path = [weights]
    for _ in range(max_steps):
        best, best_score = None, (-np.inf, -np.inf)
        means = choice.unpooled(weights)[rows]
        for answer in range(n_answers):
            own = np.flatnonzero(answer_of == answer)
            if len(own) == 1:
                continue
            start = weights * members[answer] * opened[answer]
            # Cosines with the mean after one more prompt, and the length of this mean.
            sums = (images @ start)[..., None] + images[..., own]
            squares = start @ among @ start + 2 * (start @ among[:, own]) + 1
            tried = np.repeat(means[..., None], len(own), axis=-1)
            tried[..., answer, :] = sums / np.sqrt(np.maximum(squares, 1e-12))
            tried = choice.pooled(tried)
            found = _qualities(choice.logit_scale * tried, target, scoring)
            # Ties are decided by log loss, computed for these prompts only.
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
    """Score several candidates at once, ``(n_samples, n_answers, n_tried)``."""
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
