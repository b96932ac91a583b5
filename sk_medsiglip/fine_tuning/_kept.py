"""What must not be forgotten: texts, and how near each image is to them beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.embedding import MedSigLIPTextEmbedder, plain_rows
from sk_medsiglip.prompts import check_prompts

if TYPE_CHECKING:
    from sk_medsiglip.fine_tuning._fine_tuner import MedSigLIPFineTuner

__all__ = ["Kept", "KeptTexts", "kept_texts", "measure_kept"]

# Scores that differ less between images say nothing that could be kept.
_LEAST_SPREAD = 1e-4

# Apart from the random numbers of a row's picture and of its texts.
_DRAWN = 1 << 61


@dataclass(frozen=True, eq=False)
class KeptTexts:
    """Texts, and the scores that are made of an image's cosines to them.

    Parameters
    ----------
    texts : list of str
        Each once.
    mix : ndarray of shape (n_scores, n_texts), float32
        ``scores = cosines @ mix.T``: of a finding what speaks for it minus what speaks
        against it, of a class what speaks for it minus the mean of all, of a plain text
        its cosine.
    """

    texts: list[str]
    mix: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Kept:
    """Scores of all images by the base, which are to stay.

    Parameters
    ----------
    mix : ndarray of shape (n_scores, n_texts), float32
        See :class:`KeptTexts`.
    vectors : ndarray of shape (n_texts, width), float32
        Of the base, of length 1.
    scores : ndarray of shape (n_samples, n_scores), float32
    spread : ndarray of shape (n_scores,), float32
        Their standard deviation over images.
    """

    mix: NDArray[np.float32]
    vectors: NDArray[np.float32]
    scores: NDArray[np.float32]
    spread: NDArray[np.float32]

    def draw(
        self, rows: NDArray[np.intp], epoch: int, seed: int
    ) -> dict[str, NDArray[Any]]:
        """Return what a batch looks at: no more texts than it has images, or one score.

        Parameters
        ----------
        rows : ndarray of shape (n,), int
            The batch.
        epoch : int
        seed : int
            Of the run. Equal ones draw the same.

        Returns
        -------
        dict of str to ndarray
            ``kept_ids`` of texts, ``kept_mix`` of shape (n_drawn, n_ids), and
            ``kept_scores`` of shape (n, n_drawn) and ``kept_spread``. The fewer are
            drawn, the narrower is the spread: each counts for those that are not.
        """
        key = [seed, _DRAWN + (epoch << 32) + int(rows[0])]
        rng = np.random.Generator(np.random.Philox(key=key))
        order = rng.permutation(len(self.mix))
        looked_at = np.logical_or.accumulate(self.mix[order] != 0).sum(axis=1)
        n_drawn = max(1, int((looked_at <= len(rows)).sum()))
        drawn = np.sort(order[:n_drawn])
        ids = np.flatnonzero((self.mix[drawn] != 0).any(axis=0))
        return {
            "kept_ids": ids,
            "kept_mix": self.mix[np.ix_(drawn, ids)],
            "kept_scores": self.scores[np.ix_(rows, drawn)],
            "kept_spread": self.spread[drawn] * (len(drawn) / len(self.mix)) ** 0.5,
        }


def kept_texts(keep: Any) -> KeptTexts | None:
    """Return what ``keep`` names.

    Parameters
    ----------
    keep : mapping, sequence of str or None
        Prompts, or texts.

    Raises
    ------
    PromptError
        If prompts are malformed.
    TypeError, ValueError
        If it is something else than texts, or none at all.
    """
    if keep is None:
        return None
    if isinstance(keep, Mapping):
        question = check_prompts(keep)
        groups = list(question.texts)
    else:
        question, groups = None, [(text,) for text in _checked(keep)]
    texts = list(dict.fromkeys(text for group in groups for text in group))
    place = {text: i for i, text in enumerate(texts)}
    means = np.zeros((len(groups), len(texts)), np.float32)
    weights = [[1.0] * len(group) for group in groups]
    if question is not None and question.weights is not None:
        weights = [list(one) for one in question.weights]
    for row, group, weight in zip(means, groups, weights, strict=True):
        shares = np.array(weight, np.float32) / sum(weight)
        np.add.at(row, [place[text] for text in group], shares)
    if question is None:
        return KeptTexts(texts, means)
    if question.is_pairs:
        # Absent comes before present.
        return KeptTexts(texts, means[1::2] - means[::2])
    return KeptTexts(texts, means - means.mean(axis=0))


def _checked(keep: Any) -> list[str]:
    texts = list(keep)
    strange = [text for text in texts if not isinstance(text, str)]
    if isinstance(keep, str) or strange:
        what = keep if isinstance(keep, str) else strange[0]
        raise TypeError(
            f"keep must be a list of texts, or prompts as ZeroShotClassifier takes "
            f"them; got {what!r}."
        )
    if not texts or not all(text.strip() for text in texts):
        raise ValueError("keep holds no text, or an empty one. None keeps nothing.")
    return texts


def measure_kept(
    tuner: MedSigLIPFineTuner, sources: Sequence[Any], kept: KeptTexts
) -> Kept:
    """Return what the base makes of texts and images, through the store.

    Parameters
    ----------
    tuner : MedSigLIPFineTuner
    sources : sequence
        Images.
    kept : KeptTexts
    """
    embedder = MedSigLIPTextEmbedder(
        tuner.model,
        revision=tuner.revision,
        normalize=True,
        device=tuner.device,
        cache=tuner.cache,
        verbose=tuner.verbose,
    )
    vectors = plain_rows(embedder, kept.texts)
    images = plain_rows(tuner.base_embedder().set_params(normalize=True), sources)
    scores = images @ (kept.mix @ vectors).T
    spread = np.maximum(scores.std(axis=0), _LEAST_SPREAD)
    return Kept(kept.mix, vectors, scores, spread)
