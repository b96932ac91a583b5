"""The model of an index, which has to encode all queries and new rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from sk_medsiglip.embedding import (
    MedSigLIPEmbedder,
    MedSigLIPTextEmbedder,
    MedSigLIPVolumeEmbedder,
    plain_rows,
)
from sk_medsiglip.exceptions import CheckpointError
from sk_medsiglip.images import recipe_key
from sk_medsiglip.prompts import encode_class_vectors
from sk_medsiglip.retrieval._index import About
from sk_medsiglip.retrieval._queries import Query

#: Length below which the direction of a sum of vectors is rounding error.
_SHORTEST = 1e-4

ImageEmbedder = MedSigLIPEmbedder | MedSigLIPVolumeEmbedder


def model_of(embedder: ImageEmbedder) -> tuple[str, str | None]:
    """Return the name of the model, and its revision if the embedder knows it."""
    part = _image_part(embedder)
    return os.fspath(part.model), getattr(part, "revision_", part.revision)


def recipe_of(embedder: ImageEmbedder) -> str:
    """Return everything but the model that decides a vector, as text."""
    part = _image_part(embedder)
    key = recipe_key(part.intensity, part.frame)
    reading = prepared_as(key, part.resize, part.pad)
    if isinstance(embedder, MedSigLIPEmbedder):
        return reading  # rows are scaled to unit length here, normalize=True or not
    pooling: Any = embedder.pooling
    if not isinstance(pooling, str):
        kind = pooling if hasattr(pooling, "__qualname__") else type(pooling)
        pooling = f"{kind.__module__}.{kind.__qualname__}"
    return (
        f"{reading};volume;n_slices={embedder.n_slices};pooling={pooling};"
        f"series={embedder.series};plane={embedder.plane};normalize={part.normalize}"
    )


def prepared_as(reading: str, resize: str, pad: bool) -> str:
    """Return the recipe of single images from their reading, resizing and padding."""
    return f"{reading};{resize};pad={bool(pad)}"


def strict_copy(embedder: ImageEmbedder) -> ImageEmbedder:
    """Return an embedder that raises an error for an unreadable image."""
    strict = clone(embedder)
    _image_part(strict).set_params(on_error="raise")
    return strict


def embed_images(
    images: Sequence[Any], embedder: ImageEmbedder, about: About
) -> NDArray[np.float32]:
    """Return vectors of unit length of images, all of which must be readable."""
    strict = strict_copy(embedder).fit(images)
    check_image_embedder(strict, about)
    return to_length_one(plain_rows(strict, images))[0]


def encode_queries(
    queries: Sequence[Query], embedder: ImageEmbedder, about: About
) -> NDArray[np.float32]:
    """Return the vector of every query, with one call of the model for each kind."""
    terms = [(row, term) for row, query in enumerate(queries) for term in query.terms]
    sums = np.zeros((len(queries), about.width))
    for kind, encode in (
        ("text", _encode_texts),
        ("image", embed_images),
        ("embedding", _check_embeddings),
    ):
        chosen = [(row, term) for row, term in terms if term.kind == kind]
        if chosen:
            vectors = encode([term.value for _, term in chosen], embedder, about)
            for (row, term), vector in zip(chosen, vectors, strict=True):
                sums[row] += term.weight * vector.astype(np.float64)
    lengths = np.linalg.norm(sums, axis=1)
    for query, length in zip(queries, lengths, strict=True):
        if length < _SHORTEST:
            raise ValueError(
                f"the parts of {query!r} cancel out, so there is no direction to "
                "search in. Change a weight, or drop a part."
            )
    return (sums / lengths[:, None]).astype(np.float32)


def _check_embeddings(
    vectors: Sequence[NDArray[np.float32]], _: ImageEmbedder, about: About
) -> NDArray[np.float32]:
    for vector in vectors:
        if len(vector) != about.width:
            raise ValueError(
                f"a query's embedding has {len(vector)} values; those of the index "
                f"have {about.width}. Embed it with the model of the index."
            )
    return np.array(vectors)


def _encode_texts(
    groups: Sequence[Sequence[str]], embedder: ImageEmbedder, about: About
) -> NDArray[np.float32]:
    """Return a vector of unit length for each group of texts, as in zero-shot."""
    part = _image_part(embedder)
    names = ("model", "revision", "dtype", "device", "engine", "cache", "verbose")
    texts = MedSigLIPTextEmbedder(**{name: getattr(part, name) for name in names})
    found = texts.fit(["a text"]).revision_
    _check_revision(os.fspath(part.model), found, about)
    width = len(texts.get_feature_names_out())
    if width != about.width:
        raise ValueError(
            f"the index holds vectors of width {about.width}, and "
            f"model={os.fspath(part.model)!r} makes vectors of width {width} of "
            "texts: they cannot be compared. Volumes pooled by 'mean+max' can only be "
            "searched by volumes; otherwise, name the model that embedded the images."
        )
    return encode_class_vectors(groups, texts)


def check_image_embedder(embedder: ImageEmbedder, about: About) -> None:
    """Raise if the vectors of a fitted embedder differ in kind from the index."""
    model, revision = model_of(embedder)
    _check_revision(model, revision, about)
    recipe = recipe_of(embedder)
    if about.recipe is not None and recipe != about.recipe:
        raise ValueError(
            "the images of this index were prepared differently from this embedder:\n"
            f"  index:    {about.recipe}\n  embedder: {recipe}\nPass embedder= with "
            "the settings of the index (intensity, frame, resize, pad), or fit again."
        )


def check_width(width: int, about: About) -> None:
    """Raise if the width of embeddings differs from the index."""
    if width != about.width:
        raise ValueError(
            f"X has {width} features, but ImageRetriever is expecting {about.width} "
            f"features as input: the index holds embeddings by model={about.model!r}."
        )


def to_length_one(
    vectors: NDArray[np.floating],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return rows scaled to unit length, and which rows have a finite length > 0."""
    # In float64: the square of a large float32 is infinite.
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    usable = np.isfinite(lengths) & (lengths > 0)
    lengths[~usable] = np.nan
    return (vectors / lengths[:, None]).astype(np.float32), usable


def _image_part(embedder: ImageEmbedder) -> MedSigLIPEmbedder:
    """Return the embedder of single images; for volumes, the one of their slices."""
    if isinstance(embedder, MedSigLIPEmbedder):
        return embedder
    fitted: Any = getattr(embedder, "embedder_", embedder.embedder)
    return fitted if isinstance(fitted, MedSigLIPEmbedder) else embedder.embedder


def _check_revision(model: str, revision: str | None, about: About) -> None:
    if about.revision is None:
        # Embeddings were given without a revision: only the name is known.
        if model != about.model:
            raise CheckpointError(
                f"the index holds embeddings by model={about.model!r}, not by "
                f"{model!r}. Vectors of two models do not mix; fit again."
            )
    elif revision != about.revision:
        raise CheckpointError(
            f"the index holds vectors by model={about.model!r} at {about.revision}, "
            f"but {model!r} is at {revision}. Vectors of two models do not mix. Get "
            f"those weights back (for a hub model pass revision={about.revision!r}), "
            "or fit again."
        )
