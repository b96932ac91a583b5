"""The command line on real files, with the demonstration checkpoint."""

import importlib.metadata
import json
import os
import re
import sys
import time

import forked
import joblib
import numpy as np
import pandas as pd
import pydicom
import pytest
import yaml
from PIL import Image
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from sk_medsiglip import (
    EmbeddingCache,
    MedSigLIPEmbedder,
    ZeroShotClassifier,
    __version__,
)
from sk_medsiglip.cache import file_stamps
from sk_medsiglip.cli import _cache, _collection, _console, _files, _plot, _splits, app
from sk_medsiglip.datasets import (
    load_image_folder,
    load_labels_csv,
    make_chest_phantoms,
)

N_PHANTOMS = 120
FINDINGS = [
    "cardiomegaly",
    "effusion",
    "pneumothorax",
    "consolidation",
    "nodule",
    "device",
]


def run(*arguments, input=None):
    return CliRunner().invoke(app, [str(a) for a in arguments], input=input)


def check_fails(result, *texts):
    """One message and exit code 2; no exception reaches the user."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    for text in texts:
        assert text in result.stderr
    assert "Traceback" not in result.output


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """One run of ``demo`` on phantoms: its output and its folder."""
    folder = tmp_path_factory.mktemp("cli") / "out"
    result = run("demo", "--out", folder, "--n-samples", N_PHANTOMS, "--n-jobs", 1)
    assert result.exit_code == 0, result.output
    return result, folder, json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="session")
def classes_folder(tmp_path_factory):
    """Sub-folders of two classes, 21 images each, and one cut short."""
    folder = tmp_path_factory.mktemp("classes")
    bunch = make_chest_phantoms(
        200, findings=["cardiomegaly"], views_per_patient=1, random_state=1
    )
    for value, name in enumerate(["normal", "big_heart"]):
        (folder / name).mkdir()
        for i, row in enumerate(np.flatnonzero(bunch.target[:, 0] == value)[:21]):
            Image.fromarray(bunch.images[row]).save(folder / name / f"{i:02d}.png")
    whole = (folder / "normal" / "00.png").read_bytes()
    (folder / "normal" / "00.png").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture
def images_csv(classes_folder, tmp_path):
    """A CSV file of readable images with names that look like numbers."""
    files = sorted(classes_folder.glob("*/*.png"))[:8]
    frame = pd.DataFrame(
        {"scan": files, "patient": [f"00{i}" for i in range(8)], "age": range(40, 48)}
    )
    frame.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


# ------------------------------------------------------------------------------- demo


def test_demo_writes_png_and_16_bit_dicom_with_labels(demo):
    _, folder, _ = demo
    table = pd.read_csv(folder / "images" / "labels.csv")
    assert list(table.columns) == ["path", *FINDINGS, "patient", "caption"]
    assert len(table) == N_PHANTOMS
    kinds = table["path"].str[-4:]
    assert set(kinds) == {".png", ".dcm"}
    dicom = pydicom.dcmread(folder / "images" / table["path"][kinds == ".dcm"].iloc[0])
    assert dicom.BitsStored == 16
    assert dicom.pixel_array.max() > 255
    for path in table["path"][kinds == ".png"]:
        with Image.open(folder / "images" / path) as image:
            assert image.size == (128, 128)


def test_demo_png_and_dicom_of_one_phantom_are_one_picture(demo):
    from sk_medsiglip.images import read_image

    _, folder, _ = demo
    bunch = make_chest_phantoms(N_PHANTOMS, dtype="uint16", random_state=0)
    paths = pd.read_csv(folder / "images" / "labels.csv")["path"]
    for row in range(8):
        grey = read_image(folder / "images" / paths[row])[..., 0].astype(int)
        assert np.abs(grey - bunch.images[row] / 257).max() <= 1


def test_demo_pays_once(demo):
    _, folder, results = demo
    assert results["first"]["passes"] == N_PHANTOMS
    assert results["second"]["passes"] == 0
    for step in ("zero_shot", "logistic", "few_labels", "nearest", "saved"):
        assert results[step]["passes"] == 0, step
    stats = EmbeddingCache(folder / "cache").stats()
    n_texts = results["zero_shot"]["texts"] + results["nearest"]["texts"]
    assert stats["rows_computed"] == N_PHANTOMS + n_texts
    assert stats["repeated_puts"] == 0


def test_demo_figures_are_plausible(demo):
    _, _, results = demo
    assert set(results["zero_shot"]["aucs"]) == set(FINDINGS)
    # The checkpoint was trained for this; chance is 0.5.
    assert 0.65 < results["zero_shot"]["auc"] <= 1
    assert 0.6 < results["logistic"]["auc"] <= 1
    assert [point["n_labels"] for point in results["few_labels"]["curve"]] == [8, 32]
    assert all(0 <= point["auc"] <= 1 for point in results["few_labels"]["curve"])
    nearest = results["nearest"]
    assert len(nearest["images"]) == 10
    found = [image["similarity"] for image in nearest["images"]]
    assert found == sorted(found, reverse=True)
    assert found[0] > 1
    effusion = nearest["shares"]["effusion"]
    assert effusion["nearest"] > 2 * effusion["all"]


def test_demo_answers_how_many_labels_beat_the_prompts(demo):
    result, _, results = demo
    assert results["few_labels"]["answer"] in result.stdout
    assert "beat the prompts here" in results["few_labels"]["answer"]


def test_demo_zero_shot_figure_is_that_of_the_public_classes(demo):
    _, folder, results = demo
    test = load_labels_csv(folder / "test.csv", label_columns=FINDINGS)
    store = folder / "cache"
    X = MedSigLIPEmbedder("demo", cache=store).transform(test.paths)
    prompts = json.loads((folder / "prompts.json").read_text())
    zero_shot = ZeroShotClassifier(prompts, model="demo", cache=store).fit(X)
    aucs = roc_auc_score(test.target, zero_shot.predict_proba(X), average=None)
    found = [results["zero_shot"]["aucs"][name] for name in FINDINGS]
    np.testing.assert_allclose(aucs, found)


def test_demo_keeps_patients_apart_and_reports_on_those_held_out(demo):
    _, folder, results = demo
    train, test = (pd.read_csv(folder / f"{part}.csv") for part in ("train", "test"))
    assert len(train) + len(test) == results["n_images"] == N_PHANTOMS
    assert not set(train["patient"]) & set(test["patient"])
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert f"{len(test)} test images" in report


def test_demo_saves_a_pipeline_without_weights(demo):
    _, folder, results = demo
    assert results["saved"]["max_difference"] < 1e-5
    file = folder / "pipeline.joblib"
    assert file.stat().st_size == results["saved"]["bytes"] < 50_000
    pipeline = joblib.load(file)
    table = load_labels_csv(folder / "images" / "labels.csv", label_columns=FINDINGS)
    assert pipeline.predict_proba(table.paths[:5]).shape == (5, len(FINDINGS))


def test_demo_draws_a_picture(demo):
    _, folder, results = demo
    assert results["picture"] == "overview.png"
    with Image.open(folder / "overview.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 500
        assert np.asarray(image.convert("L")).std() > 20


def test_demo_says_what_it_is(demo):
    result, _, _ = demo
    assert result.stdout.count("trained on drawings. It is not MedSigLIP") == 2
    assert "not for clinical use" in result.stdout
    assert f"{N_PHANTOMS} images, {N_PHANTOMS} model passes" in result.stdout
    assert f"{N_PHANTOMS} images, 0 model passes" in result.stdout
    assert "make_pipeline(embedder" in result.stdout
    # Not a terminal: no control sequences.
    assert "\x1b" not in result.output


def test_demo_keeps_an_earlier_one(demo):
    _, folder, _ = demo
    check_fails(run("demo", "--out", folder), "--overwrite")
    assert (folder / "results.json").exists()


def test_demo_never_empties_a_folder_of_others(tmp_path):
    (tmp_path / "thesis.tex").write_text("...")
    check_fails(run("demo", "--out", tmp_path, "--overwrite"), "not from an earlier")
    assert (tmp_path / "thesis.tex").exists()


def test_demo_on_folders_without_patients_or_matplotlib(
    classes_folder, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    out = tmp_path / "out"
    result = run(
        *("demo", "--images", classes_folder, "--out", out, "--n-jobs", 1),
        *("--class", "normal=a normal heart", "--class", "big_heart=an enlarged heart"),
    )
    assert result.exit_code == 0, result.output
    assert "1 of 42 images cannot be read and are left out" in result.stdout
    assert "row 21: " in result.stderr
    assert "every image counts as a patient" in result.stdout
    assert 'pip install "sk-medsiglip[plot]"' in result.stderr
    assert not (out / "overview.png").exists()
    results = json.loads((out / "results.json").read_text())
    assert results["picture"] is None
    assert results["n_images"] == 41
    assert results["first"]["passes"] == 41
    assert results["second"]["passes"] == results["logistic"]["passes"] == 0
    assert results["zero_shot"]["auc"] > 0.7
    assert results["nearest"]["sentence"] == "a normal heart"


def test_demo_on_a_csv_of_one_finding(demo, tmp_path, monkeypatch):
    # Pictures and report are those of the other runs, and take the longest.
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    _, folder, _ = demo
    table = pd.read_csv(
        folder / "images" / "labels.csv", dtype={"cardiomegaly": object}
    ).head(60)
    table["path"] = [str(folder / "images" / path) for path in table["path"]]
    table.loc[3, "cardiomegaly"] = None
    table.loc[4, "cardiomegaly"] = "-1"
    table.to_csv(tmp_path / "mine.csv", index=False)
    out = tmp_path / "out"
    result = run(
        *("demo", "--images", tmp_path / "mine.csv", "--label-column", "cardiomegaly"),
        *("--group-column", "patient", "--out", out, "--n-jobs", 1),
        *("--cache", folder / "cache"),
    )
    assert result.exit_code == 0, result.output
    assert "2 of 60 images are left out: a label is blank or uncertain" in result.stdout
    assert "The prompts are made from the names of the labels" in result.stdout
    results = json.loads((out / "results.json").read_text())
    # The store of another run holds them all.
    assert results["first"]["passes"] == 0
    assert results["n_images"] == 58
    assert list(results["zero_shot"]["aucs"]) == ["cardiomegaly"]
    assert results["nearest"]["sentence"] == "a medical image showing cardiomegaly"


def test_demo_user_errors(classes_folder, images_csv, tmp_path):
    out = tmp_path / "out"
    check_fails(run("demo", "--label-column", "x", "--out", out), "--images")
    check_fails(
        run("demo", "--images", tmp_path / "no", "--out", out), "does not exist"
    )
    table = ("demo", "--images", images_csv, "--out", out, "--path-column", "scan")
    check_fails(run(*table), "no column 'label'", "patient, age")
    check_fails(run(*table, "--label-column", "x"), "no column 'x'", "patient, age")
    check_fails(
        run("demo", "--images", classes_folder, "--device", "tpu9", "--out", out),
        "--device",
    )
    # None of these came as far as writing.
    assert not out.exists()
    check_fails(
        run(
            *("demo", "--images", classes_folder, "--out", out),
            *("--positive", "a", "--negative", "b"),
        ),
        "--class",
    )


# ------------------------------------------------------------------- labels and splits


def test_split_counts_classes_and_leaves_out_blanks(tmp_path):
    paths = [f"{i}.png" for i in range(20)]
    frame = pd.DataFrame({"path": paths, "grade": [0.0, 1.0, 2.0, None, 2.0] * 4})
    frame.to_csv(tmp_path / "table.csv", index=False)
    columns = ("--path-column", "path", "--label-column", "grade")
    result = run("split", tmp_path / "table.csv", *columns)
    assert result.exit_code == 0, result.output
    assert re.search(r"table +images +patients +0 +1 +2\n", result.stdout)
    assert "4 of 20 images are left out" in result.stdout


def test_several_label_columns_must_be_binary(tmp_path):
    frame = pd.DataFrame({"path": ["a.png", "b.png"], "a": [0, 1], "b": ["no", "yes"]})
    frame.to_csv(tmp_path / "table.csv", index=False)
    columns = ("--path-column", "path", "--label-column", "a", "--label-column", "b")
    result = run("split", tmp_path / "table.csv", *columns)
    check_fails(result, "'b' holds 'no', 'yes'")


def test_folds_keep_patients_together_and_are_fewer_of_few_patients():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 2)
    labels = np.repeat(rng.integers(0, 2, (60, 3)), 2, axis=0)
    task, _ = _collection.read_labels(
        pd.DataFrame(labels, columns=list("abc")), list("abc")
    )
    folds = _splits.make_folds(task, groups, seed=0)
    assert len(folds) == 5
    for learn, validate in folds:
        assert not set(groups[learn]) & set(groups[validate])
    labels = pd.DataFrame({"a": [1] * 4 + [0] * 30})
    task, _ = _collection.read_labels(labels, ["a"])
    assert len(_splits.make_folds(task, None, seed=0)) == 4
    task, _ = _collection.read_labels(labels.iloc[3:], ["a"])
    assert _splits.make_folds(task, None, seed=0) == []


def test_split_writes_two_tables_that_share_no_patient(demo, tmp_path):
    _, folder, _ = demo
    source = tmp_path / "all.csv"
    table = pd.read_csv(folder / "images" / "labels.csv")
    table["path"] = [str(folder / "images" / path) for path in table["path"]]
    table.to_csv(source, index=False)
    command = ("split", source, "--label-column", "effusion", "--test-size", 0.3)
    result = run(*command, "--group-column", "patient", "--seed", 1)
    assert result.exit_code == 0, result.output
    assert "sk-medsiglip report model.skops" in result.stdout
    train, test = (pd.read_csv(tmp_path / f"all.{p}.csv") for p in ("train", "test"))
    assert list(train.columns) == list(table.columns)
    assert not set(train["patient"]) & set(test["patient"])
    assert sorted([*train["path"], *test["path"]]) == sorted(table["path"])
    assert len(test) / N_PHANTOMS == pytest.approx(0.3, abs=0.02)
    share = test["effusion"].mean() / table["effusion"].mean()
    assert share == pytest.approx(1, abs=0.1)
    check_fails(run(*command), "--overwrite")
    check_fails(run(*command, "--test-size", 2, "--overwrite"), "such as 0.25")
    result = run(*command, "--overwrite")
    assert "every image counts as a patient" in result.stdout


def test_tables_of_a_split_can_be_read_where_they_lie(classes_folder, tmp_path):
    files = ("--train", tmp_path / "a.csv", "--test", tmp_path / "b.csv")
    result = run("split", classes_folder, *files)
    assert result.exit_code == 0, result.output
    for file in files[1::2]:
        assert all(
            map(os.path.isfile, load_labels_csv(file, label_columns="label").paths)
        )


TABLES = {
    "findings": "Path,Edema,Fracture\na/1.jpg,1.0,\na/2.jpg,0.0,-1.0\nb/3.jpg,,1.0\n",
    "finding": "path,ill\n1.png,1\n2.png,0\n3.png,<NA>\n4.png,-1\n",
    "classes": "path , kind\n1.png,Effusion \n2.png,Effusion\n3.png, effusion\n",
    "finding, semicolons": "path;ill;note\n 1.png;1,0;x\n2.png\t ;0,00;y\n",
    "finding, urls": "path,ill\nhttps://host/x/a.png,1\ns3://b/c.dcm,0\n~no-1/d.png,1\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("name", TABLES)
def test_tables_are_read_as_load_labels_csv_reads_them(name, encoding, tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text(TABLES[name], encoding=encoding)
    kind = name.partition(",")[0]
    columns = ["kind"] if kind == "classes" else None
    bunch = load_labels_csv(file, label_columns="kind" if columns else None)
    collection = _collection.read_collection(file)
    assert collection.paths == bunch.paths
    pd.testing.assert_frame_equal(collection.frame, bunch.frame)
    labels = columns or bunch.target_names
    task, labelled = _collection.read_labels(collection.frame, labels)
    assert task.kind == kind
    expected = bunch.target[labelled]
    np.testing.assert_array_equal(np.reshape(task.y, expected.shape), expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["007", "7"], ["007", "7"]),
        (["1.10", "1.1"], ["1.10", "1.1"]),
        ([" p1", "p1 "], ["p1", "p1"]),
        (["1", "1.0"], ["1", "1"]),
        (["2.5", " 3"], ["2.5", "3"]),
        (["12", "9007199254740993"], ["12", "9007199254740993"]),
    ],
)
def test_patients_are_told_apart_by_their_ids(given, expected, tmp_path):
    rows = [f"{i}.png,{name},{i}" for i, name in enumerate(given)]
    (tmp_path / "t.csv").write_text("\n".join(["path,who,ill", *rows]))
    collection = _collection.read_collection(tmp_path / "t.csv")
    assert collection.patients("who").tolist() == expected
    kept = collection.keep(np.array([False, True]))
    assert kept.patients("who").tolist() == expected[1:]


def test_a_folder_is_read_as_load_image_folder_reads_it(classes_folder):
    collection = _collection.read_collection(classes_folder)
    assert collection.paths == load_image_folder(classes_folder).paths


# ------------------------------------------------------------------------------ embed


def test_embed_npz_is_what_the_embedder_gives(images_csv, tmp_path):
    out, store = tmp_path / "e.npz", tmp_path / "store"
    store.mkdir()
    arguments = (
        *("embed", images_csv, out, "--path-column", "scan", "--model", "demo"),
        *("--cache", store, "--normalize"),
    )
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "8 model passes, 0 rows from the cache" in result.stdout
    with np.load(out) as file:
        paths, X = file["paths"].tolist(), file["embeddings"]
        assert str(file["model"]) == "demo"
        assert str(file["revision"]).startswith("folder-")
    expected = MedSigLIPEmbedder("demo", normalize=True, cache=store).transform(paths)
    np.testing.assert_array_equal(X, expected)
    check_fails(run(*arguments), "--overwrite")
    result = run(*arguments, "--overwrite")
    assert "0 model passes, 8 rows from the cache" in result.stdout
    assert not list(tmp_path.glob(".e.npz*"))


def test_embed_parquet_keeps_the_columns(images_csv, tmp_path):
    pytest.importorskip("pyarrow")
    out = tmp_path / "e.parquet"
    result = run(
        *("embed", images_csv, out, "--path-column", "scan", "--model", "demo"),
        "--no-cache",
    )
    assert result.exit_code == 0, result.output
    table = pd.read_parquet(out)
    assert list(table.columns) == ["scan", "patient", "age", "embedding"]
    assert table["patient"].tolist() == [f"00{i}" for i in range(8)]
    assert table["age"].tolist() == list(range(40, 48))
    assert np.stack(table["embedding"]).shape == (8, 192)


def test_embed_unreadable_images(classes_folder, tmp_path):
    out = tmp_path / "e.npz"
    arguments = ("embed", classes_folder, out, "--model", "demo")
    check_fails(run(*arguments), "row 21: ", "00.png")
    assert not out.exists()
    result = run(*arguments, "--on-error", "nan")
    assert result.exit_code == 0, result.output
    assert "1 of 42 images cannot be read" in result.stderr
    with np.load(out) as file:
        assert np.flatnonzero(np.isnan(file["embeddings"]).any(axis=1)).tolist() == [21]


def test_embed_user_errors(classes_folder, tmp_path, monkeypatch):
    def embed(*arguments):
        return run("embed", *arguments, "--model", "demo")

    check_fails(embed(classes_folder, tmp_path / "e.csv"), ".npz or .parquet")
    check_fails(embed(tmp_path, tmp_path / "e.npz"), "hold no image")
    check_fails(embed(classes_folder, tmp_path / "a" / "e.npz"), "does not exist")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    check_fails(embed(tmp_path / "t.csv", tmp_path / "e.npz"), "--path-column", "a, b")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    check_fails(
        embed(classes_folder, tmp_path / "e.parquet"),
        'pip install "sk-medsiglip[parquet]"',
    )


# -------------------------------------------------------------------------- zero-shot


def test_zero_shot_classes(images_csv, tmp_path):
    out = tmp_path / "p.csv"
    result = run(
        *("zero-shot", images_csv, "--path-column", "scan", "--out", out),
        *("--model", "demo", "--class", "normal=a normal heart"),
        *("--class", "big=an enlarged heart", "--class", "big=cardiomegaly"),
    )
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out)
    assert list(table.columns) == ["scan", "big", "normal", "predicted"]
    np.testing.assert_allclose(table["big"] + table["normal"], 1, atol=1e-5)
    assert (table["predicted"] == table[["big", "normal"]].idxmax(axis=1)).all()
    prompts = {"normal": "a normal heart", "big": ["an enlarged heart", "cardiomegaly"]}
    X = MedSigLIPEmbedder("demo").transform(table["scan"])
    expected = ZeroShotClassifier(prompts, model="demo").fit(X).predict_proba(X)
    np.testing.assert_allclose(table[["big", "normal"]], expected, atol=1e-5)
    assert "It is not MedSigLIP" in result.stdout


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_zero_shot_findings_from_a_file(classes_folder, tmp_path, suffix):
    dump = yaml.safe_dump if suffix == "yaml" else json.dumps
    prompts = {
        "heart": {"positive": ["an enlarged heart"], "negative": ["a normal heart"]},
        "device": {"positive": "a pacemaker", "negative": "no device"},
    }
    file = tmp_path / f"prompts.{suffix}"
    # safe_dump sorts the keys, and columns are in the order of the file.
    file.write_text(dump(dict(sorted(prompts.items()))))
    out = tmp_path / "p.csv"
    result = run(
        *("zero-shot", classes_folder, "--prompts", file, "--out", out),
        *("--model", "demo", "--on-error", "nan"),
    )
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out)
    assert list(table.columns) == ["path", "device", "heart"]
    assert np.flatnonzero(table["heart"].isna()).tolist() == [21]
    assert table["heart"].dropna().between(0, 1).all()


def test_zero_shot_by_a_set_that_ships_and_one_of_that_format(classes_folder, tmp_path):
    own = tmp_path / "own.yaml"
    header = dict.fromkeys(("title", "modality", "source", "notes"), "x")
    prompts = {0: ["no effusion"], 1: ["an effusion"]}
    own.write_text(
        yaml.safe_dump({**header, "version": 1, "ordinal": True, "prompts": prompts})
    )
    for given, columns in (("retinopathy_grades", "01234"), (own, "01")):
        out = tmp_path / f"{columns}.csv"
        result = run(
            *("zero-shot", classes_folder, "--prompts", given, "--out", out),
            *("--model", "demo", "--on-error", "nan"),
        )
        assert result.exit_code == 0, result.output
        assert list(pd.read_csv(out).columns) == ["path", *columns, "predicted"]


def test_zero_shot_of_many_findings_prints_those_that_fit(classes_folder, tmp_path):
    out = tmp_path / "p.csv"
    result = run(
        *("zero-shot", classes_folder, "--prompts", "chest_xray_13", "--out", out),
        *("--model", "demo", "--on-error", "nan"),
    )
    assert result.exit_code == 0, result.output
    columns = list(pd.read_csv(out).columns)
    assert len(columns) == 14
    said = " ".join(result.stdout.split())
    assert "First 10 of 42 rows; 9 more columns in the file" in said
    assert "0.…" not in said
    assert columns[4].split()[0] in said
    assert columns[5] not in said


def test_zero_shot_user_errors(classes_folder, tmp_path):
    def zero_shot(*arguments):
        out = ("--out", tmp_path / "p.csv", "--model", "demo")
        return run("zero-shot", classes_folder, *out, *arguments)

    check_fails(zero_shot(), "--prompts FILE")
    check_fails(zero_shot("--class", "normal"), '--class "name=prompt"')
    check_fails(zero_shot("--class", "a=b"), "needs two")
    check_fails(zero_shot("--prompts", tmp_path / "no.json"), "there is no file")
    check_fails(zero_shot("--prompts", "chest_xray_12"), "did you mean 'chest_xray_1")
    (tmp_path / "bad.json").write_text("{")
    check_fails(zero_shot("--prompts", tmp_path / "bad.json"), "not valid JSON")
    (tmp_path / "bad.yaml").write_text("a: [")
    check_fails(zero_shot("--prompts", tmp_path / "bad.yaml"), "not valid YAML")
    for name in ("path", "predicted"):  # columns that the result has already
        clash = zero_shot("--class", f"{name}=an effusion", "--class", "b=a normal x")
        check_fails(clash, f"class '{name}'")
    assert not (tmp_path / "p.csv").exists()


# ------------------------------------------------------------------------------ cache


def test_cache_commands(tmp_path):
    images = make_chest_phantoms(6, random_state=0).images
    MedSigLIPEmbedder("demo", cache=tmp_path).transform(images)
    here = ("--location", tmp_path)
    result = run("cache", "info", *here)
    assert result.exit_code == 0
    assert str(tmp_path) in result.stdout
    assert "demo" in result.stdout
    result = run("cache", "verify", *here)
    assert "6 rows are intact" in result.stdout
    assert "Nothing is damaged" in result.stdout
    assert run("cache", "prune", "--max-size", "1GB", *here).exit_code == 0
    assert len(EmbeddingCache(tmp_path)) == 6
    # Asked, and not sure.
    assert run("cache", "clear", *here, input="n\n").exit_code == 1
    assert len(EmbeddingCache(tmp_path)) == 6
    result = run("cache", "clear", "--yes", *here)
    assert "Deleted 6 rows" in result.stdout
    assert len(EmbeddingCache(tmp_path)) == 0
    assert "Nothing is stored" in run("cache", "info", *here).stdout


def test_cache_prune_makes_room(tmp_path):
    images = make_chest_phantoms(6, random_state=0).images
    MedSigLIPEmbedder("demo", cache=tmp_path).transform(images)
    result = run("cache", "prune", "--max-size", "0", "--location", tmp_path)
    assert result.exit_code == 0, result.output
    assert "6 of 6 rows were deleted" in result.stdout


def test_cache_verify_mends_a_damaged_row(tmp_path):
    images = make_chest_phantoms(3, random_state=0).images
    MedSigLIPEmbedder("demo", cache=tmp_path).transform(images)
    EmbeddingCache(tmp_path).close()
    (segment,) = tmp_path.rglob("*.rows")
    content = bytearray(segment.read_bytes())
    content[-20] ^= 1
    segment.write_bytes(content)
    result = run("cache", "verify", "--location", tmp_path)
    assert result.exit_code == 0, result.output
    assert "2 rows are intact" in result.stdout
    assert "1 rows were damaged" in result.stdout


def test_cache_verify_reads_images_again(tmp_path):
    images = make_chest_phantoms(3, random_state=0).images
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        os.utime(tmp_path / f"{i}.png", (1_600_000_000, 1_600_000_000))
    time.sleep(0.2)  # until the files are at rest
    store = EmbeddingCache(tmp_path / "store")
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    embedder = MedSigLIPEmbedder("demo", cache=store)
    embedder.transform(paths)
    here = ["--location", store.location, "--images", tmp_path, "--model", "demo"]
    assert "are unchanged" in run("cache", "verify", *here).stdout
    # As if the second file were the first, when it was read.
    work = embedder._image_work()
    stamps = file_stamps(paths)
    [first, *_] = store.recall_files(stamps, work.recipe)
    store.remember_files([stamps[1]], work.recipe, [first])
    told = run("cache", "verify", *here).stdout
    assert "1 of 3 files changed" in told
    assert "1.png" in told.split("changed")[1]
    assert "are unchanged" in run("cache", "verify", *here).stdout


def test_engine_and_what_it_keeps(make_checkpoint, tmp_path):
    image = make_chest_phantoms(1, random_state=0).images[0]
    Image.fromarray(image).save(tmp_path / "a.png")
    store = tmp_path / "store"
    small = make_checkpoint(layers=1)  # little to convert
    chosen = ["--model", small, "--engine", "openvino", "--cache", store]
    done = run("embed", tmp_path, tmp_path / "x.npz", *chosen)
    assert done.exit_code == 0, done.output
    [space] = EmbeddingCache(store).stats()["spaces"]
    assert space["engine"] == "openvino"
    assert "for OpenVINO" in run("cache", "info", "--location", store).stdout
    run("cache", "clear", "--yes", "--location", store)
    assert EmbeddingCache(store).stats()["converted_bytes"] == 0
    assert not (store / "converted").exists()


def test_cache_user_errors(tmp_path):
    check_fails(
        run("cache", "info", "--location", tmp_path / "no"), "there is no folder"
    )
    check_fails(run("cache", "prune", "--max-size", "much"), "'much' is not a size")


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("5GB", 5 * 10**9), ("1.5GiB", 3 * 2**29), ("500 mb", 5 * 10**8), ("12", 12)],
)
def test_parse_bytes(text, n_bytes):
    assert _cache.parse_bytes(text) == n_bytes


# ----------------------------------------------------------------- doctor and the rest


def test_doctor_finds_a_working_installation(monkeypatch):
    installed = importlib.metadata.version

    def without_matplotlib(package):
        if package == "matplotlib":
            raise importlib.metadata.PackageNotFoundError(package)
        return installed(package)

    monkeypatch.setattr(importlib.metadata, "version", without_matplotlib)
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert f"sk-medsiglip {__version__}" in result.stdout
    assert "--dtype auto is" in result.stdout
    assert "SK_MEDSIGLIP_MODEL is not set" in result.stdout
    assert "128 px, 192 values per embedding" in result.stdout
    assert 'pip install "sk-medsiglip[plot]"' in result.stdout
    assert "matplotlib not installed" in result.stdout
    assert "tiles of slides" in result.stdout
    assert "The main tasks run here" in result.stdout


def test_doctor_fails_without_the_demo_checkpoint(monkeypatch, tmp_path):
    monkeypatch.setattr("sk_medsiglip.encoder._checkpoints.DEMO_FOLDER", tmp_path)
    result = run("doctor")
    assert result.exit_code == 1
    assert "FAIL" in result.stdout
    assert "The main tasks cannot run" in result.stdout


def test_version_and_help():
    assert run("--version").stdout.strip() == f"sk-medsiglip {__version__}"
    for command in ("demo", "embed", "zero-shot", "split", "doctor", "cache"):
        assert run(command, "--help").exit_code == 0
        assert command in run("--help").stdout


@pytest.mark.parametrize("group", [(), ("cache",), ("index",), ("prompts",)])
def test_summaries_of_commands_are_whole_sentences(group):
    shown = run(*group, "--help").stdout.partition("Commands:")[2]
    lines = [line for line in shown.splitlines() if line.strip()]
    assert len(lines) > 1
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)


def test_a_variable_gives_the_default_of_model(images_csv, tmp_path, monkeypatch):
    monkeypatch.setenv("SK_MEDSIGLIP_MODEL", "demo")
    result = run("embed", images_csv, tmp_path / "e.npz")
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "e.npz") as file:
        assert str(file["model"]) == "demo"
    assert "SK_MEDSIGLIP_MODEL" in run("train", "--help").stdout
    assert "SK_MEDSIGLIP_MODEL is set" in run("doctor").stdout


def test_a_missing_checkpoint_is_said_in_words_of_the_shell(images_csv, tmp_path):
    result = run("embed", images_csv, tmp_path / "e.npz", "--model", "no such/a/b")
    check_fails(result, "--model")
    assert "model=" not in result.stderr


def test_the_column_of_paths_is_the_first_with_files(images_csv, tmp_path):
    assert _collection.read_collection(images_csv).path_column == "scan"
    table = pd.read_csv(images_csv, dtype=str)
    table.insert(0, "image", "image of the chest")  # a usual name, and no path
    table.to_csv(tmp_path / "other.csv", index=False)
    assert _collection.read_collection(tmp_path / "other.csv").path_column == "scan"
    table.assign(scan="no file").to_csv(tmp_path / "none.csv", index=False)
    assert _collection.read_collection(tmp_path / "none.csv").path_column == "image"


def test_debug_shows_the_traceback(tmp_path):
    result = run("--debug", "embed", tmp_path / "no", tmp_path / "e.npz")
    assert isinstance(result.exception, _console.CommandError)


def test_a_real_process_says_one_sentence(tmp_path):
    code = "import runpy; runpy.run_module('sk_medsiglip.cli', run_name='__main__')"
    done = forked.run_code(code, "embed", "no", tmp_path / "e.npz")
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert done.stderr.startswith("Error: no does not exist.")


def test_the_picture_of_the_demo_holds_the_whole_notice(pyplot, tmp_path):
    from sk_medsiglip import LinearProbe
    from sk_medsiglip.datasets import make_chest_phantoms
    from sk_medsiglip.evaluation import label_efficiency

    drawings = make_chest_phantoms(40, random_state=0)
    X = MedSigLIPEmbedder("demo").transform(drawings.images)
    heads = {"labels": LinearProbe()}
    curve = label_efficiency(heads, X, drawings.target[:, 1], [8, 16], n_repeats=2)
    Image.fromarray(drawings.images[0]).save(tmp_path / "a.png")
    hit = {"rank": 1, "id": 3, "score": 2.0, "source": tmp_path / "a.png"}
    hits = pd.DataFrame([hit | {"labels": "effusion"}])
    file = tmp_path / "overview.svg"
    with pyplot.rc_context({"svg.fonttype": "none"}):
        _plot.draw_overview(
            curve, hits, "an effusion", _console.model_notice("demo"), file
        )
    words = set(re.findall(r"[\w,.:]+", file.read_text()))
    assert set(re.findall(r"[\w,.:]+", _console.model_notice("demo"))) <= words


def test_cells_that_a_spreadsheet_computes_are_counted(tmp_path, capsys):
    harmless = {"name": ["-1.5", "+2", "a=b", "", None], "score": [-1, -2, -3, -4, -5]}
    _files.write_csv(pd.DataFrame(harmless), tmp_path / "a.csv")
    assert capsys.readouterr().out == ""
    cells = ["=1", "+a", "-x", "@SUM(A1)", "\ttab", "\rreturn", "-1-1", "=12"]
    _files.write_csv(pd.DataFrame({"=head": cells}), tmp_path / "b.csv")
    assert "9 cells begin with" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "b.csv")["=head"].tolist()[:4] == cells[:4]


# Names that break pictures in which text is taken for a formula or a mark.
@pytest.mark.parametrize(
    "name", [r"$\frac{1}$", "_hidden", "", "bell\x07null\x00end", "x" * 300]
)
def test_the_overview_of_the_demo_draws_every_name(pyplot, tmp_path, name):
    rows = [("labels", name, size, 0, 0.5) for size in (8, 32)]
    columns = ["estimator", "label", "size", "repeat", "score"]
    curve = pd.DataFrame(rows, columns=columns)
    hits = pd.DataFrame({"rank": [1], "score": 2.0, "id": [0], "labels": [name]})
    file = tmp_path / "overview.png"
    _plot.draw_overview(curve, hits.assign(source=None), name, name, file)
    assert file.stat().st_size > 1000
