"""``sk-medsiglip train --search``, on files."""

import numpy as np
import pandas as pd
import pytest
from command_line import run, write_collection
from sklearn.metrics import roc_auc_score

N = 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection")
    write_collection(folder, N, seed=5)
    return folder


def test_a_finding_from_labels_to_predictions(folder, tmp_path):
    model, trials = tmp_path / "model.skops", tmp_path / "trials.db"
    command = (
        "train", "--search", "--labels", folder / "labels.csv",
        "--label-column", "effusion",
        "--group-column", "patient", "--model", "demo", "--out", model,
        "--storage", trials,
    )  # fmt: skip
    said = run(*command, "--n-trials", 1)
    assert "1 trials" in said
    assert "LinearProbe" in said
    assert "images of one patient together" in said
    assert "add --nested" in said
    said = run(*command, "--n-trials", 2, "--overwrite", "--nested")
    assert "2 trials" in said
    assert "(nested cross-validation)" in said
    report = (tmp_path / "model.report.md").read_text()
    assert "| logistic |" in report
    assert "not a medical device" in report
    out = tmp_path / "predictions.csv"
    run("predict", model, folder, "--out", out)
    found = pd.read_csv(out)
    truth = pd.read_csv(folder / "labels.csv").set_index("path")["effusion"]
    assert found.columns.tolist() == ["path", "effusion", "no effusion", "predicted"]
    assert roc_auc_score(truth[found["path"]], found["effusion"]) > 0.95
    said = run(*command, "--overwrite", "--seed", 1, code=2)
    assert "begun with other random_state" in said


def test_several_findings_and_prompts(folder, tmp_path):
    table = pd.read_csv(folder / "labels.csv")
    table.loc[:20, "device"] = np.nan
    table.to_csv(folder / "blanks.csv", index=False)
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text(
        "effusion: {positive: pleural effusion, negative: no pleural effusion}\n"
        "device: {positive: a pacemaker, negative: no pacemaker}\n"
    )
    model = tmp_path / "model.skops"
    said = run(
        "train", "--search", "--labels", folder / "blanks.csv",
        "--label-column", "effusion",
        "--label-column", "device", "--prompts", prompts, "--model", "demo",
        "--out", model, "--n-trials", 6,
    )  # fmt: skip
    assert "--group-column, or the AUC" in said
    assert "prompt_probe" in said
    out = tmp_path / "predictions.csv"
    run("predict", model, folder / "labels.csv", "--out", out)
    assert pd.read_csv(out).columns.tolist() == ["path", "effusion", "device"]


def test_a_finding_too_rare_for_nested_searches_loses_nothing(folder, tmp_path):
    """Two patients with it make two folds, and within each there are none."""
    table = pd.read_csv(folder / "labels.csv")
    ill = table.loc[table["effusion"] == 1, "patient"].unique()[:2]
    table["effusion"] *= table["patient"].isin(ill)
    table.to_csv(folder / "rare.csv", index=False)
    model = tmp_path / "model.skops"
    said = run(
        "train", "--search", "--labels", folder / "rare.csv",
        "--label-column", "effusion",
        "--group-column", "patient", "--model", "demo", "--out", model,
        "--n-trials", 2, "--nested",
    )  # fmt: skip
    why = (
        "Nested cross-validation was not possible, because y is 'effusion' in fewer "
        "than two samples"
    )
    assert why in said
    assert why in (tmp_path / "model.report.md").read_text()
    out = tmp_path / "predictions.csv"
    run("predict", model, folder, "--out", out)
    assert len(pd.read_csv(out)) == N


def test_patients_that_are_not_known(folder, tmp_path):
    table = pd.read_csv(folder / "labels.csv")
    table["patient"] = table["patient"].astype(object)
    table.loc[[0, 3], "patient"] = ""
    table.to_csv(folder / "unknown.csv", index=False)
    said = run(
        "train", "--search", "--labels", folder / "unknown.csv",
        "--label-column", "effusion",
        "--group-column", "patient", "--model", "demo",
        "--out", tmp_path / "m.skops", code=2,
    )  # fmt: skip
    assert "2 of 90 images have no patient in column 'patient'" in said


def test_the_former_name_works_and_says_the_new_one(folder, tmp_path):
    options = (
        "--labels", folder / "labels.csv", "--label-column", "effusion",
        "--model", "demo", "--n-trials", 1,
    )  # fmt: skip
    said = run("tune", *options, "--out", tmp_path / "model.skops")
    assert "is now sk-medsiglip train --search" in said
    assert "1 trials" in said
    assert "no column 'x'" in run(
        "tune", *options, "--label-column", "x", "--out", tmp_path / "m.skops", code=2
    )
    said = run(
        "train", "--search", "--head", "ss-text", *options,
        "--out", tmp_path / "m.skops", code=2,
    )  # fmt: skip
    assert "leave out --head" in said


def test_what_cannot_be_done_says_so(folder, tmp_path):
    command = (
        "train", "--search", "--labels", folder / "labels.csv", "--model", "demo",
        "--out", tmp_path / "m.skops",
    )  # fmt: skip
    assert "no column 'label'" in run(*command, code=2)
    effusion = ("--label-column", "effusion")
    again = (*command, *effusion, "--n-trials", 1, "--storage", tmp_path / "t.journal")
    run(*again)
    (tmp_path / "m.skops").unlink()
    said = run(*again, "--overwrite", "--seed", 1, code=2)
    assert "begun with other random_state" in said
    assert not (tmp_path / "m.skops").exists()
