"""Fixtures: one thread, small pictures with texts, and quick fine-tuners."""

import numpy as np
import pytest

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.fine_tuning import MedSigLIPFineTuner

OF_EMBEDDER = {"model", "cache", "device", "intensity"}


@pytest.fixture(autouse=True, scope="module")
def on_one_thread(one_thread):
    """Train on one thread."""


@pytest.fixture
def make(checkpoint, tmp_path):
    """Return a maker of small, quick fine-tuners with a store of their own."""

    def tuner(**settings):
        given = {
            "model": checkpoint,
            "max_steps": 2,
            "batch_size": 6,
            "random_state": 0,
            "cache": tmp_path / "store",
            "device": "cpu",
        } | settings
        embedder = {name: given.pop(name) for name in OF_EMBEDDER & given.keys()}
        return MedSigLIPFineTuner(MedSigLIPEmbedder(**embedder), **given)

    return tuner


@pytest.fixture(scope="session")
def bars():
    """Pictures of bars: upright or lying, bright or dark."""
    rng = np.random.default_rng(0)
    images = rng.normal(60, 10, (48, 28, 28))
    upright, bright = rng.random((2, 48)) < 0.5
    for image, up, strong in zip(images, upright, bright, strict=True):
        place = rng.integers(4, 20)
        bar = np.s_[:, place : place + 4] if up else np.s_[place : place + 4, :]
        image[bar] += 150 if strong else 60
    images = np.clip(images, 0, 255).astype(np.uint8)
    texts = [
        f"a {'bright' if strong else 'dark'} {'upright' if up else 'lying'} bar"
        for up, strong in zip(upright, bright, strict=True)
    ]
    return images, texts, upright.astype(int), bright.astype(int)
