"""All images of a collection, read once, before the first step.

Decoding a file in every epoch would cost more than many a step, and a broken one would
be met in the middle of the night.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from joblib import effective_n_jobs
from numpy.typing import NDArray

from sk_medsiglip._progress import progress_bar
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.fine_tuning._run_folder import RunFolderError
from sk_medsiglip.images import image_fingerprint

__all__ = ["IN_MEMORY", "ImageBank", "forget_file", "map_bank", "read_bank"]

#: Bytes up to which pixels stay in memory: 1,783 images at 448 px. More are written to
#: a file that is mapped: 602 kB an image.
IN_MEMORY = 1 << 30

_ROWS_IN_ERROR = 5
_FILE = "pixels.u8"

# Images that are read between two looks at the results.
_READ_AHEAD = 64


@dataclass(frozen=True, eq=False)
class ImageBank:
    """Pixels of a collection.

    Parameters
    ----------
    pixels : ndarray of shape (n_samples, size, size, 3), uint8
        In memory, or a file that is mapped.
    ids : ndarray of shape (n_samples,), int64
        Equal numbers are equal pictures.
    digest : str
        Of all pictures, in order.
    """

    pixels: NDArray[np.uint8]
    ids: NDArray[np.int64]
    digest: str


def read_bank(
    sources: Sequence[Any],
    prepare: Callable[[Any], NDArray[np.uint8]],
    size: int,
    *,
    folder: Path | None,
    in_memory: bool,
    is_shared: bool = False,
    n_jobs: int | None,
    verbose: int | bool,
) -> ImageBank:
    """Read every image, or say which cannot be read.

    Parameters
    ----------
    sources : sequence
        Images, as :class:`~sk_medsiglip.MedSigLIPEmbedder` takes them.
    prepare : callable
        From a source to its pixels at the model's size.
    size : int
        That size, in px.
    folder : pathlib.Path or None
        Where the file of pixels may lie.
    in_memory : bool
        Whether the file can be skipped.
    is_shared : bool, default=False
        Whether other processes map the file; else it loses its name at once.
    n_jobs : int or None
        Threads that read.
    verbose : int
        Over 0 shows a progress bar.

    Returns
    -------
    ImageBank

    Raises
    ------
    ImageReadError
        If images cannot be read: names the first and the rows of others.
    RunFolderError
        If the disk does not hold the pixels.
    """
    shape = (len(sources), size, size, 3)
    pixels: NDArray[np.uint8]
    if in_memory or folder is None:
        pixels = np.empty(shape, np.uint8)
    else:
        _check_space(folder, int(np.prod(shape, dtype=np.int64)))
        pixels = np.memmap(folder / _FILE, np.uint8, "w+", shape=shape)
        if not is_shared:
            forget_file(folder)
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
            len(sources), desc="reading", unit="image", verbose=int(verbose)
        ) as bar,
        ThreadPoolExecutor(effective_n_jobs(n_jobs)) as pool,
    ):
        for start in range(0, len(sources), _READ_AHEAD):
            some = range(start, min(start + _READ_AHEAD, len(sources)))
            for _ in pool.map(read, some):
                bar.update()
    if failures:
        raise _unreadable(failures)
    _, ids = np.unique(
        np.frombuffer(b"".join(fingerprints), np.uint8).reshape(len(sources), -1),
        axis=0,
        return_inverse=True,
    )
    return ImageBank(
        pixels, ids.astype(np.int64), blake3(b"".join(fingerprints)).hexdigest()
    )


def map_bank(
    folder: Path, n_samples: int, size: int, ids: NDArray[np.int64], digest: str
) -> ImageBank:
    """Return the bank that another process of this machine has read."""
    pixels = np.memmap(folder / _FILE, np.uint8, "r", shape=(n_samples, size, size, 3))
    return ImageBank(pixels, ids, digest)


def forget_file(folder: Path) -> None:
    """Take its name from a file of pixels that is mapped: it ends with its processes.

    Windows cannot; there the folder is removed by the next run.
    """
    if os.name == "posix":
        (folder / _FILE).unlink()


def _unreadable(failures: dict[int, ImageReadError]) -> ImageReadError:
    rows = sorted(failures)
    first = failures[rows[0]]
    if len(rows) == 1:
        return first
    others = rows[1:]
    named = ", ".join(map(str, others[:_ROWS_IN_ERROR]))
    more = ", ..." if len(others) > _ROWS_IN_ERROR else ""
    hint = (
        f"{first.hint} {len(others)} more cannot be read, in rows {named}{more}; "
        "sk_medsiglip.images.check_images(X) lists them all and which to keep."
    )
    return ImageReadError(first.reason, hint.strip(), source=first.source, row=rows[0])


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunFolderError(
            f"The pixels of all images take {needed / 1e9:.1f} GB, and the disk of "
            f"{str(folder)!r} has {free / 1e9:.1f} GB left. Free some, or choose "
            "another disk with run_dir=."
        )
