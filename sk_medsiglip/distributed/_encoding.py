"""Blocks of pixels -> shards in the output: the work of an encoder actor."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._optional import import_optional
from sk_medsiglip.cache import EmbeddingCache, Space, model_records
from sk_medsiglip.distributed._errors import may_pass, pack_error
from sk_medsiglip.distributed._manifest import SHARDS, Failure, ShardEntry
from sk_medsiglip.distributed._reading import ERROR, HINT, PIXELS, REASON, SKIPPED
from sk_medsiglip.distributed._shards import (
    column_signature,
    make_shard,
    name_shard,
    stored_name,
)
from sk_medsiglip.distributed._storage import Storage
from sk_medsiglip.embedding import (
    MedSigLIPEmbedder,
    ModelFacts,
    facts_of,
    image_space,
)
from sk_medsiglip.encoder import (
    Encoder,
    load_encoder,
    passes_at_once,
    use_one_core,
)


@dataclass(frozen=True)
class EncoderSettings:
    """What an encoder actor needs to know."""

    parameters: Mapping[str, Any]
    facts: ModelFacts
    storage: Storage
    recipe: Mapping[str, Any]
    columns: tuple[str, ...]
    n_threads: int
    is_urgent: bool


@dataclass(frozen=True)
class BlockReport:
    """What became of a block."""

    shard: ShardEntry | None = None
    failures: tuple[Failure, ...] = ()
    n_skipped: int = 0
    error: bytes | None = None

    @property
    def n_rows(self) -> int:
        """Rows of the user's table."""
        n_new = 0 if self.shard is None else self.shard.n_rows
        return n_new + len(self.failures) + self.n_skipped

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> BlockReport:
        """Return the report that an actor put into a row of a table."""
        shard = None
        if row["name"] is not None:
            shard = ShardEntry(
                row["name"], row["n_bytes"], row["keys"], row["columns"], row["time"]
            )
        failures = tuple(Failure(**failure) for failure in row["failures"])
        return cls(shard, failures, row["n_skipped"], row["error"])

    def to_table(self) -> Any:
        """Return the report as a table of one row."""
        pa = import_optional("pyarrow", extra="ray", purpose="Embedding on a cluster")
        texts = dict.fromkeys(("source", "reason", "hint"), pa.string())
        failure = texts | {"key": pa.binary(), "time": pa.float64()}
        schema = pa.schema(
            {
                "name": pa.string(),
                "n_bytes": pa.int64(),
                "keys": pa.binary(),
                "columns": pa.string(),
                "time": pa.float64(),
                "failures": pa.list_(pa.struct(failure)),
                "n_skipped": pa.int64(),
                "error": pa.binary(),
            }
        )
        row = {} if self.shard is None else asdict(self.shard)
        row["failures"] = [asdict(failure) for failure in self.failures]
        row["n_skipped"], row["error"] = self.n_skipped, self.error
        return pa.Table.from_pylist([row], schema)


class ShardEncoder:
    """A model in memory that turns blocks into shards; threads may share it."""

    def __init__(self, settings: EncoderSettings) -> None:
        self._settings = settings
        self._embedder = MedSigLIPEmbedder(**settings.parameters)
        self._lock = threading.Lock()
        self._loading: Future[_Model] | None = None
        if settings.is_urgent:
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
        model = self._model
        if model.passes > 1 and model.encoder.device == "cpu":
            use_one_core()
        vectors = self._embed(model.encoder, block, readable)
        names = ["key", "source", "size", "mtime", "fingerprint"]
        names += map(stored_name, settings.columns)
        rows = block.select(names).take(readable)
        content = make_shard(
            model.space, rows, vectors, models=model.records, recipe=settings.recipe
        )
        keys = rows["key"].to_pylist()
        name = name_shard(keys, model.space.line)
        settings.storage.put(f"{SHARDS}/{name}", content)
        signature = column_signature(rows.schema)
        return ShardEntry(name, content.size, b"".join(keys), signature, time.time())

    def _embed(
        self, encoder: Encoder, block: Any, readable: Sequence[int]
    ) -> NDArray[np.float32]:
        """Return a vector a readable image, each picture computed once."""
        px = self._settings.facts.image_size
        pixels = _as_array(block[PIXELS]).reshape(-1, px, px, 3)
        fingerprints = block["fingerprint"].to_pylist()
        first: dict[bytes, int] = {}
        for i in readable:
            first.setdefault(fingerprints[i], i)
        places = list(first.values())
        vectors = np.empty((len(places), self._settings.facts.embedding_dim), "f4")
        start = 0
        while start < len(places):
            asked = self._embedder.batch_size
            n = encoder.image_batch_size if asked == "auto" else int(asked)
            part = places[start : start + n]
            vectors[start : start + len(part)] = encoder.encode_images(pixels[part])
            start += len(part)
        row_of = {fingerprint: row for row, fingerprint in enumerate(first)}
        return vectors[[row_of[fingerprints[i]] for i in readable]]

    @property
    def _model(self) -> _Model:
        """The weights, loaded once, whichever thread comes first."""
        return self._start_loading().result()

    def _start_loading(self) -> Future[_Model]:
        """Load in a thread, while images are read that come first."""
        with self._lock:
            if self._loading is None:
                pool = ThreadPoolExecutor(1, "loading")
                self._loading = pool.submit(_load, self._embedder, self._settings)
                pool.shutdown(wait=False)
            return self._loading


@dataclass(frozen=True)
class _Model:
    """A model in memory, and what shards say about it."""

    encoder: Encoder
    passes: int
    space: Space
    records: list[dict[str, Any]]


def _load(embedder: MedSigLIPEmbedder, settings: EncoderSettings) -> _Model:
    _use_cores(settings.n_threads)
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
    """Return what a column holds, if the block has it."""
    if name not in block.column_names:
        return []
    return [value for value in block[name].to_pylist() if value is not None]


def _failures_of(failed: Any) -> tuple[Failure, ...]:
    now = time.time()
    names = {"source": "source", "reason": REASON, "hint": HINT, "key": "key"}
    columns = {name: failed[column].to_pylist() for name, column in names.items()}
    return tuple(
        Failure(**{name: cells[i] for name, cells in columns.items()}, time=now)
        for i in range(failed.num_rows)
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


def _use_cores(n: int) -> None:
    """Compute on as many cores as this actor's share.

    Ray sets the number by what an actor reserves, which is not what it uses. The
    engines look at it when they are imported, which nothing in an actor does before.
    """
    os.environ["OMP_NUM_THREADS"] = str(n)
