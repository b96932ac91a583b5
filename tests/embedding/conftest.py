"""Embedders of studies, and a count of the model's passes."""

import pytest

from sk_medsiglip import EmbeddingCache, MedSigLIPEmbedder, MedSigLIPVolumeEmbedder
from sk_medsiglip.encoder import Encoder


@pytest.fixture
def store(tmp_path):
    cache = EmbeddingCache(tmp_path / "store")
    yield cache
    cache.close()


@pytest.fixture
def embedder(checkpoint, store):
    return MedSigLIPEmbedder(checkpoint, device="cpu", cache=store, batch_size=8)


@pytest.fixture
def volumes(embedder):
    return MedSigLIPVolumeEmbedder(embedder)


@pytest.fixture
def passes(monkeypatch):
    """Record how many images each pass of the model holds."""
    counted = []
    original = Encoder.encode_images

    def encode_images(self, pixels):
        counted.append(len(pixels))
        return original(self, pixels)

    monkeypatch.setattr(Encoder, "encode_images", encode_images)
    return counted
