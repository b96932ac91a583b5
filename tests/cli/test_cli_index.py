"""``sk-medsiglip index build`` and ``search``, and the sheet of what was found."""

import sys

import numpy as np
import pandas as pd
import pytest
from command_line import run, write_collection
from PIL import Image

from sk_medsiglip import MedSigLIPEmbedder, MedSigLIPVolumeEmbedder
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.exceptions import MissingDependencyError
from sk_medsiglip.images import read_image
from sk_medsiglip.retrieval import ImageRetriever, Query, RetrievalDisplay

N = 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection")
    write_collection(folder, N, seed=2, age=np.arange(N))
    (folder / "7.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module", params=["exact", "lancedb"])
def index(request, folder, tmp_path_factory):
    if request.param == "lancedb":
        pytest.importorskip("lancedb", reason="lancedb is not installed")
    out = tmp_path_factory.mktemp("indexes") / "chest"
    said = run(
        "index", "build", folder / "labels.csv", out, "--model", "demo",
        "--backend", request.param,
    )  # fmt: skip
    assert f"{N - 1} of {N} images" in said
    assert "left out" in said
    assert "7.png" in said
    return out


def test_found_by_words(folder, index, tmp_path):
    out, sheet = tmp_path / "hits.csv", tmp_path / "hits.png"
    said = run(
        "index", "search", index, "a large pleural effusion", "--n", 6,
        "--out", out, "--sheet", sheet, "--label-column", "effusion",
    )  # fmt: skip
    assert "It holds images of patients" in said
    assert "demonstration" in said
    hits = pd.read_csv(out)
    assert hits["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert hits["effusion"].tolist() == [1] * 6
    assert hits["score"].is_monotonic_decreasing
    assert hits["source"][0] == str(folder / f"{hits['id'][0]}.png")
    with Image.open(sheet) as picture:
        assert picture.size[0] > 1000
    assert "exists. Add --overwrite" in run(
        "index", "search", index, "effusion", "--out", out, code=2
    )


def test_a_preview_speaks_of_a_file_only_if_there_is_one(index, tmp_path):
    out = tmp_path / "hits.csv"
    said = run("index", "search", index, "effusion")
    assert "in the file" not in said
    assert "--out" in said
    assert "in the file" in run("index", "search", index, "effusion", "--out", out)


def test_found_by_example_and_filter(folder, index, tmp_path):
    pytest.importorskip("sqlglot", reason="sqlglot is not installed")
    out = tmp_path / "hits.csv"
    run(
        "index", "search", index, "--image", folder / "3.png", "--out", out,
        "--where", "age >= 3 and age < 20 and effusion in (0, 1)", "-n", 5,
    )  # fmt: skip
    hits = pd.read_csv(out)
    assert hits["id"][0] == 3
    assert hits["score"][0] == pytest.approx(1, abs=1e-4)
    assert hits["age"].between(3, 19).all()
    assert "may not contain" in run(
        "index", "search", index, "x", "--where", "1 = (select 1)", code=2
    )


def test_what_is_asked_wrongly(folder, index, tmp_path):
    for arguments, message in [
        ((index,), "Pass words"),
        ((tmp_path / "none", "effusion"), "There is no index"),
        ((index, "--image", tmp_path / "no.png"), "there is no file"),
        ((index, "effusion", "--sheet", tmp_path / "x.gif"), ".png"),
        ((index, "effusion", "--label-column", "sex"), "there is no column 'sex'"),
    ]:
        assert message in run("index", "search", *arguments, code=2)
    build = ("index", "build", folder / "labels.csv")
    for arguments, message in [
        ((index,), "exists. Add --overwrite"),
        ((tmp_path / "no" / "x",), "does not exist; make it first"),
        ((tmp_path / "x", "--column", "sex"), "there is no column 'sex'"),
    ]:
        assert message in run(*build, *arguments, "--model", "demo", code=2)


@pytest.fixture(scope="module")
def retriever():
    phantoms = make_chest_phantoms(40, random_state=0)
    retriever = ImageRetriever(model="demo").fit(
        list(phantoms.images), metadata={"effusion": phantoms.target[:, 1]}
    )
    return retriever, phantoms


def test_the_sheet_holds_what_was_found_in_order(retriever):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    retriever, phantoms = retriever
    display = RetrievalDisplay.from_retriever(
        retriever, "pleural effusion", n=4, images=phantoms.images, label="effusion"
    )
    assert display.ax_.get_title() == "pleural effusion"
    for rank, (tile, row) in enumerate(
        zip(display.axes_, display.hits.itertuples(), strict=True), start=1
    ):
        words = tile.get_title().splitlines()
        assert words[0] == f"{rank}. score {row.score:.3f}"
        assert words[1] == f"id {row.id}"
        assert words[2] == f"effusion: {row.effusion}"
        (shown,) = tile.get_images()
        np.testing.assert_array_equal(
            shown.get_array(), read_image(phantoms.images[row.id])
        )


def test_the_image_that_was_asked_with_comes_first(retriever):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    retriever, phantoms = retriever
    query = Query(image=phantoms.images[5]) - "a pacemaker"
    images = dict(enumerate(phantoms.images))
    display = RetrievalDisplay.from_retriever(retriever, query, n=3, images=images)
    assert len(display.axes_) == 4
    assert display.axes_[0].get_title() == "asked with"
    np.testing.assert_array_equal(
        display.axes_[0].get_images()[0].get_array(), read_image(phantoms.images[5])
    )
    # Images were given as arrays: there is no file to open.
    display = RetrievalDisplay.from_retriever(retriever, "effusion", n=2)
    assert [len(tile.get_images()) for tile in display.axes_] == [0, 0]
    with pytest.raises(ValueError, match="one query"):
        RetrievalDisplay.from_retriever(retriever, ["a", "b"])
    with pytest.raises(ValueError, match="label='sex'"):
        RetrievalDisplay.from_retriever(retriever, "effusion", label="sex")


def test_dicom_and_studies_are_shown_as_they_were_embedded(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    volumes = [np.full((9, 40, 40), value, np.int16) for value in (-500, 0, 40, 300)]
    for place, volume in enumerate(volumes):
        volume[:, 10:20, 10:20] += 30 * np.arange(9, dtype=np.int16)[:, None, None]
        volume[:, 0, place] = -1000
    embedder = MedSigLIPVolumeEmbedder(
        MedSigLIPEmbedder("demo", intensity="mediastinum"), n_slices=3
    )
    retriever = ImageRetriever(model="demo", embedder=embedder).fit(volumes)
    display = RetrievalDisplay.from_retriever(retriever, "a chest", n=2, images=volumes)
    for tile, row in zip(display.axes_, display.hits.itertuples(), strict=True):
        expected = read_image(volumes[row.id][4], intensity="mediastinum")
        np.testing.assert_array_equal(tile.get_images()[0].get_array(), expected)


def test_without_matplotlib(retriever, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    retriever, phantoms = retriever
    with pytest.raises(MissingDependencyError, match=r"sk-medsiglip\[plot\]"):
        RetrievalDisplay.from_retriever(
            retriever, "effusion", n=2, images=phantoms.images
        )


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (("--columns", "age"), ["age"]),
        (("--columns", "age", "--columns", "patient"), ["age", "patient"]),
        (("--columns", ""), []),
    ],
)
def test_only_the_columns_that_are_named_are_kept(folder, tmp_path, options, kept):
    out = tmp_path / "index"
    run("index", "build", folder / "labels.csv", out, "--model", "demo", *options)
    assert list(ImageRetriever.load(out).to_frame()) == ["id", "source", *kept]
