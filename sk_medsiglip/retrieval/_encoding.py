"""From queries to vectors, by the very model whose vectors an index holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from sk_medsiglip.embedding import plain_rows
from sk_medsiglip.prompts import encode_class_vectors
from sk_medsiglip.retrieval._identity import (
    ImageEmbedder,
    check_image_embedder,
    check_text_revision,
    image_part,
    text_embedder_of,
)
from sk_medsiglip.retrieval._incoming import to_length_one
from sk_medsiglip.retrieval._index import About

__all__ = ["embed_images", "encode_texts"]


def embed_images(
    images: Sequence[Any], embedder: ImageEmbedder, about: About
) -> NDArray[np.float32]:
    """Return vectors of length 1 of images that are asked with.

    Parameters
    ----------
    images : sequence
        None may be unreadable: a query without an image is no query.
    embedder : MedSigLIPEmbedder or MedSigLIPVolumeEmbedder
        Of the retriever.
    about : About
        Of the index.

    Returns
    -------
    ndarray of shape (len(images), width), float32

    Raises
    ------
    ImageReadError
        If one cannot be read.
    CheckpointError, ValueError
        If the embedder makes other vectors than those of the index.
    """
    strict = clone(embedder)
    image_part(strict).set_params(on_error="raise")
    strict.fit(images)
    check_image_embedder(strict, about)
    return to_length_one(plain_rows(strict, images))[0]


def encode_texts(
    groups: Sequence[Sequence[str]], embedder: ImageEmbedder, about: About
) -> NDArray[np.float32]:
    """Return a vector of length 1 of each group of texts, as zero-shot does it.

    Parameters
    ----------
    groups : sequence of sequence of str
        Texts of a group are averaged.
    embedder : MedSigLIPEmbedder or MedSigLIPVolumeEmbedder
        Of the retriever, whose model encodes them.
    about : About
        Of the index.

    Returns
    -------
    ndarray of shape (len(groups), width), float32

    Raises
    ------
    CheckpointError, ValueError
        If the model makes other vectors than those of the index.
    """
    texts = text_embedder_of(embedder)
    check_text_revision(texts, about)
    return encode_class_vectors(groups, texts)
