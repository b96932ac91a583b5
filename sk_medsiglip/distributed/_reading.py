"""A piece of a table -> the pixels of its images that are not embedded yet.

Runs in Ray's tasks on every CPU. Sources, states, grey values, resizing
and fingerprints are those of ``MedSigLIPEmbedder``: its own methods are called.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from multiprocessing import get_context
from queue import LifoQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.cache import FileStamp
from sk_medsiglip.distributed._shards import (
    SOURCE_BYTES,
    NewTable,
    make_key,
    stored_name,
)
from sk_medsiglip.distributed._source import Collection, Piece
from sk_medsiglip.distributed._storage import Storage
from sk_medsiglip.embedding import (
    MedSigLIPEmbedder,
    ModelFacts,
    prepare_image,
    read_ahead,
    source_stamps,
)
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import (
    image_fingerprint,
    image_rows,
    redact,
    without_signature,
)

#: Columns of a block that do not go into a shard.
PIXELS, REASON, HINT, SKIPPED = "_pixels", "_reason", "_hint", "_skipped"

#: The only column of a block whose reading failed: the error.
ERROR = "_error"

#: Reading threads of a task by default: a server answers many, a core decodes one.
_THREADS_URL, _THREADS_FILE = 16, 1

#: Processes of a task that reads images apart.
_PROCESSES = 4

#: Seconds that one image may take: some decoders do not die but never end.
_PATIENCE = 600.0

#: Parameters of a URL that give access to private files: they are never shown.
_SECRETS = {
    *("x-amz-signature", "x-goog-signature", "signature", "sig"),
    *("token", "access_token", "key", "api_key", "apikey", "password", "secret"),
}
_PLAIN = re.compile(r"[\w.,&=%+-]*")


@dataclass(frozen=True)
class Settings:
    """Settings that all parts of a job share, wherever they run."""

    embedder: MedSigLIPEmbedder  # the one that would do the same on one machine
    facts: ModelFacts
    storage: Storage
    recipe: Mapping[str, Any]
    n_jobs: int | None = None


@dataclass(frozen=True)
class _Row:
    """An image that is being read."""

    source: Any
    shown: str
    index: int
    key: bytes
    size: int | None
    mtime: int | None


@dataclass(frozen=True)
class Reader:
    """How rows become pixels, for all tasks of a job."""

    settings: Settings
    collection: Collection  # its pieces are sent apart, each to one task
    n_block: int
    isolated: bool = False
    table: NewTable | None = None

    def blocks(
        self, piece: Piece, done: NDArray[np.bytes_], number: int = 0
    ) -> Iterator[Any]:
        """Yield tables of at most ``n_block`` images with their pixels."""
        seen: set[bytes] = set()
        n_skipped = 0
        ready = None
        told = []
        with self._preparing() as prepare:
            for table in piece.tables(self.n_block):
                rows = self._rows(table)
                told.append(self._told(table, rows))
                fresh = _find_fresh(rows, done, seen)
                n_skipped += len(rows) - len(fresh)
                if fresh:
                    if ready is not None:
                        yield ready
                    ready = self._block(table, fresh, prepare)
        if self.table is not None and told:
            self.table.put(number, told)
        yield _with_skipped(ready, n_skipped)

    def _rows(self, table: Any) -> list[_Row]:
        """Look at sources without opening them."""
        cells = table[self.collection.image_column].to_pylist()
        names = [_name_of(cell) for cell in cells]
        sources = [self._resolve(image) for image in image_rows(cells)]
        stamps = source_stamps(["" if s is None else s for s in sources])
        return [
            _make_row(i, *triple)
            for i, triple in enumerate(zip(sources, names, stamps, strict=True))
        ]

    def _told(self, table: Any, rows: Sequence[_Row]) -> Any:
        """Return the columns of the user's table for each row, with its key."""
        import pyarrow as pa

        ours = {
            "key": pa.array([row.key for row in rows], pa.binary()),
            "source": pa.array([row.shown for row in rows], pa.string()),
        }
        return pa.table(ours | self._own_columns(table))

    def _own_columns(self, table: Any) -> dict[str, Any]:
        return {stored_name(name): table[name] for name in self.collection.columns}

    def _resolve(self, cell: Any) -> Any:
        if not isinstance(cell, str):
            return cell
        text = cell.strip()
        if not text:
            return None
        if "://" in text:
            return text
        base = self.collection.base
        if "://" in base:
            return f"{base}/{text.lstrip('/')}"
        return os.path.abspath(os.path.join(base, os.path.expanduser(text)))

    def _block(self, table: Any, rows: Sequence[_Row], prepare: Any) -> Any:
        """Read images; return them as a table."""
        import pyarrow as pa

        px = self.settings.facts.image_size
        pixels = np.zeros((len(rows), px, px, 3), np.uint8)
        fingerprints: list[bytes | None] = [None] * len(rows)
        errors: list[ImageReadError | None] = [None] * len(rows)
        remote = any(isinstance(r.source, str) and "://" in r.source for r in rows)
        usual = _THREADS_URL if remote else _THREADS_FILE
        for i, read in read_ahead(
            [row.source for row in rows],
            range(len(rows)),
            prepare,
            n_jobs=self.settings.n_jobs or usual,
            window=lambda: usual,
        ):
            if isinstance(read, ImageReadError):
                errors[i] = read
            else:
                fingerprints[i], pixels[i] = read
        columns = {
            "key": pa.array([row.key for row in rows], pa.binary(len(rows[0].key))),
            "source": pa.array([row.shown for row in rows], pa.string()),
            "size": pa.array([row.size for row in rows], pa.int64()),
            "mtime": pa.array([row.mtime for row in rows], pa.int64()),
            "fingerprint": pa.array(fingerprints, pa.binary(32)),
            REASON: pa.array([e and e.reason for e in errors], pa.string()),
            HINT: pa.array([e and e.hint for e in errors], pa.string()),
            PIXELS: pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(3 * px * px), len(rows), [None, pa.py_buffer(pixels)]
            ),
        }
        chosen = table.take([row.index for row in rows])
        return pa.table(columns | self._own_columns(chosen))

    def _preparing(self) -> AbstractContextManager[Any]:
        """Return a context that gives a function like :meth:`prepare`."""
        if self.isolated:
            return IsolatedReader(replace(self, isolated=False), _PROCESSES)
        return nullcontext(self.prepare)

    def prepare(self, source: Any) -> tuple[bytes, NDArray[np.uint8]]:
        """Return the fingerprint of an image and its pixels at the model's size."""
        if source is None:
            raise ImageReadError(
                "there is no path", "Fill it in, or leave the row out."
            )
        pixels = prepare_image(self.settings.embedder, self.settings.facts, source)
        return image_fingerprint(pixels), pixels


def _make_row(index: int, source: Any, shown: str, stamp: FileStamp | None) -> _Row:
    if stamp is not None and stamp.path:
        # Without the inode, which each machine may number differently on a shared disk.
        state = b"%d:%d:" % (stamp.size, stamp.mtime) + stamp.part
        name, size, mtime = stamp.path, stamp.size, stamp.mtime
        if stamp.part:
            name = f"{name}::{shown}"
    else:
        state = b"" if stamp is None else stamp.part
        name, size, mtime = _absolute_name(source, shown, state), None, None
    return _Row(source, shown, index, make_key(name, state), size, mtime)


def _absolute_name(source: Any, shown: str, state: bytes) -> str:
    if isinstance(source, str):
        return without_signature(source)
    # An image inside the table is known by its content alone: it has no other place.
    return f"bytes:{state.hex()}:{shown}"


def _name_of(cell: Any) -> str:
    """Return the name of a source in an output, without secrets that give access."""
    if isinstance(cell, dict):
        cell = cell.get("path")
    if not isinstance(cell, str):
        return ""
    shown, query = redact(cell), cell.rpartition("?")[2]
    if not shown.endswith("?..."):
        return shown
    names = {part.partition("=")[0].lower() for part in query.split("&")}
    is_plain = _PLAIN.fullmatch(query) and not names & _SECRETS
    return shown[:-3] + query if is_plain else shown.removesuffix("?...")


def _find_fresh(
    rows: Sequence[_Row], done: NDArray[np.bytes_], seen: set[bytes]
) -> list[_Row]:
    """Return rows that are neither embedded nor earlier in the piece."""
    keys = np.array([row.key for row in rows], f"S{len(rows[0].key)}")
    known = np.zeros(len(rows), dtype=bool)
    if done.size:
        places = np.searchsorted(done, keys).clip(max=done.size - 1)
        known = done[places] == keys
    fresh = []
    for row, is_known in zip(rows, known.tolist(), strict=True):
        source = row.key[:SOURCE_BYTES]
        repeated = source in seen and row.source is not None
        if not is_known and not repeated:
            fresh.append(row)
        seen.add(source)
    return fresh


def _with_skipped(table: Any, n: int) -> Any:
    """Return a last table that also says how many images were left out."""
    import pyarrow as pa

    if table is None:
        return pa.table({SKIPPED: pa.array([n], pa.int64())})
    counts = [n, *[0] * (table.num_rows - 1)]
    return table.append_column(SKIPPED, pa.array(counts, pa.int64()))


# -------------------------------------------------------------- reading apart

# A damaged file can kill a decoder that is written in C, or make it ask for all memory.
# A task in which that happens is tried again by Ray and dies again. So after a worker
# has died, each image is read in another process, whose death is its failure.

_reader: Any = None


class IsolatedReader:
    """A context that gives a function like ``Reader.prepare``; threads may share it."""

    def __init__(self, reader: Any, n_processes: int) -> None:
        self._reader = reader
        # The one that was used last comes first, so that few are started.
        self._free: LifoQueue[ProcessPoolExecutor | None] = LifoQueue()
        for _ in range(n_processes):
            self._free.put(None)

    def __enter__(self) -> Any:
        return self._prepare

    def __exit__(self, *_: object) -> None:
        while not self._free.empty():
            _end(self._free.get())

    def _prepare(self, source: Any) -> tuple[bytes, NDArray[np.uint8]]:
        # A pool of one, so that a process that died is the one that read this image.
        pool = self._free.get() or ProcessPoolExecutor(
            1, get_context("spawn"), initializer=_start, initargs=(self._reader,)
        )
        try:
            result = pool.submit(_read, source).result(_PATIENCE)
        except (BrokenProcessPool, TimeoutError) as error:
            _end(pool)
            self._free.put(None)
            died = isinstance(error, BrokenProcessPool)
            raise ImageReadError(
                "reading it ended the process that read it"
                if died
                else f"reading it took over {_PATIENCE:.0f} s",
                "The file is damaged in a way that its decoder does not survive, or "
                "needs more memory than there is. Write it again with another tool.",
            ) from None
        except BaseException:
            self._free.put(pool)
            raise
        self._free.put(pool)
        return result


def _end(pool: ProcessPoolExecutor | None) -> None:
    """End a process, even one that never ends by itself."""
    if pool is None:
        return
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(wait=True, cancel_futures=True)


def _start(reader: Any) -> None:
    global _reader
    _reader = reader


def _read(source: Any) -> tuple[bytes, NDArray[np.uint8]]:
    return _reader.prepare(source)
