"""The way of a collection of images through store, readers and model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._progress import progress_bar
from sk_medsiglip.cache import file_stamps
from sk_medsiglip.embedding._model_rows import ModelRows
from sk_medsiglip.embedding._read_ahead import Prepared, read_ahead
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import source_path

__all__ = ["ImageWork"]


class ImageWork:
    """One collection, from sources to filled rows.

    1. Files that were read before in this very state, and arrays, have a fingerprint
       without opening a file; their stored rows are fetched in one go.
    2. The rest is read ahead in threads; each batch takes what is stored meanwhile and
       computes what is not.
    3. What another worker was computing at that moment is waited for.

    Parameters
    ----------
    sources : sequence
        The images.
    vectors : ndarray of shape (n_samples, embedding_dim)
        Filled in place.
    rows : ModelRows
        Where rows come from.
    reading : str
        How files become pixels, for the memory of files.
    fingerprint : callable
        From a source to the fingerprint of its pixels.
    prepare : callable
        From a source to the fingerprint and the pixels at the model's size.
    batch_size : callable
        Returns the images in one model pass; called once a pass is likely.
    n_jobs : int or None
        Reading threads.
    verbose : int
        Over 0 shows a progress bar while there is something to compute.
    keep_going : bool
        Collect errors instead of raising the first.
    """

    def __init__(
        self,
        sources: Sequence[Any],
        vectors: NDArray[np.float32],
        rows: ModelRows,
        *,
        reading: str,
        fingerprint: Callable[[Any], bytes],
        prepare: Callable[[Any], Prepared],
        batch_size: Callable[[], int],
        n_jobs: int | None,
        verbose: int,
        keep_going: bool,
    ) -> None:
        self.failures: dict[int, ImageReadError] = {}
        self._sources = sources
        self._vectors = vectors
        self._rows = rows
        self._reading = reading
        self._fingerprint = fingerprint
        self._prepare = prepare
        self._batch_size = batch_size
        self._n_jobs = n_jobs
        self._verbose = verbose
        self._keep_going = keep_going
        # Taken before any file is read: a file that changes while it is read must not
        # be remembered in its new state with its old content.
        paths = [source_path(source) for source in sources]
        stamps = iter(file_stamps([path for path in paths if path is not None]))
        self._stamps = [None if path is None else next(stamps) for path in paths]
        self._fingerprints: list[bytes | None] = [None] * len(sources)
        self._first_row: dict[bytes, int] = {}

    def run(self) -> None:
        """Fill the vectors; afterwards ``failures`` holds the unreadable rows."""
        todo = self._take_stored()
        batch_size = self._batch_size() if todo else 0
        total = len(self._sources)
        with progress_bar(
            total,
            done=total - len(todo),
            desc="embedding",
            unit="image",
            verbose=self._verbose,
        ) as bar:
            self._advance = bar.update
            while todo:
                todo = self._embed(todo, batch_size)
        self._copy_repeats()

    def _take_stored(self) -> list[int]:
        """Fetch what is stored under fingerprints known already; return the rest."""
        known = self._rows.recall_files(self._stamps, self._reading)
        for row, source in enumerate(self._sources):
            # Hashing an array is cheaper than preparing it. One that cannot be read
            # is reported by the reading step, like any other source.
            if isinstance(source, np.ndarray):
                try:
                    known[row] = self._fingerprint(source)
                except ImageReadError:
                    continue
        self._fingerprints = known
        asked = [row for row, fingerprint in enumerate(known) if fingerprint]
        fetched = np.empty((len(asked), self._vectors.shape[1]), np.float32)
        found = self._rows.get([known[row] for row in asked], fetched)  # type: ignore[misc]
        self._vectors[np.array(asked, dtype=np.intp)[found]] = fetched[found]
        done = {row for row, ok in zip(asked, found, strict=True) if ok}
        return [row for row in range(len(self._sources)) if row not in done]

    def _embed(self, todo: list[int], batch_size: int) -> list[int]:
        """Read and embed rows; return those that another worker was computing."""
        elsewhere: list[int] = []
        batch: dict[int, NDArray[np.uint8]] = {}
        read: list[int] = []

        def flush() -> None:
            self._rows.remember_files(
                [self._stamps[row] for row in read],
                self._reading,
                [self._fingerprints[row] for row in read],
            )
            elsewhere.extend(self._embed_batch(batch))
            batch.clear()
            read.clear()

        for row, prepared in read_ahead(
            self._sources, todo, self._prepare, n_jobs=self._n_jobs, window=batch_size
        ):
            if isinstance(prepared, ImageReadError):
                self._fail(row, prepared)
                continue
            self._fingerprints[row], pixels = prepared
            read.append(row)
            # The same picture a second time: its row is copied at the end.
            if self._first_row.setdefault(prepared[0], row) == row:
                batch[row] = pixels
            else:
                self._advance(1)
            if len(batch) == batch_size:
                flush()
        flush()
        self._rows.wait([self._fingerprints[row] for row in elsewhere])  # type: ignore[misc]
        return elsewhere

    def _embed_batch(self, batch: dict[int, NDArray[np.uint8]]) -> list[int]:
        """Fill one batch; return the rows that another worker is computing."""
        if not batch:
            return []
        rows = np.fromiter(batch, dtype=np.intp)
        pixels = np.stack(list(batch.values()))
        filled = np.empty((rows.size, self._vectors.shape[1]), np.float32)
        done = self._rows.fill(
            [self._fingerprints[row] for row in rows],
            filled,
            lambda positions: self._rows.encoder.encode_images(pixels[positions]),
        )
        self._vectors[rows[done]] = filled[done]
        self._advance(int(done.sum()))
        return rows[~done].tolist()

    def _copy_repeats(self) -> None:
        for row, fingerprint in enumerate(self._fingerprints):
            first = self._first_row.get(fingerprint, row) if fingerprint else row
            if first != row:
                self._vectors[row] = self._vectors[first]

    def _fail(self, row: int, error: ImageReadError) -> None:
        if not self._keep_going:
            raise error
        self.failures[row] = error
        self._advance(1)
