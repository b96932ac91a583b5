"""Classifiers on the small random checkpoint."""

import pytest

from sk_medsiglip import ZeroShotClassifier


@pytest.fixture
def make(checkpoint, shared_store):
    def make(prompts, **params):
        return ZeroShotClassifier(
            prompts, model=checkpoint, device="cpu", cache=shared_store, **params
        )

    return make
