"""Rows of phantoms for the audit's benchmark, with planted faults, computed once.

Each seed has phantoms of its own. A fault changes all of its pictures; a benchmark
takes the changed row of an image or the plain one, so the model sees an image once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.embedding import MedSigLIPEmbedder

Images = NDArray[np.uint8]


def block(side: int) -> Callable[[Images, int], Images]:
    """Return a fault: a white block of some pixels near the upper left corner."""

    def burn_in(images: Images, seed: int) -> Images:
        marked = images.copy()
        marked[:, 6 : 6 + side, 6 : 6 + side] = 255
        return marked

    return burn_in


def scanner(gamma: float, noise: float) -> Callable[[Images, int], Images]:
    """Return a fault: another scanner, with its own grey values and noise."""

    def expose(images: Images, seed: int) -> Images:
        rng = np.random.default_rng([seed, 1])
        grey = (images / 255.0) ** gamma + rng.normal(0, noise, images.shape)
        return np.rint(255 * np.clip(grey, 0, 1)).astype(np.uint8)

    return expose


FAULTS: dict[str, Callable[[Images, int], Images]] = {
    "plain": lambda images, seed: images,
    "block of 4 px": block(4),
    "block of 8 px": block(8),
    "block of 12 px": block(12),
    "strong scanner": scanner(1.6, 0.06),
    "scanner of gamma 1.2": scanner(1.2, 0.03),
    "scanner of gamma 1.05": scanner(1.05, 0.0),
}


def phantoms(seed: int, n_images: int = 1500) -> Bunch:
    """Return the phantoms of a seed."""
    return make_chest_phantoms(n_images, random_state=50_000 + seed)


def audit_rows(
    seed: int, fault: str = "plain", *, n_images: int = 1500, folder: Path
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.object_]]:
    """Return rows of a seed's phantoms with a fault, their findings and patients."""
    path = folder / f"{fault.replace(' ', '_')}-{seed}-{n_images}.npz"
    if not path.exists():
        drawn = phantoms(seed, n_images)
        images = FAULTS[fault](drawn.images, seed)
        X = MedSigLIPEmbedder("demo", cache=False).transform(images)
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(part, X=X, y=drawn.target, groups=drawn.groups.astype(str))
        part.replace(path)
    with np.load(path) as stored:
        return stored["X"], stored["y"], stored["groups"].astype(object)
