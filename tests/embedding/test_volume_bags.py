"""MedSigLIPVolumeEmbedder(pooling=None): bags of slices, views and tiles."""

import pickle

import nibabel
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from study_files import EXPORTS, noise, settle, write_series

from sk_medsiglip import ImageRetriever
from sk_medsiglip.exceptions import ImageReadError, UnreadableImageWarning
from sk_medsiglip.images import Region, Window, read_image, read_study


@pytest.fixture
def bags(volumes):
    return volumes.set_params(pooling=None)


def mean_of_instances(bags):
    """Stand for a head: it takes bags, and rows as they are."""
    return np.nanmean(bags, axis=1) if bags.ndim == 3 else bags


@pytest.fixture
def damaged(tmp_path):
    folder = write_series(tmp_path / "damaged", noise(5, 1, np.int16), Modality="CT")
    paths = sorted(folder.iterdir())
    paths[2].write_bytes(paths[2].read_bytes()[:-100])
    return folder, paths


# ------------------------------------------------------------------------------ bags


def test_instances_are_the_rows_of_the_slices_and_the_rest_is_nan(bags, tmp_path):
    series = write_series(tmp_path / "series", noise(5, 1, np.int16), Modality="MR")
    nifti = tmp_path / "volume.nii.gz"
    nibabel.Nifti1Image(noise(6, 5, np.int16), np.eye(4)).to_filename(nifti)
    views = [noise(1, seed)[0] for seed in range(3)]
    items = [series, nifti, EXPORTS / "98892001", views, noise(1, 7)[0]]
    made = bags.set_params(n_slices=6).transform(items)
    assert made.dtype == np.float32
    assert made.shape == (5, 6, 32)
    for bag, item in zip(made, items, strict=True):
        slices = read_study(item, n_slices=6)
        expected = bags.embedder.transform(slices)
        np.testing.assert_allclose(bag[: len(slices)], expected, atol=1e-5)
        assert np.isnan(bag[len(slices) :]).all()


def test_the_mean_of_a_bag_is_the_row_of_pooling_by_mean(bags):
    studies = [noise(n, n) for n in (3, 1, 5)]
    rows = clone(bags).set_params(pooling="mean").transform(studies)
    np.testing.assert_allclose(
        np.nanmean(bags.transform(studies), axis=1), rows, atol=1e-6
    )


def test_bags_do_not_depend_on_company_chunks_or_threads(bags, monkeypatch):
    studies = [noise(n, n) for n in (3, 1, 5, 2, 7)]
    together = bags.transform(studies)
    monkeypatch.setattr("sk_medsiglip.embedding._volume_work._CHUNK_SLICES", 4)
    chunked = clone(bags).set_params(embedder__cache=False, embedder__n_jobs=3)
    for made in (bags.transform(studies), chunked.transform(studies)):
        np.testing.assert_allclose(made, together, atol=1e-5)
    for study, bag in zip(studies, together, strict=True):
        [alone] = bags.transform([study])
        assert alone.shape == (len(study), 32)
        np.testing.assert_array_equal(alone, bag[: len(study)])


def test_studies_that_are_known_need_neither_pass_nor_file(bags, passes, tmp_path):
    folder = write_series(tmp_path / "series", noise(5, 1, np.int16), Modality="MR")
    settle(tmp_path)
    rows = clone(bags).set_params(pooling="mean").transform([folder])
    passes.clear()
    [bag] = bags.transform([folder])  # rows of slices are stored, whatever pools them
    np.testing.assert_allclose(bag.mean(axis=0), rows[0], atol=1e-5)
    np.testing.assert_array_equal(bags.transform([folder])[0], bag)
    assert passes == []


def test_normalize_scales_each_instance(bags):
    made = bags.set_params(embedder__normalize=True).transform([noise(4), noise(2, 1)])
    lengths = np.linalg.norm(made, axis=2)
    np.testing.assert_allclose(lengths[~np.isnan(lengths)], 1, rtol=1e-5)
    assert np.isnan(lengths).sum() == 2


def test_lists_of_views_and_tiles_are_ragged_bags(bags, tmp_path):
    slide = noise(1, 3)[0]
    tiles = [Region(slide, x=x, y=0, width=5, height=24) for x in (0, 5, 10, 15)]
    lesions = [noise(1, seed)[0] for seed in range(2)]
    made = bags.set_params(n_slices=None).transform([lesions, tiles])
    assert made.shape == (2, 4, 32)
    expected = bags.embedder.transform([read_image(tile) for tile in tiles])
    np.testing.assert_allclose(made[1], expected, atol=1e-5)
    assert np.isnan(made[0, 2:]).all()
    assert bags.slice_names([tiles])[0][1].startswith("region x=5 y=0 width=5 height=2")


# ------------------------------------------------------------- what cannot be read


def test_an_unreadable_slice_raises_or_is_nan_at_its_place(bags, damaged):
    folder, paths = damaged
    with pytest.raises(ImageReadError, match="row 1"):
        bags.transform([noise(2), folder])
    bags.set_params(embedder__on_error="nan")
    names = bags.slice_names([folder])[0]
    assert sorted(names) == sorted(map(str, paths))
    with pytest.warns(UnreadableImageWarning, match="of NaN") as caught:
        [bag] = bags.transform([folder])
    assert caught[0].filename == __file__
    for name, instance in zip(names, bag, strict=True):
        assert np.isnan(instance).all() == (name == str(paths[2]))
        assert np.isnan(instance).any() == (name == str(paths[2]))


def test_a_study_that_cannot_be_read_is_a_bag_of_nan(bags):
    bags.set_params(embedder__on_error="nan")
    with pytest.warns(UnreadableImageWarning, match="1 of"):
        made = bags.transform(["missing", noise(3)])
    assert made.shape == (2, 3, 32)
    assert np.isnan(made[0]).all()
    with pytest.warns(UnreadableImageWarning, match="1 of"):
        assert bags.transform(["missing"]).shape == (1, 1, 32)


# ----------------------------------------------------------------------- slice_names


def test_names_are_those_of_the_instances(bags, tmp_path):
    folder = write_series(tmp_path / "series", noise(9, 1, np.int16), Modality="CT")
    nifti = tmp_path / "volume.nii"
    nibabel.Nifti1Image(noise(6, 5, np.int16), np.eye(4)).to_filename(nifti)
    bags.set_params(n_slices=3)
    names = bags.slice_names([folder, nifti])
    assert [len(of_study) for of_study in names] == [3, 3]
    window = {"intensity": Window(128, 256)}
    slices = read_study(folder, n_slices=3, **window)
    for name, shown in zip(names[0], slices, strict=True):
        np.testing.assert_array_equal(read_image(name, **window), shown)
    assert [name.rpartition(" ")[2] for name in names[1]] == ["0", "10", "19"]
    with pytest.raises(ImageReadError, match="row 1"):
        bags.slice_names([folder, "gone"])


# ------------------------------------------------------------------- scikit-learn


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_data_frames_are_refused_before_any_work(bags, passes, container):
    with (
        sklearn.config_context(transform_output=container),
        pytest.raises(ValueError, match="set_output"),
    ):
        bags.transform([noise(3)])
    bags.set_output(transform=container)
    for call in (bags.transform, bags.fit_transform):
        with pytest.raises(ValueError, match='pooling="mean"'):
            call([noise(3)])
    bags.set_output(transform="default")
    assert passes == []
    assert bags.transform([noise(3)]).shape == (1, 3, 32)


def test_names_of_features_are_those_of_the_last_axis(bags):
    names = bags.get_feature_names_out()
    assert list(names) == [f"medsiglipvolumeembedder{i}" for i in range(32)]


def test_pickled_and_cloned_bags_are_the_same(bags):
    fitted = clone(bags).fit([noise(3)])
    expected = fitted.transform([noise(3), noise(2, 1)])
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.transform([noise(3), noise(2, 1)]), expected)


def test_pooling_is_searched_and_predictions_cross_validated(bags):
    studies = pd.Series([noise(2 + seed % 3, seed) for seed in range(8)])
    y = np.array(["ill", "well"] * 4)
    head = FunctionTransformer(mean_of_instances)
    pipe = make_pipeline(bags, head, LogisticRegression())
    grid = {"medsiglipvolumeembedder__pooling": [None, "mean"]}
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(studies, y)
    scores = search.cv_results_["mean_test_score"]
    assert scores[0] == scores[1]  # by this head the two are one
    answers = cross_val_predict(pipe, studies, y, cv=2, method="predict_proba")
    assert answers.shape == (8, 2)


def test_retriever_asks_for_one_vector_a_study(bags):
    with pytest.raises(ValueError, match='pooling="mean"'):
        ImageRetriever(embedder=bags).fit([noise(3)])
