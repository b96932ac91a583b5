"""Rows of one model: from the store where they are, from a model pass where not.

Both embedders stand on this: it knows when a model is needed at all, who computes what
when several workers want the same row, and that a full disk must not stop the work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._warning import user_line, warn_user
from sk_medsiglip.cache import EmbeddingCache, FileStamp, Space
from sk_medsiglip.encoder import (
    ENGINES,
    Encoder,
    choose_device,
    choose_dtype,
    choose_engine,
    find_checkpoint,
    image_batch_sizes,
    load_encoder,
    passes_at_once,
    text_batch_sizes,
    use_one_core,
)
from sk_medsiglip.exceptions import (
    CacheError,
    CacheFormatError,
    CacheWarning,
    ModelAccessError,
)


class Numerics(NamedTuple):
    """What decides the last digits of a row."""

    engine: str
    device: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.engine}, {self.dtype} on {self.device}"


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model without its weights."""

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


class ModelRows:
    """Rows of one model and recipe, for one call of ``transform``."""

    def __init__(
        self,
        kind: str,
        recipe: str,
        facts: ModelFacts,
        *,
        model: str | os.PathLike[str],
        revision: str | None,
        dtype: str,
        device: str,
        engine: str,
        cache: EmbeddingCache | None,
    ) -> None:
        self.facts = facts
        self._kind = kind
        self._recipe = recipe
        self._model = model
        self._revision = revision
        self._dtype = dtype
        self._device = device
        self._engine = engine
        self._cache = cache
        self._warned = False
        self._line = user_line()

    @cached_property
    def encoder(self) -> Encoder:
        """The model, loaded at the first row that the store does not hold."""
        # By the revision that was found, so that the key and the weights agree even
        # if a branch moves between the two.
        encoder = load_encoder(
            self._model,
            self.facts.revision,
            device=self._device,
            dtype=self._dtype,
            engine=self._engine,
            converted=None if self._cache is None else self._cache.converted,
        )
        self.remember_model(encoder)
        return encoder

    @cached_property
    def numerics(self) -> Numerics:
        """What a model pass runs on here, before anything is loaded."""
        engine = choose_engine(self._engine)
        device = choose_device(self._device, engine)
        return Numerics(engine, device, choose_dtype(self._dtype, device, engine))

    def image_batch_size(self) -> int:
        """Return the images in the next pass of ``batch_size="auto"``."""
        if "encoder" in self.__dict__:
            return self.encoder.image_batch_size
        return image_batch_sizes(self.facts.n_patches, self.numerics.device)[0]

    def text_batch_size(self) -> int:
        """Return the texts in the next pass of ``batch_size="auto"``."""
        if "encoder" in self.__dict__:
            return self.encoder.text_batch_size
        return text_batch_sizes(self.numerics.device)[0]

    @property
    def passes_at_once(self) -> int:
        """Batches on their way through the model at a time."""
        engine, device, _ = self.numerics
        return passes_at_once(self.facts.n_patches, device, engine)

    def start_thread(self) -> None:
        """Prepare a thread that runs one of several passes at once."""
        if self.numerics.device == "cpu":
            use_one_core()

    @property
    def is_kept(self) -> bool:
        """Whether there is a store."""
        return self._cache is not None

    def get(
        self, fingerprints: Sequence[bytes], out: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Fill the rows of ``out`` that the store holds; return which."""
        found = np.zeros(len(fingerprints), dtype=bool)
        if self._cache is not None:
            with self._storing():
                self._get(self._cache, fingerprints, out, found)
        return found

    def _get(
        self,
        cache: EmbeddingCache,
        fingerprints: Sequence[bytes],
        out: NDArray[np.float32],
        found: NDArray[np.bool_],
    ) -> None:
        if self._dtype == self._engine == "auto":
            space = self._space("float32", "torch")
            found[:] = cache.get_many(space, fingerprints, out, any_numeric=True)
            return
        for space in self._lookup_spaces:
            todo = np.flatnonzero(~found)
            if not todo.size:
                break
            some = np.empty((todo.size, out.shape[1]), np.float32)
            wanted = [fingerprints[i] for i in todo.tolist()]
            new = cache.get_many(space, wanted, some)
            out[todo[new]] = some[new]
            found[todo[new]] = True

    def fill(
        self,
        fingerprints: Sequence[bytes],
        out: NDArray[np.float32],
        encode: Callable[[NDArray[np.intp]], NDArray[np.float32]],
    ) -> NDArray[np.bool_]:
        """Fill ``out`` from the store, and by model passes for what is missing."""
        done = self.get(fingerprints, out)
        missing = np.flatnonzero(~done)
        if not missing.size:
            return done
        with self._claimed([fingerprints[i] for i in missing.tolist()]) as mine:
            # Someone may have stored a row between our look and our claim.
            mine = missing[mine]
            rows = np.empty((mine.size, out.shape[1]), np.float32)
            stored = self.get([fingerprints[i] for i in mine.tolist()], rows)
            out[mine[stored]] = rows[stored]
            todo = mine[~stored]
            if todo.size:
                out[todo] = encode(todo)
                self._put([fingerprints[i] for i in todo.tolist()], out[todo])
            done[mine] = True
        return done

    def wait(self, fingerprints: Sequence[bytes]) -> None:
        """Wait until no other worker is computing these rows."""
        if self._cache is not None:
            self._cache.wait(self._compute_space, fingerprints)

    def recall_files(
        self, stamps: Sequence[FileStamp | None], reading: str
    ) -> list[bytes | None]:
        """Return the fingerprints of files that were read before, in this state."""
        if self._cache is not None:
            with self._storing():
                return self._cache.recall_files(stamps, reading)
        return [None] * len(stamps)

    def remember_files(
        self,
        stamps: Sequence[FileStamp | None],
        reading: str,
        fingerprints: Sequence[bytes | None],
    ) -> None:
        """Note what files in these states contain."""
        if self._cache is not None:
            with self._storing():
                self._cache.remember_files(stamps, reading, fingerprints)

    def forget_files(self, stamps: Sequence[FileStamp], reading: str) -> None:
        """Forget what files in these states contain."""
        if self._cache is not None:
            with self._storing():
                self._cache.forget_files(stamps, reading)

    def remember_model(self, encoder: Encoder) -> None:
        """Put the model on record, so that the store can serve without it."""
        if self._cache is not None:
            facts = asdict(facts_of(encoder))
            with self._storing():
                self._cache.remember_model(
                    os.fspath(self._model), self._revision, facts
                )

    def _put(self, fingerprints: list[bytes], rows: NDArray[np.float32]) -> None:
        if self._cache is not None:
            with self._storing():
                self._cache.put_many(self._compute_space, fingerprints, rows)

    @contextmanager
    def _storing(self) -> Iterator[None]:
        """Turn a store that cannot be used into one warning: the rows are right."""
        try:
            yield
        except CacheFormatError:
            raise
        except CacheError as error:
            if not self._warned:
                self._warned = True
                warn_user(
                    f"Embeddings are computed and not kept: {error}",
                    CacheWarning,
                    self._line,
                )

    @contextmanager
    def _claimed(self, fingerprints: list[bytes]) -> Iterator[NDArray[np.bool_]]:
        nobody_else = np.ones(len(fingerprints), dtype=bool)
        if self._cache is None:
            yield nobody_else
            return
        mine: list[bool] | None = None
        with self._storing():
            mine = self._cache.claim(self._compute_space, fingerprints)
        if mine is None:
            yield nobody_else
            return
        try:
            yield np.array(mine, dtype=bool)
        finally:
            held = [f for f, own in zip(fingerprints, mine, strict=True) if own]
            self._cache.release(self._compute_space, held)

    @property
    def _lookup_spaces(self) -> list[Space]:
        # What is "auto" is not chosen for rows that are stored: choosing imports torch.
        dtypes = ("float32", "bfloat16") if self._dtype == "auto" else (self._dtype,)
        engines = ENGINES if self._engine == "auto" else (self._engine,)
        return [self._space(dtype, engine) for dtype in dtypes for engine in engines]

    @cached_property
    def _compute_space(self) -> Space:
        return self._space(self.numerics.dtype, self.numerics.engine)

    def _space(self, dtype: str, engine: str) -> Space:
        return _space_of(
            self._kind, self._recipe, self._model, self.facts, dtype, engine
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
    return _space_of("image", "pixels", model, facts, dtype, engine)


def _space_of(
    kind: str,
    recipe: str,
    model: str | os.PathLike[str],
    facts: ModelFacts,
    dtype: str,
    engine: str,
) -> Space:
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
        width=facts.embedding_dim,
    )
