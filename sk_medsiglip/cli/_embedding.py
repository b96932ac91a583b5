"""Embedding of images as every command does it."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.cli._collection import LabelledImages
from sk_medsiglip.cli._console import CommandError, complain
from sk_medsiglip.cli._splits import check_enough
from sk_medsiglip.embedding import MedSigLIPEmbedder, plain_rows
from sk_medsiglip.encoder import choose_device
from sk_medsiglip.exceptions import UnreadableImageWarning


@dataclass(frozen=True)
class EmbeddedImages:
    """Rows of images, NaN where one cannot be read, and the work for them."""

    X: NDArray[np.float32]
    readable: NDArray[np.bool_]
    passes: int
    seconds: float

    def remarks(self) -> list[str]:
        """Return a sentence on images that are left out, if there are any."""
        n_lost, n = int((~self.readable).sum()), len(self.readable)
        said = f"{n_lost:,} of {n:,} images cannot be read and are left out."
        return [said] if n_lost else []

    def summary(self) -> str:
        """Return a sentence on the work."""
        n_from_cache = int(self.readable.sum()) - self.passes
        return (
            f"{len(self.X):,} images in {self.seconds:.1f} s: {self.passes:,} model "
            f"passes, {n_from_cache:,} rows from the cache."
        )


def count_passes(cache: EmbeddingCache) -> NDArray[np.int64]:
    """Return the model passes of images and of texts that a cache has recorded."""
    stats = cache.stats()
    n_texts = sum(s["rows"] for s in stats["spaces"] if s["kind"] == "text")
    return np.array([stats["rows_computed"] - n_texts, n_texts])


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
    """Embed files, and name those that cannot be read."""
    cache = embedder.cache if isinstance(embedder.cache, EmbeddingCache) else None
    before = None if cache is None else count_passes(cache)
    start = time.perf_counter()
    with warnings.catch_warnings():
        # They are named below, in the terms of a terminal.
        warnings.simplefilter("ignore", UnreadableImageWarning)
        X = plain_rows(embedder, paths)
    seconds = time.perf_counter() - start
    readable = np.asarray(np.isfinite(X).all(axis=1))
    if not readable.all():
        _report_unreadable(np.flatnonzero(~readable), paths)
    if not readable.any():
        raise CommandError("None of the images can be read.")
    passes = int(readable.sum())
    if cache is not None and before is not None:
        passes = int((count_passes(cache) - before)[0])
    return EmbeddedImages(X, readable, passes, seconds)


def embed_labelled(
    data: LabelledImages, embedder: MedSigLIPEmbedder, purpose: str
) -> tuple[LabelledImages, NDArray[np.float32]]:
    """Embed labelled images; return those that can be read, and their rows."""
    embedded = embed_images(data.collection.paths, embedder)
    kept = data.keep(embedded.readable)
    kept.remarks.extend(embedded.remarks())
    check_enough(kept, purpose)
    return kept, embedded.X[embedded.readable]


def _report_unreadable(rows: NDArray[np.intp], paths: list[str]) -> None:
    named = "\n".join(f"  row {row}: {paths[row]}" for row in rows[:5])
    more = f"\n  and {rows.size - 5:,} more" if rows.size > 5 else ""
    complain(
        f"Warning: {rows.size:,} of {len(paths):,} images cannot be read:\n"
        f"{named}{more}\nsk-medsiglip check says why.",
        "yellow",
    )
