"""Facts of a model before it is loaded, and the store that an embedder uses."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from sk_medsiglip._warning import warn_user
from sk_medsiglip.cache import EmbeddingCache, Space
from sk_medsiglip.encoder import Encoder, find_checkpoint
from sk_medsiglip.exceptions import CacheError, CacheWarning, ModelAccessError


@dataclass(frozen=True)
class ModelFacts:
    """Facts of a model that are known without its weights."""

    revision: str
    embedding_dim: int
    image_size: int
    patch_size: int
    text_tokens: int
    logit_scale: float | None = None
    logit_bias: float | None = None

    @property
    def n_patches(self) -> int:
        """Number of patches of an image."""
        return (self.image_size // self.patch_size) ** 2


_FACTS = frozenset(ModelFacts.__annotations__)


def open_cache(
    cache: bool | str | os.PathLike[str] | EmbeddingCache | None,
) -> EmbeddingCache | None:
    """Return the store that the parameter ``cache`` means, or None.

    Parameters
    ----------
    cache : bool, str, path-like, EmbeddingCache or None
        True is the per-user store; False and None mean that nothing is kept.

    Returns
    -------
    EmbeddingCache or None
    """
    if cache is None or isinstance(cache, EmbeddingCache):
        return cache
    if cache is True:
        try:
            return EmbeddingCache()
        except CacheError as error:
            warn_user(f"Embeddings are computed but not kept: {error}", CacheWarning)
            return None
    return None if cache is False else EmbeddingCache(cache)


def find_facts(
    model: str | os.PathLike[str],
    revision: str | None = None,
    cache: bool | str | os.PathLike[str] | EmbeddingCache | None = None,
) -> ModelFacts:
    """Return a model's revision and sizes; no weights are read or downloaded.

    Where the model cannot be had, the store's own record of it serves: a laptop with
    a filled store needs no model.

    Parameters
    ----------
    model : str or path-like
        As the user gave it.
    revision : str or None, default=None
        As the user gave it.
    cache : bool, str, path-like, EmbeddingCache or None, default=None
        The store where an earlier run recorded the model, as embedders take it.

    Returns
    -------
    ModelFacts

    Raises
    ------
    ModelAccessError, CheckpointError
        If it is neither to be had nor on record.
    """
    name = os.fspath(model)
    store = open_cache(cache)
    known = None if store is None else _recall(store, name, revision)
    try:
        found = find_checkpoint(model, revision, weights=False)
    except ModelAccessError:
        if known is None:
            raise
        return known
    if known is not None and known.revision == found.revision:
        return known
    return ModelFacts(
        found.revision,
        found.embedding_dim,
        found.image_size,
        found.patch_size,
        found.text_tokens,
    )


def facts_of(encoder: Encoder) -> ModelFacts:
    """Return what is known of a model that is loaded.

    Parameters
    ----------
    encoder : Encoder

    Returns
    -------
    ModelFacts
    """
    # An image tower alone has no logits: NaN is not a number that can be kept.
    scale, bias = (
        one if np.isfinite(one) else None
        for one in (encoder.logit_scale, encoder.logit_bias)
    )
    return ModelFacts(
        encoder.revision,
        encoder.embedding_dim,
        encoder.image_size,
        encoder.checkpoint.patch_size,
        encoder.text_tokens,
        scale,
        bias,
    )


def _recall(
    cache: EmbeddingCache, name: str, revision: str | None
) -> ModelFacts | None:
    facts = cache.recall_model(name, revision) or {}
    try:  # a store may come from elsewhere, and know more or less than this version
        return ModelFacts(**{k: facts[k] for k in facts if k in _FACTS})
    except TypeError:
        return None


def space_of(
    kind: str,
    recipe: str,
    model: str | os.PathLike[str],
    facts: ModelFacts,
    dtype: str,
    engine: str,
    width: int | None = None,
) -> Space:
    """Return the part of the store where rows of a model and recipe lie."""
    name = os.fspath(model)
    # A folder is known by its digest; its path must not be kept.
    label = "folder" if facts.revision.startswith("folder-") else name
    return Space(
        kind=kind,
        model="demo" if name == "demo" else label,
        revision=facts.revision,
        recipe=recipe,
        dtype=dtype,
        engine=engine,
        width=width or facts.embedding_dim,
    )


def image_space(
    model: str | os.PathLike[str], facts: ModelFacts, dtype: str, engine: str
) -> Space:
    """Return the part of the store where rows of images lie.

    Parameters
    ----------
    model : str or path-like
        As the user gave it.
    facts : ModelFacts
        Revision and width of the model.
    dtype, engine : str
        Numeric type of the model pass, and the engine that runs it.

    Returns
    -------
    Space
    """
    # The key of a row is the model's very input, whatever led to it.
    return space_of("image", "pixels", model, facts, dtype, engine)
