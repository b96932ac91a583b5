"""Prompts to class vectors: embed every text, normalise, average, normalise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.embedding import MedSigLIPTextEmbedder
from sk_medsiglip.exceptions import PromptError

__all__ = ["encode_class_vectors"]


def encode_class_vectors(
    texts: Sequence[Sequence[str]], embedder: MedSigLIPTextEmbedder
) -> NDArray[np.float32]:
    """Return one vector of length 1 for each group of texts.

    Parameters
    ----------
    texts : sequence of sequence of str
        The prompts of each class.
    embedder : MedSigLIPTextEmbedder
        What encodes them; all texts go through it in one call, and its store.

    Returns
    -------
    ndarray of shape (len(texts), embedding_dim), float32
        The mean of the normalised vectors of each group, normalised again: every
        prompt has the same say, whatever the length of its vector.

    Raises
    ------
    PromptError
        If the prompts of a class cancel out.
    """
    flat = [text for group in texts for text in group]
    vectors = embedder.transform(flat).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    starts = np.cumsum([0, *(len(group) for group in texts[:-1])])
    sizes = np.array([len(group) for group in texts])
    means = np.add.reduceat(vectors, starts, axis=0) / sizes[:, None]
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    if (lengths < 1e-6).any():
        group = int(np.argmin(lengths))
        raise PromptError(
            f"the prompts {list(texts[group])} point in opposite directions and "
            "average to nothing; split them into classes of their own."
        )
    return (means / lengths).astype(np.float32)
