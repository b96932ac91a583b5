"""Adapters and odd checkpoints: configuration is data, whoever wrote it."""

import json
import shutil
import sys

import forked
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sk_medsiglip import MedSigLIPEmbedder, MedSigLIPTextEmbedder
from sk_medsiglip.encoder import load_encoder
from sk_medsiglip.exceptions import (
    CheckpointError,
    CheckpointWarning,
    ModelAccessError,
)

IMAGE = np.random.default_rng(0).integers(0, 255, (28, 28, 3), np.uint8)


def edit(path, **changes):
    content = json.loads(path.read_text("utf-8"))
    content.update(changes)
    path.write_text(json.dumps(content), "utf-8")


def row(model, **settings):
    return MedSigLIPEmbedder(str(model), cache=False, **settings).transform([IMAGE])[0]


def siglip(folder):
    from transformers import SiglipModel

    return SiglipModel.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def plain(make_checkpoint, tmp_path_factory):
    """An adapter with the settings that it is usually written with."""
    folder = tmp_path_factory.mktemp("plain")
    return adapter_maker(make_checkpoint, folder)()[0]


@pytest.fixture
def make_adapter(make_checkpoint, tmp_path):
    """Return a function that writes an adapter as peft itself writes it."""
    return adapter_maker(make_checkpoint, tmp_path)


def adapter_maker(make_checkpoint, tmp_path):
    from peft import LoraConfig, get_peft_model

    def make(seed=0, *, base=None, target_modules=("q_proj",), **settings):
        base = base or make_checkpoint(seed=seed)
        config = LoraConfig(r=2, target_modules=target_modules, **settings)
        torch.manual_seed(1)
        model = get_peft_model(siglip(base), config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.5)
        folder = tmp_path / f"adapter{seed}"
        model.save_pretrained(folder)
        return folder, base, model.eval()

    return make


def peft_row(model, network=None):
    vision = model.base_model.model.vision_model
    pixels = torch.from_numpy(IMAGE).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        return vision(pixel_values=pixels).pooler_output[0].numpy()


def test_adapter_that_peft_wrote_equals_peft(make_adapter):
    folder, _, model = make_adapter()
    np.testing.assert_allclose(row(folder), peft_row(model), atol=1e-5)
    # peft records "main" for a folder too, which says nothing of its files.
    edit(folder / "adapter_config.json", revision="main")
    np.testing.assert_allclose(row(folder), peft_row(model), atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"megatron_config": {"a": 1}, "megatron_core": "wave"},
        {"target_modules": "(q"},
        {"target_modules": "(([a-z]+)+)+_proj"},
        {"target_modules": ".*.*.*.*.*q_proj"},
        {"exclude_modules": "(a|b)*"},
        {"rank_pattern": {"(q+)+": 2}},
        {"rank_pattern": {"q_proj": 0}},
        {"lora_alpha": float("inf")},
        {"lora_alpha": "8"},
        {"lora_alpha": True},
        {"r": -4},
        {"r": 10**9},
        {"r": 2.5},
        {"init_lora_weights": "pissa_niter_16"},
        {"init_lora_weights": "corda"},
        {"layer_replication": [[0, 2], [1, 2]]},
        {"layers_to_transform": [-1]},
        {"something_new": {"module": "wave"}},
        {"use_qalora": True},
        {"bias": "some"},
    ],
    ids=lambda change: json.dumps(change)[:40],
)
def test_settings_that_are_not_known_to_be_safe_are_refused(plain, tmp_path, change):
    folder = shutil.copytree(plain, tmp_path / "adapter")
    edit(folder / "adapter_config.json", **change)
    with pytest.raises(CheckpointError, match=next(iter(change))):
        row(folder)
    assert "wave" not in sys.modules


def test_nested_json_is_refused(make_adapter):
    folder, *_ = make_adapter()
    nested = "[" * 100_000
    (folder / "adapter_config.json").write_text(nested, "utf-8")
    with pytest.raises(CheckpointError, match="nested"):
        row(folder)


def test_adapters_that_name_each_other_are_refused(make_adapter):
    a, _, _ = make_adapter(0)
    b, _, _ = make_adapter(1)
    edit(a / "adapter_config.json", base_model_name_or_path=str(b))
    edit(b / "adapter_config.json", base_model_name_or_path=str(a))
    with pytest.raises(CheckpointError, match="itself"):
        row(a)


def test_adapter_in_a_hub_repository(make_adapter, put_on_hub):
    folder, _, model = make_adapter()
    snapshot = put_on_hub("owner/adapter", folder)
    commit = snapshot.name
    # As an editor leaves it: the hub's client does not find the commit then.
    (snapshot.parents[1] / "refs" / "main").write_text(f"{commit}\n", "utf-8")
    with pytest.raises(ModelAccessError, match=commit):
        row("owner/adapter")
    found = row("owner/adapter", revision=commit)
    np.testing.assert_allclose(found, peft_row(model), atol=1e-5)


def test_missing_base_names_the_file_to_change(make_adapter, tmp_path):
    folder, _, _ = make_adapter()
    gone = str(tmp_path / "gone")
    edit(folder / "adapter_config.json", base_model_name_or_path=gone)
    with pytest.raises(ModelAccessError, match=r"adapter_config\.json"):
        row(folder)


def test_random_decomposition_of_the_base_is_refused(make_adapter):
    folder, *_ = make_adapter(init_lora_weights="pissa_niter_4")
    with pytest.raises(CheckpointError, match="init_lora_weights"):
        row(folder)


def test_matrices_that_peft_never_applies_are_left_out(make_adapter):
    folder, _, model = make_adapter(target_modules=["out_proj", "fc1"])
    with pytest.warns(CheckpointWarning, match=r"head\.attention\.out_proj"):
        found = row(folder)
    np.testing.assert_allclose(found, peft_row(model), atol=1e-5)


@pytest.mark.parametrize(
    "change", [{"do_normalize": False}, {"do_rescale": False}, {"do_resize": True}]
)
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_scaling_is_that_of_the_checkpoint_s_processor(make_checkpoint, change, engine):
    from transformers import SiglipImageProcessorPil

    folder = make_checkpoint(seed=3)
    edit(folder / "preprocessor_config.json", **change)
    processor = SiglipImageProcessorPil.from_pretrained(folder)
    pixels = processor([IMAGE], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        vision = siglip(folder).vision_model
        expected = vision(pixel_values=pixels).pooler_output[0].numpy()
    found = row(folder, resize="processor", engine=engine, dtype="float32")
    cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > 0.9999


@pytest.mark.parametrize(
    ("file", "change", "word"),
    [
        ("preprocessor_config.json", {"size": {"height": 9, "width": 9}}, "shape"),
        ("preprocessor_config.json", {"do_resize": False}, "shape"),
        ("preprocessor_config.json", {"image_mean": None}, "mean"),
        ("preprocessor_config.json", {"image_std": [0, 1, 1]}, "deviation"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, "mean"),
        ("config.json", {"quantization_config": {"quant_method": "x"}}, "quantised"),
        ("config.json", {"vision_config": {"vision_use_head": False}}, "head"),
        ("config.json", {"vision_config": {"hidden_size": "9"}}, "embedding_dim"),
        ("config.json", {"vision_config": [1]}, "vision_config"),
    ],
)
def test_odd_configurations_are_checkpoint_errors(make_checkpoint, file, change, word):
    folder = make_checkpoint(seed=5)
    edit(folder / file, **change)
    image = np.zeros((40, 40, 3), np.uint8)
    embedder = MedSigLIPEmbedder(str(folder), cache=False, resize="processor")
    with pytest.raises(CheckpointError, match=word):
        embedder.transform([image])


def test_image_tower_alone_gives_rows(make_checkpoint, tmp_path):
    from transformers import AutoModelForImageClassification, SiglipVisionModel

    whole = make_checkpoint(seed=6)
    for name, kind in (
        ("tower", SiglipVisionModel),
        ("classifier", AutoModelForImageClassification),
    ):
        kind.from_pretrained(whole).save_pretrained(tmp_path / name)
        shutil.copy(whole / "preprocessor_config.json", tmp_path / name)
        np.testing.assert_allclose(row(tmp_path / name), row(whole), atol=1e-6)
        with pytest.raises(CheckpointError, match="alone"):
            MedSigLIPTextEmbedder(str(tmp_path / name), cache=False).transform(["a"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(make_checkpoint, tmp_path, value):
    folder = make_checkpoint(seed=7)
    weights = load_file(folder / "model.safetensors")
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    weights[name][0, 0] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    embedder = MedSigLIPEmbedder(str(folder), cache=str(tmp_path), on_error="nan")
    with pytest.raises(CheckpointError, match=name):
        embedder.transform([IMAGE])


def test_shards_named_only_in_the_index_are_digested(make_checkpoint):
    folder = make_checkpoint(seed=8)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "parts").mkdir()
    shard = folder / "parts" / "first.safetensors"
    save_file(weights, shard, metadata={"format": "pt"})
    index = {
        "metadata": {},
        "weight_map": dict.fromkeys(weights, "parts/first.safetensors"),
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    before = load_encoder(folder).revision
    weights["logit_scale"] += 1
    save_file(weights, shard, metadata={"format": "pt"})
    assert load_encoder(folder).revision != before
    index["weight_map"]["logit_scale"] = "../other.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    with pytest.raises(CheckpointError, match="outside"):
        load_encoder(folder)


def test_links_of_a_copied_hub_cache_are_named(make_checkpoint, tmp_path):
    folder = make_checkpoint(seed=9)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/0123")
    with pytest.raises(CheckpointError, match="cp -rL"):
        row(folder)
    repository = tmp_path / "models--owner--name"
    commit = repository / "snapshots" / "abc"
    shutil.copytree(make_checkpoint(seed=9), commit)
    for above in (repository, repository / "snapshots"):
        with pytest.raises(CheckpointError, match="snapshots/abc"):
            row(above)


def test_openvino_is_silenced_where_its_telemetry_was_loaded_before(
    make_checkpoint, monkeypatch
):
    folder = make_checkpoint(seed=10)
    code = f"""
import socket, time
asked = []
def refuse(*args, **kwargs):
    asked.append(args)
    raise OSError("the network is not to be asked")
socket.getaddrinfo = socket.create_connection = refuse
socket.socket.connect = refuse
import numpy as np
import openvino_telemetry
from sk_medsiglip import MedSigLIPEmbedder
image = np.zeros((28, 28, 3), np.uint8)
embedder = MedSigLIPEmbedder({str(folder)!r}, cache=False, engine="openvino")
assert embedder.transform([image]).shape == (1, 32)
time.sleep(0.2)
print(len(asked))
"""
    monkeypatch.delenv("CI", raising=False)  # OpenVINO is silent by itself there
    ended = forked.run_code(code)
    assert ended.stdout.strip() == "0", ended.stderr
