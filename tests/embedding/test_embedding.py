"""The embedders: rows, containers, the store, workers, pickles."""

import copy
import io
import multiprocessing
import os
import pickle
import shutil
import textwrap
import threading
import time
import types
import warnings
from pathlib import Path

import forked
import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

import sk_medsiglip
from sk_medsiglip import EmbeddingCache, MedSigLIPEmbedder, MedSigLIPTextEmbedder
from sk_medsiglip.encoder import Encoder, clear_encoders, load_encoder
from sk_medsiglip.exceptions import (
    CacheWarning,
    CheckpointError,
    ImageReadError,
    ModelAccessError,
    TruncatedTextWarning,
    UnreadableImageWarning,
)
from sk_medsiglip.images import Window, read_resized, resize_bilinear


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (12, 40, 50), dtype=np.uint8)


@pytest.fixture
def paths(images, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    names = [folder / f"{i:02d}.png" for i in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(name)
        os.utime(name, (1_600_000_000, 1_600_000_000))
    return [str(name) for name in names]


@pytest.fixture
def store(tmp_path):
    cache = EmbeddingCache(tmp_path / "store")
    yield cache
    cache.close()


@pytest.fixture
def embedder(checkpoint, store):
    return MedSigLIPEmbedder(checkpoint, device="cpu", cache=store)


@pytest.fixture
def passes(monkeypatch):
    """Count the images that really go through a model in this process."""
    counted = []
    original = Encoder.encode_images

    def encode_images(self, pixels):
        counted.append(len(pixels))
        return original(self, pixels)

    monkeypatch.setattr(Encoder, "encode_images", encode_images)
    return counted


# ------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("pad", [False, True])
def test_rows_are_what_the_model_gives(checkpoint, images, pad):
    encoder = load_encoder(checkpoint, device="cpu")
    rgb = np.repeat(images[..., None], 3, axis=3)
    pixels = np.stack([resize_bilinear(image, 28, pad=pad) for image in rgb])
    rows = MedSigLIPEmbedder(checkpoint, device="cpu", pad=pad, cache=False).transform(
        images
    )
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, encoder.encode_images(pixels), atol=1e-5)


def test_processor_recipe_equals_transformers(checkpoint, images):
    import torch
    from transformers import SiglipImageProcessorPil, SiglipModel

    rgb = [np.repeat(image[..., None], 3, axis=2) for image in images]
    inputs = SiglipImageProcessorPil.from_pretrained(checkpoint)(
        rgb, return_tensors="pt"
    )
    with torch.no_grad():
        model = SiglipModel.from_pretrained(checkpoint).eval()
        expected = model.get_image_features(inputs.pixel_values).pooler_output
    embedder = MedSigLIPEmbedder(
        checkpoint, device="cpu", resize="processor", cache=False
    )
    np.testing.assert_allclose(embedder.transform(images), expected, atol=1e-5)


def test_same_picture_in_any_form_is_one_row(embedder, store, images, paths, passes):
    expected = embedder.transform(paths)
    assert sum(passes) == len(images)
    rgb = np.repeat(images[..., None], 3, axis=3)
    forms = [
        [Path(path) for path in paths],
        [Path(path).read_bytes() for path in paths],
        [io.BytesIO(Path(path).read_bytes()) for path in paths],
        [Image.open(path) for path in paths],
        list(images),
        images,
        images[..., None],
        rgb,
        np.array(paths, dtype=object),
        pd.Series(paths),
        pd.DataFrame({"path": paths}),
        tuple(paths),
    ]
    for form in forms:
        np.testing.assert_array_equal(embedder.transform(form), expected)
    assert sum(passes) == len(images)
    assert len(store) == len(images)


def test_order_subset_and_repeats_do_not_change_rows(embedder, paths, passes):
    expected = embedder.transform(paths)
    order = np.random.default_rng(1).permutation(len(paths))[:7]
    picked = [paths[i] for i in order] * 2
    np.testing.assert_array_equal(
        embedder.transform(picked), expected[np.tile(order, 2)]
    )
    assert sum(passes) == len(paths)


@pytest.mark.parametrize("cache", [False, True])
def test_repeats_in_one_call_are_computed_once(checkpoint, images, passes, cache):
    shifted = images // 2 + cache  # pictures that the shared store has not seen
    embedder = MedSigLIPEmbedder(checkpoint, device="cpu", cache=cache, batch_size=5)
    rows = embedder.transform([shifted[i % 4] for i in range(12)])
    assert sum(passes) == 4
    np.testing.assert_array_equal(rows[:4], rows[8:])


def test_recipes_do_not_share_rows(checkpoint, store, images, passes):
    settings = [
        {},
        {"pad": True},
        {"resize": "processor"},
        {"intensity": Window(center=100, width=50)},
        {"dtype": "bfloat16"},
    ]
    for done, setting in enumerate(settings, start=1):
        embedder = MedSigLIPEmbedder(checkpoint, device="cpu", cache=store, **setting)
        embedder.transform(images)
        assert sum(passes) == done * len(images)
    assert len(store) == len(settings) * len(images)


def test_normalize_shares_rows(checkpoint, store, images, passes):
    plain = MedSigLIPEmbedder(checkpoint, device="cpu", cache=store)
    unit = clone(plain).set_params(normalize=True)
    rows, unit_rows = plain.transform(images), unit.transform(images)
    assert sum(passes) == len(images)
    np.testing.assert_allclose(np.linalg.norm(unit_rows, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(plain.transform(images), rows)


def test_batches_and_reading_threads_do_not_change_rows(checkpoint, images):
    one = MedSigLIPEmbedder(checkpoint, device="cpu", cache=False).transform(images)
    for batch_size, n_jobs in [(1, None), (5, 3), (100, -1)]:
        embedder = MedSigLIPEmbedder(
            checkpoint,
            device="cpu",
            cache=False,
            batch_size=batch_size,
            n_jobs=n_jobs,
        )
        np.testing.assert_allclose(embedder.transform(images), one, atol=1e-5)


def test_changed_file_is_read_again(embedder, paths, images):
    before = embedder.transform(paths)
    Image.fromarray(255 - images[0]).save(paths[0])
    after = embedder.transform(paths)
    assert not np.allclose(after[0], before[0])
    np.testing.assert_array_equal(after[1:], before[1:])


def test_what_gives_the_model_the_same_pixels_shares_rows(
    checkpoint, store, images, passes
):
    expected = MedSigLIPEmbedder(checkpoint, device="cpu", cache=store).transform(
        images
    )
    for setting in [
        {"intensity": Window(center=127.5, width=255)},
        {"frame": 0},
        {"max_pixels": 10_000},
    ]:
        embedder = MedSigLIPEmbedder(checkpoint, device="cpu", cache=store, **setting)
        np.testing.assert_array_equal(embedder.transform(images), expected)
    assert sum(passes) == len(images)


@pytest.fixture
def forbid_reading(monkeypatch):
    """Return a function after which reading any image is an error."""

    def forbid():
        def read_resized(source, *args, **options):
            raise AssertionError(f"{source!r:.80} was read")

        monkeypatch.setattr(
            "sk_medsiglip.embedding._image_embedder.read_resized", read_resized
        )

    return forbid


def test_warm_run_opens_no_file(embedder, paths, forbid_reading):
    time.sleep(0.1)  # files that changed within a clock's tick are not trusted
    expected = embedder.transform(paths)
    forbid_reading()
    np.testing.assert_array_equal(embedder.transform(paths), expected)


@pytest.mark.parametrize("form", ["bytes", "arrays", "other memory order"])
def test_warm_run_decodes_nothing(embedder, images, paths, forbid_reading, form):
    X = {
        "bytes": [Path(path).read_bytes() for path in paths],
        "arrays": images,
        "other memory order": [np.asfortranarray(image) for image in images],
    }[form]
    expected = embedder.transform(X)
    forbid_reading()
    X = [x.copy() if isinstance(x, np.ndarray) else bytes(bytearray(x)) for x in X]
    np.testing.assert_array_equal(embedder.transform(X), expected)
    with pytest.raises(AssertionError, match="was read"):
        embedder.transform([255 - images[0]])


def test_an_array_that_changes_meanwhile_leaves_no_stale_row(
    embedder, images, monkeypatch
):
    before, held = images[0].copy(), images[0].copy()

    def change_and_read(*args, **options):
        held[...] = 255 - before  # as another process does by a memory map
        return read_resized(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(
            "sk_medsiglip.embedding._image_embedder.read_resized", change_and_read
        )
        embedder.transform([held])
    expected = clone(embedder).set_params(cache=False).transform([before])
    np.testing.assert_allclose(embedder.transform([before]), expected, atol=1e-5)


# ------------------------------------------------------------------ sklearn's contract


def test_stateless_transform_adds_nothing(embedder, images):
    before = set(vars(embedder))
    rows = embedder.transform(images)
    assert set(vars(embedder)) == before
    np.testing.assert_array_equal(rows, embedder.fit(images).transform(images))
    np.testing.assert_array_equal(rows, embedder.fit_transform(images))
    assert set(vars(embedder)) == before | {"revision_"}


def test_fit_returns_self_and_touches_nothing(embedder, images):
    params = {name: repr(value) for name, value in embedder.get_params().items()}
    before = images.copy()
    assert embedder.fit(images) is embedder
    assert embedder.fit(images, y=np.arange(len(images))) is embedder
    embedder.transform(images)
    np.testing.assert_array_equal(images, before)
    after = {name: repr(value) for name, value in embedder.get_params().items()}
    assert after == params


def test_fit_twice_and_transform_twice_agree(embedder, images):
    once = embedder.fit(images[:6]).transform(images)
    twice = embedder.fit(images).fit(images[:3]).transform(images)
    np.testing.assert_array_equal(once, twice)
    # What a caller does to the rows does not reach the store.
    twice[:] = 0
    np.testing.assert_array_equal(embedder.transform(images), once)


def test_alone_and_in_a_pipeline_agree(embedder, images):
    y = np.arange(len(images)) % 2
    pipe = make_pipeline(embedder, LogisticRegression()).fit(images, y)
    head = LogisticRegression().fit(embedder.transform(images), y)
    np.testing.assert_array_equal(
        pipe.predict_proba(images), head.predict_proba(embedder.transform(images))
    )


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_cross_validation_after_reading_files(embedder, paths, n_jobs):
    # Reading leaves filters for pydicom's warnings, and scikit-learn copies filters.
    embedder.transform(paths)
    y = np.arange(len(paths)) % 2
    pipe = make_pipeline(embedder, LogisticRegression())
    assert cross_val_score(pipe, paths, y, cv=3, n_jobs=n_jobs).shape == (3,)


def test_read_only_memory_maps_are_taken(embedder, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        embedder.transform(mapped), embedder.transform(images)
    )


def test_feature_names_without_fit_or_weights(make_checkpoint, tmp_path):
    folder = make_checkpoint(seed=11)
    (folder / "model.safetensors").unlink()
    names = MedSigLIPEmbedder(folder, cache=tmp_path).get_feature_names_out()
    assert names.shape == (32,)
    assert names[1] == "medsiglipembedder1"


def test_set_output_keeps_the_index(embedder, paths):
    frame = pd.DataFrame({"path": paths}, index=[f"p{i}" for i in range(len(paths))])
    expected = embedder.transform(paths)
    for given in (frame, frame["path"]):
        out = clone(embedder).set_output(transform="pandas").transform(given)
        assert out.index.tolist() == frame.index.tolist()
        assert out.columns[0] == "medsiglipembedder0"
        np.testing.assert_array_equal(out.to_numpy(), expected)
    out = clone(embedder).set_output(transform="polars").fit_transform(paths)
    assert isinstance(out, pl.DataFrame)
    np.testing.assert_array_equal(out.to_numpy(), expected)


def test_column_transformer_picks_the_column(embedder, paths):
    frame = pd.DataFrame({"path": paths, "age": range(len(paths))})
    both = ColumnTransformer(
        [("image", embedder, "path"), ("table", "passthrough", ["age"])]
    )
    assert both.fit_transform(frame).shape == (len(paths), 33)


def test_copies_carry_names_only(embedder, checkpoint, images):
    embedder.fit(images).transform(images)
    for copied in (clone(embedder), copy.deepcopy(embedder)):
        assert copied.get_params() == embedder.get_params()
    data = pickle.dumps(embedder)
    assert len(data) < 1500
    np.testing.assert_array_equal(
        pickle.loads(data).transform(images), embedder.transform(images)
    )


def test_repr_and_html_load_no_model(make_checkpoint):
    clear_encoders()
    embedder = MedSigLIPEmbedder("/no/such/folder")
    assert "/no/such/folder" in repr(embedder)
    assert "/no/such/folder" in embedder._repr_html_()
    for name in dir(embedder):
        getattr(type(embedder), name, None)
        hasattr(embedder, name)


def test_verbose_shows_a_bar_where_there_is_work(embedder, images, capsys):
    embedder.transform(images[:5])
    assert capsys.readouterr().err == ""
    shown = clone(embedder).set_params(verbose=1)
    shown.transform(images)
    assert "12/12" in capsys.readouterr().err
    shown.transform(images)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"resize": "bicubic"}, "The 'resize' parameter"),
        ({"pad": "yes"}, "The 'pad' parameter"),
        ({"dtype": "float16"}, "The 'dtype' parameter"),
        ({"engine": "onnx"}, "The 'engine' parameter"),
        ({"batch_size": 0}, "The 'batch_size' parameter"),
        ({"cache": 3}, "The 'cache' parameter"),
        ({"on_error": "ignore"}, "The 'on_error' parameter"),
        ({"max_pixels": 0}, "The 'max_pixels' parameter"),
        ({"model": 3}, "The 'model' parameter"),
        ({"intensity": "grey"}, "intensity must be one of"),
        ({"frame": -1}, "frame must be"),
        ({"device": "gpu"}, "not known to torch"),
    ],
)
def test_bad_parameters_are_named(embedder, images, params, message):
    with pytest.raises(ValueError, match=message):
        clone(embedder).set_params(**params).transform(images)


def test_empty_input(embedder):
    with pytest.raises(ValueError, match="0 sample"):
        embedder.transform([])
    with pytest.raises(ValueError, match="0 sample"):
        embedder.fit([])


# -------------------------------------------------------------------------- bad images


def test_bad_image_names_row_and_keeps_the_rest(checkpoint, store, paths):
    embedder = MedSigLIPEmbedder(checkpoint, device="cpu", cache=store, batch_size=2)
    Path(paths[9]).write_bytes(b"no picture")
    with pytest.raises(ImageReadError, match=rf"row 9.*{Path(paths[9]).name}"):
        embedder.transform(paths)
    assert len(store) >= 8


def test_nan_rows_and_one_warning(embedder, paths, passes):
    expected = embedder.transform(paths)
    Path(paths[3]).unlink()
    Path(paths[7]).write_bytes(b"")
    embedder = clone(embedder).set_params(on_error="nan")
    with pytest.warns(UnreadableImageWarning, match="2 of") as caught:
        rows = embedder.transform(paths)
    assert len(caught) == 1
    assert "row 3" in str(caught[0].message)
    assert "row 7" in str(caught[0].message)
    bad = np.isin(np.arange(12), [3, 7])
    assert np.isnan(rows[bad]).all()
    np.testing.assert_array_equal(rows[~bad], expected[~bad])


def test_all_rows_unreadable(embedder):
    embedder = clone(embedder).set_params(on_error="nan")
    with pytest.warns(UnreadableImageWarning, match="1 of"):
        assert np.isnan(embedder.transform(["/no/such/file.png"])).all()


# --------------------------------------------------------------------- weights and age


def test_other_weights_than_at_fit_raise(make_checkpoint, store, images, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(make_checkpoint(seed=12), folder)
    embedder = MedSigLIPEmbedder(folder, device="cpu", cache=store).fit(images)
    data = pickle.dumps(embedder)
    shutil.rmtree(folder)
    shutil.copytree(make_checkpoint(seed=13), folder)
    for fitted in (embedder, pickle.loads(data)):
        with pytest.raises(CheckpointError, match="was fitted"):
            fitted.transform(images)
    fitted.fit(images).transform(images)


def test_filled_store_needs_no_model(make_checkpoint, store, images, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(make_checkpoint(seed=14), folder)
    embedder = MedSigLIPEmbedder(folder, device="cpu", cache=store).fit(images)
    texts = MedSigLIPTextEmbedder(folder, device="cpu", cache=store)
    rows, words = embedder.transform(images), texts.transform(["a rib"])
    scale = texts.logit_parameters()
    shutil.rmtree(folder)
    clear_encoders()
    np.testing.assert_array_equal(embedder.fit(images).transform(images), rows)
    np.testing.assert_array_equal(texts.transform(["a rib"]), words)
    assert texts.logit_parameters() == scale
    with pytest.raises(ModelAccessError, match="folder"):
        embedder.transform(255 - images)


def test_pickle_of_another_version_warns(embedder, monkeypatch):
    monkeypatch.setattr("sk_medsiglip._persistence.__version__", "0.0.1")
    data = pickle.dumps(embedder)
    monkeypatch.undo()
    with pytest.warns(InconsistentVersionWarning, match=r"sk-medsiglip 0\.0\.1"):
        pickle.loads(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(pickle.dumps(embedder))


# --------------------------------------------------------------------------- the store


def test_cache_parameter_forms(checkpoint, tmp_path, images, monkeypatch, passes):
    monkeypatch.setenv("SK_MEDSIGLIP_CACHE", str(tmp_path / "user"))
    for cache, where in [
        (True, tmp_path / "user"),
        (str(tmp_path / "a"), tmp_path / "a"),
        (tmp_path / "b", tmp_path / "b"),
        (EmbeddingCache(tmp_path / "c"), tmp_path / "c"),
    ]:
        MedSigLIPEmbedder(checkpoint, device="cpu", cache=cache).transform(images)
        assert len(EmbeddingCache(where)) == len(images)
    before = sum(passes)
    off = MedSigLIPEmbedder(checkpoint, device="cpu", cache=False)
    off.transform(images)
    off.transform(images)
    assert sum(passes) == before + 2 * len(images)


def test_store_that_cannot_be_written_warns_once(checkpoint, tmp_path, images):
    blocked = tmp_path / "a file"
    blocked.write_text("in the way")
    embedder = MedSigLIPEmbedder(checkpoint, device="cpu", cache=blocked, batch_size=3)
    with pytest.warns(CacheWarning) as caught:
        rows = embedder.transform(images)
    assert len(caught) == 1
    off = MedSigLIPEmbedder(checkpoint, device="cpu", cache=False, batch_size=3)
    np.testing.assert_array_equal(rows, off.transform(images))


def test_eight_threads_on_one_estimator(embedder, images, passes):
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(embedder.transform(images)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for rows in results:
        np.testing.assert_array_equal(rows, results[0])
    assert sum(passes) == len(images)


MEMORY = """
import resource, sys, warnings
import numpy as np
from sk_medsiglip import MedSigLIPEmbedder

def peak():  # MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

checkpoint, *paths = sys.argv[1:]
embedder = MedSigLIPEmbedder(
    checkpoint, device="cpu", cache=False, batch_size=8, n_jobs=3
)
embedder.transform(paths[:60])
before = peak()
rows = embedder.transform(paths)
assert np.isfinite(rows).all()
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_collection(make_checkpoint, tmp_path):
    # Reading is many times faster than this model: whatever may wait, will.
    large = make_checkpoint(image_size=448, patch_size=56, width=64)
    paths = []
    for i in range(220):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(np.full((8, 8), i % 256, np.uint8) + i // 256).save(paths[-1])
    ran = forked.run_code(MEMORY, large, *paths)
    assert ran.returncode == 0, ran.stderr
    # 160 images more, at the model's size, would be 92 MiB.
    assert float(ran.stdout) < 40


FORKED_WORKERS = """
import sys
import numpy as np
from joblib import Parallel, delayed
from sk_medsiglip import MedSigLIPEmbedder

model, store, images = sys.argv[1:]
images = np.load(images)
embedder = MedSigLIPEmbedder(model, device="cpu", cache=store)
expected = embedder.transform(images[:4])  # the workers' parent has the model, too
parts = Parallel(n_jobs=2, backend="multiprocessing")(
    delayed(embedder.transform)(part) for part in (images[:8], images[4:])
)
np.testing.assert_array_equal(parts[0][:4], expected)
np.testing.assert_allclose(parts[0][4:], parts[1][:4], atol=1e-5)
"""


def test_forked_workers_compute_the_same_rows(checkpoint, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    there = (tmp_path / "store", tmp_path / "images.npy")
    done = forked.run_code(FORKED_WORKERS, checkpoint, *there)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow  # the workers of loky, below, start from nothing too
def test_spawned_workers_compute_the_same_rows(embedder, images):
    expected = embedder.transform(images[:4])
    # One worker: that it computes is asked here; starting it is most of the cost.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        parts = pool.map(embedder.transform, [images[:8], images[4:]])
        pool.close()
        pool.join()
    np.testing.assert_array_equal(parts[0][:4], expected)
    np.testing.assert_allclose(parts[0][4:], parts[1][:4], atol=1e-5)


COUNTER = """
import os
from sk_medsiglip.encoder import Encoder
original = Encoder.encode_images
def encode_images(self, pixels):
    with open(os.environ["PASSES"], "ab", buffering=0) as log:
        log.write(b"x" * len(pixels))
    if "PAUSE" in os.environ:
        import time
        time.sleep(float(os.environ["PAUSE"]))
    return original(self, pixels)
Encoder.encode_images = encode_images
"""


@pytest.fixture
def counted_run(tmp_path):
    """Run code in a process whose passes, and its children's, are counted."""
    site = tmp_path / "site"
    site.mkdir()
    # For workers that a search starts.
    (site / "sitecustomize.py").write_text(COUNTER)
    log = tmp_path / "passes"
    log.touch()
    package = str(Path(sk_medsiglip.__file__).parents[1])

    begun = []

    def start(code, **environment):
        variables = {
            "PASSES": str(log),
            "PYTHONPATH": os.pathsep.join([str(site), package]),
            "SK_MEDSIGLIP_CACHE": str(tmp_path / "user"),
        }
        whole = COUNTER + textwrap.dedent(code)
        process = forked.Child(whole, **variables, **environment)
        begun.append(process)
        return process

    def passes():
        return log.stat().st_size

    yield start, passes
    for process in begun:  # none outlives a test that failed
        process.kill()


def finish(process):
    done = process.wait()
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_grid_search_meets_each_image_once(counted_run, checkpoint, tmp_path):
    start, passes = counted_run
    code = f"""
        import os
        import numpy as np
        from joblib.externals.loky import get_reusable_executor
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV
        from sklearn.pipeline import make_pipeline
        from sk_medsiglip import MedSigLIPEmbedder

        if __name__ == "__main__":
            rng = np.random.default_rng(0)
            X = rng.integers(0, 256, (300, 28, 28), dtype=np.uint8)
            y = rng.integers(0, 2, 300)
            pipe = make_pipeline(
                MedSigLIPEmbedder({str(checkpoint)!r}, device="cpu"),
                LogisticRegression(max_iter=20, tol=1),
            )
            grid = {{"logisticregression__C": np.logspace(-3, 3, 10)}}
            n_jobs = int(os.environ["N_JOBS"])
            search = GridSearchCV(pipe, grid, cv=5, n_jobs=n_jobs).fit(X, y)
            print(len(search.cv_results_["params"]), flush=True)
            # A forked child waits for its children and ends nothing by itself.
            get_reusable_executor().shutdown()
    """
    assert finish(start(code, N_JOBS="2")) == "10\n"
    assert passes() == 300
    # A second run, in a new process.
    assert finish(start(code, N_JOBS="1")) == "10\n"
    assert passes() == 300
    # What the workers stored is what one process computes.
    X = np.random.default_rng(0).integers(0, 256, (300, 28, 28), dtype=np.uint8)
    store = EmbeddingCache(tmp_path / "user")
    assert len(store) == 300
    embedder = MedSigLIPEmbedder(checkpoint, device="cpu", cache=store)
    alone = clone(embedder).set_params(cache=False).transform(X)
    np.testing.assert_allclose(embedder.transform(X), alone, atol=1e-5)


SHARED_WORK = """
    import numpy as np
    from sk_medsiglip import MedSigLIPEmbedder

    X = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    embedder = MedSigLIPEmbedder({model!r}, device="cpu", batch_size=4)
    print(float(embedder.transform(X).sum()))
"""


def test_two_processes_share_the_work(counted_run, checkpoint):
    start, passes = counted_run
    code = SHARED_WORK.format(model=str(checkpoint))
    first = start(code, PAUSE="0.1")
    second = start(code, PAUSE="0.1")
    one, two = finish(first), finish(second)
    assert float(one) == pytest.approx(float(two), rel=1e-5)
    assert passes() == 40


def test_a_killed_worker_blocks_nobody(counted_run, checkpoint):
    start, passes = counted_run
    code = SHARED_WORK.format(model=str(checkpoint))
    stuck = start(code, PAUSE="100")  # holds claims on its first batches
    begun = 0
    while passes() == 0 or passes() != begun:
        assert stuck.is_running()
        begun = passes()
        time.sleep(1)
    assert begun % 4 == 0
    assert begun <= 4 * os.cpu_count()
    waiting = start(code)
    while passes() < 40:  # everything but the batches that are claimed
        assert waiting.is_running()
        time.sleep(0.05)
    stuck.kill()
    finish(waiting)
    assert passes() == 40 + begun


# ------------------------------------------------------------------------------- texts


def test_text_rows(checkpoint, store):
    texts = ["a rib", "an effusion", "a rib"]
    embedder = MedSigLIPTextEmbedder(checkpoint, device="cpu", cache=store)
    rows = embedder.fit_transform(texts)
    expected = load_encoder(checkpoint, device="cpu").encode_texts(texts)
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert len(store) == 2
    frame = pd.DataFrame({"text": texts}, index=[5, 6, 7])
    out = clone(embedder).set_output(transform="pandas").transform(frame)
    assert out.index.tolist() == [5, 6, 7]
    assert out.columns[0] == "medsigliptextembedder0"
    unit = clone(embedder).set_params(normalize=True, batch_size=1).transform(texts)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)


def test_over_long_texts_warn_once_with_rows(checkpoint, store):
    long = "pleural effusion " * 60
    embedder = MedSigLIPTextEmbedder(checkpoint, device="cpu", cache=store)
    with pytest.warns(TruncatedTextWarning, match="rows 1") as caught:
        embedder.transform(["short", long, "brief", long])
    assert len(caught) == 1
    assert "pleural" not in str(caught[0].message)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ("one text", TypeError, "single text"),
        ([], ValueError, "0 sample"),
        (["a", 3], TypeError, "row 1 of X is a int"),
        (["a", "  "], ValueError, "row 1 of X is an empty text"),
        (np.array([["a", "b"]]), ValueError, r"got shape \(1, 2\)"),
        ([None], TypeError, "row 0 of X is a NoneType"),
    ],
)
def test_bad_texts(checkpoint, X, error, message):
    with pytest.raises(error, match=message):
        MedSigLIPTextEmbedder(checkpoint, device="cpu", cache=False).transform(X)


# ---------------------------------------------------------------------- saved pipelines


def test_saved_pipeline_predicts_in_a_new_process(embedder, images, tmp_path):
    y = np.arange(len(images)) % 2
    pipe = make_pipeline(embedder, LogisticRegression()).fit(images, y)
    joblib.dump(pipe, tmp_path / "pipe.joblib")
    np.save(tmp_path / "images.npy", images)
    assert (tmp_path / "pipe.joblib").stat().st_size < 5000
    code = (
        "import joblib, numpy as np, sys, os\n"
        "os.chdir(sys.argv[1])\n"
        "pipe = joblib.load('pipe.joblib')\n"
        "print(pipe.predict(np.load('images.npy')).tolist())"
    )
    done = forked.run_code(code, tmp_path)
    assert done.stdout.strip() == str(pipe.predict(images).tolist())


def test_public_names_resolve():
    for name in sk_medsiglip.__all__:
        assert getattr(sk_medsiglip, name) is not None
    with pytest.raises(AttributeError, match="'nothing'"):
        sk_medsiglip.nothing  # noqa: B018


# ------------------------------------------------------- files that hide their changes


def change_unseen(path, image):
    """Write another picture of equal size and put the times back."""
    before = os.stat(path)
    content = Path(path).read_bytes()
    Image.fromarray(image).save(path)
    changed = Path(path).read_bytes()
    assert len(changed) == len(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def unseen(embedder, images, tmp_path, monkeypatch):
    """Files, remembered; the second changed, and its change time is put back too."""
    paths = [str(tmp_path / f"{i}.bmp") for i in range(4)]
    for path, image in zip(paths, images, strict=False):
        Image.fromarray(image).save(path)
        os.utime(path, (1_600_000_000, 1_600_000_000))
    real = os.stat
    times = {path: real(path).st_ctime_ns for path in paths}
    time.sleep(0.2)
    embedder.transform(paths)
    change_unseen(paths[1], images[7])

    def stat(path, *args, **kwargs):
        """As on a file system whose change times can be set."""
        found = real(path, *args, **kwargs)
        if str(path) not in times:
            return found
        named = {n: getattr(found, n) for n in dir(found) if n.startswith("st_")}
        return types.SimpleNamespace(**{**named, "st_ctime_ns": times[str(path)]})

    monkeypatch.setattr("sk_medsiglip.cache._files.os.stat", stat)
    return paths


def test_files_that_changed_unseen_are_found(embedder, unseen, images, passes):
    stale = embedder.transform(unseen)
    assert not passes[1:]  # nothing was noticed
    assert embedder.verify_files(unseen).tolist() == [True, False, True, True]
    fresh = embedder.transform(unseen)
    np.testing.assert_array_equal(fresh[1], embedder.transform([images[7]])[0])
    np.testing.assert_array_equal(fresh[[0, 2, 3]], stale[[0, 2, 3]])
    assert embedder.verify_files(unseen).all()


def test_verifying_new_files_reads_none(embedder, paths, forbid_reading):
    forbid_reading()
    assert embedder.verify_files(paths).all()


def test_a_remembered_file_that_is_broken_now_is_found(embedder, unseen):
    size = os.path.getsize(unseen[2])
    before = os.stat(unseen[2])
    Path(unseen[2]).write_bytes(b"\0" * size)
    os.utime(unseen[2], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert embedder.verify_files(unseen).tolist() == [True, False, False, True]
