"""MedSigLIPFineTuner from images and texts, or classes, to a tuned encoder."""

import copy
import json
import pickle
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from children import start
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from sk_medsiglip import (
    MedSigLIPEmbedder,
    MedSigLIPTextEmbedder,
    ZeroShotClassifier,
)
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.encoder import load_encoder
from sk_medsiglip.fine_tuning import Augmentation, MedSigLIPFineTuner

# ------------------------------------------------------------------- end to end


def test_a_tuned_encoder_is_an_encoder_like_any_other(make, bars, tmp_path):
    images, texts, *_ = bars
    tuner = make().fit(images, texts)
    assert tuner.history_["step"].tolist() == [1, 2]
    assert np.isfinite(tuner.history_["loss"]).all()
    before = tuner.base_embedder().transform(images)
    after = tuner.transform(images)
    assert after.shape == before.shape
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_array_equal(tuner.as_embedder().transform(images), after)

    folder = tuner.save(tmp_path / "saved")
    np.testing.assert_array_equal(
        MedSigLIPEmbedder(folder, cache=False, device="cpu").transform(images), after
    )
    text = MedSigLIPTextEmbedder(folder, cache=False, device="cpu").transform(texts)
    same = MedSigLIPTextEmbedder(tuner.embedder.model, cache=False, device="cpu")
    assert np.abs(text - same.transform(texts)).max() > 1e-3
    prompts = {"up": ["an upright bar"], "down": ["a lying bar"]}
    zero_shot = ZeroShotClassifier(prompts, model=folder, device="cpu").fit(after)
    assert zero_shot.predict_proba(after).shape == (48, 2)


def test_contrastive_training_teaches_words(bars):
    """The demonstration checkpoint, from chance to knowing which way bars lie."""
    images, _, upright, _ = bars
    big = np.kron(images, np.ones((1, 4, 4), np.uint8))
    prompts = {"up": ["upright bar"], "down": ["lying bar"]}
    y = np.where(upright == 1, "up", "down")

    def area(model, embed):
        zero_shot = ZeroShotClassifier(prompts, model=model).fit(embed)
        return roc_auc_score(upright, zero_shot.predict_proba(embed)[:, 1])

    tuner = MedSigLIPFineTuner(
        MedSigLIPEmbedder("demo"),
        prompts=prompts,
        towers="image",
        epochs=4,
        batch_size=12,
        learning_rate=3e-3,
        augment=None,
        random_state=0,
    ).fit(big[:36], y[:36])
    embedder = tuner.as_embedder()
    held_out = slice(36, None)
    before = area("demo", MedSigLIPEmbedder("demo").transform(big))
    after = tuner.transform(big)
    assert before < 0.75
    assert area(embedder.model, after) > 0.95
    zero_shot = ZeroShotClassifier(prompts, model=embedder.model).fit(after)
    scores = zero_shot.predict_proba(after[held_out])[:, 1]
    assert roc_auc_score(upright[held_out], scores) > 0.9


def test_classification_by_an_adapter_and_its_layer(make, bars):
    images, _, upright, bright = bars
    y = np.where(upright == 1, "up", "down")
    tuner = make(
        objective="classification", max_steps=50, batch_size=12, learning_rate=8e-3
    ).fit(images, y)
    assert tuner.classes_.tolist() == ["down", "up"]
    assert tuner.coef_.shape == (1, 32)
    proba = tuner.predict_proba(images)
    assert proba.shape == (48, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert tuner.decision_function(images).shape == (48,)
    assert (tuner.predict(images) == tuner.classes_[proba.argmax(axis=1)]).all()
    assert tuner.score(images, y) > 0.9
    assert is_classifier(tuner)
    # What was trained is what answers: the network's own last loss.
    again = -np.log(proba[np.arange(48), (y == "up").astype(int)]).mean()
    assert again < tuner.history_["loss"].iloc[0] / 2


def test_three_classes_and_their_weights(make, bars):
    images, _, upright, bright = bars
    y = upright + bright
    tuner = make(
        objective="classification",
        epochs=4,
        max_steps=None,
        pos_weight="balanced",
        validation_fraction=0.25,
    ).fit(images, y)
    assert tuner.predict_proba(images).shape == (48, 3)
    np.testing.assert_allclose(tuner.predict_proba(images).sum(axis=1), 1)
    assert set(tuner.predict(images)) <= {0, 1, 2}
    assert tuner.history_["validation_auc"].notna().sum() >= 1
    # The layer starts at nothing: equal chances of three, whatever the weights.
    assert tuner.history_["loss"].iloc[0] == pytest.approx(np.log(3), rel=1e-5)


@pytest.mark.parametrize("classes", [False, True])
def test_passes_of_a_step_are_weighed_by_what_is_known(make, bars, classes):
    images, _, upright, bright = bars
    y = pd.DataFrame({"upright": upright, "bright": bright}, dtype=float)
    y.iloc[5:, 0] = np.nan
    y.iloc[9:, 1] = np.nan
    settings = {"pos_weight": [3.0, 1.0]}
    if classes:
        # With three classes the weights of the rows differ from pass to pass.
        y, settings = upright + bright, {"pos_weight": [9.0, 1.0, 0.2]}
    settings |= {"objective": "classification", "train": "head", "max_steps": 2}
    at_once = make(batch_size=48, **settings).fit(images, y)
    in_parts = make(batch_size=6, accumulate=8, **settings).fit(images, y)
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(
            in_parts.history_[name], at_once.history_[name], rtol=1e-5
        )
    np.testing.assert_allclose(in_parts.coef_, at_once.coef_, atol=1e-6)


def test_several_labels_with_blanks(make, bars):
    images, _, upright, bright = bars
    y = pd.DataFrame({"upright": upright, "bright": bright}, dtype=float)
    y.iloc[::5, 0] = np.nan
    tuner = make(
        objective="classification",
        max_steps=50,
        batch_size=12,
        learning_rate=8e-3,
        pos_weight=[2.0, 1.0],
    ).fit(images, y)
    assert tuner.classes_.tolist() == [[0, 1], [0, 1]]
    proba = tuner.predict_proba(images)
    assert proba.shape == tuner.predict(images).shape == (48, 2)
    assert roc_auc_score(upright, proba[:, 0]) > 0.9
    assert roc_auc_score(bright, proba[:, 1]) > 0.9


def test_blanks_teach_nothing(make, bars):
    """What stands in a blank cannot matter: a fit with the rows' labels hidden."""
    images, _, upright, bright = bars
    y = np.column_stack([upright, bright]).astype(float)
    y[10:, 0] = np.nan
    tuner = make(objective="classification", max_steps=4).fit(images, y)
    network_loss = tuner.history_["loss"].iloc[0]
    # At equal chances each known answer costs log 2, however many are known.
    assert network_loss == pytest.approx(np.log(2), rel=1e-5)


def test_a_head_alone_embeds_once_and_leaves_the_encoder(make, bars, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("images were read for a run that needs their rows only")

    monkeypatch.setattr("sk_medsiglip.fine_tuning._inputs.read_pixels", refuse)
    images, _, upright, _ = bars
    tuner = make(
        objective="classification", train="head", max_steps=80, learning_rate=0.1
    ).fit(images, upright)
    assert tuner.fingerprint_ == tuner.base_revision_
    assert tuner.n_trained_ == 33
    np.testing.assert_array_equal(
        tuner.transform(images), tuner.base_embedder().transform(images)
    )
    loss = tuner.history_["loss"]
    assert loss[-10:].mean() < 0.8 * loss[:10].mean()
    assert len(pickle.dumps(tuner)) < 50_000


def test_a_head_alone_takes_the_logistic_regressions_step(make, bars):
    """Adam's first step is the sign of the gradient, which is known by hand."""
    images, _, upright, _ = bars
    tuner = make(
        objective="classification",
        train="head",
        max_steps=1,
        batch_size=48,
        learning_rate=0.01,
        warmup=0,
        schedule="constant",
    ).fit(images, upright)
    rows = tuner.transform(images).astype(np.float64)
    rows *= 32**0.5 / np.linalg.norm(rows, axis=1, keepdims=True)
    gradient = rows.T @ (0.5 - upright) / 48
    np.testing.assert_allclose(tuner.coef_[0], -0.01 * np.sign(gradient), rtol=1e-3)
    norm = np.sqrt(np.sum(gradient**2) + np.mean(0.5 - upright) ** 2)
    assert tuner.history_["gradient_norm"].iloc[0] == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("train", ["last_blocks", "head", "full"])
def test_whole_weights_are_saved_but_not_pickled(make, bars, tmp_path, train):
    images, texts, *_ = bars
    tuner = make(train=train, n_blocks=1, learning_rate=1e-3).fit(images, texts)
    after = tuner.transform(images)
    assert np.abs(after - tuner.base_embedder().transform(images)).max() > 1e-4
    with pytest.raises(TypeError, match=r"save\(path\)"):
        pickle.dumps(tuner)
    folder = tuner.save(tmp_path / "saved")
    # The store's own folder of adapters is not what the saved one lives by.
    shutil.rmtree(tmp_path / "store")
    loaded = MedSigLIPFineTuner.load(folder).set_params(
        embedder__cache=tmp_path / "other"
    )
    np.testing.assert_array_equal(loaded.transform(images), after)
    merged = loaded.merge(tmp_path / "merged")
    np.testing.assert_allclose(
        MedSigLIPEmbedder(merged, cache=False, device="cpu").transform(images),
        after,
        atol=1e-5,
    )
    with pytest.raises(Exception, match="longer in"):
        tuner.transform(images)


def test_one_tower_alone(make, bars):
    images, texts, *_ = bars
    image_only = make(towers="image").fit(images, texts)
    text_only = make(towers="text").fit(images, texts)

    def vectors(model):
        text = MedSigLIPTextEmbedder(model, cache=False, device="cpu")
        return MedSigLIPEmbedder(model, cache=False, device="cpu").transform(
            images
        ), text.transform(texts)

    base = vectors(image_only.embedder.model)
    for tuner, changed in ((image_only, (True, False)), (text_only, (False, True))):
        now = vectors(tuner.as_embedder().model)
        for tower in range(2):
            difference = np.abs(now[tower] - base[tower]).max()
            assert (difference > 1e-4) == changed[tower]


def test_vectors_computed_once_train_as_the_tower_itself_does(make, bars):
    """The tower that stays gives the same vectors in every step: only faster."""
    images, texts, *_ = bars
    quick = make(towers="text").fit(images, texts)
    still = Augmentation(rotation=0, shift=0, scale=0, brightness=0, contrast=0)
    slow = make(towers="text", augment=still).fit(images, texts)
    np.testing.assert_allclose(quick.history_["loss"], slow.history_["loss"], rtol=1e-5)


def test_accumulated_passes_make_one_step(make, bars):
    """Two passes of a classifier's rows are the step of both together."""
    images, _, upright, _ = bars
    settings = {"objective": "classification", "augment": None, "max_steps": 2}
    whole = make(batch_size=8, **settings).fit(images, upright)
    parts = make(batch_size=4, accumulate=2, **settings).fit(images, upright)
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(
        parts.history_["loss"], whole.history_["loss"], rtol=1e-5
    )


@pytest.mark.parametrize(
    "settings",
    [{}, {"towers": "text"}, {"objective": "classification"}],
    ids=["both towers", "text", "classification"],
)
def test_gradient_checkpointing_changes_nothing_but_memory(make, bars, settings):
    images, texts, upright, _ = bars
    y = upright if "objective" in settings else texts
    plain = make(**settings).fit(images, y)
    saving = make(gradient_checkpointing=True, **settings).fit(images, y)
    np.testing.assert_allclose(
        saving.history_["loss"], plain.history_["loss"], rtol=1e-6
    )
    assert saving.history_["gradient_norm"].iloc[-1] == pytest.approx(
        plain.history_["gradient_norm"].iloc[-1], rel=1e-4
    )


def test_bfloat16_is_near_and_a_later_run_is_in_float32_again(make, bars):
    images, texts, *_ = bars
    plain = make().fit(images, texts)
    rough = make(bf16=True).fit(images, texts)
    after = make().fit(images, texts)
    losses = rough.history_["loss"].to_numpy(), plain.history_["loss"].to_numpy()
    np.testing.assert_allclose(*losses, rtol=0.05)
    assert (losses[0] != losses[1]).any()
    np.testing.assert_array_equal(after.history_["loss"], plain.history_["loss"])


def test_several_texts_an_image(make, bars):
    images, texts, *_ = bars
    several = [[text, text.split()[1] + " bar"] for text in texts]
    tuner = make(max_steps=None, epochs=2).fit(images, several)
    assert np.isfinite(tuner.history_["loss"]).all()
    once = make(max_steps=None, epochs=2).fit(images, texts)
    assert (tuner.history_["loss"] != once.history_["loss"]).any()


# ------------------------------------------------------- seeds, schedules, validation


def test_equal_seeds_make_equal_runs(make, bars):
    images, texts, *_ = bars
    one, two = (make(lora_dropout=0.1).fit(images, texts) for _ in range(2))
    pd.testing.assert_frame_equal(one.history_, two.history_)
    assert one.fingerprint_ == two.fingerprint_
    other = make(lora_dropout=0.1, random_state=1).fit(images, texts)
    assert other.fingerprint_ != one.fingerprint_


def test_a_run_leaves_the_process_as_it_was(make, bars):
    images, texts, *_ = bars
    from transformers.utils import logging

    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    expected = random.random(), np.random.random(), torch.rand(1).item()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    level = logging.get_verbosity()
    make().fit(images, texts)
    assert (random.random(), np.random.random(), torch.rand(1).item()) == expected
    assert logging.get_verbosity() == level


def test_nothing_is_printed_unless_asked(make, bars, capfd):
    images, texts, *_ = bars
    make(validation_fraction=0.3).fit(images, texts)
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err == ""
    make(verbose=1).fit(images, texts)
    told = capfd.readouterr()
    assert told.out == ""
    assert "fine-tuning" in told.err
    assert "loss=" in told.err


def test_the_rate_rises_then_falls(make, bars):
    images, texts, *_ = bars
    tuner = make(max_steps=10, warmup=0.3, learning_rate=0.01).fit(images, texts)
    rate = tuner.history_["learning_rate"].to_numpy()
    assert rate.argmax() == 3
    assert rate[3] == pytest.approx(0.01)
    assert (np.diff(rate[:4]) > 0).all()
    assert (np.diff(rate[3:]) < 0).all()
    flat = make(max_steps=6, warmup=0, schedule="constant", learning_rate=0.01)
    assert set(flat.fit(images, texts).history_["learning_rate"]) == {0.01}


def test_patients_do_not_cross_and_the_best_weights_are_kept(make, bars):
    images, texts, *_ = bars
    patients = np.repeat(np.arange(12), 4)
    tuner = make(
        epochs=30,
        max_steps=None,
        learning_rate=0.05,
        validation_fraction=0.25,
        patience=2,
    ).fit(images, texts, groups=patients)
    inside = tuner.validation_rows_
    assert len(inside) == 12
    assert not set(patients[inside]) & set(np.delete(patients, inside))
    judged = tuner.history_.dropna(subset=["validation_loss"])
    best = judged.loc[judged["validation_loss"].idxmin(), "step"]
    assert tuner.best_step_ == best
    # Steps this large overshoot: it stops after two looks without a better loss.
    assert tuner.n_steps_ < 30 * 6
    assert len(judged) - 1 - judged["validation_loss"].to_numpy().argmin() == 2


def test_kept_weights_have_the_loss_that_was_measured(make, bars):
    """The classifier that answers is that of the best look, not of the last step."""
    images, _, upright, _ = bars
    tuner = make(
        objective="classification",
        epochs=6,
        max_steps=None,
        learning_rate=0.03,
        validation_fraction=0.25,
        patience=None,
    ).fit(images, upright)
    judged = tuner.history_.dropna(subset=["validation_loss"])
    assert judged["step"].iloc[-1] == tuner.n_steps_
    rows = tuner.validation_rows_
    proba = tuner.predict_proba(images[rows])[np.arange(len(rows)), upright[rows]]
    assert -np.log(proba).mean() == pytest.approx(
        judged["validation_loss"].min(), rel=1e-4
    )


# -------------------------------------------------------------- what is kept, and how


def test_embeddings_are_stored_under_base_and_adapter(make, bars, tmp_path):
    images, texts, *_ = bars
    tuner = make().fit(images, texts)
    store = EmbeddingCache(tmp_path / "store")
    tuner.transform(images)
    revisions = {space.revision for space, _ in store}
    assert revisions == {tuner.fingerprint_}
    assert tuner.fingerprint_ != tuner.base_revision_
    tuner.base_embedder().transform(images)
    assert len({space.revision for space, _ in store}) == 2
    # The same adapter elsewhere is the same encoder: its rows are found.
    moved = tuner.save(tmp_path / "elsewhere")
    embedder = MedSigLIPEmbedder(moved, cache=store, device="cpu").fit(images)
    assert embedder.revision_ == tuner.fingerprint_
    n = len(store)
    embedder.transform(images)
    assert len(store) == n


def test_a_pickle_holds_the_adapter_and_no_weights(bars, tmp_path):
    images, texts, *_ = bars
    big = np.kron(images[:8], np.ones((1, 4, 4), np.uint8))
    tuner = MedSigLIPFineTuner(MedSigLIPEmbedder("demo"), max_steps=1, random_state=0)
    tuner.fit(big, texts[:8])
    pickled = pickle.dumps(tuner)
    # 98,304 trained values of 4 bytes; the checkpoint has 3.9 million.
    assert 4 * tuner.n_trained_ < len(pickled) < 4 * tuner.n_trained_ + 30_000
    (tmp_path / "tuner.pkl").write_bytes(pickled)
    np.save(tmp_path / "images.npy", big)
    np.save(tmp_path / "expected.npy", tuner.transform(big))
    # Another machine: another process, an empty store.
    child = start("transform_a_pickle", tmp_path, SK_MEDSIGLIP_CACHE=tmp_path / "empty")
    child.join()
    assert child.exitcode == 0


def test_clone_and_repr_carry_no_adapter(make, bars):
    images, texts, *_ = bars
    tuner = make().fit(images, texts)
    assert not hasattr(clone(tuner), "history_")
    assert "_tuned" not in clone(tuner).__dict__
    assert len(repr(tuner)) < 500
    assert len(tuner._repr_html_()) < 60_000
    again = copy.deepcopy(tuner)
    np.testing.assert_array_equal(again.transform(images), tuner.transform(images))


def test_save_and_load_is_the_same_fine_tuner(make, bars, tmp_path):
    from sk_medsiglip.images import Window

    images, _, upright, _ = bars
    tuner = make(
        objective="classification",
        intensity=Window(100, 200),
        augment=Augmentation(rotation=2),
        validation_fraction=0.25,
    ).fit(images, np.where(upright == 1, "up", "down"))
    loaded = MedSigLIPFineTuner.load(tuner.save(tmp_path / "a"))
    given = tuner.get_params(deep=False) | {"embedder": loaded.embedder}
    assert loaded.get_params(deep=False) == given
    moved = {"cache": True, "model": str(tuner.embedder.model)}
    assert loaded.embedder.get_params() == tuner.embedder.get_params() | moved
    pd.testing.assert_frame_equal(loaded.history_, tuner.history_)
    assert loaded.classes_.tolist() == ["down", "up"]
    assert loaded.fingerprint_ == tuner.fingerprint_
    np.testing.assert_array_equal(loaded.validation_rows_, tuner.validation_rows_)
    np.testing.assert_array_equal(
        loaded.set_params(embedder__cache=tuner.embedder.cache).predict_proba(images),
        tuner.predict_proba(images),
    )
    # Saving over an earlier save is meant; over anything else it is not.
    tuner.save(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("chapter 1")
    with pytest.raises(OSError, match="other files"):
        tuner.save(tmp_path / "b")
    with pytest.raises(OSError, match="other files"):
        tuner.merge(tmp_path / "b")


def test_plain_peft_and_plain_transformers_open_what_is_written(make, bars, tmp_path):
    from peft import PeftModel
    from transformers import AutoTokenizer, SiglipImageProcessorPil, SiglipModel

    images, texts, *_ = bars
    tuner = make().fit(images, texts)
    ours = tuner.transform(images)
    pixels = torch.tensor(np.repeat(images[..., None], 3, -1)).permute(0, 3, 1, 2)
    values = pixels.float() / 127.5 - 1

    folder = tuner.save(tmp_path / "saved")
    with pytest.warns(FutureWarning, match="is_gradient_checkpointing"):
        adapted = PeftModel.from_pretrained(
            SiglipModel.from_pretrained(tuner.embedder.model), folder
        )
    with torch.no_grad():
        theirs = adapted.base_model.model.vision_model(pixel_values=values)
    np.testing.assert_allclose(theirs.pooler_output.numpy(), ours, atol=1e-4)

    merged = tuner.merge(tmp_path / "merged")
    model = SiglipModel.from_pretrained(merged).eval()
    with torch.no_grad():
        theirs = model.vision_model(pixel_values=values).pooler_output
    np.testing.assert_allclose(theirs.numpy(), ours, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(merged)
    ids = tokenizer(
        texts[:2], padding="max_length", max_length=64, return_tensors="pt"
    )["input_ids"]
    with torch.no_grad():
        theirs = model.text_model(input_ids=ids).pooler_output.numpy()
    text = MedSigLIPTextEmbedder(folder, cache=False, device="cpu")
    np.testing.assert_allclose(theirs, text.transform(texts[:2]), atol=1e-4)
    assert SiglipImageProcessorPil.from_pretrained(merged).size["height"] == 28


def test_a_foreign_adapter_of_peft_is_loaded(checkpoint, bars, tmp_path):
    """Made without this package: base by name, no record of its revision."""
    from peft import LoraConfig, get_peft_model
    from transformers import SiglipModel

    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "fc1"])
    with pytest.warns(FutureWarning, match="is_gradient_checkpointing"):
        adapted = get_peft_model(SiglipModel.from_pretrained(checkpoint), config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(tmp_path / "theirs")
    images = bars[0][:4]
    pixels = torch.tensor(np.repeat(images[..., None], 3, -1)).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = adapted.base_model.model.vision_model(
            pixel_values=pixels.float() / 127.5 - 1
        ).pooler_output.numpy()
    embedder = MedSigLIPEmbedder(tmp_path / "theirs", cache=False, device="cpu")
    np.testing.assert_allclose(embedder.transform(images), expected, atol=1e-4)


def test_a_tuned_encoder_can_be_tuned_again(make, bars, tmp_path):
    images, texts, *_ = bars
    first = make().fit(images, texts)
    second = make(model=first.save(tmp_path / "first")).fit(images, texts)
    assert second.base_revision_ == first.fingerprint_
    after = second.transform(images)
    assert np.abs(after - first.transform(images)).max() > 1e-3
    both = MedSigLIPEmbedder(
        second.save(tmp_path / "second"), cache=False, device="cpu"
    )
    np.testing.assert_allclose(both.transform(images), after, atol=1e-6)


@pytest.mark.parametrize(
    ("named", "noticed"), [("medsiglip-448", True), ("siglip-base", False)]
)
def test_the_licence_is_noticed_beside_weights_that_it_covers(
    make, checkpoint, bars, tmp_path, named, noticed
):
    base = tmp_path / named
    shutil.copytree(checkpoint, base)
    tuner = make(model=base, max_steps=1, batch_size=4).fit(bars[0], bars[1])
    unpickled = pickle.loads(pickle.dumps(tuner)).set_params(
        embedder__cache=tmp_path / "far"
    )
    folders = [
        tuner.save(tmp_path / "saved"),
        tuner.merge(tmp_path / "merged"),
        tuner.as_embedder().model,
        unpickled.as_embedder().model,
        MedSigLIPFineTuner.load(tmp_path / "saved").save(tmp_path / "again"),
    ]
    for folder in (folders[0], folders[1], folders[4]):
        card = (tmp_path / folder / "README.md").read_text("utf-8")
        assert str(tmp_path) not in card
        assert f"- **Base**: {named}, revision `{tuner.base_revision_}`" in card
        assert "48 training images and 0 validation images" in card
        assert f"- loss: {tuner.history_['loss'].iloc[-1]:.4g}" in card
        assert "- batch_size: `4`" in card
        assert "Not a medical device" in card
        assert ("see NOTICE and TERMS.md" in card) == noticed
        assert bars[1][0] not in card
    for folder in folders:
        written = {p.name for p in tmp_path.joinpath(folder).iterdir()}
        assert ({"NOTICE", "TERMS.md"} <= written) == noticed
        if noticed:
            notice = (tmp_path / folder / "NOTICE").read_text("utf-8")
            assert notice == (
                "HAI-DEF is provided under and subject to the Health AI Developer "
                "Foundations Terms of Use found at https://developers.google.com/"
                "health-ai-developer-foundations/terms\n"
            )
            terms = (tmp_path / folder / "TERMS.md").read_text("utf-8")
            assert str(tmp_path) not in terms


# --------------------------------------------------------------------- scikit-learn


@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_valid_tag_types",
        "check_get_params_invariance",
        "check_set_params",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_parameters_default_constructible",
    ],
)
# A text in place of the embedder is taken for the model, as in former versions.
@pytest.mark.filterwarnings("ignore:model of MedSigLIPFineTuner:FutureWarning")
def test_scikit_learns_checks_that_need_no_data(check):
    run = getattr(estimator_checks, check)
    run("MedSigLIPFineTuner", MedSigLIPFineTuner())


def test_former_parameters_make_an_embedder_and_warn(checkpoint, bars, tmp_path):
    former = {"resize": "processor", "device": "cpu", "cache": str(tmp_path)}
    with pytest.warns(FutureWarning, match="MedSigLIPEmbedder\\(model="):
        tuner = MedSigLIPFineTuner(str(checkpoint), max_steps=1, **former)
    embedder = MedSigLIPEmbedder(str(checkpoint), **former)
    assert tuner.embedder.get_params() == embedder.get_params()
    assert "resize" not in tuner.get_params(deep=False)
    with pytest.warns(FutureWarning, match=r"embedder\.resize"):
        assert tuner.resize == "processor"
    with pytest.warns(FutureWarning, match="embedder__pad=True"):
        tuner.set_params(pad=True, epochs=3)
    assert (tuner.embedder.pad, tuner.epochs) == (True, 3)
    assert clone(tuner).embedder.pad
    with pytest.raises(TypeError, match="Pass model"):
        MedSigLIPFineTuner(embedder, model="demo")
    with pytest.raises(TypeError, match="'epoch'"):
        MedSigLIPFineTuner(epoch=3)
    with pytest.raises(AttributeError, match="'colour'"):
        _ = tuner.colour


def test_a_folder_of_the_former_format_is_loaded(make, bars, tmp_path):
    tuner = make(pos_weight=2.0, objective="classification", max_steps=1)
    folder = Path(tuner.fit(bars[0], bars[2]).save(tmp_path / "saved"))
    record = json.loads((folder / "fine_tuner.json").read_text())
    embedder = record["parameters"].pop("embedder")["fields"]
    for name in ("model", "revision", "resize", "pad", "intensity", "frame"):
        record["parameters"][name] = embedder[name]
    record["parameters"] |= {"max_pixels": 1000, "device": "cpu"}
    record["format"] = 1
    (folder / "fine_tuner.json").write_text(json.dumps(record))
    loaded = MedSigLIPFineTuner.load(folder)
    assert loaded.embedder.max_pixels == 1000
    assert loaded.batch_size == tuner.batch_size
    loaded.set_params(embedder__cache=tmp_path / "store")
    np.testing.assert_array_equal(
        loaded.predict_proba(bars[0]), tuner.predict_proba(bars[0])
    )


def test_it_works_inside_a_pipeline(make, bars):
    images, texts, upright, _ = bars
    tuner = make().fit(images, texts)
    pipe = make_pipeline(tuner.as_embedder(), LogisticRegression(max_iter=2000))
    pipe.fit(list(images), upright)
    again = pickle.loads(pickle.dumps(pipe))
    np.testing.assert_array_equal(again.predict(images), pipe.predict(images))
    named = tuner.set_output(transform="pandas").transform(images)
    assert named.columns[0] == "medsiglipfinetuner0"
    assert named.shape == (48, 32)


def test_nothing_answers_before_fit(make, bars):
    tuner = make(objective="classification")
    for method in ("transform", "predict", "predict_proba", "decision_function"):
        with pytest.raises(NotFittedError):
            getattr(tuner, method)(bars[0])
    for call in (tuner.as_embedder, tuner.plot_history):
        with pytest.raises(NotFittedError):
            call()
    with pytest.raises(NotFittedError):
        tuner.save("nowhere")


def test_a_contrastive_tuner_has_no_classes(make):
    tuner = make()
    assert not hasattr(tuner, "predict")
    assert not is_classifier(tuner)
    with pytest.raises(AttributeError) as raised:
        tuner.predict_proba([])
    assert "ZeroShotClassifier" in str(raised.value.__cause__)


def test_without_the_extra_the_install_line_is_told(make, bars, monkeypatch):
    for missing in ("accelerate", "peft"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, missing, None)
            with pytest.raises(ImportError, match=r"sk-medsiglip\[finetune\]"):
                make().fit(bars[0], bars[1])


def test_the_history_is_drawn(make, bars):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    images, texts, *_ = bars
    tuner = make(max_steps=4, validation_fraction=0.25, checkpoint_every=2)
    ax = tuner.fit(images, texts).plot_history()
    named = {text.get_text() for text in ax.get_legend().get_texts()}
    assert named == {"training loss", "validation loss", "weights kept"}
    drawn = {line.get_label(): line for line in ax.get_lines()}
    judged = tuner.history_.dropna(subset=["validation_loss"])
    np.testing.assert_array_equal(
        drawn["validation loss"].get_ydata(), judged["validation_loss"]
    )
    assert drawn["weights kept"].get_xdata()[0] == tuner.best_step_
    given = matplotlib.pyplot.subplots()[1]
    assert make().fit(images, texts).plot_history(given) is given
    matplotlib.pyplot.close("all")


def test_the_encoder_in_memory_is_not_the_one_that_is_trained(make, bars):
    images, texts, *_ = bars
    encoder = load_encoder(make().embedder.model, device="cpu")
    pixels = np.repeat(images[:2, ..., None], 3, -1)
    before = encoder.encode_images(pixels)
    make(train="full", learning_rate=0.01).fit(images, texts)
    np.testing.assert_array_equal(encoder.encode_images(pixels), before)
