"""Draw the training images once, on all cores."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np

from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.datasets._findings import FACTS

CHUNK = 1000
PREVALENCE = 0.28

# Share of the slightest findings that the training reports miss: they deny what is
# there. So prompts know less than the pictures show, and labels can teach the rest,
# as they can with real reports.
MISSED = 0.5


class Pool(NamedTuple):
    """Images with what is true of them and where it lies."""

    images: np.ndarray  # (n, 128, 128) uint8
    facts: np.ndarray  # (n, n_facts) int8
    coverage: np.ndarray  # (n, 64, n_findings) uint8: share of each patch, 0 to 255


def draw_pool(n_images: int, seed: int, n_workers: int = 2) -> Pool:
    """Draw ``n_images`` phantoms, one view a patient."""
    chunks = [
        (min(CHUNK, n_images - start), seed + start)
        for start in range(0, n_images, CHUNK)
    ]
    # Spawned: a forked child would inherit torch's threads.
    context = get_context("spawn")
    with ProcessPoolExecutor(n_workers, mp_context=context) as workers:
        parts = list(workers.map(_draw_chunk, chunks))
    return Pool(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _draw_chunk(task: tuple[int, int]) -> Pool:
    n_images, seed = task
    bunch = make_chest_phantoms(
        n_images,
        views_per_patient=1,
        prevalence=PREVALENCE,
        return_masks=True,
        random_state=seed,
    )
    count, n_findings, size, _ = bunch.masks.shape
    grid = size // 16
    shares = bunch.masks.reshape(count, n_findings, grid, 16, grid, 16).mean((3, 5))
    coverage = (255 * shares).reshape(count, n_findings, grid * grid).astype(np.uint8)
    facts = overlook(bunch.facts.to_numpy(copy=True), np.random.default_rng([seed, 1]))
    return Pool(bunch.images, facts, coverage.transpose(0, 2, 1))


def overlook(facts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn a share of the barely visible findings into denied ones."""
    names = [fact.removesuffix("_sign") for fact in FACTS if fact.endswith("_sign")]
    for name in names:
        sign = FACTS.index(f"{name}_sign")
        family = [i for i, fact in enumerate(FACTS) if fact.startswith(name)]
        missed = (facts[:, sign] == 1) & (rng.random(len(facts)) < MISSED)
        facts[np.ix_(missed, family)] = 0
        facts[missed, sign] = -1
    heads = [FACTS.index(name) for name in names]
    facts[(facts[:, heads] == 0).all(axis=1), FACTS.index("normal")] = 1
    return facts
