"""Whose vectors an index holds, so that no others are asked for or mixed in."""

from __future__ import annotations

import os
from typing import Any

from sk_medsiglip.embedding import (
    MedSigLIPEmbedder,
    MedSigLIPTextEmbedder,
    MedSigLIPVolumeEmbedder,
)
from sk_medsiglip.exceptions import CheckpointError
from sk_medsiglip.images import recipe_key
from sk_medsiglip.retrieval._index import About

__all__ = [
    "ImageEmbedder",
    "check_image_embedder",
    "check_text_revision",
    "check_width",
    "image_part",
    "model_of",
    "prepared_as",
    "recipe_of",
    "text_embedder_of",
]

ImageEmbedder = MedSigLIPEmbedder | MedSigLIPVolumeEmbedder


def image_part(embedder: ImageEmbedder) -> MedSigLIPEmbedder:
    """Return what embeds one image: the embedder itself, or a volume's for slices."""
    if isinstance(embedder, MedSigLIPEmbedder):
        return embedder
    fitted: Any = getattr(embedder, "embedder_", embedder.embedder)
    return fitted if isinstance(fitted, MedSigLIPEmbedder) else embedder.embedder


def model_of(embedder: ImageEmbedder) -> tuple[str, str | None]:
    """Return the model's name, and its revision as far as the embedder knows it."""
    part = image_part(embedder)
    return os.fspath(part.model), getattr(part, "revision_", part.revision)


def recipe_of(embedder: ImageEmbedder) -> str:
    """Return all that decides a vector but the model, as text."""
    part = image_part(embedder)
    key = recipe_key(part.intensity, part.frame)
    reading = prepared_as(key, part.resize, part.pad)
    if isinstance(embedder, MedSigLIPEmbedder):
        return reading  # rows are brought to length 1 here, normalize=True or not
    pooling = embedder.pooling
    named = pooling if isinstance(pooling, str) else _name_of(pooling)
    return (
        f"{reading};volume;n_slices={embedder.n_slices};pooling={named};"
        f"series={embedder.series};plane={embedder.plane};normalize={part.normalize}"
    )


def prepared_as(reading: str, resize: str, pad: bool) -> str:
    """Return the recipe of single images, read in one way, resized and padded."""
    return f"{reading};{resize};pad={bool(pad)}"


def _name_of(function: object) -> str:
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}.{kind.__qualname__}"


def text_embedder_of(embedder: ImageEmbedder) -> MedSigLIPTextEmbedder:
    """Return an embedder of texts by the same model, store and engine."""
    part = image_part(embedder)
    return MedSigLIPTextEmbedder(
        part.model,
        revision=part.revision,
        dtype=part.dtype,
        device=part.device,
        engine=part.engine,
        cache=part.cache,
        verbose=part.verbose,
    )


def check_text_revision(embedder: MedSigLIPTextEmbedder, about: About) -> None:
    """Raise if texts would be encoded by another model than the index's.

    Raises
    ------
    CheckpointError
        If the model's revision is another one.
    ValueError
        If its vectors have another width.
    """
    found = embedder.fit(["a text"]).revision_
    _check_revision(os.fspath(embedder.model), found, about)
    width = len(embedder.get_feature_names_out())
    if width != about.width:
        raise ValueError(
            f"the index holds vectors of width {about.width}, and "
            f"model={os.fspath(embedder.model)!r} makes vectors of width {width} of "
            "texts: they cannot be compared. Volumes pooled by 'mean+max' are found by "
            "volumes only; else name the model that embedded the images."
        )


def check_image_embedder(embedder: ImageEmbedder, about: About) -> None:
    """Raise if images would be embedded otherwise than those of the index.

    Parameters
    ----------
    embedder : MedSigLIPEmbedder or MedSigLIPVolumeEmbedder
        Fitted.
    about : About
        Of the index.

    Raises
    ------
    CheckpointError
        If its model is another one.
    ValueError
        If it prepares images otherwise.
    """
    model, revision = model_of(embedder)
    _check_revision(model, revision, about)
    recipe = recipe_of(embedder)
    if about.recipe is not None and recipe != about.recipe:
        raise ValueError(
            "the images of this index were prepared otherwise than this embedder "
            f"does it:\n  index:    {about.recipe}\n  embedder: {recipe}\nPass "
            "embedder= with the settings of the index (intensity, frame, resize, pad), "
            "or fit again."
        )


def check_width(width: int, about: About) -> None:
    """Raise if embeddings have another width than those of the index."""
    if width != about.width:
        raise ValueError(
            f"X has {width} features, but ImageRetriever is expecting {about.width} "
            f"features as input: the index holds embeddings by model={about.model!r}."
        )


def _check_revision(model: str, revision: str | None, about: About) -> None:
    if about.revision is None:
        # Embeddings were given without one: their model is known by name only.
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
