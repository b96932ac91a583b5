"""What ``demo``, ``embed`` and ``zero-shot`` share when they embed images."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.cli._console import complain
from sk_medsiglip.cli._errors import CommandError
from sk_medsiglip.embedding import MedSigLIPEmbedder, plain_rows
from sk_medsiglip.encoder import choose_device
from sk_medsiglip.exceptions import UnreadableImageWarning

__all__ = [
    "EmbeddedImages",
    "Passes",
    "check_device",
    "choose_cache",
    "embed_images",
    "local_model",
]


@dataclass(frozen=True)
class Passes:
    """Model passes that a store has recorded: images and texts."""

    images: int
    texts: int

    @classmethod
    def so_far(cls, cache: EmbeddingCache) -> Passes:
        """Return the passes of everybody who ever used the store."""
        stats = cache.stats()
        texts = sum(s["rows"] for s in stats["spaces"] if s["kind"] == "text")
        return cls(stats["rows_computed"] - texts, texts)

    def __sub__(self, earlier: Passes) -> Passes:
        return Passes(self.images - earlier.images, self.texts - earlier.texts)


@dataclass(frozen=True)
class EmbeddedImages:
    """What :func:`embed_images` returns.

    Parameters
    ----------
    X : ndarray of shape (n_images, embedding_dim)
        NaN where an image cannot be read.
    readable : ndarray of bool
        Which rows are not NaN.
    passes : int
        Images that went through the model.
    seconds : float
        Time that it took.
    """

    X: NDArray[np.float32]
    readable: NDArray[np.bool_]
    passes: int
    seconds: float

    def remarks(self) -> list[str]:
        """Return how many images are left out, as a sentence if there are any."""
        n_lost, n = int((~self.readable).sum()), len(self.readable)
        said = f"{n_lost:,} of {n:,} images cannot be read and are left out."
        return [said] if n_lost else []

    @property
    def from_cache(self) -> int:
        """Rows that no model pass was needed for."""
        return int(self.readable.sum()) - self.passes


def choose_cache(
    folder: Path | None, *, without: bool = False
) -> bool | EmbeddingCache:
    """Return the embedders' ``cache`` for ``--cache`` and ``--no-cache``."""
    if without:
        if folder is not None:
            raise CommandError("--cache and --no-cache contradict each other.")
        return False
    return EmbeddingCache(folder)


def check_device(device: str) -> None:
    """Raise if this machine has no such device."""
    try:
        choose_device(device)
    except ValueError as error:
        raise CommandError(f"--device: {error}") from None


def local_model(model: str) -> str:
    """Return ``model``, a folder as an absolute path: pickles may travel."""
    folder = Path(model).expanduser()
    is_folder = model != "demo" and folder.is_dir()
    return os.path.abspath(folder) if is_folder else model


def embed_images(paths: list[str], embedder: MedSigLIPEmbedder) -> EmbeddedImages:
    """Embed files; unreadable ones are reported, not hidden.

    Parameters
    ----------
    paths : list of str
        The files.
    embedder : MedSigLIPEmbedder
        Its ``on_error`` decides about unreadable files.

    Returns
    -------
    EmbeddedImages

    Raises
    ------
    CommandError
        If none can be read.
    """
    cache = embedder.cache if isinstance(embedder.cache, EmbeddingCache) else None
    before = Passes.so_far(cache) if cache is not None else None
    start = time.perf_counter()
    with warnings.catch_warnings():
        # Said below, in the terms of a terminal.
        warnings.simplefilter("ignore", UnreadableImageWarning)
        X = plain_rows(embedder, paths)
    seconds = time.perf_counter() - start
    readable = np.asarray(np.isfinite(X).all(axis=1))
    if not readable.all():
        _report_unreadable(np.flatnonzero(~readable), paths)
    if not readable.any():
        raise CommandError("None of the images can be read.")
    if cache is None or before is None:
        passes = int(readable.sum())
    else:
        passes = (Passes.so_far(cache) - before).images
    return EmbeddedImages(X, readable, passes, seconds)


def _report_unreadable(rows: NDArray[np.intp], paths: list[str]) -> None:
    named = "\n".join(f"  row {row}: {paths[row]}" for row in rows[:5])
    more = f"\n  and {rows.size - 5:,} more" if rows.size > 5 else ""
    complain(
        f"Warning: {rows.size:,} of {len(paths):,} images cannot be read:\n"
        f"{named}{more}\nsk_medsiglip.images.check_images(paths) says why.",
        "yellow",
    )
