"""MedSigLIPPatchEmbedder: bags, the store under them, and scikit-learn around them."""

import os
import pickle
import signal
import textwrap

import forked
import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.utils import _safe_indexing, estimator_checks

from sk_medsiglip import EmbeddingCache, MedSigLIPEmbedder, MedSigLIPPatchEmbedder
from sk_medsiglip.encoder import Encoder, load_encoder
from sk_medsiglip.exceptions import (
    CacheError,
    CacheWarning,
    CheckpointError,
    ImageReadError,
    UnreadableImageWarning,
)


@pytest.fixture(scope="module")
def grid_checkpoint(make_checkpoint):
    """A random checkpoint of 4 x 4 patches."""
    return make_checkpoint(image_size=56)


@pytest.fixture
def images():
    return list(np.random.default_rng(0).integers(0, 256, (6, 56, 56), dtype=np.uint8))


@pytest.fixture
def embedder(grid_checkpoint, store):
    return MedSigLIPEmbedder(grid_checkpoint, device="cpu", cache=store, batch_size=4)


@pytest.fixture
def patches(embedder):
    return MedSigLIPPatchEmbedder(embedder, grid=2)


@pytest.fixture
def passes(monkeypatch):
    """Record how many images each pass of the model holds."""
    counted = []

    def counting(original):
        def encode(self, pixels, *grid):
            counted.append(len(pixels))
            return original(self, pixels, *grid)

        return encode

    for name in ("encode_images", "encode_cells"):
        monkeypatch.setattr(Encoder, name, counting(getattr(Encoder, name)))
    return counted


class MaxHead(ClassifierMixin, BaseEstimator):
    """The plainest head on bags: logistic regression on their maxima."""

    def __init__(self, C=1.0):
        self.C = C

    def fit(self, X, y):
        self.rows_ = LogisticRegression(C=self.C).fit(np.asarray(X).max(axis=1), y)
        self.classes_ = self.rows_.classes_
        return self

    def predict(self, X):
        return self.rows_.predict(np.asarray(X).max(axis=1))


# ------------------------------------------------------------------------------- bags


@pytest.mark.parametrize(
    ("dtype", "atol"), [("int8", 0.1), ("float16", 5e-3), ("float32", 1e-5)]
)
def test_bags_are_the_cells_of_the_encoder(patches, images, dtype, atol):
    bags = patches.set_params(dtype=dtype).fit_transform(images)
    pixels = np.repeat(np.stack(images)[..., None], 3, axis=3)
    _, cells = load_encoder(patches.embedder.model).encode_cells(pixels, 2)
    assert bags.shape == (6, 4, 32)
    assert bags.dtype == np.float32
    np.testing.assert_allclose(bags, cells, atol=atol)


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32"])
def test_bags_are_the_same_computed_stored_and_without_a_store(patches, images, dtype):
    patches.set_params(dtype=dtype, pooled_row=True)
    computed = patches.transform(images)
    np.testing.assert_array_equal(patches.transform(images), computed)
    patches.set_params(embedder__cache=False)
    np.testing.assert_array_equal(patches.transform(images), computed)


@pytest.mark.parametrize("cache", [True, False])
def test_the_pooled_row_is_the_last_instance(patches, images, cache):
    patches.set_params(pooled_row=True)
    if not cache:
        patches.set_params(embedder__cache=False)
    bags = patches.transform(images)
    assert bags.shape == (6, 5, 32)
    rows = patches.embedder.transform(images)
    np.testing.assert_allclose(bags[:, -1], rows, atol=1e-5)
    without = patches.set_params(pooled_row=False).transform(images)
    np.testing.assert_array_equal(bags[:, :-1], without)


def test_a_grid_of_one_is_the_row(patches, images):
    rows = patches.embedder.transform(images)
    bags = patches.set_params(grid=1).transform(images)
    np.testing.assert_array_equal(bags[:, 0], rows)


def test_normalize_scales_every_instance(patches, images):
    patches.set_params(embedder__normalize=True, pooled_row=True)
    for lazy in (False, True):
        bags = np.asarray(patches.set_params(lazy=lazy).transform(images))
        np.testing.assert_allclose(np.linalg.norm(bags, axis=2), 1, atol=1e-5)


def test_a_grid_that_cuts_patches_is_refused(patches, images):
    patches.set_params(grid=3)
    for method in (patches.fit, patches.transform):
        with pytest.raises(ValueError, match="1, 2"):
            method(images)


def test_without_an_embedder_it_is_medsiglip():
    assert MedSigLIPPatchEmbedder()._given_embedder().model == "google/medsiglip-448"


def test_order_and_repeats_do_not_matter(patches, images):
    bags = patches.transform(images)
    order = [3, 0, 3, 5]
    again = patches.transform([images[i] for i in order])
    np.testing.assert_array_equal(again, bags[order])


def test_collections_are_worked_off_in_parts(patches, images, monkeypatch):
    expected = patches.transform(images)
    monkeypatch.setattr("sk_medsiglip.embedding._patch_embedder._CHUNK", 1000)
    patches.set_params(embedder__cache=False)
    np.testing.assert_allclose(patches.transform(images), expected, atol=1e-5)
    with pytest.raises(ImageReadError, match="row 4"):
        patches.transform([*images[:4], b"not an image"])


# -------------------------------------------------------------------------- the store


def test_one_pass_stores_cells_and_rows(patches, images, passes):
    patches.transform(images)
    assert sum(passes) == 6
    patches.transform(images)
    patches.set_params(pooled_row=True).transform(images)
    patches.embedder.transform(images)
    assert sum(passes) == 6


def test_rows_that_are_stored_stay(patches, images, passes, store):
    rows = patches.embedder.transform(images)
    bags = patches.set_params(pooled_row=True).transform(images)
    np.testing.assert_array_equal(bags[:, -1], rows)
    assert sum(passes) == 12
    assert store.stats()["repeated_puts"] == 0


def test_a_store_that_cannot_be_written_costs_a_warning(patches, images, store):
    os.makedirs(store.location / "segments")
    expected = patches.set_params(embedder__cache=False).transform(images)
    (store.location / "segments").rmdir()
    (store.location / "segments").write_bytes(b"")  # a file where a folder should be
    patches.set_params(embedder__cache=store)
    with pytest.warns(CacheWarning, match="not stored"):
        bags = patches.transform(images)
    np.testing.assert_array_equal(bags, expected)
    with (
        pytest.warns(CacheWarning, match="not stored"),
        pytest.raises(CacheError, match="lazy=False"),
    ):
        patches.set_params(lazy=True).transform(images)


def test_a_flipped_bit_is_computed_again(patches, images, store):
    expected = patches.transform(images)
    for path in (store.location / "segments").iterdir():
        content = bytearray(path.read_bytes())
        content[4096 + 50] ^= 1  # in the first row
        path.write_bytes(content)
    lazy = clone(patches).set_params(lazy=True)
    with pytest.warns(CacheWarning, match="damaged"):
        bags = lazy.transform(images)
    np.testing.assert_array_equal(np.asarray(bags), expected)


def test_killed_while_writing(patches, images, store):
    code = f"""
        import os, signal
        import numpy as np
        from sk_medsiglip import MedSigLIPEmbedder, MedSigLIPPatchEmbedder
        from sk_medsiglip.cache import EmbeddingCache
        put = EmbeddingCache.put_many
        def dying(cache, space, *rest):
            put(cache, space, *rest)
            if space.kind == "cells":
                os.kill(os.getpid(), signal.SIGKILL)
        EmbeddingCache.put_many = dying
        images = np.random.default_rng(0).integers(0, 256, (6, 56, 56), dtype=np.uint8)
        embedder = MedSigLIPEmbedder({str(patches.embedder.model)!r}, device="cpu",
                                     cache={str(store.location)!r}, batch_size=4)
        MedSigLIPPatchEmbedder(embedder, grid=2).transform(list(images))
    """
    ended = forked.run_code(textwrap.dedent(code))
    assert ended.returncode == -signal.SIGKILL
    assert store.verify().rows == 8  # four cells and four rows
    expected = clone(patches).set_params(embedder__cache=False).transform(images)
    np.testing.assert_allclose(patches.transform(images), expected, atol=0.1)
    assert len(store) == 12


def embed_in(location, model, images):
    embedder = MedSigLIPEmbedder(model, device="cpu", cache=location, batch_size=2)
    MedSigLIPPatchEmbedder(embedder, grid=2).transform(images)


def test_two_processes_write_at_once(patches, images, store):
    given = store.location, patches.embedder.model, images
    processes = [forked.context.Process(target=embed_in, args=given) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert store.verify().ok
    assert len(store) == 12  # six bags of cells and six rows
    expected = clone(patches).set_params(embedder__cache=False).transform(images)
    np.testing.assert_allclose(patches.transform(images), expected, atol=0.1)


# ------------------------------------------------------------------------------- lazy


@pytest.fixture
def lazy(patches, images):
    """A lazy array, and the same in memory."""
    dense = patches.transform(images)
    return patches.set_params(lazy=True).transform(images), dense


def test_lazy_bags_look_like_an_array(lazy):
    bags, dense = lazy
    assert bags.shape == dense.shape
    assert bags.dtype == dense.dtype
    assert len(bags) == len(dense)
    assert bags.ndim == 3
    np.testing.assert_array_equal(np.asarray(bags), dense)
    np.testing.assert_array_equal(np.stack(list(bags)), dense)
    assert np.asarray(bags, dtype=np.float64).dtype == np.float64
    assert "(6, 4, 32)" in repr(bags)


@pytest.mark.parametrize(
    "key",
    [
        slice(1, 5, 2),
        [4, 0, 4],
        np.array([-1, 2]),
        np.arange(6) > 3,
        (slice(2), ...),
        (np.array([1]), slice(None), slice(None)),
        slice(0, 0),
    ],
    ids=str,
)
def test_selecting_lazy_bags_reads_nothing(lazy, key):
    bags, dense = lazy
    picked = bags[key]
    assert type(picked) is type(bags)
    np.testing.assert_array_equal(np.asarray(picked), dense[key])


@pytest.mark.parametrize(
    "key", [3, -1, (2, 1), (slice(2), 0), (..., 5), ([1, 3], slice(None), 2)], ids=str
)
def test_other_indices_read(lazy, key):
    bags, dense = lazy
    np.testing.assert_array_equal(bags[key], dense[key])


def test_lazy_bags_refuse_what_arrays_refuse(lazy):
    bags, _ = lazy
    for key in (6, [9], np.ones(3, bool), np.zeros((2, 2), int)):
        with pytest.raises(IndexError):
            bags[key]


def test_lazy_bags_are_small_to_pickle(lazy):
    bags, dense = lazy
    saved = pickle.dumps(bags[[0, 2]])
    assert len(saved) < 2500
    np.testing.assert_array_equal(np.asarray(pickle.loads(saved)), dense[[0, 2]])
    np.testing.assert_array_equal(
        np.asarray(_safe_indexing(bags, np.array([1]))), dense[[1]]
    )


def test_lazy_bags_whose_store_was_cleared_say_what_to_do(lazy, store):
    bags, _ = lazy
    store.clear()
    with pytest.raises(CacheError, match="transform again"):
        np.asarray(bags)


def test_auto_is_lazy_from_a_size_on(patches, images, monkeypatch):
    assert isinstance(patches.transform(images), np.ndarray)
    limit = "sk_medsiglip.embedding._patch_embedder._LARGEST_IN_MEMORY"
    monkeypatch.setattr(limit, 6 * 4 * 32 * 4 - 1)
    assert not isinstance(patches.transform(images), np.ndarray)
    patches.set_params(embedder__cache=False)
    assert isinstance(patches.transform(images), np.ndarray)


def test_lazy_needs_a_store(patches, images):
    patches.set_params(embedder__cache=False, lazy=True)
    with pytest.raises(ValueError, match="lazy=False"):
        patches.transform(images)


# ----------------------------------------------------------------------------- errors


@pytest.mark.parametrize("lazy", [False, True])
def test_unreadable_images_are_bags_of_nan(patches, images, lazy):
    expected = patches.transform(images)
    patches.set_params(lazy=lazy, embedder__on_error="nan", pooled_row=True)
    with pytest.warns(UnreadableImageWarning, match="of NaN"):
        bags = np.asarray(patches.transform([images[0], b"no", images[1]]))
    assert np.isnan(bags[1]).all()
    np.testing.assert_array_equal(bags[[0, 2], :-1], expected[:2])


def test_an_unreadable_image_raises(patches, images):
    with pytest.raises(ImageReadError, match="row 1"):
        patches.transform([images[0], b"no"])


def test_other_weights_than_at_fit_raise(patches, images, make_checkpoint):
    patches.fit(images)
    patches.embedder_.set_params(model=make_checkpoint(image_size=56, seed=5))
    with pytest.raises(CheckpointError, match="Fit again"):
        patches.transform(images)


@pytest.mark.parametrize(
    "parameters", [{"grid": 0}, {"dtype": "int4"}, {"lazy": 2}, {"embedder": "demo"}]
)
def test_bad_parameters_are_refused(patches, images, parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        patches.set_params(**parameters).fit(images)


# ----------------------------------------------------------------------- scikit-learn


def test_data_frames_are_refused_with_a_way_out(patches, images):
    with pytest.raises(ValueError, match="MedSigLIPEmbedder"):
        clone(patches).set_output(transform="pandas").transform(images)
    with config_context(transform_output="pandas"):
        with pytest.raises(ValueError, match="default"):
            patches.transform(images)
        patches.set_output(transform="default")
        assert clone(patches).transform(images).shape == (6, 4, 32)
    assert len(patches.get_feature_names_out()) == 32


def test_clone_and_pickle(patches, images):
    bags = patches.fit_transform(images)
    assert patches.revision_ == patches.embedder_.revision_
    loaded = pickle.loads(pickle.dumps(patches))
    np.testing.assert_array_equal(loaded.transform(images), bags)
    assert not hasattr(clone(patches), "embedder_")


@pytest.mark.parametrize("lazy", [False, True])
def test_searches_read_each_image_once(patches, images, passes, lazy):
    y = [0, 1, 0, 1, 0, 1]
    pipe = make_pipeline(patches.set_params(lazy=lazy), MaxHead())
    search = GridSearchCV(pipe, {"maxhead__C": [0.1, 1]}, cv=2).fit(images, y)
    assert search.predict(images).shape == (6,)
    assert sum(passes) == 6
    bags = patches.transform(images)
    predicted = cross_val_predict(MaxHead(), bags, y, cv=3)
    assert predicted.shape == (6,)
    GridSearchCV(MaxHead(), {"C": [0.1, 1]}, cv=2).fit(bags, y)


READ_A_PICKLE = """
import pickle, sys
import numpy as np

folder = sys.argv[1]
with open(f"{folder}/lazy.pkl", "rb") as file:
    lazy = pickle.load(file)
np.testing.assert_array_equal(np.asarray(lazy), np.load(f"{folder}/dense.npy"))
"""


def test_another_process_reads_the_same_bags(patches, images, tmp_path):
    np.save(tmp_path / "dense.npy", patches.transform(images)[2:4])
    lazy = patches.set_params(lazy=True).transform(images)
    (tmp_path / "lazy.pkl").write_bytes(pickle.dumps(lazy[[2, 3]]))
    done = forked.run_code(READ_A_PICKLE, tmp_path)
    assert done.returncode == 0, done.stderr


def test_two_caches_of_one_location_share_bags(patches, images, passes):
    bags = patches.transform(images)
    location = patches.embedder.cache.location
    other = clone(patches).set_params(embedder__cache=EmbeddingCache(location))
    np.testing.assert_array_equal(other.transform(images), bags)
    assert sum(passes) == 6


@pytest.mark.parametrize(
    "name",
    [
        "check_do_not_raise_errors_in_init_or_set_param",
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_checks_of_sklearn_that_need_no_data(patches, name):
    matches = [found for found in dir(estimator_checks) if found.startswith(name)]
    assert matches
    getattr(estimator_checks, matches[0])(type(patches).__name__, patches)


@pytest.mark.parametrize("verbose", [0, 1])
def test_one_progress_bar_over_all_parts(patches, images, capsys, monkeypatch, verbose):
    monkeypatch.setattr("sk_medsiglip.embedding._patch_embedder._CHUNK", 1000)
    patches.set_params(verbose=verbose).transform(images)
    said = capsys.readouterr().err
    assert ("6/6" in said) == bool(verbose)
    assert "2/2" not in said
