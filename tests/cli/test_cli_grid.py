"""``--grid``: classifiers of the parts of images, from the command line."""

import joblib
import numpy as np
import pandas as pd
import pytest
from command_line import run, write_collection
from PIL import Image
from sklearn.metrics import roc_auc_score

from sk_medsiglip import BagProbe, MedSigLIPPatchEmbedder

N = 80
PAIR = (
    '{"effusion": {"positive": ["pleural effusion"], '
    '"negative": ["no pleural effusion"]}}'
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write phantoms with a bright spot on half of them, which the labels name."""
    folder = tmp_path_factory.mktemp("spots")
    table = write_collection(folder, N, seed=6)
    rng = np.random.default_rng(0)
    spot = rng.permutation(np.arange(N) % 2)
    for path in table["path"][spot == 1]:
        image = np.array(Image.open(folder / path))
        top, left = rng.integers(40, 72, size=2)
        image[top : top + 14, left : left + 14] = 255
        Image.fromarray(image).save(folder / path)
    table.assign(spot=spot).to_csv(folder / "labels.csv", index=False)
    (folder / "prompts.json").write_text(PAIR)
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    model = folder / "model.skops"
    said = run(
        "train", "--labels", folder / "labels.csv", "--label-column", "spot",
        "--group-column", "patient", "--model", "demo", "--grid", 4,
        "--hold-out", 0.25, "--out", model,
    )  # fmt: skip
    return model, said


def test_a_classifier_of_parts_from_labels_to_predictions(folder, trained, tmp_path):
    model, said = trained
    assert "images of one patient together" in said
    assert "Penalty chosen" in said
    assert "bag-probe" in model.with_suffix(".report.md").read_text()
    test = pd.read_csv(model.with_suffix(".test.csv"))
    train = pd.read_csv(model.with_suffix(".train.csv"))
    assert not set(test["patient"]) & set(train["patient"])
    out = tmp_path / "predictions.csv"
    said = run("predict", model, model.with_suffix(".test.csv"), "--out", out)
    assert "It is not MedSigLIP" in said
    found = pd.read_csv(out)
    assert roc_auc_score(test["spot"], found["spot"]) > 0.7
    again = run("predict", model, folder / "labels.csv", "--out", tmp_path / "all.csv")
    assert "0 model passes" in again  # of train and of the first prediction


def test_the_saved_file_names_no_place_of_this_machine(folder, tmp_path):
    model = tmp_path / "model.joblib"
    run(
        "train", "--labels", folder / "labels.csv", "--label-column", "spot",
        "--model", "demo", "--grid", 2, "--cache", tmp_path / "store", "--out", model,
    )  # fmt: skip
    pipeline = joblib.load(model)
    assert isinstance(pipeline[0], MedSigLIPPatchEmbedder)
    assert isinstance(pipeline[-1], BagProbe)
    assert pipeline[-1].pooled_row
    assert pipeline[0].pooled_row
    for embedder in (pipeline[0].embedder, pipeline[0].embedder_):
        assert embedder.cache is True
        assert embedder.device == "auto"
    assert str(tmp_path).encode() not in model.read_bytes()


def test_several_findings_with_blanks(folder, tmp_path):
    table = pd.read_csv(folder / "labels.csv")
    table.loc[::9, "spot"] = np.nan
    table.to_csv(folder / "blanks.csv", index=False)
    said = run(
        "train", "--labels", folder / "blanks.csv", "--label-column", "spot",
        "--label-column", "effusion", "--group-column", "patient", "--model", "demo",
        "--grid", 4, "--out", tmp_path / "model.skops",
    )  # fmt: skip
    assert "spot" in said
    assert "effusion" in said
    out = tmp_path / "found.csv"
    run("predict", tmp_path / "model.skops", folder / "labels.csv", "--out", out)
    assert pd.read_csv(out).columns.tolist() == ["path", "spot", "effusion"]


def test_the_report_names_the_model_and_the_grid(trained, tmp_path):
    model, _ = trained
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    out = tmp_path / "report.html"
    run(
        "report", model, model.with_suffix(".test.csv"),
        "--train", model.with_suffix(".train.csv"), "--label-column", "spot",
        "--group-column", "patient", "--resamples", 30, "--show-mistakes", 2,
        "--out", out,
    )  # fmt: skip
    page = out.read_text(encoding="utf-8")
    assert "grid=4" in page
    assert "not looked for" not in page  # copies are, by rows of the same pass
    assert "demonstration" in page


def test_an_unreadable_image_is_left_out(folder, tmp_path):
    (folder / "broken.png").write_bytes(b"nothing")
    table = pd.read_csv(folder / "labels.csv").head(40)
    table.loc[3, "path"] = "broken.png"
    table.to_csv(folder / "broken.csv", index=False)
    said = run(
        "train", "--labels", folder / "broken.csv", "--label-column", "spot",
        "--model", "demo", "--grid", 2, "--on-error", "nan",
        "--out", tmp_path / "model.skops",
    )  # fmt: skip
    assert "1 of 40 images cannot be read" in said


def test_prompts_on_parts(folder, tmp_path):
    said = run(
        "zero-shot", folder / "labels.csv", "--prompts", folder / "prompts.json",
        "--model", "demo", "--grid", 4, "--out", tmp_path / "parts.csv",
    )  # fmt: skip
    assert "not calibrated" in said
    run(
        "zero-shot", folder / "labels.csv", "--prompts", folder / "prompts.json",
        "--model", "demo", "--out", tmp_path / "rows.csv",
    )  # fmt: skip
    parts, rows = (pd.read_csv(tmp_path / f"{one}.csv") for one in ("parts", "rows"))
    assert len(parts) == N
    assert (parts["effusion"] != rows["effusion"]).any()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--grid", 3], "--grid 3 does not divide the 8 patches"),
        (["--grid", 0], "--grid"),
        (["--grid", 4, "--search"], "leave out"),
        (["--grid", 4, "--head", "prompt-probe"], "leave out"),
        (["--grid", 4, "--class", "spot=a bright spot"], "zero-shot --grid"),
    ],
)
def test_what_does_not_fit(folder, tmp_path, options, word):
    said = run(
        "train", "--labels", folder / "labels.csv", "--label-column", "spot",
        "--model", "demo", "--out", tmp_path / "model.skops", *options, code=2,
    )  # fmt: skip
    assert word in said
    assert "Traceback" not in said


def test_a_wrong_grid_of_zero_shot(folder, tmp_path):
    said = run(
        "zero-shot", folder / "labels.csv", "--prompts", folder / "prompts.json",
        "--model", "demo", "--grid", 5, "--out", tmp_path / "parts.csv", code=2,
    )  # fmt: skip
    assert "1, 2, 4, 8" in said
