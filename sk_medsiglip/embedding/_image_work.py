"""The embedding of a collection of images through store, readers and model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from sk_medsiglip._progress import progress_bar
from sk_medsiglip.cache import FileStamp, content_stamp, file_stamps
from sk_medsiglip.embedding._model_rows import ModelRows
from sk_medsiglip.embedding._read_ahead import Prepared, map_ahead, read_ahead
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import image_fingerprint, source_identity

#: Number of simultaneous requests to servers.
_REQUESTS = 16

#: Number of images that wait to be compared.
_READ_AHEAD = 16


@dataclass(frozen=True, eq=False)
class EmbeddedImages:
    """Rows of a collection, in the same order."""

    vectors: NDArray[np.float32]
    fingerprints: list[bytes | None]
    failures: dict[int, ImageReadError] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ImageWork:
    """The steps from images to rows, for one call of ``transform``."""

    rows: ModelRows
    recipe: str
    prepare: Callable[[Any], NDArray[np.uint8]]
    batch_size: Callable[[], int]
    n_jobs: int | None
    verbose: int
    keep_going: bool

    def embed(self, sources: Sequence[Any], bar: tqdm | None = None) -> EmbeddedImages:
        """Return the row of every source; without ``bar``, show a new progress bar."""
        return _Collection(self, sources).embed(bar)

    def find_outdated(self, sources: Sequence[Any]) -> list[int]:
        """Return the sources whose content has changed, and remove their records."""
        stamps = source_stamps(sources)
        known = self.rows.recall_files(stamps, self.recipe)
        remembered = [row for row, fingerprint in enumerate(known) if fingerprint]
        outdated = []
        with progress_bar(
            len(remembered), desc="reading", unit="image", verbose=self.verbose
        ) as bar:
            for row, prepared in read_ahead(
                sources,
                remembered,
                lambda source: image_fingerprint(self.prepare(source)),
                n_jobs=self.n_jobs,
                window=lambda: _READ_AHEAD,
            ):
                # A file with a record was read before; if it is unreadable, it changed.
                if isinstance(prepared, ImageReadError) or prepared != known[row]:
                    outdated.append(row)
                bar.update()
        wrong = [stamps[row] for row in outdated]
        self.rows.forget_files([s for s in wrong if s is not None], self.recipe)
        return outdated


@dataclass(eq=False)
class _Batch:
    """Images of the next pass of the model."""

    read: list[int] = field(default_factory=list)
    pixels: dict[int, NDArray[np.uint8]] = field(default_factory=dict)


class _Collection:
    """The embedding of one collection.

    1. Sources that were read before in the same state (files) or with the same content
       (bytes, arrays) have a fingerprint on record; their rows are fetched together.
    2. The others are read ahead in threads; each batch takes the rows that have been
       stored meanwhile, and computes the rest.
    3. Rows that another worker was computing are waited for.
    """

    def __init__(self, work: ImageWork, sources: Sequence[Any]) -> None:
        self._work = work
        self._rows = work.rows
        self._sources = sources
        # Taken before any file is read: a file that changes while it is read must not
        # be recorded in its new state with its old content.
        self._stamps = (
            source_stamps(sources) if work.rows.cache else [None] * len(sources)
        )
        shape = (len(sources), work.rows.width)
        self._vectors = np.full(shape, np.nan, np.float32)
        self._fingerprints: list[bytes | None] = [None] * len(sources)
        self._failures: dict[int, ImageReadError] = {}
        self._first_row: dict[bytes, int] = {}

    def embed(self, bar: tqdm | None) -> EmbeddedImages:
        todo = self._take_stored()
        total = len(self._sources)
        if bar is not None:
            bar.update(total - len(todo))
            self._embed_all(todo, bar)
        else:
            with progress_bar(
                total,
                done=total - len(todo),
                desc=f"embedding ({self._rows.numerics})" if todo else "embedding",
                unit="image",
                verbose=self._work.verbose,
            ) as own_bar:
                self._embed_all(todo, own_bar)
        self._copy_repeats()
        return EmbeddedImages(self._vectors, self._fingerprints, self._failures)

    def _take_stored(self) -> list[int]:
        """Fetch the rows with known fingerprints; return the remaining positions."""
        known = self._rows.recall_files(self._stamps, self._work.recipe)
        self._fingerprints = known
        asked = [row for row, fingerprint in enumerate(known) if fingerprint]
        fetched = np.empty((len(asked), self._vectors.shape[1]), np.float32)
        found = self._rows.get([known[row] for row in asked], fetched)  # type: ignore[misc]
        self._vectors[np.array(asked, dtype=np.intp)[found]] = fetched[found]
        done = {row for row, ok in zip(asked, found, strict=True) if ok}
        return [row for row in range(len(self._sources)) if row not in done]

    def _embed_all(self, todo: list[int], bar: tqdm) -> None:
        self._advance = bar.update
        while todo:
            todo = self._embed(todo)

    def _embed(self, todo: list[int]) -> list[int]:
        """Read and embed rows; return those that another worker was computing."""
        elsewhere: list[int] = []
        # A single batch uses the whole machine, without a thread.
        n_batches = -(-len(todo) // self._work.batch_size())
        at_once = min(self._rows.passes_at_once, n_batches)
        for rows, done in map_ahead(
            self._embed_batch,
            self._read_batches(todo),
            n_threads=at_once if at_once > 1 else 0,
            window=lambda: 0,
            initializer=self._rows.start_thread,
        ):
            self._advance(int(done.sum()))
            elsewhere.extend(rows[~done].tolist())
        self._rows.wait([self._fingerprints[row] for row in elsewhere])  # type: ignore[misc]
        return elsewhere

    def _read_batches(self, todo: list[int]) -> Iterator[_Batch]:
        """Yield images as they are read, in batches of the size of a model pass."""
        batch, self._size = _Batch(), self._work.batch_size()
        for row, prepared in read_ahead(
            self._sources,
            todo,
            self._prepare,
            n_jobs=self._work.n_jobs,
            window=lambda: self._size,
        ):
            if isinstance(prepared, ImageReadError):
                self._fail(row, prepared)
                continue
            self._fingerprints[row], pixels = prepared
            batch.read.append(row)
            # The row of a repeated image is copied at the end.
            if self._first_row.setdefault(prepared[0], row) == row:
                batch.pixels[row] = pixels
            else:
                self._advance(1)
            if len(batch.pixels) >= self._size:
                yield batch
                # The size may have grown, or shrunk if memory was too small.
                batch, self._size = _Batch(), self._work.batch_size()
        if batch.read:
            yield batch

    def _prepare(self, source: Any) -> Prepared:
        pixels = self._work.prepare(source)
        return image_fingerprint(pixels), pixels

    def _embed_batch(self, batch: _Batch) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Fill a batch; return its rows, and a mask of those that are done."""
        self._rows.remember_files(
            self._lasting_stamps(batch.read),
            self._work.recipe,
            [self._fingerprints[row] for row in batch.read],
        )
        rows = np.fromiter(batch.pixels, dtype=np.intp)
        pixels = list(batch.pixels.values())
        filled = np.empty((rows.size, self._vectors.shape[1]), np.float32)
        done = self._rows.fill(
            [self._fingerprints[row] for row in rows],
            filled,
            lambda positions: self._rows.encode_images(
                np.stack([pixels[i] for i in positions])
            ),
        )
        self._vectors[rows[done]] = filled[done]
        return rows, done

    def _lasting_stamps(self, rows: list[int]) -> list[FileStamp | None]:
        """Return the stamps of rows; None for arrays that changed meanwhile."""
        stamps = [self._stamps[row] for row in rows]
        sources = [self._sources[row] for row in rows]
        held = [
            i
            for i, source in enumerate(sources)
            if stamps[i] and not isinstance(source, str | bytes | os.PathLike)
        ]
        # The caller, or another process through a memory map, may have written to them.
        for i, now in zip(held, source_stamps([sources[i] for i in held]), strict=True):
            before = stamps[i]
            if before and (now is None or now._replace(taken=before.taken) != before):
                stamps[i] = None
        return stamps

    def _copy_repeats(self) -> None:
        for row, fingerprint in enumerate(self._fingerprints):
            first = self._first_row.get(fingerprint, row) if fingerprint else row
            if first != row:
                self._vectors[row] = self._vectors[first]

    def _fail(self, row: int, error: ImageReadError) -> None:
        if not self._work.keep_going:
            raise error
        self._failures[row] = error
        self._advance(1)


def source_stamps(sources: Sequence[Any]) -> list[FileStamp | None]:
    """Return the identity of each source before it is read.

    Parameters
    ----------
    sources : sequence
        Images, as for ``read_image``.

    Returns
    -------
    list of FileStamp or None
        None for sources that cannot be identified without reading them.
    """
    if any(isinstance(source, str) and "://" in source for source in sources):
        # Each URL is a request to its server.
        with ThreadPoolExecutor(_REQUESTS) as pool:
            identities = list(pool.map(source_identity, sources))
    else:
        identities = [source_identity(source) for source in sources]
    paths = [path for path, _ in filter(None, identities) if path is not None]
    of_files = iter(file_stamps(paths))
    stamps: list[FileStamp | None] = []
    for identity in identities:
        if identity is None:
            stamps.append(None)
            continue
        path, rest = identity
        if path is None:
            stamps.append(content_stamp(rest))
        else:
            stamp = next(of_files)
            stamps.append(stamp._replace(part=rest) if stamp and rest else stamp)
    return stamps
