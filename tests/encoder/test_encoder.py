"""The encoder against plain transformers code, and what happens to bad checkpoints."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import forked
import numpy as np
import pytest
import torch

from sk_medsiglip.encoder import (
    clear_encoders,
    find_checkpoint,
    load_encoder,
    load_image_processor,
)
from sk_medsiglip.exceptions import (
    CheckpointError,
    ModelAccessError,
)


@pytest.fixture
def real_tokenizer_checkpoint(make_checkpoint, shared_data):
    return make_checkpoint(
        seed=1, width=48, text_width=32, tokenizer=shared_data / "siglip_tokenizer"
    )


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)


TEXTS = ["Pleural Effusion present", "normal X-ray", "a 3 cm nodule, left upper lobe"]


def reference(folder, pixels, texts):
    """Vectors and logits as the documentation of transformers computes them."""
    from transformers import AutoTokenizer, SiglipImageProcessorPil, SiglipModel

    model = SiglipModel.from_pretrained(folder).eval()
    processor = SiglipImageProcessorPil.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    images = processor(list(pixels), do_resize=False, return_tensors="pt")
    tokens = tokenizer(
        texts, padding="max_length", max_length=64, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        out = model(pixel_values=images.pixel_values, input_ids=tokens.input_ids)
        image_vectors = model.get_image_features(images.pixel_values).pooler_output
        text_vectors = model.get_text_features(tokens.input_ids).pooler_output
    return image_vectors.numpy(), text_vectors.numpy(), out.logits_per_image.numpy()


def normalised(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def assert_parity(folder, pixels, texts):
    images, words, logits = reference(folder, pixels, texts)
    encoder = load_encoder(folder, device="cpu", dtype="float32")
    our_images = encoder.encode_images(pixels)
    our_words = encoder.encode_texts(texts)
    np.testing.assert_allclose(our_images, images, atol=1e-5)
    np.testing.assert_allclose(our_words, words, atol=1e-5)
    ours = normalised(our_images) @ normalised(our_words).T
    np.testing.assert_allclose(
        encoder.logit_scale * ours + encoder.logit_bias, logits, atol=1e-4
    )


def test_vectors_and_logits_equal_transformers(real_tokenizer_checkpoint, pixels):
    assert_parity(real_tokenizer_checkpoint, pixels, TEXTS)


@pytest.mark.slow
def test_full_size_equals_transformers(tmp_path, shared_data):
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    tower = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
    }
    config = SiglipConfig(
        vision_config={**tower, "image_size": 448, "patch_size": 14},
        text_config={**tower, "projection_size": 1152, "vocab_size": 32000},
    )
    torch.manual_seed(0)
    model = SiglipModel(config)
    with torch.no_grad():
        model.logit_scale.fill_(4.7)
        model.logit_bias.fill_(-16.0)
    model.save_pretrained(tmp_path)
    del model
    SiglipImageProcessorPil(
        size={"height": 448, "width": 448}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(tmp_path)
    for path in (shared_data / "siglip_tokenizer").iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 448, 448, 3), dtype=np.uint8)
    try:
        assert_parity(tmp_path, pixels, TEXTS)
    finally:
        clear_encoders()


def test_text_is_lower_cased_and_padding_counts(real_tokenizer_checkpoint):
    encoder = load_encoder(real_tokenizer_checkpoint, device="cpu")
    upper, lower = encoder.encode_texts(["EFFUSION", "effusion"])
    np.testing.assert_array_equal(upper, lower)
    assert encoder.count_tokens(["effusion", "word " * 100])[1][0] > 64


def test_processor_equals_transformers(real_tokenizer_checkpoint):
    from transformers import SiglipImageProcessorPil

    image = np.random.default_rng(2).integers(0, 256, (90, 60, 3), dtype=np.uint8)
    theirs = SiglipImageProcessorPil.from_pretrained(real_tokenizer_checkpoint)(
        image, return_tensors="np"
    ).pixel_values[0]
    ours = load_image_processor(real_tokenizer_checkpoint)(image)
    assert ours.shape == (28, 28, 3)
    assert ours.dtype == np.uint8
    np.testing.assert_allclose(ours.transpose(2, 0, 1) / 127.5 - 1, theirs, atol=1e-6)


def test_one_copy_in_memory_until_cleared(checkpoint):
    first = load_encoder(checkpoint, device="cpu")
    assert load_encoder(str(checkpoint), device="cpu") is first
    clear_encoders()
    assert load_encoder(checkpoint, device="cpu") is not first


def test_process_keeps_a_bounded_number(make_checkpoint):
    folders = [make_checkpoint(seed=seed) for seed in range(3)]
    clear_encoders()
    encoders = [load_encoder(folder, device="cpu") for folder in folders]
    assert load_encoder(folders[2], device="cpu") is encoders[2]
    assert load_encoder(folders[1], device="cpu") is encoders[1]
    assert load_encoder(folders[0], device="cpu") is not encoders[0]


def test_bfloat16_is_near_float32(checkpoint, pixels):
    full = load_encoder(checkpoint, device="cpu", dtype="float32")
    half = load_encoder(checkpoint, device="cpu", dtype="bfloat16")
    assert half.encode_images(pixels).dtype == np.float32
    cosine = np.sum(
        normalised(full.encode_images(pixels)) * normalised(half.encode_images(pixels)),
        axis=1,
    )
    assert cosine.min() > 0.999
    assert not np.array_equal(full.encode_images(pixels), half.encode_images(pixels))


def test_threads_get_the_rows_of_one_thread(checkpoint, pixels):
    clear_encoders()
    expected = load_encoder(checkpoint, device="cpu").encode_images(pixels)
    clear_encoders()
    results = []

    def work():
        results.append(load_encoder(checkpoint, device="cpu").encode_images(pixels))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for result in results:
        np.testing.assert_allclose(result, expected, atol=1e-6)


# --------------------------------------------------------------------- names and files


def test_revision_of_a_folder_follows_its_content(make_checkpoint, tmp_path):
    folder = make_checkpoint(seed=3)
    before = find_checkpoint(folder).revision
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    assert find_checkpoint(moved).revision == before
    config = json.loads((moved / "config.json").read_text())
    config["text_config"]["layer_norm_eps"] = 1e-5
    (moved / "config.json").write_text(json.dumps(config))
    after = find_checkpoint(moved).revision
    assert after != before
    with pytest.raises(CheckpointError, match="changed"):
        find_checkpoint(moved, before)


def damage(folder, how):
    weights = folder / "model.safetensors"
    if how == "no weights":
        weights.unlink()
    elif how == "pickle only":
        weights.rename(folder / "pytorch_model.bin")
    elif how == "cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "not safetensors":
        weights.write_bytes(b"not what you hoped for" * 100)
    elif how == "tensor gone":
        from safetensors.torch import load_file, save_file

        tensors = load_file(weights)
        del tensors["vision_model.post_layernorm.weight"]
        save_file(tensors, weights, metadata={"format": "pt"})
    elif how == "shard gone":
        weights.unlink()
        index = {"weight_map": {"logit_scale": "model-00001-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "bad config":
        (folder / "config.json").write_text("{")
    elif how == "other model":
        (folder / "config.json").write_text('{"model_type": "clip"}')
    elif how == "no tokenizer":
        (folder / "spiece.model").unlink()
        (folder / "tokenizer_config.json").unlink()
    elif how == "no processor":
        (folder / "preprocessor_config.json").unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no weights", "model.safetensors is missing"),
        ("pickle only", "pickles, which are never opened"),
        ("cut", "incomplete or damaged"),
        ("not safetensors", "incomplete or damaged"),
        ("tensor gone", "vision_model.post_layernorm.weight"),
        ("shard gone", "model-00001-of-00002.safetensors is missing"),
        ("no config", "config.json"),
        ("bad config", "config.json of .* cannot be read"),
        ("other model", "type 'clip'"),
        ("no tokenizer", "its tokenizer cannot be loaded"),
        ("no processor", "no readable preprocessor_config.json"),
    ],
)
def test_damaged_folder_says_what_is_wrong(make_checkpoint, how, message):
    folder = make_checkpoint(seed=4)
    damage(folder, how)
    with pytest.raises(CheckpointError, match=message):
        load_encoder(folder, device="cpu")


def test_missing_folder_and_odd_names():
    with pytest.raises(ModelAccessError, match="folder"):
        load_encoder("/no/such/folder")
    with pytest.raises(CheckpointError, match="a folder"):
        load_encoder("not a name at all!")


def test_unknown_and_absent_devices(checkpoint):
    with pytest.raises(ValueError, match="torch"):
        load_encoder(checkpoint, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="CUDA"):
            load_encoder(checkpoint, device="cuda")


def test_code_in_a_checkpoint_is_never_run(make_checkpoint, tmp_path):
    folder = make_checkpoint(seed=5)
    trap = tmp_path / "trap"
    (folder / "modeling_trap.py").write_text(f"open({str(trap)!r}, 'w').close()")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_trap.Trap"}
    (folder / "config.json").write_text(json.dumps(config))
    load_encoder(folder, device="cpu")
    assert not trap.exists()


# ----------------------------------------------------------------------------- the hub


SECRET = "hf_secretsecretsecret"


class Hub(BaseHTTPRequestHandler):
    """Answers as huggingface.co does for repositories one may not see."""

    authorizations: ClassVar[set] = set()

    def do_GET(self):
        self.authorizations.add(self.headers["Authorization"])
        if "gated" in self.path:
            self._answer(401, "GatedRepo", "Access to model is restricted.")
        elif "unknown" in self.path:
            self._answer(401, "RepoNotFound", "Invalid username or password.")
        else:
            self._answer(404, "RevisionNotFound", "Invalid rev id")

    do_HEAD = do_GET

    def _answer(self, status, code, message):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def hub_url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def messages_of_loads(tmp_path, *asked, **environment):
    """Load in a child process, since the hub client reads its settings once.

    Each of ``asked`` is a model, a revision, and what is set for it beforehand: a
    token is read anew each time.
    """
    code = textwrap.dedent(f"""
        import json, os
        from sk_medsiglip.encoder import load_encoder
        told = []
        for model, revision, settings in {asked!r}:
            os.environ.update(settings)
            try:
                encoder = load_encoder(model, revision)
                shape = encoder.encode_texts(["a rib"]).shape
                told.append(f"loaded {{encoder.revision}} {{shape}}")
            except Exception as error:
                told.append(f"{{type(error).__name__}} {{error}}")
        print(json.dumps(told))
    """)
    settings = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def told(hub_url, tmp_path_factory):
    """What the hub refuses, and what is said of it."""
    messages = messages_of_loads(
        tmp_path_factory.mktemp("home"),
        ("some/gated", None, {}),
        ("some/unknown", None, {}),
        ("some/model", "nope", {}),
        ("some/gated", None, {"HF_TOKEN": SECRET}),
        HF_ENDPOINT=hub_url,
    )
    names = ("gated", "unknown", "revision", "with a token")
    return dict(zip(names, messages, strict=True))


def test_gated_model_says_page_and_login(told):
    message = told["gated"]
    assert message.startswith("ModelAccessError some/gated is gated")
    assert "https://huggingface.co/some/gated" in message
    assert "hf auth login" in message
    assert 'model="/path/to/checkpoint"' in message


def test_unknown_model_says_name_or_login(told):
    message = told["unknown"]
    assert message.startswith("ModelAccessError some/unknown is not on the hub")
    assert "hf auth login" in message


def test_wrong_revision_says_where_revisions_are(told):
    message = told["revision"]
    assert message.startswith("ModelAccessError some/model has no revision 'nope'")
    assert "/commits" in message


def test_token_is_in_no_error(told):
    assert "gated" in told["with a token"]
    assert "secret" not in told["with a token"]
    assert f"Bearer {SECRET}" in Hub.authorizations  # it was sent


def test_hub_cache_is_used_offline(checkpoint, put_on_hub):
    """A downloaded snapshot loads under its commit, without asking anybody."""
    snapshot = put_on_hub("some/model", checkpoint)
    encoder = load_encoder("some/model")
    assert encoder.revision == snapshot.name
    assert encoder.encode_texts(["a rib"]).shape == (1, 32)
    with pytest.raises(ModelAccessError, match="hf download"):
        load_encoder("some/other")


def test_hub_cache_is_used_without_network(checkpoint, put_on_hub, tmp_path):
    """So it does where nothing says that there is no network."""
    commit = put_on_hub("some/model", checkpoint).name
    asked = [("some/model", None, {}), ("some/other", None, {})]
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    loaded, message = messages_of_loads(tmp_path, *asked, **nowhere)
    assert loaded == f"loaded {commit} (1, 32)"
    assert message.startswith("ModelAccessError some/other is not on this machine")
    assert "hf download some/other" in message
    assert 'model="demo"' in message


def test_forked_child_computes_on_one_thread(checkpoint, pixels):
    if not hasattr(os, "fork"):
        pytest.skip("os.fork is not there; this runs on Linux and macOS")
    code = textwrap.dedent(f"""
        import os, sys, numpy as np, torch
        from sk_medsiglip.encoder import load_encoder
        torch.set_num_threads(2)
        encoder = load_encoder({str(checkpoint)!r}, device="cpu")
        pixels = np.zeros((64, 28, 28, 3), np.uint8)
        expected = encoder.encode_images(pixels)   # starts the OpenMP threads
        child = os.fork()
        if child == 0:
            same = np.allclose(encoder.encode_images(pixels), expected, atol=1e-6)
            os._exit(0 if same and torch.get_num_threads() == 1 else 1)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    done = forked.run_code(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_rows_are_near_those_of_the_cpu(checkpoint, pixels):
    cpu = load_encoder(checkpoint, device="cpu", dtype="float32")
    gpu = load_encoder(checkpoint, device="cuda", dtype="float32")
    np.testing.assert_allclose(
        gpu.encode_images(pixels), cpu.encode_images(pixels), atol=1e-3
    )
    assert load_encoder(checkpoint, device="auto").dtype == "bfloat16"


def test_a_demonstration_is_known_by_its_name_its_copy_and_what_is_tuned_from_it(
    tmp_path, monkeypatch
):
    from sk_medsiglip.encoder import DEMO_FOLDER, is_demonstration

    copied = tmp_path / "copy"
    shutil.copytree(DEMO_FOLDER, copied)
    tuned = tmp_path / "tuned"
    tuned.mkdir()
    weights = next(iter(DEMO_FOLDER.glob("*.safetensors"))).read_bytes()
    (tuned / "tuned_weights.safetensors").write_bytes(weights)
    base = {"model": "demo", "revision": None}
    (tuned / "tuning.json").write_text(json.dumps({"format": 1, "base": base}))
    for model in ("demo", copied, tuned):
        assert is_demonstration(model)
    config = json.loads((copied / "config.json").read_text())
    config["vision_config"]["hidden_size"] = 1152
    (copied / "config.json").write_text(json.dumps(config))
    for model in (copied, "google/medsiglip-448", tmp_path, tmp_path / "gone"):
        assert not is_demonstration(model)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # the name means the one in the package
    assert is_demonstration("demo")
