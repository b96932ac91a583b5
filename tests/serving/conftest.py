"""A fitted classifier of drawn images."""

import pytest
from sklearn.pipeline import make_pipeline

from sk_medsiglip import LinearProbe, MedSigLIPEmbedder
from sk_medsiglip.datasets import make_chest_phantoms


@pytest.fixture(scope="session")
def drawn():
    """Drawn images with findings; do not change them."""
    return make_chest_phantoms(60, random_state=0)


@pytest.fixture(scope="session")
def rows(drawn):
    return MedSigLIPEmbedder("demo").transform(drawn.images)


@pytest.fixture(scope="session")
def probe(drawn):
    """A fitted pipeline of three findings; do not change it."""
    pipeline = make_pipeline(MedSigLIPEmbedder("demo"), LinearProbe(Cs=[1.0]))
    return pipeline.fit(list(drawn.images), drawn.target[:, :3])
