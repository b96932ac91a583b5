"""What the towers get: pixels and tokens, or what a tower that stays would give."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from sk_medsiglip.embedding import MedSigLIPTextEmbedder, plain_rows
from sk_medsiglip.encoder import Checkpoint
from sk_medsiglip.fine_tuning._adapter_files import runs_folder
from sk_medsiglip.fine_tuning._choices import needed_towers
from sk_medsiglip.fine_tuning._image_bank import (
    IN_MEMORY,
    ImageBank,
    forget_file,
    map_bank,
    read_bank,
)
from sk_medsiglip.fine_tuning._kept import Kept, measure_kept
from sk_medsiglip.fine_tuning._material import Material
from sk_medsiglip.fine_tuning._processes import Processes
from sk_medsiglip.fine_tuning._run_folder import RunFolderError
from sk_medsiglip.fine_tuning._scratch import make_scratch

if TYPE_CHECKING:
    from sk_medsiglip.fine_tuning._fine_tuner import MedSigLIPFineTuner

__all__ = ["Inputs", "read_inputs", "scratch_folder"]


@dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs of all rows.

    Parameters
    ----------
    pixels : ndarray of shape (n_samples, size, size, 3), uint8, or None
        None where the image tower stays as it is.
    image_vectors : ndarray of shape (n_samples, width), float32, or None
        What it gives then.
    image_ids : ndarray of shape (n_samples,), int64
        Equal numbers are equal pictures.
    text_vectors : ndarray of shape (n_texts, width), float32, or None
        What the text tower gives, where it stays as it is.
    digest : str
        Of the images.
    kept : Kept or None
        What is to stay as it is.
    """

    pixels: NDArray[np.uint8] | None
    image_vectors: NDArray[np.float32] | None
    image_ids: NDArray[np.int64]
    text_vectors: NDArray[np.float32] | None
    digest: str
    kept: Kept | None


def read_inputs(
    tuner: MedSigLIPFineTuner,
    material: Material,
    checkpoint: Checkpoint,
    scratch: Path,
    processes: Processes,
) -> Inputs:
    """Read all images, once; embed what will not change.

    Parameters
    ----------
    tuner : MedSigLIPFineTuner
    material : Material
    checkpoint : Checkpoint
        That is tuned.
    scratch : pathlib.Path
        Folder for what memory does not hold.
    processes : Processes
        Which share one file of pixels on each machine.

    Returns
    -------
    Inputs

    Raises
    ------
    ImageReadError
        If images cannot be read.
    """
    needed = needed_towers(tuner)
    text_vectors = None
    if material.pairs is not None and "text" not in needed:
        embedder = MedSigLIPTextEmbedder(
            tuner.model,
            revision=tuner.revision,
            device=tuner.device,
            cache=tuner.cache,
            verbose=tuner.verbose,
        )
        text_vectors = plain_rows(embedder, material.pairs.texts)
    kept = None
    if material.kept is not None:
        kept = measure_kept(tuner, material.sources, material.kept)
    if "image" not in needed:
        vectors = plain_rows(tuner.base_embedder(), material.sources)
        ids = np.unique(vectors, axis=0, return_inverse=True)[1].astype(np.int64)
        digest = blake3(vectors.tobytes()).hexdigest()
        return Inputs(None, vectors, ids, text_vectors, digest, kept)
    bank = _read_bank(tuner, material, checkpoint, scratch, processes)
    return Inputs(bank.pixels, None, bank.ids, text_vectors, bank.digest, kept)


def _read_bank(
    tuner: MedSigLIPFineTuner,
    material: Material,
    checkpoint: Checkpoint,
    scratch: Path,
    processes: Processes,
) -> ImageBank:
    """Read the images in the first process of each machine, for all of it."""
    size, n = checkpoint.image_size, len(material.sources)
    alone = processes.n == 1
    bank: ImageBank | None = None
    failure: Exception | None = None
    if processes.is_first_here:
        try:
            bank = read_bank(
                material.sources,
                tuner.reader(checkpoint),
                size,
                folder=scratch,
                in_memory=alone and n * size * size * 3 <= IN_MEMORY,
                is_shared=not alone,
                n_jobs=tuner.n_jobs,
                verbose=tuner.verbose,
            )
        except (ValueError, OSError) as error:
            if alone:
                raise
            failure = error
    if alone:
        assert bank is not None
        return bank
    known = None if bank is None else (bank.ids, bank.digest)
    known, failure = processes.share((known, failure), here=True)
    if failure is not None:
        raise failure
    assert known is not None
    bank = bank or map_bank(scratch, n, size, *known)
    processes.wait()
    if processes.is_first_here:
        forget_file(scratch)
    return bank


@contextmanager
def scratch_folder(tuner: MedSigLIPFineTuner, processes: Processes) -> Iterator[Path]:
    """Make a folder on each machine, for as long as the run lasts.

    Parameters
    ----------
    tuner : MedSigLIPFineTuner
        It lies beside its ``run_dir``, or its store.
    processes : Processes

    Yields
    ------
    pathlib.Path
    """
    near = runs_folder(tuner.cache)
    if tuner.run_dir is not None:
        near = Path(os.path.abspath(os.path.expanduser(tuner.run_dir))).parent
    made = ""
    if processes.is_first_here:
        try:
            made = str(make_scratch(near, "pixels"))
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
