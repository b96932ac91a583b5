"""The embedding of a collection of studies, whose slices share model batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._progress import progress_bar
from sk_medsiglip.cache import FileStamp, combined_stamp
from sk_medsiglip.embedding._image_work import ImageWork, source_stamps
from sk_medsiglip.embedding._read_ahead import read_ahead
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import Study, StudyParts, open_study, study_parts

# Part of the key of a study: increase it whenever files give other slices than before.
_STUDY_VERSION = 2

# Number of slices that are embedded together, which bounds memory for any number of
# studies. It is lower for small batches, so that the progress bar moves.
_CHUNK_SLICES = 4096
_CHUNK_BATCHES = 64

# Number of studies whose headers are read ahead of the model.
_STUDIES_AHEAD = 8

_FINGERPRINT_BYTES = 32


@dataclass(frozen=True, eq=False)
class EmbeddedStudies:
    """Rows or bags of a collection of studies, and the errors in it."""

    vectors: NDArray[np.float32]
    failures: dict[int, ImageReadError]  # by study
    left_out: list[ImageReadError]  # of slices whose study has readable ones
    like_hounsfield: list[int]  # studies that look like CT but are not shown as CT


@dataclass(frozen=True, eq=False)
class VolumeWork:
    """The steps from studies to rows, or without a pool to bags."""

    images: ImageWork
    finish: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    pool: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None
    n_columns: int
    n_slices: int | None
    plane: str
    series: int | None
    max_pixels: int
    verbose: int

    def embed(self, studies: Sequence[Any]) -> EmbeddedStudies:
        """Return the row or bag of every study."""
        return _Collection(self, studies).embed()


@dataclass(frozen=True, eq=False)
class _Known:
    """A study that was embedded before: the fingerprints of its slices."""

    fingerprints: list[bytes]
    is_like_hounsfield: bool


@dataclass(frozen=True, eq=False)
class _Opened:
    """A study whose slices are read next, and the state of its files."""

    study: Study
    sources: list[Any]
    stamp: FileStamp | None


class _Collection:
    """The embedding of one collection.

    1. In threads, ahead of the model, each study is looked up by the state of its
       files; the headers of unknown studies are read.
    2. The slices of studies are collected into chunks, which are embedded together.
    3. Each study of a chunk is pooled, or its slices become its bag.
    """

    def __init__(self, work: VolumeWork, studies: Sequence[Any]) -> None:
        self._work = work
        self._rows = work.images.rows
        self._studies = studies
        self._embedded: dict[int, NDArray[np.float32]] = {}  # rows or bags by study
        self._failures: dict[int, ImageReadError] = {}
        self._left_out: list[ImageReadError] = []
        self._like_hounsfield: list[int] = []
        self._recipe = (
            f"study-{_STUDY_VERSION};{work.images.recipe};n_slices={work.n_slices};"
            f"plane={work.plane};series={work.series}"
        )
        self._known: dict[int, _Known] = {}
        self._opened: dict[int, _Opened] = {}
        self._chunk_size = 0

    def embed(self) -> EmbeddedStudies:
        n = len(self._studies)
        with progress_bar(
            n, desc="embedding", unit="study", verbose=self._work.verbose
        ) as bar:
            for row, planned in read_ahead(
                self._studies,
                range(n),
                self._plan,
                n_jobs=self._work.images.n_jobs,
                window=lambda: _STUDIES_AHEAD,
            ):
                if isinstance(planned, ImageReadError):
                    self._fail(row, planned)
                    bar.update()
                elif isinstance(planned, _Known):
                    self._known[row] = planned
                else:
                    self._opened[row] = planned
                self._work_off(bar, at_least_full=True)
            self._work_off(bar, at_least_full=False)
        return EmbeddedStudies(
            self._joined(), self._failures, self._left_out, self._like_hounsfield
        )

    def _joined(self) -> NDArray[np.float32]:
        """Join all studies into one array, with NaN for missing studies and slices."""
        shape: tuple[int, ...] = (len(self._studies), self._work.n_columns)
        if self._work.pool is None:
            # An unreadable study has one instance, of NaN.
            most = max((len(bag) for bag in self._embedded.values()), default=1)
            shape = (shape[0], most, shape[1])
        joined = np.full(shape, np.nan, np.float32)
        while self._embedded:  # release each study once it is copied
            row, vectors = self._embedded.popitem()
            joined[row, : len(vectors)] = vectors
        return joined

    def _plan(self, item: Any) -> _Known | _Opened:
        """Look up one study, and read its headers if it is unknown; thread-safe."""
        parts = study_parts(item)
        stamp = self._stamp(parts)
        [known] = self._rows.recall_files([stamp], self._recipe)
        if known:
            n_slices, marks = divmod(len(known), _FINGERPRINT_BYTES)
            starts = range(0, n_slices * _FINGERPRINT_BYTES, _FINGERPRINT_BYTES)
            slices = [known[i : i + _FINGERPRINT_BYTES] for i in starts]
            return _Known(slices, bool(marks))
        return self._open(item, parts, stamp)

    def _stamp(self, parts: StudyParts) -> FileStamp | None:
        """Return the state of a study, before any of its files is read."""
        if self._rows.cache is None:
            return None
        return combined_stamp(source_stamps(parts.sources), parts.kind.encode())

    def _open(self, item: Any, parts: StudyParts, stamp: FileStamp | None) -> _Opened:
        study = open_study(
            item,
            parts,
            plane=self._work.plane,
            series=self._work.series,
            max_pixels=self._work.max_pixels,
        )
        return _Opened(study, study.take(self._work.n_slices), stamp)

    def _work_off(self, bar: Any, *, at_least_full: bool) -> None:
        """Embed the collected studies, if they fill a chunk or are the last."""
        n_known = sum(len(known.fingerprints) for known in self._known.values())
        if n_known >= _CHUNK_SLICES or not at_least_full:
            bar.update(self._take_stored())
        n_opened = sum(len(opened.sources) for opened in self._opened.values())
        if n_opened and not self._chunk_size:
            batch_size = self._work.images.batch_size()
            self._chunk_size = min(_CHUNK_SLICES, _CHUNK_BATCHES * batch_size)
        if n_opened and (n_opened >= self._chunk_size or not at_least_full):
            bar.update(self._embed_opened())

    def _take_stored(self) -> int:
        """Pool studies whose slices are all stored; return their number."""
        known, self._known = self._known, {}
        asked = [one for study in known.values() for one in study.fingerprints]
        if not asked:
            return 0
        vectors = np.empty((len(asked), self._rows.facts.embedding_dim), np.float32)
        found = self._rows.get(asked, vectors)
        vectors[~found] = np.nan
        vectors = self._work.finish(vectors)
        start, n_done = 0, 0
        for row, study in known.items():
            own = slice(start, start + len(study.fingerprints))
            start = own.stop
            if found[own].all():
                self._embedded[row] = self._pool(vectors[own])
                if study.is_like_hounsfield:
                    self._like_hounsfield.append(row)
                n_done += 1
                continue
            # Some of its rows were removed from the store, so read it again.
            try:
                parts = study_parts(self._studies[row])
                stamp = self._stamp(parts)
                self._opened[row] = self._open(self._studies[row], parts, stamp)
            except ImageReadError as error:
                self._fail(row, error)
                n_done += 1
        return n_done

    def _embed_opened(self) -> int:
        """Embed the slices of several studies together, and pool each study."""
        opened, self._opened = self._opened, {}
        sources = [source for study in opened.values() for source in study.sources]
        owners = [
            (row, place, len(study.sources))
            for row, study in opened.items()
            for place in range(len(study.sources))
        ]
        try:
            images = self._work.images.embed(sources)
        except ImageReadError as error:
            if error.row is None:
                raise
            raise _located(error, *owners[error.row]) from error
        vectors = self._work.finish(images.vectors)
        start = 0
        for row, study in opened.items():
            own = range(start, start + len(study.sources))
            start = own.stop
            errors = [
                _located(images.failures[place], *owners[place])
                for place in own
                if place in images.failures
            ]
            if len(errors) == len(own):
                self._fail(row, errors[0])
                continue
            self._left_out += errors
            kept = vectors[own.start : own.stop]
            if self._work.pool is not None:
                kept = kept[[place not in images.failures for place in own]]
            self._embedded[row] = self._pool(kept)
            self._note(row, study, images.fingerprints[own.start : own.stop])
        return len(opened)

    def _pool(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the pooled row of a study, or without a pool all its rows."""
        if self._work.pool is None:
            return vectors
        pooled = self._work.pool(vectors)
        if pooled.size != self._work.n_columns:
            raise ValueError(
                f"pooling returned {pooled.size} numbers for a study of {len(vectors)} "
                f"slices but {self._work.n_columns} for a single slice; the length "
                "must not depend on the number of slices."
            )
        return pooled

    def _note(
        self, row: int, opened: _Opened, fingerprints: Sequence[bytes | None]
    ) -> None:
        marked = any(volume.looks_like_hounsfield() for volume in opened.study.volumes)
        if marked:
            self._like_hounsfield.append(row)
        # A study with unreadable slices is not recorded, so that every call warns.
        if all(fingerprints):
            content = b"".join(one for one in fingerprints if one is not None)
            content += b"\1" * marked  # so that later calls warn again
            self._rows.remember_files([opened.stamp], self._recipe, [content])

    def _fail(self, row: int, error: ImageReadError) -> None:
        if not self._work.images.keep_going:
            raise error.at_row(row)
        self._failures[row] = error.at_row(row)


def _located(error: ImageReadError, row: int, place: int, n: int) -> ImageReadError:
    """Return the error of a slice as an error of the row of its study."""
    located = error.at_row(row)
    if n > 1:
        located.source = f"slice {place + 1} of {n}, {error.source}"
    return located
