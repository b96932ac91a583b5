"""The containers that ``X`` may be."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import FunctionTransformer

from sk_medsiglip.images import check_images, image_rows, read_image

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
        pd.Series(PATHS, dtype="string[pyarrow]"),
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
    with pytest.raises(ValueError, match="2 columns"):
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


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_columns_of_paths_bytes_and_arrays():
    image = np.full((4, 5), 7, np.uint8)
    objects = [Path("a.png"), image, png(image)]
    assert all(
        a is b for a, b in zip(image_rows(pd.Series(objects)), objects, strict=True)
    )
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    binary = pd.ArrowDtype(pyarrow.binary())
    polars = pytest.importorskip("polars", reason="polars is not installed")
    for X in (
        pd.Series([png(image)] * 2, dtype=binary),
        polars.Series([png(image)] * 2, dtype=polars.Binary),
        polars.DataFrame({"image": [png(image)] * 2}),
        polars.Series([image, image], dtype=polars.Object),
    ):
        rows = image_rows(X)
        assert len(rows) == 2
        np.testing.assert_array_equal(read_image(rows[1])[..., 0], image)


@pytest.mark.parametrize("dtype", [object, "string", "string[pyarrow]"])
def test_missing_values_are_errors_of_their_rows(dtype):
    X = pd.Series(["gone.png", None, pd.NA], dtype=dtype, index=["a", "b", "c"])
    reasons = check_images(X).reason
    assert reasons["a"] == "there is no such file"
    assert reasons["b"] == reasons["c"] == "the image is missing (None or NaN)"


def test_undecoded_images_of_data_sets():
    image = np.full((4, 5), 7, np.uint8)
    rows = [
        {"bytes": png(image), "path": "a.png"},
        {"bytes": None, "path": "b.png"},
        {"bytes": None, "path": None},
    ]
    expected = [png(image), "b.png", None]
    assert image_rows(rows) == expected
    assert image_rows(pd.DataFrame({"image": rows})) == expected
    polars = pytest.importorskip("polars", reason="polars is not installed")
    assert image_rows(polars.DataFrame({"image": rows})) == expected


class TestHuggingFace:
    """Columns of the ``datasets`` library."""

    @pytest.fixture
    def datasets(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        return pytest.importorskip("datasets", reason="datasets is not installed")

    @pytest.fixture
    def deep(self):
        """Return 16-bit images that Pillow's own decoding would not lose."""
        return [np.full((6, 7), 100 * i, np.uint16) for i in range(40)]

    @pytest.fixture
    def files(self, deep, tmp_path):
        paths = [tmp_path / f"{i}.png" for i in range(len(deep))]
        for path, pixels in zip(paths, deep, strict=True):
            path.write_bytes(png(pixels))
        return [str(path) for path in paths]

    def test_columns_give_what_is_stored(self, datasets, files, tmp_path):
        table = {"image": files, "y": list(range(len(files)))}
        data = datasets.Dataset.from_dict(table)
        data = data.cast_column("image", datasets.Image())
        data.save_to_disk(tmp_path / "saved")
        saved = datasets.load_from_disk(tmp_path / "saved")
        undecoded = data.cast_column("image", datasets.Image(decode=False))
        for X in (
            data["image"],
            data.select_columns("image"),
            data.with_format("numpy")["image"],
            data.with_format("torch")["image"],
            undecoded["image"],
            datasets.Dataset.from_dict({"path": files}),
            datasets.Dataset.from_dict({"path": files})["path"],
        ):
            rows = image_rows(X)
            assert [rows[0], rows[-1]] == [files[0], files[-1]]
            assert len(rows) == len(list(rows)) == 40
            assert rows[1:3] == files[1:3]
            with pytest.raises(IndexError):
                rows[40]
        # On disk the bytes of the files are in the data set itself.
        assert image_rows(saved["image"])[3] == Path(files[3]).read_bytes()
        some = saved.select([5, 2])["image"]
        assert image_rows(some)[1] == Path(files[2]).read_bytes()

    def test_threads(self, datasets, deep, files, tmp_path):
        data = datasets.Dataset.from_dict({"image": files})
        data = data.cast_column("image", datasets.Image())
        data.save_to_disk(tmp_path / "saved")
        rows = image_rows(datasets.load_from_disk(tmp_path / "saved")["image"])
        order = np.random.default_rng(0).permutation(len(rows))
        with ThreadPoolExecutor(4) as pool:
            read = list(pool.map(lambda row: read_image(rows[row]), order))
        for row, pixels in zip(order, read, strict=True):
            np.testing.assert_array_equal(pixels, read_image(deep[row]))

    def test_nothing_is_decoded_before_its_turn(self, datasets, files):
        asked = []

        def images(batch):
            asked.extend(batch["path"])
            return {"image": [np.full((2, 2), 5, np.uint8) for _ in batch["path"]]}

        data = datasets.Dataset.from_dict({"path": files, "image": files})
        rows = image_rows(data.with_transform(images)["image"])
        assert len(rows) == 40
        assert asked == []
        np.testing.assert_array_equal(rows[3], np.full((2, 2), 5, np.uint8))
        assert asked == [files[3]]

    def test_columns_of_pixels(self, datasets):
        image = np.arange(20, dtype=np.uint8).reshape(4, 5)
        for feature in (
            datasets.Array2D((4, 5), "uint8"),
            datasets.List(datasets.List(datasets.Value("uint8"))),
        ):
            data = datasets.Dataset.from_dict(
                {"image": [image, 2 * image]},
                features=datasets.Features({"image": feature}),
            )
            row = image_rows(data["image"])[1]
            assert row.dtype == np.uint8
            np.testing.assert_array_equal(row, 2 * image)

    def test_images_in_memory_and_within_others(self, datasets):
        image = Image.fromarray(np.full((6, 7), 9, np.uint8))
        data = datasets.Dataset.from_dict({"image": [image], "of": [{"image": image}]})
        for X in (data["image"], data["of"]["image"]):
            assert read_image(image_rows(X)[0])[0, 0, 0] == 9

    def test_other_objects_are_refused_with_advice(self, datasets, files):
        data = datasets.Dataset.from_dict({"path": files, "y": list(range(40))})
        with pytest.raises(ValueError, match="'y'.*\"image\""):
            image_rows(data)
        with pytest.raises(TypeError, match="int64 values"):
            image_rows(data["y"])
        names = datasets.Dataset.from_dict({"names": [["a", "b"]]})
        with pytest.raises(TypeError, match="a column"):
            image_rows(names)
        with pytest.raises(TypeError, match=r'X\["test"\]'):
            image_rows(datasets.DatasetDict({"test": data}))
        with pytest.raises(TypeError, match=r"list\(X.take\(100\)\)"):
            image_rows(data.to_iterable_dataset())
        with pytest.raises(ValueError, match=r"0 sample\(s\)"):
            image_rows(data.select([])["path"])


def test_tensors_are_refused_with_advice():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    with pytest.raises(TypeError, match="X.permute.*numpy"):
        image_rows(torch.zeros((2, 3, 8, 8)))


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
    "five channels": (np.zeros((2, 8, 8, 5)), ValueError, "1, 3 or 4"),
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


@pytest.mark.parametrize(
    "form",
    [
        lambda p: pd.array(p, dtype="string"),
        lambda p: pd.Series(p, dtype="string[pyarrow]").array,
        lambda p: pd.Series(p, dtype="category"),
        lambda p: pd.Categorical(p),
        lambda p: pd.Index(p),
        lambda p: np.array(p, dtype=np.dtypes.StringDType()),
        lambda p: np.array(p, dtype=np.dtypes.StringDType())[:, None],
        lambda p: pytest.importorskip("pyarrow").array(p),
        lambda p: pytest.importorskip("pyarrow").chunked_array([p]),
        lambda p: pytest.importorskip("polars").Series(p),
    ],
)
def test_texts_in_every_array_are_paths(form):
    paths = ["a.png", "b.png"]
    assert list(image_rows(form(paths))) == paths
