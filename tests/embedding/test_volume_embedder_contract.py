"""MedSigLIPVolumeEmbedder: pooling, errors, containers, scikit-learn's contract."""

import pickle
import re

import nibabel
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from study_files import EXPORTS, noise, settle, write_series

from sk_medsiglip.exceptions import (
    ImageReadError,
    SkMedSiglipWarning,
    UnreadableImageWarning,
)
from sk_medsiglip.images import Window

# ---------------------------------------------------------------------------- pooling


def test_poolings(volumes):
    studies = [noise(5), noise(1, 2)]
    each = [volumes.embedder.transform(study) for study in studies]
    expected = {
        "mean": [rows.mean(axis=0) for rows in each],
        "max": [rows.max(axis=0) for rows in each],
    }
    expected["mean+max"] = np.hstack([expected["mean"], expected["max"]])
    for pooling, rows in expected.items():
        volumes.set_params(pooling=pooling)
        np.testing.assert_allclose(volumes.transform(studies), rows, atol=1e-5)
        assert volumes.get_feature_names_out().shape == (np.shape(rows)[1],)
    names = volumes.get_feature_names_out()
    assert [names[0], names[32]] == [
        "medsiglipvolumeembedder_mean0",
        "medsiglipvolumeembedder_max0",
    ]
    assert len(set(names)) == len(names) == 64


def test_pooling_by_a_function(volumes):
    studies = [noise(5), noise(1, 2)]
    seen = []

    def spread(rows):
        seen.append(rows.shape)
        return [rows.std(), rows.min(), rows.max()]

    volumes.set_params(pooling=spread)
    rows = volumes.transform(studies)
    assert rows.dtype == np.float32
    assert {(5, 32), (1, 32)} <= set(seen)
    expected = volumes.embedder.transform(studies[0])
    np.testing.assert_allclose(rows[0, 0], expected.std(), atol=1e-5)
    frame = volumes.set_output(transform="pandas").transform(studies)
    assert list(frame) == [f"medsiglipvolumeembedder{i}" for i in range(3)]


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        (lambda rows: rows, r"shape \(1, 32\)"),
        (lambda rows: 1.5, "1-D"),
        (lambda rows: ["a"], "1-D"),
        (lambda rows: rows[:, 0], "must not depend on the number of slices"),
    ],
)
def test_functions_that_do_not_pool(volumes, pooling, message):
    with pytest.raises(ValueError, match=message):
        volumes.set_params(pooling=pooling).transform([noise(5)])


def test_normalize_is_of_slices_before_the_pool(volumes):
    study = noise(5)
    volumes.set_params(embedder__normalize=True)
    each = clone(volumes.embedder).transform(study)
    np.testing.assert_allclose(np.linalg.norm(each, axis=1), 1, rtol=1e-5)
    [row] = volumes.transform([study])
    np.testing.assert_allclose(row, each.mean(axis=0), atol=1e-6)
    assert np.linalg.norm(row) < 1


# ----------------------------------------------------------------------------- errors


@pytest.fixture
def damaged(tmp_path):
    folder = write_series(tmp_path / "damaged", noise(5, 1, np.int16), Modality="CT")
    paths = sorted(folder.iterdir())
    paths[2].write_bytes(paths[2].read_bytes()[:-100])
    return folder, paths[2]


def test_errors_name_study_slice_and_file(volumes, damaged):
    folder, file = damaged
    with pytest.raises(ImageReadError) as caught:
        volumes.transform([noise(3), noise(2, 1), folder])
    said = str(caught.value)
    assert caught.value.row == 2
    assert re.match(rf"row 2: slice \d of 5, {re.escape(str(file))}: its pixels", said)
    assert "Jane" not in said
    assert "SECRET" not in said


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (EXPORTS / "77654033", r"row 1: .*77654033: it holds 4 series"),
        ("no such folder", r"row 1: no such folder: there is no such file"),
        (None, r"row 1: .*: the image is missing"),
        ([], r"row 1: list of 0 images: it holds no image"),
        (["gone.png"], r"row 1: gone.png: there is no such file"),
        ([noise(1)[0], "gone.png"], r"row 1: slice 2 of 2, gone.png: there is no such"),
    ],
)
def test_errors_of_studies_name_the_row(volumes, item, message):
    with pytest.raises(ImageReadError, match=message):
        volumes.transform([noise(2), item])
    volumes.set_params(embedder__on_error="nan")
    with pytest.warns(UnreadableImageWarning) as caught:
        rows = volumes.transform([noise(2), item])
    assert len(caught) == 1
    assert np.isfinite(rows[0]).all()
    # Of the last, one of the two images is there.
    assert np.isnan(rows[1]).all() == (not isinstance(item, list) or len(item) < 2)


def test_unreadable_slices_are_left_out_of_the_pool(volumes, damaged):
    folder, file = damaged
    volumes.set_params(embedder__on_error="nan")
    good = [path for path in sorted(folder.iterdir()) if path != file]
    for _ in range(2):  # a second run looks again, and warns again
        with pytest.warns(UnreadableImageWarning) as caught:
            rows = volumes.transform(["missing", folder, good])
        assert len(caught) == 1
        said = str(caught[0].message)
        assert said.startswith(
            "1 of 3 studies cannot be read and are rows of NaN; unreadable slices "
            "are left out: 1, in 1 of 3 studies:"
        )
        assert str(file) in said
        assert np.isnan(rows[0]).all()
        np.testing.assert_allclose(rows[1], rows[2], atol=1e-5)
    assert caught[0].filename == __file__


def test_nothing_is_lost_when_a_later_study_is_bad(volumes, passes, monkeypatch):
    monkeypatch.setattr("sk_medsiglip.embedding._volume_work._CHUNK_SLICES", 4)
    studies = [noise(4, seed) for seed in range(3)]
    with pytest.raises(ImageReadError, match="row 3"):
        volumes.transform([*studies, "gone"])
    done = sum(passes)
    passes.clear()
    volumes.transform(studies)
    assert sum(passes) == 12 - done


def test_frame_has_no_meaning_and_is_refused(volumes):
    volumes.set_params(embedder__frame="middle")
    for call in (volumes.fit, volumes.transform):
        with pytest.raises(ValueError, match="frame='middle'.*n_slices"):
            call([noise(3)])


@pytest.mark.parametrize(
    "setting",
    [
        {"n_slices": 0},
        {"pooling": "median"},
        {"plane": "oblique"},
        {"series": -1},
        {"embedder": "demo"},
        {"embedder__batch_size": 0},
        {"embedder__intensity": "dark"},
    ],
)
def test_parameters_are_checked(volumes, setting):
    volumes.set_params(**setting)
    with pytest.raises(
        ValueError, match=next(iter(setting)).partition("__")[2] or None
    ):
        volumes.transform([noise(3)])


def test_ct_volumes_are_warned_about_once(tmp_path, volumes):
    paths = []
    for seed in range(3):
        values = (noise(6, seed, np.int16) * 8 - 1000).astype(np.int16)
        paths.append(tmp_path / f"{seed}.nii.gz")
        nibabel.Nifti1Image(values, np.eye(4)).to_filename(paths[-1])
    with pytest.warns(SkMedSiglipWarning, match="rows 0") as caught:
        volumes.transform(paths)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    volumes.set_params(embedder__intensity="ct").transform(paths)


# --------------------------------------------------------------- containers, sklearn


def test_containers(volumes):
    studies = [noise(3), noise(3, 1)]
    expected = volumes.transform(studies)
    objects = np.empty(2, object)
    objects[:] = studies
    for X in (
        tuple(studies),
        np.stack(studies),
        np.repeat(np.stack(studies)[..., None], 3, axis=-1),
        objects,
        pd.Series(studies, index=["a", "b"]),
        pd.DataFrame({"study": studies}),
        [list(study) for study in studies],
    ):
        np.testing.assert_allclose(volumes.transform(X), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (noise(3), ValueError, r"one volume of 3 slices, or 3 studies of one image\?"),
        (np.zeros((3, 8, 8, 3)), ValueError, r"Pass one volume as X\[None\]"),
        (np.zeros((3, 8)), ValueError, "looks like embeddings"),
        ([], ValueError, "0 sample"),
        ("folder", TypeError, r"\[X\]"),
    ],
)
def test_what_is_no_collection_of_studies(volumes, X, error, message):
    for call in (volumes.fit, volumes.transform):
        with pytest.raises(error, match=message):
            call(X)


def test_set_output_and_index(volumes):
    X = pd.Series([noise(3), noise(2)], index=["a", "b"])
    frame = volumes.set_output(transform="pandas").fit_transform(X)
    assert list(frame.columns) == list(volumes.get_feature_names_out())
    assert list(frame.index) == ["a", "b"]


def test_fit_clones_and_transform_adds_nothing(volumes):
    before = dict(vars(volumes))
    rows = volumes.transform([noise(3)])
    assert vars(volumes) == before
    fitted = clone(volumes).fit([noise(3)])
    assert fitted.embedder_ is not fitted.embedder
    assert fitted.embedder_.revision_
    assert not hasattr(fitted.embedder, "revision_")
    np.testing.assert_array_equal(fitted.transform([noise(3)]), rows)


def test_pickle(volumes):
    fitted = clone(volumes).fit([noise(3)])
    content = pickle.dumps(fitted)
    assert len(content) < 5000
    np.testing.assert_array_equal(
        pickle.loads(content).transform([noise(3)]), fitted.transform([noise(3)])
    )


def test_grid_search_over_nested_parameters(tmp_path, volumes, passes):
    folders = [
        write_series(tmp_path / f"{seed}", noise(4, seed, np.int16), Modality="CT")
        for seed in range(8)
    ]
    settle(tmp_path)
    pipe = make_pipeline(volumes, LogisticRegression())
    name = "medsiglipvolumeembedder"
    grid = {
        f"{name}__pooling": ["mean", "mean+max"],
        f"{name}__embedder__intensity": [Window(100, 200), Window(50, 100)],
        "logisticregression__C": [0.1, 1],
    }
    search = GridSearchCV(pipe, grid, cv=2).fit(folders, [0, 1] * 4)
    assert sum(passes) == 8 * 4 * 2  # each slice once a window
    assert search.predict(folders).shape == (8,)
    passes.clear()
    GridSearchCV(pipe, grid, cv=4).fit(folders, [0, 1] * 4)
    assert passes == []


CHECKS = [
    "check_do_not_raise_errors_in_init_or_set_param",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_set_params",
    "check_valid_tag_types",
]


@pytest.mark.parametrize("name", CHECKS)
def test_checks_of_sklearn_that_need_no_data(volumes, name):
    matches = [found for found in dir(estimator_checks) if found.startswith(name)]
    assert matches
    getattr(estimator_checks, matches[0])(type(volumes).__name__, volumes)


@pytest.mark.parametrize(
    ("verbose", "bars"), [(0, []), (1, ["study"]), (2, ["study", "image"])]
)
def test_progress_bars(volumes, capsys, verbose, bars):
    volumes.set_params(verbose=verbose).transform([noise(3), noise(2, 1)])
    said = capsys.readouterr().err
    for unit in ("study", "image"):
        assert (f"{unit}/s" in said or f"s/{unit}" in said) == (unit in bars)
    if verbose:
        assert "2/2" in said
