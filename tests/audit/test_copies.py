"""The same picture twice in one data set."""

import numpy as np
import pandas as pd
import pytest

from sk_medsiglip.audit import find_copies


@pytest.fixture
def images(phantoms):
    """Thirty images: the same under two patients, and within one; and their labels."""
    images = list(phantoms.images[:30])
    images[25], images[26] = images[4], images[4].copy()
    images[1] = images[0]
    return images


def test_pictures_under_two_patients_come_first(images, phantoms):
    groups = np.array([f"p{row // 2}" for row in range(30)])
    found = find_copies(images, groups=groups)
    assert found["row"].tolist() == [25, 26, 1]
    assert found["other_row"].tolist() == [4, 4, 0]
    assert found["same_group"].tolist() == [False, False, True]
    assert found["group"].tolist() == ["p12", "p13", "p0"]
    assert found["other_group"].tolist() == ["p2", "p2", "p0"]
    assert found.attrs["n_found"] == {"same picture": 3, "nearly the same": 0}


def test_labels_that_differ_come_first(images):
    y = pd.DataFrame({"a": np.zeros(30), "b": [None] * 30})
    y.loc[1, "a"], y.loc[25, "a"], y.loc[0, "b"] = 1, np.nan, "x"
    found = find_copies(images, y)
    assert found["row"].tolist() == [1, 25, 26]
    assert found["same_label"].tolist() == [False, True, True]
    assert "group" not in found


def test_near_copies_of_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 16))
    X[7] = 3 * X[2] + 1e-3 * rng.normal(size=16)
    X[9] = X[5] + 1e-3 * rng.normal(size=16)
    X[10] = X[5]
    X[11] = np.nan
    found = find_copies(X)
    pairs = set(zip(found["kind"], found["row"], found["other_row"], strict=True))
    near = "nearly the same"
    assert pairs == {("same picture", 10, 5), (near, 7, 2), (near, 9, 5), (near, 10, 9)}
    assert (found["cosine"] > 0.999).all()
    # Images of one patient are expected to be alike.
    groups = [0, 1, 2, 3, 4, 5, 6, 2, 8, 9, 5, 11]
    found = find_copies(X, groups=groups)
    pairs = set(zip(found["kind"], found["row"], found["other_row"], strict=True))
    assert pairs == {(near, 9, 5), (near, 10, 9), ("same picture", 10, 5)}


def test_images_with_an_embedder(images):
    noisy = images[8].copy()
    noisy[0, 0] ^= 1
    found = find_copies([*images, noisy], embedder="demo")
    assert found.attrs["n_found"]["same picture"] == 3
    assert ((found["row"] == 30) & (found["other_row"] == 8)).any()


def test_nothing_found_is_an_empty_table():
    X = np.eye(4)
    found = find_copies(X, [0, 1, 0, 1], groups=[1, 2, 3, 4])
    assert found.empty
    assert list(found)[:4] == ["kind", "row", "other_row", "cosine"]
    assert found["row"].dtype == np.int64


def test_errors_say_what_to_do():
    X = np.eye(4)
    with pytest.raises(ValueError, match="3 samples"):
        find_copies(X, [0, 1, 0])
    with pytest.raises(ValueError, match="3 ids"):
        find_copies(X, groups=[0, 1, 0])
    with pytest.raises(ValueError, match="threshold"):
        find_copies(X, threshold=2)
    with pytest.raises(ValueError, match="already"):
        find_copies(X, embeddings=X)
