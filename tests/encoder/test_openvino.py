"""The second engine: same rows, its own key, one conversion, kept by content."""

import itertools
import os
import shutil
import sys
import textwrap

import forked
import numpy as np
import pytest

from sk_medsiglip import (
    EmbeddingCache,
    MedSigLIPEmbedder,
    MedSigLIPTextEmbedder,
    make_zero_shot_pipeline,
)
from sk_medsiglip.encoder import (
    DEMO_FOLDER,
    bfloat16_gain,
    choose_dtype,
    clear_encoders,
    find_checkpoint,
    load_encoder,
)
from sk_medsiglip.exceptions import (
    CheckpointError,
    MissingDependencyError,
)

openvino = pytest.importorskip(
    "openvino", reason='openvino is not installed: pip install ".[openvino]"'
)

TEXTS = ["a normal chest X-ray", "a large pleural effusion", "a nodule"]


@pytest.fixture(autouse=True)
def fresh_encoders():
    clear_encoders()
    yield
    clear_encoders()


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder in which the demonstration checkpoint is converted once."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def tiny(make_checkpoint):
    """The least to convert: a layer a tower; for what is asked of any checkpoint."""
    return make_checkpoint(layers=1)


@pytest.fixture
def seeded(kept, tmp_path):
    """A store that has the demonstration checkpoint's conversions from the start."""
    for dtype in ("float32", "bfloat16"):
        load_encoder("demo", engine="openvino", dtype=dtype, converted=kept)
    clear_encoders()
    shutil.copytree(kept, tmp_path / "store" / "converted")
    return tmp_path / "store"


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 128, 128, 3), dtype=np.uint8)


@pytest.fixture
def images():
    return list(np.random.default_rng(1).integers(0, 256, (6, 90, 70), dtype=np.uint8))


@pytest.fixture
def conversions(monkeypatch):
    """Count the towers that are really converted, two a checkpoint."""
    made = []
    original = openvino.convert_model

    def convert(*args, **options):
        made.append(args)
        return original(*args, **options)

    monkeypatch.setattr(openvino, "convert_model", convert)
    return made


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# ------------------------------------------------------------------------------- rows


def test_float32_rows_equal_torch(pixels, kept):
    plain = load_encoder("demo", device="cpu")
    ours = load_encoder("demo", engine="openvino", dtype="float32", converted=kept)
    assert (ours.engine, ours.dtype, ours.device) == ("openvino", "float32", "cpu")
    for way, values in (("encode_images", pixels), ("encode_texts", TEXTS)):
        expected = getattr(plain, way)(values)
        rows = getattr(ours, way)(values)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(rows, expected, atol=1e-4)
    assert ours.logit_scale == pytest.approx(plain.logit_scale, rel=1e-6)
    assert ours.logit_bias == pytest.approx(plain.logit_bias, rel=1e-6)


def test_bfloat16_rows_are_near_float32(pixels, kept):
    plain = load_encoder("demo", device="cpu")
    ours = load_encoder("demo", engine="openvino", dtype="bfloat16", converted=kept)
    for way, values in (("encode_images", pixels), ("encode_texts", TEXTS)):
        rows = getattr(ours, way)(values)
        assert cosines(rows, getattr(plain, way)(values)).min() > 0.9995


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_do_not_depend_on_the_batch(pixels, kept, dtype):
    encoder = load_encoder("demo", engine="openvino", dtype=dtype, converted=kept)
    together = encoder.encode_images(pixels)
    alone = np.concatenate([encoder.encode_images(one[None]) for one in pixels])
    assert cosines(together, alone).min() > 0.99999
    # Rows are told apart: the next picture's vector is another one.
    assert cosines(together, np.roll(together, 1, axis=0)).max() < 0.9999


def test_scaling_follows_the_checkpoint(make_checkpoint, tmp_path):
    folder = shutil.copytree(make_checkpoint(seed=8, layers=1), tmp_path / "model")
    config = folder / "preprocessor_config.json"
    text = config.read_text()
    assert text.count("0.5") == 6
    config.write_text(text.replace("0.5", "0.4", 1).replace("0.5", "0.3", 1))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)
    plain = load_encoder(folder, device="cpu").encode_images(pixels)
    ours = load_encoder(folder, engine="openvino", dtype="float32")
    np.testing.assert_allclose(ours.encode_images(pixels), plain, atol=1e-4)


# ------------------------------------------------------------------- estimators, keys


def test_embedder_keeps_engines_apart(images, seeded):
    store = EmbeddingCache(seeded)
    chosen = {"device": "cpu", "cache": store, "dtype": "bfloat16"}
    by_torch = MedSigLIPEmbedder("demo", engine="torch", **chosen).transform(images)
    assert len(store) == 6
    ours = MedSigLIPEmbedder("demo", engine="openvino", **chosen)
    rows = ours.transform(images)
    assert len(store) == 12
    assert not np.array_equal(rows, by_torch)
    assert cosines(rows, by_torch).min() > 0.999
    np.testing.assert_array_equal(ours.transform(images), rows)
    assert len(store) == 12


def test_auto_takes_any_stored_row(images, seeded, monkeypatch):
    store = EmbeddingCache(seeded)
    by = MedSigLIPEmbedder("demo", engine="openvino", dtype="bfloat16", cache=store)
    rows = by.transform(images)
    clear_encoders()
    monkeypatch.setattr("sk_medsiglip.encoder._openvino_towers.OpenVINOTowers", None)
    for params in ({}, {"engine": "openvino"}, {"dtype": "bfloat16"}):
        again = MedSigLIPEmbedder("demo", cache=store, **params).transform(images)
        np.testing.assert_array_equal(again, rows)
    assert len(store) == 6


def test_texts_and_zero_shot(images, seeded):
    plain = MedSigLIPTextEmbedder("demo", cache=False, device="cpu").transform(TEXTS)
    ours = MedSigLIPTextEmbedder("demo", cache=seeded, engine="openvino")
    assert cosines(ours.transform(TEXTS), plain).min() > 0.999
    prompts = {"normal": TEXTS[:1], "sick": TEXTS[1:]}
    settings = {"model": "demo", "cache": seeded}
    expected = make_zero_shot_pipeline(prompts, **settings, engine="torch")
    pipe = make_zero_shot_pipeline(prompts, **settings, engine="openvino")
    np.testing.assert_allclose(
        pipe.fit(images).predict_proba(images),
        expected.fit(images).predict_proba(images),
        atol=0.05,
    )


# ------------------------------------------------------------------------- conversion


def test_converted_once_for_all_processes(tmp_path, tiny, conversions):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 3), dtype=np.uint8)
    settings = {"engine": "openvino", "dtype": "bfloat16", "converted": tmp_path}
    first = load_encoder(tiny, **settings).encode_images(pixels)
    assert len(conversions) == 2
    clear_encoders()
    again = load_encoder(tiny, **settings).encode_images(pixels)
    np.testing.assert_array_equal(again, first)
    assert len(conversions) == 2
    [folder] = tmp_path.iterdir()
    assert find_checkpoint(tiny).revision in folder.name
    if os.name == "posix":
        assert folder.stat().st_mode & 0o077 == 0


def test_other_weights_are_converted_anew(make_checkpoint, tmp_path, conversions):
    settings = {"engine": "openvino", "dtype": "float32", "converted": tmp_path}
    rows = [
        load_encoder(make_checkpoint(seed=seed, layers=1), **settings).encode_texts(
            ["a rib"]
        )
        for seed in (1, 2)
    ]
    assert len(conversions) == 4
    assert not np.allclose(*rows)


def test_nothing_kept_without_a_cache(tiny, images, tmp_path, monkeypatch, conversions):
    monkeypatch.setenv("SK_MEDSIGLIP_CACHE", str(tmp_path / "store"))
    embedder = MedSigLIPEmbedder(tiny, engine="openvino", cache=False)
    assert embedder.transform(images).shape == (6, 32)
    assert len(conversions) == 2
    assert not list(tmp_path.iterdir())


def test_weights_are_not_needed_once_converted(tiny, put_on_hub, tmp_path):
    """A snapshot of the hub without its weight file computes, offline."""
    snapshot = put_on_hub("some/model", tiny)
    store = tmp_path / "store"
    embedder = MedSigLIPTextEmbedder(
        "some/model", engine="openvino", cache=store, dtype="float32"
    )
    first = embedder.transform(["a rib"])
    (snapshot / "model.safetensors").unlink()
    clear_encoders()
    assert not np.allclose(embedder.transform(["a lung"]), first)
    clear_encoders()
    shutil.rmtree(store / "converted")
    with pytest.raises(CheckpointError, match="model.safetensors"):
        embedder.transform(["a heart"])


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *itertools.product(["image.bin", "text.xml"], ["flip", "cut", "delete"]),
        ("facts.json", "cut"),
        ("facts.json", "delete"),
    ],
)
def test_damaged_conversion_is_noticed(kept, tmp_path, name, how):
    settings = {"engine": "openvino", "dtype": "float32"}
    load_encoder("demo", **settings, converted=kept)
    clear_encoders()
    shutil.copytree(kept, tmp_path / "kept")
    for path in tmp_path.glob(f"kept/*/{name}"):  # that of each type
        content = bytearray(path.read_bytes())
        if how == "delete":
            path.unlink()
        else:
            content[len(content) // 2] ^= 0x10
            path.write_bytes(content if how == "flip" else content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="Delete"):
        load_encoder("demo", **settings, converted=tmp_path / "kept")


def test_full_disk_leaves_nothing_behind(tmp_path, tiny):
    """Rows are right where a conversion cannot be kept; one warning says so."""
    code = textwrap.dedent(f"""
        import resource, warnings
        import numpy as np
        from pathlib import Path
        from sk_medsiglip import EmbeddingCache, MedSigLIPEmbedder
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
        import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = Path({str(tmp_path / "store")!r})
        embedder = MedSigLIPEmbedder(
            {str(tiny)!r}, engine="openvino", cache=store, dtype="float32")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rows = embedder.transform(list(np.arange(2 * 900, dtype=np.uint8)
                                           .reshape(2, 30, 30)))
        assert np.isfinite(rows).all()
        said = [str(w.message) for w in caught if "CacheWarning" in repr(w.category)]
        assert len(said) == 1 and "not kept" in said[0], said
        assert not list((store / "converted").iterdir())
    """)
    ran = forked.run_code(code)
    assert ran.returncode == 0, ran.stderr


# --------------------------------------------------------------------------- refusals


def test_gpu_is_refused(images):
    embedder = MedSigLIPEmbedder("demo", engine="openvino", device="cuda", cache=False)
    with pytest.raises(ValueError, match="CPU"):
        embedder.transform(images)


def test_missing_package_says_how_to_install(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    embedder = MedSigLIPEmbedder("demo", engine="openvino", cache=False)
    with pytest.raises(MissingDependencyError, match=r"sk-medsiglip\[openvino\]"):
        embedder.transform(images)


def test_forked_child_is_told(tiny, tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("os.fork is not there; this runs on Linux and macOS")
    code = textwrap.dedent(f"""
        import os, sys, numpy as np
        from sk_medsiglip.encoder import clear_encoders, load_encoder
        from sk_medsiglip.exceptions import ForkedProcessError
        settings = dict(engine="openvino", converted={str(tmp_path)!r})
        tiny = {str(tiny)!r}
        encoder = load_encoder(tiny, **settings)
        encoder.encode_texts(["a rib"])
        child = os.fork()
        if child == 0:
            told = 0
            for way in ("use", "load"):
                try:
                    if way == "load":
                        clear_encoders()
                        encoder = load_encoder(tiny, **settings)
                    encoder.encode_texts(["a rib"])
                except ForkedProcessError as error:
                    told += "loky" in str(error)
            os._exit(0 if told == 2 else 1)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    done = forked.run_code(code)
    assert done.returncode == 0, done.stderr


def test_demo_is_not_touched(kept, pixels):
    """Converting writes nothing into the checkpoint's own folder."""
    before = sorted(path.name for path in DEMO_FOLDER.iterdir())
    load_encoder("demo", engine="openvino", dtype="bfloat16", converted=kept)
    assert sorted(path.name for path in DEMO_FOLDER.iterdir()) == before


@pytest.mark.parametrize(("gain", "dtype"), [(0.6, "float32"), (1.9, "bfloat16")])
@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_taken_where_it_pays(monkeypatch, gain, dtype, native):
    monkeypatch.setattr("sk_medsiglip.encoder._numerics.bfloat16_gain", lambda: gain)
    monkeypatch.setattr(
        "sk_medsiglip.encoder._numerics.cpu_has_bfloat16", lambda: native
    )
    chosen = choose_dtype("auto", "cpu", "openvino")
    assert chosen == (dtype if native else "float32")
    assert choose_dtype("auto", "cpu", "torch") == "float32"
    assert choose_dtype("bfloat16", "cpu", "openvino") == "bfloat16"


def test_gain_is_measured():
    gain = bfloat16_gain()
    assert 0.001 < gain < 100
    assert bfloat16_gain() == gain  # once a process
