"""The same scores as transformers' own zero-shot pipeline, on the same checkpoint."""

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit

from sk_medsiglip import make_zero_shot_pipeline
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.encoder import DEMO_FOLDER

TEXTS = [
    "pleural effusion",
    "an enlarged heart",
    "no finding at all",
    "A Normal chest X-ray.",
]


@pytest.mark.parametrize("which", ["demo", "random"])
def test_sigmoids_are_those_of_transformers(which, make_checkpoint):
    import torch
    from transformers import pipeline
    from transformers.utils import logging

    folder = DEMO_FOLDER if which == "demo" else make_checkpoint(seed=3)
    logging.set_verbosity_error()
    theirs = pipeline(
        "zero-shot-image-classification",
        model=str(folder),
        image_processor=str(folder),
        dtype=torch.float32,
        device="cpu",
    )
    rng = np.random.default_rng(0)
    images = [
        *make_chest_phantoms(3, random_state=5).images,
        rng.integers(0, 256, (70, 130, 3), dtype=np.uint8),
    ]
    pictures = [Image.fromarray(image).convert("RGB") for image in images]
    expected = np.array(
        [
            [{a["label"]: a["score"] for a in answer}[text] for text in TEXTS]
            for answer in theirs(
                pictures, candidate_labels=TEXTS, hypothesis_template="{}"
            )
        ]
    )
    ours = make_zero_shot_pipeline(
        {i: text for i, text in enumerate(TEXTS)},
        model=folder,
        resize="processor",
        device="cpu",
        cache=False,
    ).fit(pictures)
    scores = expit(ours.decision_function(pictures))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    # Sigmoids of a random model are all near 0: there the relative error counts.
    np.testing.assert_allclose(scores, expected, rtol=1e-3)
    assert expected.max() > 2 * expected.min()
