"""Blocks of pixels -> shards in the output, and a report on each block.

Ray retries, wraps and prints at length the errors that a worker raises. Errors that the
user has to mend therefore travel as results, and are raised once, as on one machine.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.cache import EmbeddingCache, Space, model_records
from sk_medsiglip.distributed._manifest import Failure
from sk_medsiglip.distributed._reading import (
    ERROR,
    HINT,
    PIXELS,
    REASON,
    SKIPPED,
    Settings,
)
from sk_medsiglip.distributed._shards import (
    ShardEntry,
    make_shard,
    put_shard,
    stored_name,
)
from sk_medsiglip.embedding import facts_of, image_space
from sk_medsiglip.encoder import Encoder, load_encoder, passes_at_once, use_one_core
from sk_medsiglip.exceptions import SkMedSiglipError


@dataclass(frozen=True)
class _Model:
    """A model in memory, and the facts about it in shards."""

    encoder: Encoder
    passes: int
    space: Space
    records: list[dict[str, Any]]


class ShardEncoder:
    """A model in memory that turns blocks into shards; threads may share it.

    An urgent one loads the model at once, and not with the first image.
    """

    def __init__(
        self,
        settings: Settings,
        columns: tuple[str, ...],
        n_threads: int,
        is_urgent: bool,
    ) -> None:
        self._settings = settings
        self._columns = columns
        self._n_threads = n_threads
        self._lock = threading.Lock()
        self._loading: Future[_Model] | None = None
        if is_urgent:
            self._start_loading()

    def __call__(self, block: Any) -> Any:
        """Embed a block, write its shard; return a table of one row about it."""
        try:
            return self._report(block).to_table()
        except Exception as error:
            if may_pass(error):
                raise
            return BlockReport(error=pack_error(error)).to_table()

    def _report(self, block: Any) -> BlockReport:
        # Ray may join small blocks, those without images too.
        for error in _values(block, ERROR):
            return BlockReport(error=error)
        n_skipped = sum(_values(block, SKIPPED))
        if not _values(block, "key"):
            return BlockReport(n_skipped=n_skipped)
        block = block.filter(block["key"].is_valid())
        fingerprints = block["fingerprint"].to_pylist()
        readable = [i for i, f in enumerate(fingerprints) if f is not None]
        shard = self._write(block, readable) if readable else None
        failed = block.filter([f is None for f in fingerprints])
        return BlockReport(shard, _failures_of(failed), n_skipped)

    def _write(self, block: Any, readable: Sequence[int]) -> ShardEntry:
        settings = self._settings
        model = self._start_loading().result()
        if model.passes > 1 and model.encoder.device == "cpu":
            use_one_core()
        vectors = self._embed(model.encoder, block, readable)
        names = ["key", "source", "size", "mtime", "fingerprint"]
        names += map(stored_name, self._columns)
        rows = block.select(names).take(readable)
        shard = make_shard(
            model.space, rows, vectors, models=model.records, recipe=settings.recipe
        )
        return put_shard(settings.storage, shard)

    def _embed(
        self, encoder: Encoder, block: Any, readable: Sequence[int]
    ) -> NDArray[np.float32]:
        """Return a vector for each readable image; each picture is computed once."""
        px = self._settings.facts.image_size
        pixels = _as_array(block[PIXELS]).reshape(-1, px, px, 3)
        names = np.array(block["fingerprint"].take(readable).to_pylist())
        _, first, row_of = np.unique(names, return_index=True, return_inverse=True)
        places = np.array(readable)[first]
        vectors = np.empty((len(places), self._settings.facts.embedding_dim), "f4")
        asked = self._settings.embedder.batch_size
        start = 0
        while start < len(places):
            # Read each time: it gets smaller if memory runs out.
            n = encoder.image_batch_size if asked == "auto" else int(asked)
            part = places[start : start + n]
            vectors[start : start + len(part)] = encoder.encode_images(pixels[part])
            start += len(part)
        return vectors[row_of]

    def _start_loading(self) -> Future[_Model]:
        """Load the weights once, in a thread, while images are read that come first."""
        with self._lock:
            if self._loading is None:
                pool = ThreadPoolExecutor(1, "loading")
                self._loading = pool.submit(_load, self._settings, self._n_threads)
                pool.shutdown(wait=False)
            return self._loading


def _load(settings: Settings, n_threads: int) -> _Model:
    # Ray sets the number of cores by what an actor reserves, which is not what it
    # uses. Engines look at it when they are imported, which nothing does before.
    os.environ["OMP_NUM_THREADS"] = str(n_threads)
    embedder = settings.embedder
    encoder = load_encoder(
        embedder.model,
        settings.facts.revision,
        device=embedder.device,
        dtype=embedder.dtype,
        engine=embedder.engine,
        # Converting takes a minute and is kept on each machine.
        converted=EmbeddingCache().converted,
    )
    facts = facts_of(encoder)
    return _Model(
        encoder,
        passes_at_once(facts.n_patches, encoder.device, encoder.engine),
        image_space(embedder.model, facts, encoder.dtype, encoder.engine),
        model_records(os.fspath(embedder.model), embedder.revision, asdict(facts)),
    )


def _values(block: Any, name: str) -> list[Any]:
    """Return the values of a column, if the block has it."""
    return block[name].drop_null().to_pylist() if name in block.column_names else []


def _failures_of(failed: Any) -> tuple[Failure, ...]:
    now = time.time()
    return tuple(
        Failure(row["source"], row[REASON], row[HINT], row["key"], now)
        for row in failed.select(["source", REASON, HINT, "key"]).to_pylist()
    )


def _as_array(column: Any) -> NDArray[np.uint8]:
    """Return values of one length as rows, without a copy where they lie together."""
    chunks = [
        np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, chunk.type.byte_width)[
            chunk.offset : chunk.offset + len(chunk)
        ]
        for chunk in column.chunks
    ]
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


@dataclass(frozen=True)
class BlockReport:
    """The result of a block of images."""

    shard: ShardEntry | None = None
    failures: tuple[Failure, ...] = ()
    n_skipped: int = 0
    error: bytes | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows of the user's table."""
        n_new = 0 if self.shard is None else self.shard.n_rows
        return n_new + len(self.failures) + self.n_skipped

    def to_table(self) -> Any:
        """Return the report as a table of one row, which is what Ray Data passes on."""
        import pyarrow as pa

        return pa.table({"report": [pickle.dumps(self)]})

    @staticmethod
    def from_row(row: Mapping[str, Any]) -> BlockReport:
        """Return the report that a worker of this job put into a row."""
        report = pickle.loads(row["report"])
        assert isinstance(report, BlockReport)
        return report


def may_pass(error: BaseException) -> bool:
    """Tell whether the same work may succeed when it is tried again.

    It may if a storage did not answer or memory was short, but not if weights are
    missing, a table cannot be parsed, or this code has a bug.
    """
    own = isinstance(error, SkMedSiglipError)
    return isinstance(error, OSError | MemoryError) and not own


def pack_error(error: Exception) -> bytes:
    """Return an error as bytes, with its traceback as a note."""
    where = "".join(traceback.format_exception(error))
    error.add_note(f"It happened on a worker:\n{where}")
    try:
        return pickle.dumps(error)
    except Exception as unfit:  # an error of another library may hold anything
        return pickle.dumps(RuntimeError(f"{where}\n(not sent as it is: {unfit})"))


def unpack_error(text: bytes) -> Exception:
    """Return the error that a worker of this job packed."""
    error = pickle.loads(text)
    return error if isinstance(error, Exception) else RuntimeError(repr(error))
