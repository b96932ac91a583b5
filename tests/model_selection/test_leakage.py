"""What is on both sides of a split is found: patients, pictures, near copies."""

import io

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.datasets import fetch_pneumonia_mnist, make_chest_phantoms
from sk_medsiglip.exceptions import ImageReadError, LeakageWarning
from sk_medsiglip.model_selection import (
    MultilabelStratifiedGroupKFold,
    check_leakage,
)

COLUMNS = [
    "split",
    "kind",
    "train_row",
    "test_row",
    "n_train",
    "n_test",
    "group",
    "cosine",
]


@pytest.fixture(scope="module")
def phantoms():
    return make_chest_phantoms(24, random_state=0)


def as_jpeg(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=85)
    return stream.getvalue()


# --- patients ---------------------------------------------------------------------


def test_nothing_shared_is_an_empty_table_with_its_columns(phantoms):
    X = list(phantoms.images)
    folds = MultilabelStratifiedGroupKFold(2)
    found = check_leakage(X, phantoms.groups, folds, y=phantoms.target)
    assert found.empty
    assert list(found.columns) == COLUMNS
    assert found["train_row"].dtype == np.int64
    assert set(found.attrs["n_found"].values()) == {0}


def test_patients_are_counted_on_both_sides():
    X = np.random.default_rng(0).normal(size=(8, 4))
    groups = ["a", "b", "a", "c", "a", "a", "b", "d"]
    found = check_leakage(X, groups, ([0, 1, 2, 3], [4, 5, 6, 7]))
    assert found["kind"].tolist() == ["patient", "patient"]
    assert found["group"].tolist() == ["a", "b"]
    assert found[["train_row", "test_row"]].to_numpy().tolist() == [[0, 4], [1, 6]]
    assert found[["n_train", "n_test"]].to_numpy().tolist() == [[2, 2], [1, 1]]
    assert found["cosine"].isna().all()


def test_ids_that_may_be_one_patient_are_warned_of():
    X = np.random.default_rng(0).normal(size=(4, 4))
    with pytest.warns(LeakageWarning, match="'007'"):
        found = check_leakage(X, ["007", "9", "7", "9.0"], ([0, 1], [2, 3]))
    assert found["group"].tolist() == ["9.0"]


def test_near_copies_by_chance_are_those_of_other_training_patients():
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(60, 8)), 2, axis=0)
    X += rng.normal(scale=1e-5, size=X.shape)
    same, apart = np.arange(120) // 2, np.arange(120)
    split = (np.r_[0:80, 81], np.r_[80, 82:120])
    by_chance = [
        check_leakage(X, groups, split).attrs["n_by_chance"] for groups in (same, apart)
    ]
    assert by_chance[0] == 0
    assert by_chance[1] == pytest.approx(80 / 81 * 39)
    assert check_leakage(X, splits=split).attrs["n_by_chance"] is None


def test_a_splitter_that_tears_patients_is_told_from_one_that_does_not(phantoms):
    X = np.random.default_rng(0).normal(size=(24, 8))
    y = phantoms.target[:, 0]
    torn = check_leakage(X, phantoms.groups, KFold(3, shuffle=True, random_state=0))
    assert (torn["kind"] == "patient").all()
    assert set(torn["split"]) == {0, 1, 2}
    for whole in (GroupKFold(3), StratifiedGroupKFold(3)):
        assert check_leakage(X, phantoms.groups, whole, y=y).empty


# --- the same picture -------------------------------------------------------------


def test_the_same_picture_is_found_in_whatever_form(phantoms, tmp_path):
    X = list(phantoms.images[:6])
    Image.fromarray(X[0]).save(tmp_path / "copy.png")
    stream = io.BytesIO()
    Image.fromarray(X[1]).save(stream, "TIFF")
    X += [tmp_path / "copy.png", stream.getvalue(), Image.fromarray(X[0])]
    found = check_leakage(X, splits=(range(6), [6, 7, 8]))
    assert found["kind"].tolist() == ["same picture"] * 2
    assert found[["train_row", "test_row"]].to_numpy().tolist() == [[0, 6], [1, 7]]
    assert found["n_test"].tolist() == [2, 1]
    assert (found["cosine"] == 1).all()
    assert found["group"].tolist() == [None, None]


def test_rows_in_both_sides_and_equal_embeddings_are_the_same_picture():
    X = np.random.default_rng(0).normal(size=(10, 4))
    X[9] = X[2]
    mask = np.arange(10) < 6
    found = check_leakage(X, splits=[(mask, ~mask), (range(10), [5])])
    assert found["kind"].tolist() == ["same picture"] * 2
    assert found[["split", "train_row", "test_row"]].to_numpy().tolist() == [
        [0, 2, 9],
        [1, 5, 5],
    ]


def test_copies_in_a_public_set_are_found(shared_data):
    bunch = fetch_pneumonia_mnist(shared_data, subset="all")
    part = pd.Series(bunch.subset)
    train, val = (np.flatnonzero(part == name) for name in ("train", "val"))
    some = np.r_[train[:800], val]
    pixels = bunch.images[some].reshape(len(some), -1).astype(float)
    pixels += 1  # a black picture has no direction
    found = check_leakage(pixels, splits=(range(800), range(800, len(some))))
    expected = {pixels[j].tobytes() for j in range(800, len(some))} & {
        pixels[i].tobytes() for i in range(800)
    }
    assert (found["kind"] == "same picture").sum() == len(expected)


# --- near copies ------------------------------------------------------------------


def test_pictures_saved_again_are_nearly_the_same(phantoms):
    images = list(phantoms.images)
    X = images + [as_jpeg(images[3]), as_jpeg(images[7])]
    split = (range(24), [24, 25])
    assert check_leakage(X, phantoms.groups.tolist() + ["x", "y"], split).empty
    by_name = check_leakage(X, splits=split, embedder="demo")
    assert (by_name["kind"] == "nearly the same").all()
    assert {(3, 24), (7, 25)} <= set(
        zip(by_name["train_row"], by_name["test_row"], strict=True)
    )
    embedder = MedSigLIPEmbedder("demo")
    given = check_leakage(X, splits=split, embeddings=embedder.transform(X))
    pd.testing.assert_frame_equal(by_name, given)
    pd.testing.assert_frame_equal(
        by_name, check_leakage(X, splits=split, embedder=embedder)
    )


def test_an_embedders_equal_rows_are_the_same_picture(phantoms):
    X = [*phantoms.images[:4], Image.fromarray(phantoms.images[2])]
    found = check_leakage(X, splits=(range(4), [4]), embedder="demo")
    assert found["kind"].tolist()[0] == "same picture"
    assert found["train_row"][0] == 2


def test_near_copies_agree_with_the_whole_matrix(monkeypatch):
    pictures = "sk_medsiglip.model_selection._pictures"
    monkeypatch.setattr(f"{pictures}._TEST_BLOCK", 7)
    monkeypatch.setattr(f"{pictures}._TRAIN_BLOCK", 11)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4)).astype(np.float32)
    groups = rng.integers(0, 50, 60)
    train, test = np.arange(40), np.arange(40, 60)
    found = check_leakage(X, groups, (train, test), threshold=0.8)
    near = found[found["kind"] == "nearly the same"]
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    cosines = unit[test] @ unit[train].T
    assert near["cosine"].is_monotonic_decreasing
    near = near.sort_values("test_row")
    hit = (cosines >= 0.8).any(axis=1)
    assert 3 < hit.sum() < 20
    assert_array_equal(near["test_row"], test[hit])
    assert_array_equal(near["train_row"], cosines[hit].argmax(axis=1))
    assert_array_equal(near["n_train"], (cosines[hit] >= 0.8).sum(axis=1))
    assert near["cosine"].to_numpy() == pytest.approx(cosines[hit].max(axis=1))
    assert_array_equal(near["group"].astype(int), groups[near["test_row"]])


def test_rows_that_could_not_be_read_are_compared_with_nothing():
    X = np.random.default_rng(0).normal(size=(6, 4))
    X[[1, 4]] = np.nan
    X[[2, 5]] = 0.0
    found = check_leakage(X, splits=([0, 1, 2], [3, 4, 5]))
    # Two rows of zeros are equal; two of NaN are not.
    assert found[["train_row", "test_row"]].to_numpy().tolist() == [[2, 5]]


def test_length_of_vectors_does_not_matter():
    X = np.random.default_rng(0).normal(size=(4, 16))
    X[3] = 7 * X[0] + 1e-3
    found = check_leakage(X, splits=([0, 1, 2], [3]))
    assert found["kind"].tolist() == ["nearly the same"]
    assert 0.999 <= found["cosine"][0] <= 1


def test_bags_are_compared_by_their_means():
    bags = np.random.default_rng(0).normal(size=(6, 4, 8)).astype(np.float32)
    bags[:, 3] = np.nan  # padding
    bags[5] = bags[1]
    found = check_leakage(bags, splits=([0, 1, 2], [3, 4, 5]))
    assert found["kind"].tolist() == ["same picture"]
    assert found[["train_row", "test_row"]].to_numpy().tolist() == [[1, 5]]


# --- what is listed ---------------------------------------------------------------


def test_what_is_not_listed_is_said():
    X = np.ones((20, 3))
    X[:, 0] = np.repeat(np.arange(10), 2)
    split = (np.arange(0, 20, 2), np.arange(1, 20, 2))
    with pytest.warns(LeakageWarning, match="10 findings.*4"):
        found = check_leakage(X, splits=split, max_rows=4, threshold=1.0)
    assert len(found) == 4
    assert found.attrs["n_found"]["same picture"] == 10
    assert len(check_leakage(X, splits=split, max_rows=None, threshold=1.0)) == 10


@pytest.mark.parametrize(
    ("pairs", "n"),
    [
        (([0, 1], [2, 3]), 1),
        ([[0, 1], [2, 3]], 1),
        (((0, 1), (2, 3)), 1),
        ([([0, 1], [2, 3]), ([0, 2], [1, 3])], 2),
        ([([0, 1, 2], [3]), ([0], [1, 3])], 2),
        (iter([([0, 1, 2], [3])]), 1),
        ([(np.array([0, 1]), np.array([-1]))], 1),
    ],
    ids=["tuple", "lists", "tuples", "two", "uneven", "iterator", "arrays"],
)
def test_forms_of_splits(pairs, n):
    X = np.eye(4)
    X[3] = X[0]
    found = check_leakage(X, splits=pairs)
    assert found["split"].tolist() == list(range(n))
    assert set(found["test_row"]) == {3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"splits": None}, "splits is needed"),
        ({"splits": ([0], [9])}, "does not fit the 4 rows"),
        ({"splits": ([True, False], [1, 2])}, "does not fit the 4 rows"),
        ({"splits": [(["a"], [0])]}, "must be indices or a mask"),
        ({"threshold": 0}, "threshold must be above 0"),
        ({"threshold": 1.1}, "threshold must be above 0"),
        ({"groups": [1, 2, None, 3]}, "groups is missing for 1 of 4"),
        ({"groups": [1, 2]}, "inconsistent numbers of samples"),
        ({"embedder": "demo"}, "X holds embeddings already"),
        ({"embeddings": np.eye(4)}, "X holds embeddings already"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_named(arguments, message):
    arguments = {"splits": ([0, 1], [2, 3]), **arguments}
    with pytest.raises(ValueError, match=message):
        check_leakage(np.eye(4), **arguments)


def test_images_that_cannot_be_compared_are_named(phantoms):
    X = [phantoms.images[0], b"no image", phantoms.images[1]]
    with pytest.raises(ImageReadError, match="row 1"):
        check_leakage(X, splits=([0], [1, 2]), n_jobs=2)
    X = list(phantoms.images[:3])
    with pytest.raises(ValueError, match="not both"):
        check_leakage(X, splits=([0], [1]), embeddings=np.eye(3), embedder="demo")
    with pytest.raises(ValueError, match=r"\(n_samples, n_features\)"):
        check_leakage(X, splits=([0], [1]), embeddings=np.ones(3))
    with pytest.raises(ValueError, match="inconsistent"):
        check_leakage(X, splits=([0], [1]), embeddings=np.eye(4))


def test_a_table_of_embeddings_is_embeddings():
    X = pd.DataFrame(np.eye(4), columns=list("abcd"))
    X.iloc[3] = X.iloc[0]
    assert len(check_leakage(X, splits=([0, 1], [2, 3]))) == 1
