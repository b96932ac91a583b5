"""What a run must not forget keeps the scores that it gave the images."""

import json

import numpy as np
import pytest

from sk_medsiglip import MedSigLIPTextEmbedder
from sk_medsiglip.exceptions import PromptError
from sk_medsiglip.fine_tuning import MedSigLIPFineTuner

KEPT = ["a chest radiograph", "no abnormality", "a lateral view"]


@pytest.fixture
def make(make):
    """Return a maker of fine-tuners that run long enough to forget."""

    def tuner(**settings):
        given = {"max_steps": 12, "batch_size": 8, "learning_rate": 3e-3}
        return make(**(given | {"augment": None} | settings))

    return tuner


@pytest.fixture(scope="module")
def material():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (24, 28, 28), dtype=np.uint8)
    images[::2, :, 10:14] = 255
    return images, ["a bar" if i % 2 == 0 else "no bar" for i in range(24)]


def moved(tuner, images):
    """Return how far scores by kept texts have changed, by their spread."""
    before = tuner.base_embedder().set_params(normalize=True).transform(images)
    after = tuner.as_embedder().set_params(normalize=True).transform(images)
    told = {"normalize": True, "cache": False, "device": "cpu"}
    texts = MedSigLIPTextEmbedder(tuner.embedder.model, **told).transform(KEPT)
    new_texts = MedSigLIPTextEmbedder(tuner.as_embedder().model, **told).transform(KEPT)
    cosines = before @ texts.T
    change = (after @ new_texts.T - cosines) / cosines.std(axis=0)
    return float((change**2).mean())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"towers": "image"},
        {"towers": "text"},
        {"objective": "classification"},
        {"train": "last_blocks", "learning_rate": 1e-3},
    ],
    ids=["both", "image", "text", "classification", "last blocks"],
)
def test_what_is_kept_moves_far_less(make, material, settings):
    images, texts = material
    y = texts if settings.get("objective") is None else [t == "a bar" for t in texts]
    free = moved(make(**settings).fit(images, y), images)
    kept = moved(make(keep=KEPT, keep_weight=10.0, **settings).fit(images, y), images)
    assert kept < free / 3, (kept, free)


def test_more_texts_than_images_take_turns(make, material):
    images, texts = material
    many = [f"view number {i}" for i in range(30)]
    tuner = make(keep=many, keep_weight=10.0).fit(images, texts)
    same = make(keep=many, keep_weight=10.0).fit(images, texts)
    assert tuner.fingerprint_ == same.fingerprint_


def test_a_run_goes_on_and_its_record_holds_no_text(make, material, tmp_path):
    images, texts = material
    settings = {"keep": KEPT, "checkpoint_every": 4}
    whole = make(**settings).fit(images, texts)
    first = make(run_dir=tmp_path / "run", **settings)
    first.fit(images, texts)
    record = (tmp_path / "run" / "run.json").read_text("utf-8")
    assert json.loads(record)["facts"]["keep"]
    assert not any(text in record for text in KEPT)
    for checkpoint in (tmp_path / "run").glob("checkpoint-*"):
        if checkpoint.name == "checkpoint-12":
            (checkpoint / "complete.json").unlink()
    again = make(run_dir=tmp_path / "run", resume=True, **settings)
    assert again.fit(images, texts).fingerprint_ == whole.fingerprint_


def test_it_is_saved_and_loaded(make, material, tmp_path):
    images, texts = material
    tuner = make(keep={"view": {"positive": "a", "negative": "b"}}, max_steps=1)
    folder = tuner.fit(images, texts).save(tmp_path / "saved")
    assert MedSigLIPFineTuner.load(folder).keep == tuner.keep


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"keep": "a nodule"}, TypeError, "keep must be a list of texts.*'a nodule'"),
        ({"keep": ["a nodule", 3]}, TypeError, "got 3"),
        ({"keep": []}, ValueError, "keep is empty"),
        ({"keep": ["a nodule", " "]}, ValueError, "an empty text"),
        ({"keep": {"a": {"positive": "x"}}}, PromptError, "negative"),
        ({"keep": ["word " * 90]}, ValueError, "too long"),
        ({"keep": KEPT, "keep_weight": 0.0}, ValueError, "keep_weight"),
        (
            {"keep": KEPT, "train": "head", "objective": "classification"},
            ValueError,
            "Leave keep out",
        ),
    ],
)
def test_bad_input(make, material, monkeypatch, settings, error, told):
    monkeypatch.setattr(
        "sk_medsiglip.fine_tuning._training._train", None
    )  # nothing may be trained
    images, texts = material
    with pytest.raises(error, match=told):
        make(**settings).fit(images, texts)
