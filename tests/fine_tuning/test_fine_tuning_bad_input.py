"""What cannot be trained is an error before the first step, and says what to change."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from children import start

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.exceptions import (
    CheckpointError,
    ImageReadError,
    ModelAccessError,
    PromptError,
)
from sk_medsiglip.fine_tuning import MedSigLIPFineTuner


@pytest.fixture
def no_training(monkeypatch):
    """Fail if weights are loaded or a step is made."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("training began")

    monkeypatch.setattr("sk_medsiglip.fine_tuning._training._train", refuse)


rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 255, (12, 30, 30), dtype=np.uint8)
TEXTS = ["a nodule", "a normal chest", "a large effusion"] * 4
LABELS = np.array(["a", "b", "c"] * 4)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("y", "error", "told"),
    [
        (None, ValueError, "requires y to be passed"),
        ("one text", TypeError, "y is a single text"),
        (TEXTS[:-1], ValueError, "X has 12 rows and y has 11 captions"),
        ([*TEXTS[:5], "  ", *TEXTS[6:]], ValueError, "row 5 of y is an empty caption"),
        ([*TEXTS[:5], [], *TEXTS[6:]], ValueError, "row 5 of y is an empty list"),
        ([*TEXTS[:5], ["a", ""], *TEXTS[6:]], ValueError, "row 5 of y is an empty"),
        ([*TEXTS[:5], None, *TEXTS[6:]], TypeError, "row 5 of y is None, not a cap"),
        ([*TEXTS[:5], ["a", 3], *TEXTS[6:]], TypeError, "row 5 of y holds 3"),
        (np.arange(12), TypeError, "For labels pass prompts="),
        (["a nodule"] * 12, ValueError, "distinguish"),
        (pd.DataFrame({"a": TEXTS, "b": TEXTS}), ValueError, "y has 2 columns"),
        (
            [*TEXTS[:7], "a nodule " * 70, *TEXTS[8:]],
            ValueError,
            r"1 captions are longer than the 64 tokens .* in rows 7: 'a nodule",
        ),
    ],
)
def test_captions(make, y, error, told):
    with pytest.raises(error, match=told):
        make().fit(IMAGES, y)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("y", "told"),
    [
        (["a"] * 12, "only one class"),
        (["a"] * 11 + ["b"], "class 'b' has one image, row 11"),
        (LABELS[:-1], "inconsistent numbers of samples"),
        ([1.0, np.nan] * 6, "NaN"),
        (np.tile([[1.0, 2.0], [0.0, 1.0]], (6, 1)), "must hold 1, 0, and NaN"),
        (
            pd.DataFrame({"effusion": [1] + [0] * 11, "nodule": [0, 1] * 6}),
            "column 'effusion' of y has 1 positive rows",
        ),
        (np.tile([[np.nan, 1], [np.nan, 0]], (6, 1)), "no known label"),
    ],
)
def test_labels(make, y, told):
    with pytest.raises(ValueError, match=told):
        make(objective="classification").fit(IMAGES, y)


PROMPTS = {"a": ["a nodule"], "b": ["an effusion"], "c": ["nothing"]}
PAIR = {"positive": ["it"], "negative": ["not it"]}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("prompts", "y", "error", "told"),
    [
        ({"a": ["x"], "b": ["y"]}, LABELS, ValueError, r"holds the labels \['c'\]"),
        (PROMPTS, ["a"] * 12, ValueError, "one class"),
        (PROMPTS, ["a"] * 11 + ["b"], ValueError, "has one image"),
        ({"a": "x"}, LABELS, PromptError, "needs two"),
        (PROMPTS, np.eye(3)[[0, 1, 2] * 4], ValueError, "exclusive classes"),
        ({"n": PAIR, "m": PAIR}, np.eye(3)[[0, 1, 2] * 4], ValueError, "3 columns"),
        ({"n": PAIR}, LABELS, ValueError, "a column of 1, 0 and NaN"),
        (
            {"n": PAIR, "m": PAIR},
            np.array([[1, 0], [0, 1], [np.nan, np.nan]] * 4),
            ValueError,
            "row 2 of y is blank in every column",
        ),
    ],
)
def test_prompts(make, prompts, y, error, told):
    with pytest.raises(error, match=told):
        make(prompts=prompts).fit(IMAGES, y)


@pytest.mark.usefixtures("no_training")
def test_columns_in_another_order_than_the_prompts(make):
    y = pd.DataFrame(np.tile([[1, 0], [0, 1]], (6, 1)), columns=["m", "n"])
    with pytest.raises(ValueError, match="compare"):
        make(prompts={"n": PAIR, "m": PAIR}).fit(IMAGES, y)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (["p1"] * 11, "groups holds 11 ids for 12 samples"),
        (["p1", None] * 6, "groups is missing for 6 of 12"),
        ([1.0, np.nan] * 6, "groups is missing for 6 of 12"),
        (["p1", " "] * 6, "groups is missing for 6 of 12"),
        (["p1"] * 12, "one patient"),
    ],
)
def test_patients(make, groups, told):
    with pytest.raises(ValueError, match=told):
        make(validation_fraction=0.3).fit(IMAGES, TEXTS, groups=groups)


@pytest.mark.usefixtures("no_training")
def test_a_validation_split_without_positives(make):
    """All of class b are one patient's: wherever he goes, the other side has none."""
    y = ["a"] * 9 + ["b"] * 3
    patients = [*range(9), 99, 99, 99]
    tuner = make(objective="classification", validation_fraction=0.3)
    with pytest.raises(ValueError, match="'b'"):
        tuner.fit(IMAGES, y, groups=patients)
    with pytest.raises(ValueError, match="validation_fraction"):
        tuner.fit(IMAGES, y, groups=patients)


@pytest.mark.usefixtures("no_training")
def test_images_that_cannot_be_read_are_all_named_before_anything_is_trained(
    make, tmp_path
):
    from PIL import Image

    paths = []
    for number, image in enumerate(IMAGES):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(image).save(paths[-1])
    paths[3].write_bytes(b"no picture")
    paths[8].unlink()
    with pytest.raises(ImageReadError, match="row 3") as raised:
        make().fit(paths, TEXTS)
    assert "1 more cannot be read, in rows 8" in str(raised.value)
    assert "check_images" in str(raised.value)
    assert not list((tmp_path / "store" / "runs").glob("*"))


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"objective": "triplet"}, "objective"),
        ({"train": "adapter"}, "train"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 1}, "one pair"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"validation_fraction": 1.5}, "validation_fraction"),
        ({"augment": {"rotation": 3}}, "augment"),
        ({"device": "cuda:1"}, "device"),
        ({"intensity": 3}, "intensity"),
        ({"templates": "a {}"}, "templates"),
        ({"pos_weight": 2.0}, "pos_weight"),
        ({"objective": "classification", "prompts": PROMPTS}, "does not use prompts"),
        ({"objective": "classification", "towers": "text"}, "towers"),
    ],
)
def test_settings(make, settings, told):
    with pytest.raises(ValueError, match=told):
        make(**settings).fit(IMAGES, TEXTS)


@pytest.mark.parametrize(
    ("weight", "told"), [([1.0], "must be 3 positive"), ([1, -1, 1], "must be 3 pos")]
)
def test_weights_of_classes(make, weight, told):
    tuner = make(objective="classification", pos_weight=weight)
    with pytest.raises(ValueError, match=told):
        tuner.fit(IMAGES, LABELS)


def test_more_blocks_than_the_tower_has(make):
    with pytest.raises(ValueError, match="n_blocks=2"):
        make(train="last_blocks", n_blocks=3).fit(IMAGES, TEXTS)


@pytest.mark.usefixtures("no_training")
def test_a_checkpoint_of_another_kind(make, tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(CheckpointError, match="'clip'"):
        make(model=tmp_path / "clip").fit(IMAGES, TEXTS)
    with pytest.raises(ModelAccessError, match="folder"):
        make(model=tmp_path / "nowhere").fit(IMAGES, TEXTS)


def test_a_loss_that_is_no_number_ends_the_run(make):
    tuner = make(train="full", learning_rate=1e30, max_steps=20, warmup=0)
    with pytest.raises(FloatingPointError, match="learning_rate"):
        tuner.fit(IMAGES, TEXTS)


# ------------------------------------------------------------------------- adapters


@pytest.fixture
def saved(make, tmp_path):
    tuner = make().fit(IMAGES, TEXTS)
    return tuner, Path(tuner.save(tmp_path / "saved"))


def test_an_adapter_of_another_base(saved, make_checkpoint):
    tuner, folder = saved
    record = json.loads((folder / "tuning.json").read_text())
    record["base"]["model"] = str(make_checkpoint(seed=5))
    (folder / "tuning.json").write_text(json.dumps(record))
    for load in (
        lambda: MedSigLIPFineTuner.load(folder),
        lambda: MedSigLIPEmbedder(folder, cache=False).transform(IMAGES),
    ):
        with pytest.raises(CheckpointError, match="another"):
            load()
    # One of another width does not even fit, whatever the record says of it.
    record["base"] = {"model": str(make_checkpoint(width=48)), "revision": None}
    (folder / "tuning.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="fit"):
        MedSigLIPEmbedder(folder, cache=False, device="cpu").transform(IMAGES)


def test_a_base_that_changed_under_its_adapter(make, checkpoint, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(checkpoint, base)
    tuner = make(model=base).fit(IMAGES, TEXTS)
    folder = tuner.save(tmp_path / "saved")
    config = json.loads((base / "preprocessor_config.json").read_text())
    (base / "preprocessor_config.json").write_text(json.dumps(config, indent=7))
    with pytest.raises(CheckpointError, match="apply"):
        MedSigLIPFineTuner.load(folder)
    with pytest.raises(CheckpointError, match="apply"):
        tuner.transform(IMAGES)


def test_a_base_that_moved(make, checkpoint, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(checkpoint, base)
    tuner = make(model=base).fit(IMAGES, TEXTS)
    after = tuner.transform(IMAGES)
    folder = tuner.save(tmp_path / "saved")
    base.rename(tmp_path / "moved")
    fresh = {"embedder__cache": tmp_path / "empty"}
    loaded = MedSigLIPFineTuner.load(folder).set_params(**fresh)
    with pytest.raises(ModelAccessError, match=r"tuning\.json"):
        loaded.transform(IMAGES)
    # A fitted tuner is told where the base is by its own parameter.
    tuner.set_params(embedder__model=tmp_path / "moved", **fresh)
    np.testing.assert_array_equal(tuner.transform(IMAGES), after)


def test_another_model_is_not_taken_for_the_base(make, make_checkpoint):
    tuner = make().fit(IMAGES, TEXTS)
    after = tuner.transform(IMAGES)
    embedder = tuner.as_embedder()
    model = tuner.embedder.model
    tuner.set_params(embedder__model=make_checkpoint(seed=7))
    with pytest.raises(CheckpointError, match="base"):
        tuner.transform(IMAGES)
    # Nor is the adapter's folder, which others use, told so.
    np.testing.assert_array_equal(embedder.transform(IMAGES), after)
    tuner.set_params(embedder__model=model)
    np.testing.assert_array_equal(tuner.transform(IMAGES), after)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: (f / "adapter_model.safetensors").unlink(), "saved"),
        (
            lambda f: (f / "adapter_model.safetensors").write_bytes(b"\0" * 50),
            "saved",
        ),
        (lambda f: (f / "fine_tuner.json").unlink(), "no fine-tuner"),
        (lambda f: (f / "fine_tuner.json").write_text("{"), "cannot be read"),
        (
            lambda f: (f / "fine_tuner.json").write_text(
                (f / "fine_tuner.json").read_text().replace("2", "99", 1)
            ),
            "format 99",
        ),
        (lambda f: (f / "tuning.json").write_text("[]"), "a list, not an object"),
    ],
)
def test_damaged_folders(saved, damage, told):
    _, folder = saved
    damage(folder)
    with pytest.raises(CheckpointError, match=told):
        MedSigLIPFineTuner.load(folder)


def test_adapters_that_no_encoder_can_be_made_of(saved, checkpoint):
    _, folder = saved

    def load():
        return MedSigLIPEmbedder(folder, cache=False, device="cpu").transform(IMAGES)

    (folder / "adapter_model.safetensors").write_bytes(b"\0" * 50)
    with pytest.raises(CheckpointError, match="incomplete"):
        load()
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps(config | {"peft_type": "IA3"})
    )
    with pytest.raises(CheckpointError, match="'IA3'"):
        load()
    (folder / "tuning.json").unlink()
    (folder / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": None})
    )
    with pytest.raises(CheckpointError, match="base checkpoint"):
        load()
    (folder / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": str(folder), "revision": None})
    )
    with pytest.raises(CheckpointError, match="itself"):
        load()


def test_half_of_an_adapter_is_not_filled_with_zeros(saved):
    from safetensors.torch import load_file, save_file

    _, folder = saved
    tensors = load_file(folder / "adapter_model.safetensors")
    del tensors[sorted(tensors)[0]]
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="fit"):
        MedSigLIPEmbedder(folder, cache=False, device="cpu").transform(IMAGES)


def test_a_damaged_adapter_in_a_pickle_is_noticed(make, tmp_path):
    import pickle

    tuner = make().fit(IMAGES, TEXTS)
    state = pickle.loads(pickle.dumps(tuner))
    name = "adapter_model.safetensors"
    content = bytearray(state._tuned["files"][name])
    content[-3] ^= 0xFF
    state._tuned["files"][name] = bytes(content)
    state.set_params(embedder__cache=tmp_path / "empty")
    with pytest.raises(CheckpointError, match="damaged"):
        state.transform(IMAGES)


# --------------------------------------------------------------------------- memory


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc")
def test_out_of_memory_names_three_settings(tmp_path):
    child = start("fit_without_memory", tmp_path)
    child.join()
    assert child.exitcode == 0
    told = (tmp_path / "told").read_text()
    assert told.startswith("OutOfMemoryError"), told
    for setting in ("gradient_checkpointing=True", "batch_size=128", "bf16=True"):
        assert setting in told
    assert "(3)" in told
    assert "(4)" not in told
