"""Facts about a model that is not loaded, and the store of an embedder."""

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
    """Facts about a model that are known without its weights."""

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
    """Return the store selected by the parameter ``cache``, or None.

    Parameters
    ----------
    cache : bool, str, path-like, EmbeddingCache or None
        True is the per-user store; False and None store nothing.

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
            warn_user(f"Embeddings are computed but not stored: {error}", CacheWarning)
            return None
    return None if cache is False else EmbeddingCache(cache)


def find_facts(
    model: str | os.PathLike[str],
    revision: str | None = None,
    cache: bool | str | os.PathLike[str] | EmbeddingCache | None = None,
) -> ModelFacts:
    """Return the revision and sizes of a model, without reading its weights.

    If the model is not available, its record in the store is used: a machine with a
    filled store does not need the model.

    Parameters
    ----------
    model : str or path-like
        Model, as passed to an embedder.
    revision : str or None, default=None
        Revision, as passed to an embedder.
    cache : bool, str, path-like, EmbeddingCache or None, default=None
        Store, as passed to an embedder, in which an earlier run recorded the model.

    Returns
    -------
    ModelFacts

    Raises
    ------
    ModelAccessError, CheckpointError
        If the model is neither available nor on record.
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
    """Return the facts about a loaded model.

    Parameters
    ----------
    encoder : Encoder

    Returns
    -------
    ModelFacts
    """
    # An image tower alone has no logits; NaN is recorded as None.
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
    try:  # a store of another version may record more or fewer facts
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
    """Return the part of the store that holds the rows of a model and recipe."""
    name = os.fspath(model)
    # A folder is identified by its digest; its path must not be stored.
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
    """Return the part of the store that holds the rows of images.

    Parameters
    ----------
    model : str or path-like
        Model, as passed to an embedder.
    facts : ModelFacts
        Revision and width of the model.
    dtype, engine : str
        Numeric type of the model pass, and the engine that runs it.

    Returns
    -------
    Space
    """
    # The key of a row is the exact input of the model.
    return space_of("image", "pixels", model, facts, dtype, engine)
