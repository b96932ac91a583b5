"""Images that are prepared elsewhere have the rows of ``transform``."""

import numpy as np
import pytest

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.embedding import PreparedImages, find_facts, prepare_image


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("is_stored", [False, True])
def test_rows_are_those_of_transform(normalize, is_stored, tmp_path):
    images = list(make_chest_phantoms(20, random_state=0).images)
    cache = tmp_path if is_stored else False
    embedder = MedSigLIPEmbedder("demo", normalize=normalize, cache=cache)
    facts = find_facts("demo")
    pixels = np.stack([prepare_image(embedder, facts, one) for one in images])
    encode = PreparedImages(embedder)
    assert encode.n_threads >= 1
    first, again = encode(pixels), encode(pixels[::-1].copy())
    np.testing.assert_allclose(first, embedder.transform(images), atol=1e-5)
    np.testing.assert_allclose(again, first[::-1], atol=1e-5)
    assert first.dtype == np.float32
