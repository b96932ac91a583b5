"""Inputs of the towers: pixels, or the vectors of a tower that is not trained.

All images are read once, before the first step, since decoding files in every epoch
would cost more than many steps, and a broken file would end the run halfway.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from joblib import effective_n_jobs
from numpy.typing import NDArray

from sk_medsiglip._progress import progress_bar
from sk_medsiglip.embedding import find_facts, open_cache, plain_rows, prepare_image
from sk_medsiglip.encoder import Checkpoint
from sk_medsiglip.exceptions import ImageReadError, RunFolderError
from sk_medsiglip.fine_tuning._examples import Examples
from sk_medsiglip.fine_tuning._processes import Processes
from sk_medsiglip.fine_tuning._run_folder import (
    check_space,
    make_private_folder,
    runs_folder,
)
from sk_medsiglip.fine_tuning._settings import Settings
from sk_medsiglip.fine_tuning._texts import KeptScores, measure_kept
from sk_medsiglip.images import image_fingerprint

#: Bytes up to which pixels are kept in memory, 1,783 images at 448 px. More are written
#: to a memory-mapped file, at 602 kB per image.
IN_MEMORY = 1 << 30

_ROWS_IN_ERROR = 5
_FILE = "pixels.u8"

# Number of images that are read before results are collected.
_READ_AHEAD = 64


@dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs of all rows: either pixels or image vectors.

    Identical images have equal ``image_ids``. ``text_vectors`` are given if the text
    tower is not trained.
    """

    image_ids: NDArray[np.int64]
    digest: str
    pixels: NDArray[np.uint8] | None = None
    image_vectors: NDArray[np.float32] | None = None
    text_vectors: NDArray[np.float32] | None = None
    kept: KeptScores | None = None


def read_inputs(
    settings: Settings,
    examples: Examples,
    checkpoint: Checkpoint,
    scratch: Path,
    processes: Processes,
) -> Inputs:
    """Read all images, and embed images and texts of towers that are not trained."""
    text_vectors = kept = None
    if examples.texts is not None and "text" not in settings.running_towers:
        text_vectors = plain_rows(settings.text_embedder(), examples.texts.texts)
    if examples.kept is not None:
        kept = measure_kept(settings, examples.sources, examples.kept)
    if "image" in settings.running_towers:
        pixels, ids, digest = _share_pixels(
            settings, examples.sources, checkpoint, scratch, processes
        )
        return Inputs(ids, digest, pixels, None, text_vectors, kept)
    vectors = plain_rows(settings.embedder, examples.sources)
    ids = np.unique(vectors, axis=0, return_inverse=True)[1].astype(np.int64)
    digest = blake3(vectors.tobytes()).hexdigest()
    return Inputs(ids, digest, None, vectors, text_vectors, kept)


def _share_pixels(
    settings: Settings,
    sources: Sequence[Any],
    checkpoint: Checkpoint,
    scratch: Path,
    processes: Processes,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], str]:
    """Read the images in the first process of each machine, and map them in others."""
    base, size = settings.embedder, checkpoint.image_size
    shape = (len(sources), size, size, 3)
    n_bytes = int(np.prod(shape, dtype=np.int64))
    in_memory = processes.n == 1 and n_bytes <= IN_MEMORY
    read: tuple[NDArray[np.int64], str] | None = None
    failure: Exception | None = None
    if processes.is_first_here:
        try:
            if in_memory:
                pixels = np.empty(shape, np.uint8)
            else:
                check_space(scratch, n_bytes, "The pixels of all images")
                pixels = np.memmap(scratch / _FILE, np.uint8, "w+", shape=shape)
            facts = find_facts(base.model, base.revision, open_cache(base.cache))
            read = read_pixels(
                sources,
                partial(prepare_image, base, facts),
                pixels,
                base.n_jobs,
                int(settings.verbose),
            )
        except (ValueError, OSError) as error:
            failure = error
    read, failure = processes.share((read, failure), here=True)
    if read is None:
        assert failure is not None
        raise failure
    if not processes.is_first_here:
        pixels = np.memmap(scratch / _FILE, np.uint8, "r", shape=shape)
    processes.wait()
    if processes.is_first_here and not in_memory:
        _forget_file(scratch)
    return pixels, *read


def _forget_file(scratch: Path) -> None:
    """Unlink a mapped file, so that it is freed when its processes end.

    This is impossible on Windows, where the next run removes the folder.
    """
    if os.name == "posix":
        (scratch / _FILE).unlink()


def read_pixels(
    sources: Sequence[Any],
    prepare: Callable[[Any], NDArray[np.uint8]],
    pixels: NDArray[np.uint8],
    n_jobs: int | None,
    verbose: int,
) -> tuple[NDArray[np.int64], str]:
    """Fill an array with the pixels of all images, and return their ids and digest."""
    fingerprints: list[bytes] = [b""] * len(sources)
    failures: dict[int, ImageReadError] = {}

    def read(row: int) -> None:
        try:
            pixels[row] = prepare(sources[row])
        except ImageReadError as error:
            failures[row] = error.at_row(row)
        else:
            fingerprints[row] = image_fingerprint(pixels[row])

    with (
        progress_bar(
            len(sources), desc="reading", unit="image", verbose=verbose
        ) as bar,
        ThreadPoolExecutor(effective_n_jobs(n_jobs)) as pool,
    ):
        for start in range(0, len(sources), _READ_AHEAD):
            some = range(start, min(start + _READ_AHEAD, len(sources)))
            for _ in pool.map(read, some):
                bar.update()
    if failures:
        raise _all_failures(failures)
    content = b"".join(fingerprints)
    table = np.frombuffer(content, np.uint8).reshape(len(sources), -1)
    ids = np.unique(table, axis=0, return_inverse=True)[1].astype(np.int64)
    return ids, blake3(content).hexdigest()


def _all_failures(failures: dict[int, ImageReadError]) -> ImageReadError:
    """Return the first error, with the rows of all others in its hint."""
    row, *others = sorted(failures)
    first = failures[row]
    if not others:
        return first
    shown = [str(one) for one in others[:_ROWS_IN_ERROR]]
    more = ["..."] if len(others) > _ROWS_IN_ERROR else []
    hint = (
        f"{first.hint} {len(others)} more cannot be read, in rows "
        f"{', '.join(shown + more)}; sk_medsiglip.images.check_images(X) lists them."
    )
    return ImageReadError(first.reason, hint.strip(), source=first.source, row=row)


@contextmanager
def scratch_folder(settings: Settings, processes: Processes) -> Iterator[Path]:
    """Make a temporary folder on each machine, beside the run or the store."""
    near = settings.run_path.parent if settings.run_path else None
    near = near or runs_folder(settings.embedder.cache)
    made = ""
    try:
        if processes.is_first_here:
            made = str(make_private_folder(near))
    except OSError as error:
        raise RunFolderError(
            f"{str(near)!r} cannot be written ({error}). Pass another run_dir= or "
            "cache=."
        ) from error
    path = Path(processes.share(made, here=True))
    try:
        yield path
    finally:
        if processes.is_first_here:
            shutil.rmtree(path, ignore_errors=True)
