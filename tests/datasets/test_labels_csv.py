"""A user's own tables and folders."""

import codecs

import numpy as np
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


@pytest.mark.parametrize(
    "word", ["NA", "N/A", "NaN", "nan", "None", "null", ".", " NA ", "<NA>"]
)
def test_words_for_missing_are_blanks_among_0_and_1(word, write):
    """As R and others write what is missing: no class, and no reason to pass over."""
    rows = f"path,effusion\n1.png,1\n2.png,0\n3.png,{word}\n4.png,-1\n"
    file = write(rows)
    bunch = load_labels_csv(file)
    assert bunch.target_names == ["effusion"]
    assert_array_equal(bunch.target, [[1], [0], [np.nan], [np.nan]])
    assert_array_equal(bunch.frame["effusion"], [1, 0, np.nan, -1])
    one = load_labels_csv(file, label_columns="effusion", blank="positive")
    assert_array_equal(one.target, [1, 0, 1, np.nan])
    words = write(rows.replace(",1\n", ",TRUE\n").replace(",0\n", ",FALSE\n"))
    assert_array_equal(load_labels_csv(words).target[:3], [[1], [0], [np.nan]])


def test_a_class_may_be_called_na(write):
    """Only where all else is 0, 1 and -1 it is clear what the word means."""
    file = write("path,kind\n1.png,NA\n2.png,None\n3.png,mild\n")
    bunch = load_labels_csv(file, label_columns="kind")
    assert bunch.target_names == ["NA", "None", "mild"]
    with pytest.raises(ValueError, match="label_columns"):
        load_labels_csv(file)
    assert load_labels_csv(
        write("path,n\n1.png,2\n2.png,NA\n"), label_columns="n"
    ).target_names == ["2", "NA"]


TRAILING = "path,patient,effusion,nodule\na.png,7,1,0,\nb.png,8,0,1,\n"


@pytest.mark.parametrize(
    "text",
    [
        TRAILING,
        TRAILING.replace(",\n", ",,\n"),
        TRAILING.replace(",0,\n", ",0\n"),  # the first row without
        TRAILING.replace(",1,\n", ",1\n"),  # the second one
        TRAILING.replace(",1,\n", ',1, ,""\n\n \n'),
    ],
)
def test_separators_at_the_end_shift_nothing(text, write, tmp_path):
    bunch = load_labels_csv(write(text), group_column="patient")
    assert bunch.paths == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert bunch.groups.tolist() == [7, 8]
    assert bunch.target_names == ["effusion", "nodule"]
    assert bunch.target.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("path,b\n1.png,1,x\n2.png,0,\n", "row 1 .line 2. holds 3 cells, .* 2 col"),
        ("path,b\n1.png,1,\n2.png,0,x\n", "row 2 .line 3. holds 3 cells"),
        ("path,b\n1.png,1\n\n2.png,0,x\n", "row 2 .line 4. holds 3 cells"),
        ("path;b\n1.png;1;x\n", "row 1 .line 2. holds 3 cells"),
    ],
)
def test_rows_longer_than_the_names_are_named(text, row, write):
    with pytest.raises(ValueError, match=f"CSV file: {row}"):
        load_labels_csv(write(text))


def test_rows_that_end_early_end_in_blanks(write):
    bunch = load_labels_csv(write("path,ill,bad,age\n1.png,1\n2.png,0,1,60\n"))
    assert_array_equal(bunch.target, [[1, np.nan], [0, 1]])
    assert_array_equal(bunch.frame["age"], [np.nan, 60])
    with pytest.raises(ValueError, match="row 1"):
        load_labels_csv(write("ill,path\n1\n0,2.png\n"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # Numbers that a float does not hold, or would make equal, are names.
        (["123456789012345678901", "123456789012345678902"], None),
        (["9007199254740993.0", "9007199254740992"], None),
        (["10E2", "1E3"], None),
        (["1.10", "1.1"], None),
        (["+5", "5"], None),
        (["007", "7"], None),
        (["1e3", "p1"], None),
        ([" p1", "p1 "], ["p1", "p1"]),
        (["12", "9007199254740993"], [12, 9007199254740993]),
        (["1.0", "2.0"], [1, 2]),
        (["1", "1.0"], [1, 1]),
        (["2.5", " 3"], [2.5, 3]),
    ],
)
def test_patients_are_numbers_where_that_loses_nothing(given, expected, write):
    rows = [f"{i}.png,{name},{i}" for i, name in enumerate(given)]
    file = write("\n".join(["path,who,ill", *rows]) + "\n")
    bunch = load_labels_csv(
        file, label_columns="ill", group_column="who", split_column="who"
    )
    expected = given if expected is None else expected
    assert bunch.groups.tolist() == expected
    assert bunch.split.tolist() == expected
    assert bunch.frame["who"].tolist() == expected  # what users join by


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_are_seen(separator, write, tmp_path):
    text = "path, ill ,note\n1.png,1,x\n2.png,0,y\n".replace(",", separator)
    bunch = load_labels_csv(write(text.replace("x", "'a, b'")))
    assert bunch.paths == [str(tmp_path / "1.png"), str(tmp_path / "2.png")]
    assert bunch.target.tolist() == [[1], [0]]
    assert bunch.frame["note"].tolist() == ["'a, b'", "y"]


def test_spaces_around_names_and_classes_do_not_count(write):
    file = write("path , kind\n1.png,Effusion \n2.png,Effusion\n3.png, effusion\n")
    bunch = load_labels_csv(file, label_columns="kind")
    assert bunch.target.tolist() == ["Effusion", "Effusion", "effusion"]
    assert bunch.target_names == ["Effusion", "effusion"]
    # Two columns are never made one.
    bunch = load_labels_csv(write("path,a, a\n1.png,0,1\n"))
    assert bunch.target_names == ["a", " a"]


def test_urls_stay_as_they_are(write, tmp_path):
    names = ["https://host/x/a.png", "s3://bucket/b.dcm", "c.png", "~nobody-1/d.png"]
    file = write("\n".join(["path,ill", *(f"{name},1" for name in names)]) + "\n")
    expected = names[:2] + [str(tmp_path / name) for name in names[2:]]
    assert load_labels_csv(file).paths == expected


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
        (CHEXPERT, {"label_columns": []}, "label_columns"),
        (CHEXPERT, {"label_columns": ["Sex", "Edema"]}, "'Sex' holds 'F', 'M'.*='Sex'"),
        (CHEXPERT, {"group_column": "patient"}, "group_column: .*no column 'patient'"),
        (CHEXPERT, {"group_column": "Age"}, "'Age' is empty in 1 rows.*row 3"),
        (CHEXPERT, {"split_column": "split"}, "split_column: "),
        (CHEXPERT, {"path_column": "dicom"}, "path_column: .*no column 'dicom'"),
        (CHEXPERT, {"uncertain": "maybe"}, "uncertain must be one of"),
        ("a,b\n1,2\n", {}, "Pass path_column, one of: a, b|pass path_column"),
        ("path,b\n1.png,2\n", {}, "path, b"),
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


PLAIN = "path,ill,note\n1.png,1,x\n2.png,0,y\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode("utf-16"),
        codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-32"),
        PLAIN.encode("utf-8-sig"),
        PLAIN.replace(",", "|").encode(),
        b"sep=;\r\n" + PLAIN.replace(",", ";").encode(),
        b"SEP=,\n" + PLAIN.encode(),
        "sep=;\n".encode("utf-16") + PLAIN.replace(",", ";").encode("utf-16-le"),
        PLAIN.replace(",", ";").replace("note", "note, if any").encode(),
        PLAIN.replace(",", "|").replace("note", "note, or; none").encode(),
        PLAIN.replace(",1", ",\u00a01").replace(",0", ",0\u202f").encode(),
        PLAIN.replace(",", ";")
        .replace(";1;", ";1,0;")
        .replace(";0;", ";0,00;")
        .encode(),
        PLAIN.replace("1.png", " 1.png").replace("2.png", "2.png\t ").encode(),
    ],
    ids=range(13),
)
def test_tables_as_people_have_them(content, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    bunch = load_labels_csv(tmp_path / "t.csv", path_column="path")
    paths = [str(tmp_path / "1.png"), str(tmp_path / "2.png")]
    assert bunch.paths == paths
    assert bunch.target_names == ["ill"]
    assert bunch.target.tolist() == [[1], [0]]


def test_commas_in_numbers(write):
    text = "path;ill;age;count;mixed\n1.png;1;63,5;1,000;1,5\n2.png;0;70;2,500;1.5\n"
    frame = load_labels_csv(write(text)).frame
    assert frame["age"].tolist() == [63.5, 70.0]
    assert frame["count"].tolist() == ["1,000", "2,500"]
    assert frame["mixed"].tolist() == ["1,5", "1.5"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            PLAIN.replace("x", "\u00e9").encode("cp1252"),
            "line 2 .*cp1252.*'\u00e9'",
        ),
        (PLAIN.encode("utf-16-le"), "null characters"),
        (b"PK\x03\x04" + bytes(100), "is an Excel workbook .*Save it as CSV"),
        (b"\xd0\xcf\x11\xe0" + bytes(100), "is an old Excel workbook"),
        (b"path,a,b,a\n1.png,0,1,1\n", "columns 2 and 4 are both called 'a'"),
        (b"path,path,a\n1.png,2.png,1\n", "columns 1 and 2 are both called 'path'"),
    ],
)
def test_tables_that_cannot_be_read_say_what_they_are(content, message, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_labels_csv(tmp_path / "t.csv")


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"path,b\n\xff\xfe.png,1\n")
    with pytest.raises(ValueError, match="CSV file"):
        load_labels_csv(tmp_path / "t.csv")


def test_no_table_there(tmp_path):
    with pytest.raises(DatasetError, match="load_image_folder"):
        load_labels_csv(tmp_path / "none.csv")
    with pytest.raises(DatasetError, match="a file"):
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


def test_folders_of_systems_are_no_classes(tmp_path):
    make_files(
        tmp_path,
        *("ill/1.png", "__MACOSX/ill/2.png", "ill/@eaDir/1.png/thumb.jpg"),
        *("@eaDir/x.png", "$RECYCLE.BIN/y.png", "#recycle/z.png"),
    )
    bunch = load_image_folder(tmp_path)
    assert bunch.paths == [str(tmp_path / "ill" / "1.png")]
    assert bunch.target_names == ["ill"]


def test_files_beside_splits_are_left_out_with_a_warning(tmp_path):
    make_files(tmp_path, "train/ill/1.png", "test/ill/3.png", "montage.png", "b.png")
    with pytest.warns(UserWarning, match=r"2 .*b\.png"):
        bunch = load_image_folder(tmp_path)
    assert bunch.split.tolist() == ["test", "train"]
    assert bunch.target_names == ["ill"]
    assert len(bunch.paths) == len(bunch.frame) == 2
    (tmp_path / "train" / "ill" / "1.png").unlink()
    # One folder among images may be a class of its own.
    assert load_image_folder(tmp_path).target.tolist() == [None, None, "test"]


def test_a_flat_folder_has_no_labels(tmp_path):
    make_files(tmp_path, "1.png", "2.png")
    bunch = load_image_folder(str(tmp_path))
    assert len(bunch.paths) == 2
    assert bunch.target is None
    assert bunch.target_names == []
    make_files(tmp_path, "ill/3.png")
    assert load_image_folder(tmp_path).target.tolist() == [None, None, "ill"]


def test_no_image_there(tmp_path):
    with pytest.raises(ValueError, match="no image"):
        load_image_folder(tmp_path)
    with pytest.raises(DatasetError, match="load_labels_csv"):
        load_image_folder(tmp_path / "none")
