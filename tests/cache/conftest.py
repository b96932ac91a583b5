"""A store in a folder of its own."""

import pytest

from sk_medsiglip.cache import EmbeddingCache


@pytest.fixture
def location(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def cache(location):
    cache = EmbeddingCache(location)
    yield cache
    cache.close()
