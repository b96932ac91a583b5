"""Embedding of images, shared by the commands."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.cli._collection import LabelledImages
from sk_medsiglip.cli._console import CommandError, bar, complain, in_shell
from sk_medsiglip.cli._splits import check_enough
from sk_medsiglip.embedding import (
    MedSigLIPEmbedder,
    MedSigLIPPatchEmbedder,
    plain_rows,
)
from sk_medsiglip.encoder import choose_device
from sk_medsiglip.exceptions import UnreadableImageWarning

AnyEmbedder = MedSigLIPEmbedder | MedSigLIPPatchEmbedder
#: Number of bags that are read at once, 150 MB for MedSigLIP with grid 8.
_PIECE = 512


@dataclass(frozen=True)
class EmbeddedImages:
    """Rows or bags of images, NaN for unreadable ones, and the cost."""

    X: Any
    readable: NDArray[np.bool_]
    passes: int
    seconds: float

    def remarks(self) -> list[str]:
        """Return a sentence on images that were left out, if there are any."""
        n_lost, n = int((~self.readable).sum()), len(self.readable)
        said = f"{n_lost:,} of {n:,} images cannot be read and are left out."
        return [said] if n_lost else []

    def summary(self) -> str:
        """Return a sentence on the cost."""
        n_from_cache = int(self.readable.sum()) - self.passes
        return (
            f"{len(self.X):,} images in {self.seconds:.1f} s: {self.passes:,} model "
            f"passes, {n_from_cache:,} rows from the cache."
        )


def count_passes(cache: EmbeddingCache) -> NDArray[np.int64]:
    """Return the numbers of model passes of images and texts, recorded by a cache."""
    stats = cache.stats()
    n_texts = sum(s["rows"] for s in stats["spaces"] if s["kind"] == "text")
    return np.array([stats["rows_computed"] - n_texts, n_texts])


def choose_cache(
    folder: Path | None, *, without: bool = False
) -> bool | EmbeddingCache:
    """Return the parameter ``cache`` for ``--cache`` and ``--no-cache``."""
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
    """Return ``model``, with an absolute path for a folder."""
    folder = Path(model).expanduser()
    is_folder = model != "demo" and folder.is_dir()
    return os.path.abspath(folder) if is_folder else model


def cut_into_parts(
    embedder: MedSigLIPEmbedder, grid: int, paths: list[str], **how: Any
) -> MedSigLIPPatchEmbedder:
    """Return a fitted embedder of the parts of images."""
    patches = MedSigLIPPatchEmbedder(embedder, grid=grid, verbose=bar(), **how)
    try:
        return patches.fit(paths)
    except ValueError as error:  # the grid does not divide the patches
        raise CommandError(in_shell(str(error))) from None


def image_embedder(step: AnyEmbedder) -> MedSigLIPEmbedder:
    """Return the embedder of images in the first step of a pipeline."""
    return step if isinstance(step, MedSigLIPEmbedder) else step.embedder_


def set_embedding(step: AnyEmbedder, **parameters: Any) -> None:
    """Set parameters of the embedder in a fitted first step of a pipeline."""
    image_embedder(step).set_params(**parameters)
    if isinstance(step, MedSigLIPPatchEmbedder):
        given = {f"embedder__{name}": value for name, value in parameters.items()}
        step.set_params(**(given if step.embedder is not None else {}))
        step.set_params(verbose=parameters["verbose"])


def embed_images(paths: list[str], embedder: AnyEmbedder) -> EmbeddedImages:
    """Embed files as rows or bags, and print those that cannot be read."""
    store = image_embedder(embedder).cache
    cache = store if isinstance(store, EmbeddingCache) else None
    before = 0 if cache is None else _count_images(cache, embedder)
    start = time.perf_counter()
    with warnings.catch_warnings():
        # They are printed below.
        warnings.simplefilter("ignore", UnreadableImageWarning)
        X: Any = plain_rows(embedder, paths)  # bags may stay in the store
    seconds = time.perf_counter() - start
    readable = _is_readable(X)
    if not readable.all():
        _report_unreadable(np.flatnonzero(~readable), paths)
    if not readable.any():
        raise CommandError("None of the images can be read.")
    passes = int(readable.sum())
    if cache is not None:
        passes = _count_images(cache, embedder) - before
    return EmbeddedImages(X, readable, passes, seconds)


def embed_labelled(
    data: LabelledImages, embedder: AnyEmbedder, purpose: str
) -> tuple[LabelledImages, Any]:
    """Embed labelled images; return the readable ones, and their rows or bags."""
    embedded = embed_images(data.collection.paths, embedder)
    kept = data.keep(embedded.readable)
    kept.remarks.extend(embedded.remarks())
    check_enough(kept, purpose)
    return kept, embedded.X[embedded.readable]


def _count_images(cache: EmbeddingCache, embedder: AnyEmbedder) -> int:
    """Return the number of images in a cache, of the kind that an embedder stores."""
    kind = "cells" if getattr(embedder, "grid", 1) > 1 else "image"
    return sum(s["rows"] for s in cache.stats()["spaces"] if s["kind"] == kind)


def _is_readable(X: Any) -> NDArray[np.bool_]:
    """Return a mask of rows or bags without NaN, reading bags in pieces."""
    pieces = (np.asarray(X[i : i + _PIECE]) for i in range(0, len(X), _PIECE))
    return np.concatenate(
        [np.isfinite(one).reshape(len(one), -1).all(axis=1) for one in pieces]
    )


def _report_unreadable(rows: NDArray[np.intp], paths: list[str]) -> None:
    named = "\n".join(f"  row {row}: {paths[row]}" for row in rows[:5])
    more = f"\n  and {rows.size - 5:,} more" if rows.size > 5 else ""
    complain(
        f"Warning: {rows.size:,} of {len(paths):,} images cannot be read:\n"
        f"{named}{more}\nFor the reasons: sk-medsiglip check",
        "yellow",
    )
