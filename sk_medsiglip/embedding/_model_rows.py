"""Rows of one model, from the store or else from a model pass.

All embedders use it. It loads the model only if a row is missing, divides rows among
workers that need the same ones, and continues if the disk is full.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._warning import UserLine, user_line, warn_user
from sk_medsiglip.cache import EmbeddingCache, FileStamp, Space
from sk_medsiglip.embedding._model_facts import ModelFacts, facts_of, space_of
from sk_medsiglip.encoder import (
    ENGINES,
    Encoder,
    choose_device,
    choose_dtype,
    choose_engine,
    image_batch_sizes,
    load_encoder,
    passes_at_once,
    text_batch_sizes,
    use_one_core,
)
from sk_medsiglip.exceptions import CacheError, CacheFormatError, CacheWarning

T = TypeVar("T")


@dataclass(frozen=True)
class StoredRows:
    """Rows of one model and recipe in a store, read without the model."""

    cache: EmbeddingCache
    spaces: tuple[Space, ...]
    any_numeric: bool

    def get(
        self, fingerprints: Sequence[bytes], out: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Fill the rows of ``out`` that are stored; return a mask of them."""
        if self.any_numeric:
            first = self.spaces[0]
            return self.cache.get_many(first, fingerprints, out, any_numeric=True)
        found = np.zeros(len(fingerprints), dtype=bool)
        for space in self.spaces:
            todo = np.flatnonzero(~found)
            if not todo.size:
                break
            some = np.empty((todo.size, out.shape[1]), np.float32)
            asked = [fingerprints[i] for i in todo.tolist()]
            new = self.cache.get_many(space, asked, some)
            out[todo[new]] = some[new]
            found[todo[new]] = True
        return found


class Numerics(NamedTuple):
    """Engine, device and numeric type, which decide the last digits of a row."""

    engine: str
    device: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.engine}, {self.dtype} on {self.device}"


@dataclass(eq=False)
class ModelRows:
    """Rows of one model and recipe, for one call of ``transform``.

    ``kind`` is "image", "text" or "cells"; ``recipe`` describes the preprocessing; the
    other fields are those of the embedder.
    """

    kind: str
    recipe: str
    facts: ModelFacts
    model: str | os.PathLike[str]
    revision: str | None
    dtype: str
    device: str
    engine: str
    cache: EmbeddingCache | None
    cache_error: CacheError | None = None
    _line: UserLine = field(default_factory=user_line)

    @cached_property
    def encoder(self) -> Encoder:
        """The model, loaded when the first row is missing in the store."""
        # Load the revision that was found, so that keys and weights agree even if a
        # branch moves in the meantime.
        encoder = load_encoder(
            self.model,
            self.facts.revision,
            device=self.device,
            dtype=self.dtype,
            engine=self.engine,
            converted=None if self.cache is None else self.cache.converted,
        )
        found, name = asdict(facts_of(encoder)), os.fspath(self.model)
        # With this record the store can be used without the model.
        self._ask(lambda cache: cache.remember_model(name, self.revision, found), None)
        return encoder

    @property
    def width(self) -> int:
        """Number of values in a row."""
        return self.facts.embedding_dim

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the rows of images at the size of the model, from a model pass."""
        return self.encoder.encode_images(pixels)

    @cached_property
    def numerics(self) -> Numerics:
        """Numerics of a model pass on this machine, without loading the model."""
        engine = choose_engine(self.engine)
        device = choose_device(self.device, engine)
        return Numerics(engine, device, choose_dtype(self.dtype, device, engine))

    def image_batch_size(self) -> int:
        """Return the number of images in the next pass of ``batch_size="auto"``."""
        if "encoder" in self.__dict__:
            return self.encoder.image_batch_size
        return image_batch_sizes(self.facts.n_patches, self.numerics.device)[0]

    def text_batch_size(self) -> int:
        """Return the number of texts in the next pass of ``batch_size="auto"``."""
        if "encoder" in self.__dict__:
            return self.encoder.text_batch_size
        return text_batch_sizes(self.numerics.device)[0]

    def logit_parameters(self) -> tuple[float, float]:
        """Return scale and bias of the logits; load the model if they are unknown."""
        scale, bias = self.facts.logit_scale, self.facts.logit_bias
        if scale is None or bias is None:
            return self.encoder.logit_scale, self.encoder.logit_bias
        return scale, bias

    @property
    def passes_at_once(self) -> int:
        """Number of batches that are processed at a time."""
        engine, device, _ = self.numerics
        return passes_at_once(self.facts.n_patches, device, engine)

    def start_thread(self) -> None:
        """Prepare a thread that runs one of several simultaneous passes."""
        if self.numerics.device == "cpu":
            use_one_core()

    def get(
        self, fingerprints: Sequence[bytes], out: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Fill the rows of ``out`` that are stored; return a mask of them."""
        return self._ask(
            lambda cache: self.stored_in(cache).get(fingerprints, out),
            np.zeros(len(fingerprints), dtype=bool),
        )

    def stored_in(self, cache: EmbeddingCache) -> StoredRows:
        """Return a reader for the rows in a store."""
        # Do not resolve "auto" here, since that imports torch.
        dtypes = ("float32", "bfloat16") if self.dtype == "auto" else (self.dtype,)
        engines = ENGINES if self.engine == "auto" else (self.engine,)
        spaces = [self._space(dtype, engine) for dtype in dtypes for engine in engines]
        any_numeric = self.dtype == self.engine == "auto"
        return StoredRows(cache, tuple(spaces), any_numeric)

    def put(
        self,
        cache: EmbeddingCache,
        fingerprints: Sequence[bytes],
        rows: NDArray[np.float32],
    ) -> None:
        """Store rows that were computed in a model pass."""
        cache.put_many(self._compute_space, fingerprints, rows)

    def fill(
        self,
        fingerprints: Sequence[bytes],
        out: NDArray[np.float32],
        encode: Callable[[NDArray[np.intp]], NDArray[np.float32]],
    ) -> NDArray[np.bool_]:
        """Fill ``out`` from the store, and missing rows by model passes.

        Fingerprints must be distinct. The mask that is returned is False for rows that
        another worker is computing: request them again after :meth:`wait`.
        """
        done = self.get(fingerprints, out)
        missing = np.flatnonzero(~done)
        if not missing.size:
            return done
        with self._claimed([fingerprints[i] for i in missing.tolist()]) as mine:
            # Another worker may have stored a row between ``get`` and the claim.
            mine = missing[mine]
            rows = np.empty((mine.size, out.shape[1]), np.float32)
            stored = self.get([fingerprints[i] for i in mine.tolist()], rows)
            out[mine[stored]] = rows[stored]
            todo = mine[~stored]
            if todo.size:
                computed = encode(todo)
                new = [fingerprints[i] for i in todo.tolist()]
                self._ask(lambda cache: self.put(cache, new, computed), None)
                out[todo] = computed
            done[mine] = True
        return done

    def wait(self, fingerprints: Sequence[bytes]) -> None:
        """Wait until no other worker is computing these rows."""
        if self.cache is not None:
            self.cache.wait(self._compute_space, fingerprints)

    def recall_files(
        self, stamps: Sequence[FileStamp | None], reading: str
    ) -> list[bytes | None]:
        """Return the fingerprints of files that were read before in the same state."""
        nothing: list[bytes | None] = [None] * len(stamps)
        return self._ask(lambda cache: cache.recall_files(stamps, reading), nothing)

    def remember_files(
        self,
        stamps: Sequence[FileStamp | None],
        reading: str,
        fingerprints: Sequence[bytes | None],
    ) -> None:
        """Record the fingerprints of files in these states."""
        self._ask(
            lambda cache: cache.remember_files(stamps, reading, fingerprints), None
        )

    def forget_files(self, stamps: Sequence[FileStamp], reading: str) -> None:
        """Remove the fingerprints of files in these states."""
        self._ask(lambda cache: cache.forget_files(stamps, reading), None)

    def _ask(self, question: Callable[[EmbeddingCache], T], otherwise: T) -> T:
        """Call a function with the store; warn once if the store cannot be used."""
        if self.cache is None:
            return otherwise
        try:
            return question(self.cache)
        except CacheFormatError:
            raise
        except CacheError as error:
            if self.cache_error is None:
                self.cache_error = error
                warn_user(
                    f"Embeddings are computed but not stored: {error}",
                    CacheWarning,
                    self._line,
                )
            return otherwise

    @contextmanager
    def _claimed(self, fingerprints: list[bytes]) -> Iterator[NDArray[np.bool_]]:
        """Claim rows; yield a mask of those to compute here, all without a store."""
        nothing: list[bool] | None = None
        mine = self._ask(
            lambda cache: cache.claim(self._compute_space, fingerprints), nothing
        )
        if self.cache is None or mine is None:
            yield np.ones(len(fingerprints), dtype=bool)
            return
        try:
            yield np.array(mine, dtype=bool)
        finally:
            held = [f for f, own in zip(fingerprints, mine, strict=True) if own]
            self.cache.release(self._compute_space, held)

    @cached_property
    def _compute_space(self) -> Space:
        return self._space(self.numerics.dtype, self.numerics.engine)

    def _space(self, dtype: str, engine: str) -> Space:
        return space_of(self.kind, self.recipe, self.model, self.facts, dtype, engine)
