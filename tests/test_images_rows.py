"""The containers that ``X`` may be."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import FunctionTransformer

from sk_medsiglip.images import image_rows, read_image

PATHS = ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize(
    "X",
    [
        PATHS,
        tuple(PATHS),
        np.array(PATHS),
        np.array(PATHS, dtype=object),
        np.array(PATHS, dtype=object).reshape(-1, 1),
        pd.Series(PATHS, index=[7, 8, 9]),
        pd.Series(PATHS, dtype="string"),
        pd.Series(PATHS).astype("category"),
        pd.Index(PATHS),
        pd.DataFrame({"path": PATHS}),
    ],
    ids=lambda X: type(X).__name__,
)
def test_containers_of_sources(X):
    rows = image_rows(X)
    assert rows == PATHS
    assert type(rows) is list


def test_polars():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    assert image_rows(polars.Series("path", PATHS)) == PATHS
    assert image_rows(polars.DataFrame({"path": PATHS})) == PATHS
    with pytest.raises(ValueError, match="X is a DataFrame of 2 columns"):
        image_rows(polars.DataFrame({"path": PATHS, "age": [1, 2, 3]}))


@pytest.mark.parametrize("shape", [(5, 8, 9), (5, 8, 9, 1), (5, 8, 9, 3), (5, 8, 9, 4)])
def test_arrays_of_images(shape):
    X = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    rows = image_rows(X)
    assert len(rows) == 5
    np.testing.assert_array_equal(rows[3], X[3])
    assert read_image(rows[3]).shape == (8, 9, 3)


def test_mixed_sources_and_ragged_arrays():
    X = [Path("a.png"), np.zeros((2, 3)), Image.new("L", (4, 4)), b"x", io.BytesIO()]
    assert all(row is item for row, item in zip(image_rows(X), X, strict=True))
    objects = np.empty(5, dtype=object)
    objects[:] = X
    assert image_rows(objects)[1] is X[1]


def test_column_transformer_picks_the_column():
    frame = pd.DataFrame({"age": [50, 60, 70], "path": PATHS})
    seen = []
    step = FunctionTransformer(lambda X: seen.append(image_rows(X)) or X)
    ColumnTransformer([("image", step, ["path"])]).fit_transform(frame)
    assert seen[-1] == PATHS


ONE_COLOUR_IMAGE = np.zeros((32, 40, 3), np.uint8)

REFUSED = {
    "one colour image": (
        ONE_COLOUR_IMAGE,
        ValueError,
        r"\(32, 40, 3\): one colour image, or 32 grey .*Pass one image as X\[None\]",
    ),
    "one RGBA image": (np.zeros((9, 9, 4)), ValueError, r"X\[None\]"),
    "one grey image with an axis": (np.zeros((9, 9, 1)), ValueError, r"X\[None\]"),
    "embeddings": (
        np.zeros((10, 1152), np.float32),
        ValueError,
        r"\(10, 1152\): this looks like embeddings",
    ),
    "labels": (np.zeros(10), ValueError, r"numeric array of shape \(10,\)"),
    "a scalar": (np.array(3), ValueError, r"numeric array of shape \(\)"),
    "channels first": (
        np.zeros((5, 3, 16, 16)),
        ValueError,
        r"Move it there: np.moveaxis\(X, 1, -1\)",
    ),
    "five channels": (np.zeros((2, 8, 8, 5)), ValueError, "must be 1, 3 or 4 long"),
    "five dimensions": (np.zeros((1, 2, 8, 8, 3)), ValueError, r"\(1, 2, 8, 8, 3\)"),
    "one path": ("a.png", TypeError, r"single str. Reshape it into a list: \[X\]"),
    "one Path": (Path("a"), TypeError, r"single \w+Path. Reshape .*: \[X\]"),
    "one file's bytes": (b"abc", TypeError, r"single bytes. .*\[X\]"),
    "one PIL image": (Image.new("L", (2, 2)), TypeError, r"single Image. .*\[X\]"),
    "one open file": (io.BytesIO(), TypeError, r"An open file is one image: \[X\]"),
    "None": (None, TypeError, "got NoneType"),
    "a number": (3, TypeError, "got int"),
    "a dict": ({"a": "a.png"}, TypeError, r"got dict.*list\(X.values\(\)\)"),
    "a set": ({"a.png"}, TypeError, r"got set. A set has no order"),
    "a generator": ((p for p in PATHS), TypeError, r"generator. .*list\(X\)"),
    "a range": (range(3), TypeError, "got range"),
    "a sparse matrix": (
        sparse.csr_matrix((3, 3)),
        TypeError,
        "csr_matrix. A sparse matrix holds no images",
    ),
    "dates": (np.zeros(3, "M8[s]"), TypeError, r"array of type datetime64"),
    "byte strings": (np.array([b"a", b"b"]), TypeError, r"array of type \|S1"),
    "two columns of paths": (
        np.array([PATHS, PATHS]),
        ValueError,
        r"array of objects of shape \(2, 3\)",
    ),
    "pixels as objects": (
        np.zeros((2, 4, 4), dtype=object),
        ValueError,
        r"X.astype\(np.uint8\)",
    ),
    "a table": (
        pd.DataFrame({"path": PATHS, "age": [1, 2, 3]}),
        ValueError,
        r"2 columns, \['path', 'age'\].*X\[\['path'\]\].*ColumnTransformer",
    ),
    "a table without columns": (pd.DataFrame(index=[1]), ValueError, "0 columns"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_containers_are_refused_with_advice(case):
    X, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        image_rows(X)


@pytest.mark.parametrize(
    "X", [[], (), np.zeros((0, 8, 8)), pd.Series([], dtype=object), np.array([], "U1")]
)
def test_empty_containers_are_refused_in_sklearns_words(X):
    message = r"Found array with 0 sample\(s\).*a minimum of 1 is required"
    with pytest.raises(ValueError, match=message):
        image_rows(X)
