"""A user's own tables and folders."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from sk_medsiglip import LinearProbe
from sk_medsiglip.datasets import (
    load_image_folder,
    load_labels_csv,
    make_chest_phantoms,
    write_phantoms,
)
from sk_medsiglip.exceptions import DatasetError
from sk_medsiglip.model_selection import MultilabelStratifiedGroupKFold

CHEXPERT = """\
Path,Sex,Age,Edema,Fracture,Patient,Set
a/1.jpg,F,007,1.0,,p1,train
a/2.jpg,M,068,0.0,-1.0,p1,train
b/3.jpg,M,,-1.0,1.0,p2,test
b/4.jpg,F,051,,0.0,p3,test
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="labels.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def make_files(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(path, "PNG")


# --- tables -----------------------------------------------------------------------


def test_a_table_in_the_style_of_chexpert(write, tmp_path):
    file = write(CHEXPERT)
    bunch = load_labels_csv(str(file), group_column="Patient", split_column="Set")
    assert bunch.paths == [str(tmp_path / p) for p in bunch.frame["Path"]]
    assert bunch.target_names == ["Edema", "Fracture"]
    nan = np.nan
    assert_array_equal(bunch.target, [[1, nan], [0, nan], [nan, 1], [nan, 0]])
    assert bunch.groups.tolist() == ["p1", "p1", "p2", "p3"]
    assert bunch.split.tolist() == ["train", "train", "test", "test"]
    assert bunch.frame["Age"].tolist()[:2] == ["007", "068"]
    assert bunch.frame["Age"].isna().tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("options", "edema"),
    [
        ({}, [1, 0, np.nan, np.nan]),
        ({"uncertain": "positive"}, [1, 0, 1, np.nan]),
        ({"uncertain": "negative", "blank": "negative"}, [1, 0, 0, 0]),
        ({"blank": "positive"}, [1, 0, np.nan, 1]),
    ],
    ids=str,
)
def test_what_uncertain_and_blank_mean(options, edema, write):
    file = write(CHEXPERT)
    one = load_labels_csv(file, label_columns="Edema", **options)
    assert_array_equal(one.target, edema)
    several = load_labels_csv(file, label_columns=["Edema"], **options)
    assert_array_equal(several.target, np.array(edema)[:, None])
    assert several.target_names == ["Edema"]
    assert one.target.dtype == (float if np.isnan(edema).any() else np.int64)


def test_classes_are_strings(write):
    rows = "image,stage\n1.png,2\n2.png,10\n3.png,2\n"
    bunch = load_labels_csv(write(rows), label_columns="stage")
    assert bunch.target.tolist() == ["2", "10", "2"]
    assert bunch.target.dtype.kind == "U"
    assert bunch.target_names == ["10", "2"]
    bunch = load_labels_csv(write(rows + "4.png,\n"), label_columns="stage")
    assert bunch.target.tolist() == ["2", "10", "2", None]


def test_words_tabs_marks_and_other_names_of_columns(write, tmp_path):
    file = write("\ufeffImage_Path\till\n/x/1.png\tTrue\n2.png\tfalse\n", "t.tsv")
    bunch = load_labels_csv(file)
    assert bunch.paths == ["/x/1.png", str(tmp_path / "2.png")]
    assert bunch.target.tolist() == [[1], [0]]
    file = write("a,path,ill\n1.png,x,1\n2.png,y,0\n")
    bunch = load_labels_csv(file, path_column="a", label_columns="ill")
    assert bunch.paths == [str(tmp_path / "1.png"), str(tmp_path / "2.png")]


def test_a_column_that_says_something_else_is_no_label_by_itself(write):
    file = write("path,view,ill,fold\n1.png,1,0,0\n2.png,0,1,1\n")
    bunch = load_labels_csv(file, group_column="view", split_column="fold")
    assert bunch.target_names == ["ill"]
    assert bunch.groups.tolist() == [1, 0]


def test_what_is_loaded_goes_into_folds_and_heads(tmp_path):
    phantoms = make_chest_phantoms(60, random_state=0)
    table = write_phantoms(phantoms, tmp_path, formats="png")
    table.loc[::7, "effusion"] = -1
    table.to_csv(tmp_path / "labels.csv", index=False)
    bunch = load_labels_csv(
        tmp_path / "labels.csv",
        group_column="patient",
        label_columns=["cardiomegaly", "effusion", "device"],
    )
    folds = MultilabelStratifiedGroupKFold(3).split(
        bunch.paths, bunch.target, bunch.groups
    )
    train, _ = next(folds)
    X = np.random.default_rng(0).normal(size=(60, 4))
    probe = LinearProbe(Cs=[0.1, 1]).fit(X[train], bunch.target[train])
    assert probe.coef_.shape == (3, 4)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            CHEXPERT,
            {"label_columns": ["Oedema"]},
            "no column 'Oedema'",
        ),
        (CHEXPERT, {"label_columns": []}, "names no column"),
        (CHEXPERT, {"label_columns": ["Sex", "Edema"]}, "'Sex' holds 'F', 'M'.*='Sex'"),
        (CHEXPERT, {"group_column": "patient"}, "group_column: .*no column 'patient'"),
        (CHEXPERT, {"group_column": "Age"}, "'Age' is empty in 1 rows.*row 3"),
        (CHEXPERT, {"split_column": "split"}, "split_column: "),
        (CHEXPERT, {"path_column": "dicom"}, "path_column: .*no column 'dicom'"),
        (CHEXPERT, {"uncertain": "maybe"}, "uncertain must be one of"),
        ("a,b\n1,2\n", {}, "Pass path_column, one of: a, b|pass path_column"),
        ("path,b\n1.png,2\n", {}, "no column holds nothing but.*out of: path, b"),
        ("path,b\n1.png,2\n ,3\n", {}, "row 2 has no path in column 'path'"),
        ("path,b\n1.png,\n", {"label_columns": "b"}, "'b' holds no label"),
        ("path,b\n", {}, "holds no rows"),
        ("", {}, "cannot be read as a CSV file"),
        ('path,b\n"1.png,2\n', {}, "cannot be read as a CSV file"),
    ],
    ids=lambda value: str(value)[:25],
)
def test_what_is_wrong_with_a_table_is_named(text, options, message, write):
    with pytest.raises(ValueError, match=message):
        load_labels_csv(write(text), **options)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"path,b\n\xff\xfe.png,1\n")
    with pytest.raises(ValueError, match="cannot be read as a CSV file"):
        load_labels_csv(tmp_path / "t.csv")


def test_no_table_there(tmp_path):
    with pytest.raises(DatasetError, match="is not a file.*load_image_folder"):
        load_labels_csv(tmp_path / "none.csv")
    with pytest.raises(DatasetError, match="is not a file"):
        load_labels_csv(tmp_path)


# --- folders ----------------------------------------------------------------------


def test_sub_folders_are_classes(tmp_path):
    make_files(
        tmp_path,
        *("ill/2.png", "ill/deep/3.png", "well/1.PNG", ".hidden/x.png", "ill/.y.png"),
    )
    (tmp_path / "ill" / "notes.txt").write_text("no image")
    (tmp_path / "ill" / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    bunch = load_image_folder(tmp_path)
    assert bunch.frame["path"].tolist() == [
        str(tmp_path.joinpath(p).relative_to(tmp_path))
        for p in ("ill/2.png", "ill/IM0001", "ill/deep/3.png", "well/1.PNG")
    ]
    assert bunch.target.tolist() == ["ill", "ill", "ill", "well"]
    assert bunch.target_names == ["ill", "well"]
    assert bunch.paths == [str(tmp_path / p) for p in bunch.frame["path"]]
    assert bunch.groups is None
    assert bunch.split is None


def test_folders_of_splits(tmp_path):
    make_files(tmp_path, "train/ill/1.png", "train/well/2.png", "Test/ill/3.png")
    bunch = load_image_folder(tmp_path)
    assert bunch.split.tolist() == ["Test", "train", "train"]
    assert bunch.target.tolist() == ["ill", "ill", "well"]
    assert list(bunch.frame.columns) == ["path", "split", "label"]
    make_files(tmp_path, "other/4.png")
    bunch = load_image_folder(tmp_path)
    assert bunch.split is None
    assert bunch.target_names == ["Test", "other", "train"]


def test_a_flat_folder_has_no_labels(tmp_path):
    make_files(tmp_path, "1.png", "2.png")
    bunch = load_image_folder(str(tmp_path))
    assert len(bunch.paths) == 2
    assert bunch.target is None
    assert bunch.target_names == []
    make_files(tmp_path, "ill/3.png")
    assert load_image_folder(tmp_path).target.tolist() == [None, None, "ill"]


def test_no_image_there(tmp_path):
    with pytest.raises(ValueError, match="holds no image"):
        load_image_folder(tmp_path)
    with pytest.raises(DatasetError, match="is not a folder.*load_labels_csv"):
        load_image_folder(tmp_path / "none")


def test_the_command_line_reads_the_same(write, tmp_path):
    from sk_medsiglip.cli._collection import read_collection
    from sk_medsiglip.cli._labels import read_labels

    file = write(CHEXPERT)
    bunch = load_labels_csv(file)
    collection = read_collection(file)
    assert collection.paths == bunch.paths
    pd.testing.assert_frame_equal(collection.frame, bunch.frame)
    task, labelled, _ = read_labels(
        collection.frame, bunch.target_names, complete=False
    )
    assert_array_equal(task.y, bunch.target[labelled])
    make_files(tmp_path, "ill/2.png", "well/1.png")
    assert read_collection(tmp_path).paths == load_image_folder(tmp_path).paths
