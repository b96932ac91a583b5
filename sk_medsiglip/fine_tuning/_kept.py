"""What must not be forgotten: texts, and how near each image is to them beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.embedding import MedSigLIPTextEmbedder
from sk_medsiglip.prompts import check_prompts

if TYPE_CHECKING:
    from sk_medsiglip.fine_tuning._fine_tuner import MedSigLIPFineTuner

__all__ = ["Kept", "kept_texts", "measure_kept"]

# Cosines that differ less between images say nothing that could be kept.
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True, eq=False)
class Kept:
    """Texts, and what the base makes of them.

    Parameters
    ----------
    vectors : ndarray of shape (n_texts, width), float32
        Of the base, of length 1.
    cosines : ndarray of shape (n_samples, n_texts), float32
        Of each image to each text.
    spread : ndarray of shape (n_texts,), float32
        Their standard deviation over images.
    """

    vectors: NDArray[np.float32]
    cosines: NDArray[np.float32]
    spread: NDArray[np.float32]


def kept_texts(keep: Any) -> list[str]:
    """Return the texts that ``keep`` names, each once.

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
        return []
    if isinstance(keep, Mapping):
        texts = [text for group in check_prompts(keep).texts for text in group]
    else:
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
    return list(dict.fromkeys(texts))


def measure_kept(
    tuner: MedSigLIPFineTuner, sources: Sequence[Any], texts: Sequence[str]
) -> Kept:
    """Return what the base makes of texts and images, through the store.

    Parameters
    ----------
    tuner : MedSigLIPFineTuner
    sources : sequence
        Images.
    texts : sequence of str
    """
    embedder = MedSigLIPTextEmbedder(
        tuner.model,
        revision=tuner.revision,
        normalize=True,
        device=tuner.device,
        cache=tuner.cache,
        verbose=tuner.verbose,
    )
    vectors = embedder.transform(list(texts))
    images = tuner.base_embedder().set_params(normalize=True).transform(sources)
    cosines = images @ vectors.T
    return Kept(vectors, cosines, np.maximum(cosines.std(axis=0), _LEAST_SPREAD))
