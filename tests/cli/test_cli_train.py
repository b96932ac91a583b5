"""``sk-medsiglip train`` and ``predict``, on files."""

import re
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
from command_line import run, write_collection
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline

from sk_medsiglip import MedSigLIPEmbedder

N = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection")
    table = write_collection(folder, N, seed=5)
    kinds = np.select(
        [table["effusion"] == 1, table["cardiomegaly"] == 1],
        ["effusion", "heart"],
        "other",
    )
    table.assign(kind=kinds).to_csv(folder / "kinds.csv", index=False)
    return folder


@pytest.fixture
def chexpert(folder):
    """Return a table with uncertain and blank cells, and the truth."""
    table = pd.read_csv(folder / "labels.csv")
    truth = table[["effusion", "device"]].to_numpy(float)
    chance = np.random.default_rng(0).random(truth.shape)
    table[["effusion", "device"]] = np.where(
        chance < 0.2, -1, np.where(chance < 0.4, np.nan, truth)
    )
    table.to_csv(folder / "chexpert.csv", index=False)
    return truth


def test_a_finding_from_labels_to_predictions(folder, tmp_path):
    model = tmp_path / "model.skops"
    said = run(
        "train", "--labels", folder / "labels.csv", "--label-column", "effusion",
        "--group-column", "patient", "--model", "demo", "--out", model,
    )  # fmt: skip
    assert "5-fold cross-validation (seed 0), images of one patient together" in said
    assert "runs code" not in said
    report = (tmp_path / "model.report.md").read_text()
    assert "| effusion |" in report
    for fact in ("Penalty chosen", "C = ", "5-fold", "seed 0", "Command: sk-medsiglip"):
        assert fact in report
    assert "--group-column patient" in report
    assert str(folder) not in report
    assert "not a medical device" in report
    out = tmp_path / "predictions.csv"
    said = run("predict", model, folder, "--out", out)
    assert "0 model passes" in said
    assert "runs code" not in said
    assert "It is not MedSigLIP" in said
    assert "It is not MedSigLIP" in report
    assert "spreadsheet" not in said
    table = pd.read_csv(out)
    assert table.columns.tolist() == ["path", "effusion", "no effusion", "predicted"]
    truth = pd.read_csv(folder / "labels.csv").set_index("path")["effusion"]
    assert roc_auc_score(truth[table["path"]], table["effusion"]) > 0.95
    assert set(table["predicted"]) == {"effusion", "no effusion"}
    np.testing.assert_allclose(table["effusion"] + table["no effusion"], 1, atol=1e-5)


@pytest.mark.parametrize(
    "head", ["prompt-probe", "ss-text", "tip-adapter", "prototypes"]
)
def test_heads_that_know_prompts(folder, tmp_path, head):
    model = tmp_path / "model.skops"
    said = run(
        "train", "--labels", folder / "kinds.csv", "--label-column", "kind",
        "--head", head, "--model", "demo", "--out", model,
        "--class", "effusion=pleural effusion", "--class", "heart=an enlarged heart",
        "--class", "other=normal chest radiograph",
    )  # fmt: skip
    assert "--group-column, or the AUC" in said
    assert (
        r"- effusion: \['pleural effusion'\]"
        in (tmp_path / "model.report.md").read_text()
    )
    out = tmp_path / "predictions.csv"
    run("predict", model, folder / "kinds.csv", "--out", out)
    table = pd.read_csv(out)
    assert table.columns.tolist() == ["path", "effusion", "heart", "other", "predicted"]
    truth = pd.read_csv(folder / "kinds.csv")["kind"]
    assert (table["predicted"] == truth).mean() > 0.6


def test_two_classes_are_one_row_with_an_interval(folder, tmp_path):
    table = pd.read_csv(folder / "labels.csv")
    table["kind"] = np.where(table["effusion"] == 1, "wet", "dry")
    table.to_csv(folder / "two.csv", index=False)
    said = run(
        "train", "--labels", folder / "two.csv", "--label-column", "kind",
        "--group-column", "patient", "--model", "demo", "--out", tmp_path / "m.skops",
    )  # fmt: skip
    assert "wet (against dry)" in said
    assert re.search(r"wet \(against dry\) \d+ \d+ 0 \d\.\d+ \d\.\d+ to \d\.\d+", said)
    assert "dry (against wet)" not in said


def test_from_one_table_to_a_report_on_patients_that_were_held_out(folder, tmp_path):
    model, page = tmp_path / "model.skops", tmp_path / "report.html"
    columns = ("--label-column", "effusion", "--group-column", "patient")
    said = run(
        "train", "--labels", folder / "labels.csv", *columns, "--hold-out", 0.3,
        "--model", "demo", "--out", model,
    )  # fmt: skip
    train, test = (pd.read_csv(tmp_path / f"model.{p}.csv") for p in ("train", "test"))
    assert not set(train["patient"]) & set(test["patient"])
    assert len(train) + len(test) == N
    assert (
        f"{len(train)} images, embedded" in (tmp_path / "model.report.md").read_text()
    )
    typed = said.partition("$ sk-medsiglip ")[2].partition("--group-column patient")[0]
    run(
        *typed.split(), "--group-column", "patient", "--out", page, "--resamples", 20,
    )  # fmt: skip
    assert f"{len(test)} test images" in page.read_text(encoding="utf-8")


def test_images_without_a_patient_are_no_patient(folder, tmp_path):
    table = pd.read_csv(folder / "labels.csv")
    table.loc[:3, "patient"] = np.nan
    table.to_csv(folder / "blank.csv", index=False)
    said = run(
        "train", "--labels", folder / "blank.csv", "--label-column", "effusion",
        "--group-column", "patient", "--model", "demo",
        "--out", tmp_path / "model.skops", code=2,
    )  # fmt: skip
    assert "4 of 120 images have no patient in column 'patient'" in said


def test_findings_that_are_not_all_known(folder, tmp_path, chexpert):
    model = tmp_path / "model.joblib"
    said = run(
        "train", "--labels", folder / "chexpert.csv", "--label-column", "effusion",
        "--label-column", "device", "--group-column", "patient", "--model", "demo",
        "--out", model,
    )  # fmt: skip
    assert "Loading a joblib file runs code" in said
    table = pd.read_csv(folder / "chexpert.csv")
    known = table[["effusion", "device"]].isin([0, 1])
    kept = known.any(axis=1)
    report = (tmp_path / "model.report.md").read_text()
    for name in ("effusion", "device"):
        unknown = int((~known.loc[kept, name]).sum())
        positive = int((table.loc[kept, name] == 1).sum())
        assert f"| {name} | {positive} |" in report
        assert f"| {unknown} | 0.9" in report or f"| {unknown} | 1.0" in report
    out = tmp_path / "predictions.csv"
    said = run("predict", model, folder / "labels.csv", "--out", out)
    assert "Warning: Loading a joblib file runs code" in said
    found = pd.read_csv(out)
    assert found.columns.tolist() == ["path", "effusion", "device"]
    for i, name in enumerate(["effusion", "device"]):
        assert roc_auc_score(chexpert[:, i], found[name]) > 0.9


@pytest.mark.parametrize(
    ("options", "n_unknown"),
    [
        ((), None),
        (("--uncertain", "positive", "--blank", "negative"), 0),
        (("--uncertain", "negative"), None),
    ],
)
def test_what_uncertain_and_blank_mean(folder, tmp_path, chexpert, options, n_unknown):
    run(
        "train", "--labels", folder / "chexpert.csv", "--label-column", "effusion",
        "--label-column", "device", "--model", "demo", "--out", tmp_path / "m.skops",
        *options,
    )  # fmt: skip
    table = pd.read_csv(folder / "chexpert.csv")[["effusion", "device"]]
    means = dict(zip(options[::2], options[1::2], strict=True))
    values = {"positive": 1, "negative": 0, "ignore": np.nan}
    uncertain, blank = (
        values[means.get(option, "ignore")] for option in ("--uncertain", "--blank")
    )
    expected = table.mask(table.isna(), blank).mask(table == -1, uncertain)
    expected = expected[expected.notna().any(axis=1)]
    report = (tmp_path / "m.report.md").read_text()
    for name in table:
        counts = [(expected[name] == 1).sum(), (expected[name] == 0).sum()]
        unknown = expected[name].isna().sum()
        assert f"| {name} | {counts[0]} | {counts[1]} | {unknown} |" in report
        assert n_unknown is None or unknown == n_unknown


def test_unreadable_images_are_left_out(folder, tmp_path):
    table = pd.read_csv(folder / "labels.csv")
    table.loc[3, "path"] = str(tmp_path / "broken.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    table["path"] = [str(folder / path) for path in table["path"]]
    table.to_csv(tmp_path / "labels.csv", index=False)
    options = (
        "train", "--labels", tmp_path / "labels.csv", "--label-column", "effusion",
        "--model", "demo", "--out", tmp_path / "m.skops",
    )  # fmt: skip
    assert "broken.png" in run(*options, code=2)
    assert not (tmp_path / "m.skops").exists()
    assert "1 of 120 images cannot be read" in run(*options, "--on-error", "nan")
    run(
        "predict", tmp_path / "m.skops", tmp_path / "labels.csv", "--on-error", "nan",
        "--out", tmp_path / "p.csv",
    )  # fmt: skip
    found = pd.read_csv(tmp_path / "p.csv")
    assert found["predicted"].isna().sum() == 1
    assert np.isnan(found.loc[3, "effusion"])


def test_what_cannot_be_done_says_so(folder, tmp_path):
    labels = ("train", "--labels", folder / "labels.csv", "--model", "demo")
    out = ("--out", tmp_path / "m.skops")
    effusion = ("--label-column", "effusion")
    for arguments, match in [
        ((*labels, *out), "no column 'label'"),
        ((*labels, *effusion, "--out", tmp_path / "m.txt"), "ends in '.txt'"),
        ((*labels, *effusion, "--out", tmp_path / "no" / "m.skops"), "does not exist"),
        ((*labels, *effusion, *out, "--group-column", "x"), "no column 'x'"),
        ((*labels, *effusion, *out, "--class", "a=b"), "does not use prompts"),
        ((*labels, "--label-column", "path", *out), "different values"),
        (("predict", tmp_path / "no.skops", folder), "There is no file"),
        (("train", "--labels", "no.csv", "--out", __file__), "no.csv does not exist"),
    ]:
        assert match in run(*arguments, code=2), arguments
    run(*labels, *effusion, *out)
    assert "exists. Add --overwrite" in run(*labels, *effusion, *out, code=2)
    run(*labels, *effusion, *out, "--overwrite")
    (tmp_path / "m.skops").write_bytes(b"nonsense")
    assert "is not a skops file" in run("predict", tmp_path / "m.skops", folder, code=2)
    joblib.dump({"a": 1}, tmp_path / "d.joblib")
    said = run("predict", tmp_path / "d.joblib", folder, code=2)
    assert "holds a dict, not a pipeline" in said


def test_types_of_strangers_are_not_loaded(folder, tmp_path):
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    pipe = make_pipeline(
        MedSigLIPEmbedder("demo"),
        FunctionTransformer(np.linalg.norm),
        LogisticRegression(),
    )
    skops.io.dump(pipe, tmp_path / "stranger.skops")
    said = run("predict", tmp_path / "stranger.skops", folder, code=2)
    assert "If you trust its origin, add --trust numpy.linalg.norm" in said


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_types_are_loaded_if_trusted_by_name(folder, tmp_path):
    import skops.io

    table = pd.read_csv(folder / "labels.csv")
    paths = [folder / path for path in table["path"]]
    out = ("--out", tmp_path / "p.csv")
    for head, trust in (
        (MLPClassifier((4,), max_iter=3), ()),
        (
            HistGradientBoostingClassifier(max_iter=3),
            (
                "--trust",
                "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
            ),
        ),
    ):
        pipe = make_pipeline(MedSigLIPEmbedder("demo"), head)
        pipe.fit(paths, table["effusion"])
        skops.io.dump(pipe, tmp_path / "m.skops")
        predict = ("predict", tmp_path / "m.skops", folder, *out, "--overwrite")
        if trust:
            assert " ".join(trust) in run(*predict, code=2)
        run(*predict, *trust)
        found = pd.read_csv(tmp_path / "p.csv").set_index("path")["1"]
        expected = pipe.predict_proba(paths)[:, 1]
        np.testing.assert_allclose(found[table["path"]], expected, atol=1e-4)


def test_without_skops_the_command_names_it(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skops", None)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    said = run(
        "train", "--labels", folder / "labels.csv", "--label-column", "effusion",
        "--model", "demo", "--out", tmp_path / "m.skops", code=2,
    )  # fmt: skip
    assert 'pip install "sk-medsiglip[skops]"' in said


def test_the_file_speaks_of_no_place_here(folder, tmp_path):
    store = tmp_path / "some store"
    for head in ("linear-probe", "prompt-probe"):
        out = tmp_path / f"{head}.joblib"
        run(
            "train", "--labels", folder / "labels.csv", "--label-column", "effusion",
            "--model", "demo", "--cache", store, "--head", head, "--out", out,
        )  # fmt: skip
        data = out.read_bytes()
        assert str(folder).encode() not in data
        assert b"some store" not in data


@pytest.mark.parametrize("command", [["train"], ["train", "--search"]])
def test_one_patient_or_one_label_ends_with_the_reason(folder, tmp_path, command):
    out = tmp_path / "model.skops"
    table = pd.read_csv(folder / "labels.csv")

    def said_of(table, *columns):
        table.to_csv(folder / "alike.csv", index=False)
        options = [one for name in columns for one in ("--label-column", name)]
        return run(
            *command, "--labels", folder / "alike.csv", *options, "--model", "demo",
            "--group-column", "patient", "--out", out, code=1,
        )  # fmt: skip

    alone = table.assign(patient="P1")
    for columns in (["effusion"], ["effusion", "device"]):
        assert "only 1 patient (images: 120)" in said_of(alone, *columns)
    assert "at least 2 patients" in said_of(alone.head(1), "effusion")
    for value in (0, 1):
        said = said_of(table.assign(effusion=value), "effusion")
        assert "images do not differ in effusion (images: 120)" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:a class has fewer than two:UserWarning")
def test_a_label_of_one_patient_is_named(folder, tmp_path):
    table = pd.read_csv(folder / "labels.csv")
    ill = table["patient"] == table["patient"][0]
    table.assign(effusion=ill.astype(int)).to_csv(folder / "rare.csv", index=False)
    said = run(
        "train", "--labels", folder / "rare.csv", "--label-column", "effusion",
        "--group-column", "patient", "--model", "demo", "--out", tmp_path / "m.joblib",
    )  # fmt: skip
    assert "label 'effusion' has 1 patient, and" in said
    assert "has 1 patient, and" in (tmp_path / "m.report.md").read_text()


HOSTILE = [
    "a|b",
    "<script>x</script>",
    "`c` [red]d[/]",
    "=1+1",
    "_e_ *f*",
    "two\nlines",
]


@pytest.mark.filterwarnings("ignore:Prompts of")
def test_names_of_classes_stay_what_they_are(folder, tmp_path):
    from html import unescape

    n_images = 6 * len(HOSTILE)
    table = pd.read_csv(folder / "labels.csv").head(n_images)
    table["path"] = [f"=x{i}.png" for i in range(n_images)]
    table["kind"] = [HOSTILE[i % len(HOSTILE)] for i in range(n_images)]
    for i in range(n_images):
        (folder / f"=x{i}.png").write_bytes((folder / f"{i}.png").read_bytes())
    table.to_csv(folder / "a|b.csv", index=False)
    model = tmp_path / "model.skops"
    said = run(
        "train", "--labels", folder / "a|b.csv", "--label-column", "kind", "--model",
        "demo", "--out", model,
    )  # fmt: skip
    for name in HOSTILE:
        assert name.split()[0] in said
    report = (tmp_path / "model.report.md").read_text()
    assert "<" not in report
    lines = report.splitlines()
    assert lines[0] == r"# linear-probe on a\|b.csv"
    cells = [re.split(r"(?<!\\)\|", line) for line in lines if line.startswith("|")]
    assert {len(one) for one in cells} == {8}
    shown = {unescape(re.sub(r"\\(.)", r"\1", one[1].strip())) for one in cells[2:]}
    assert shown == {" ".join(name.split()) for name in HOSTILE}

    out = tmp_path / "predictions.csv"
    said = run("predict", model, folder / "a|b.csv", "--out", out)
    assert "a spreadsheet would compute them" in said
    assert "'=1+1'" in said
    written = pd.read_csv(out)
    assert written.columns.tolist() == ["path", *sorted(HOSTILE), "predicted"]
    assert written["path"].tolist() == table["path"].tolist()
