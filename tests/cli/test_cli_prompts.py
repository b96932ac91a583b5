"""``sk-medsiglip prompts``: what users type, on drawn images on the disk."""

import json

import pandas as pd
import pytest
import yaml
from command_line import run
from typer.testing import CliRunner

from sk_medsiglip.cli import app
from sk_medsiglip.datasets import make_chest_phantoms, write_phantoms
from sk_medsiglip.prompts import check_prompts, load_prompt_set

WORDS = {
    "effusion": {
        "positive": ["pleural effusion", "a rib", "Pleural effusion."],
        "negative": ["no pleural effusion", "a heart"],
    },
    "nodule": {"positive": ["a nodule"], "negative": ["no nodule"]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(make_chest_phantoms(60, random_state=7), folder, formats="png")
    (folder / "prompts.json").write_text(json.dumps(WORDS))
    return folder


def test_lists_and_shows_what_ships(tmp_path):
    said = run("prompts", "list")
    assert "chest_xray_13 findings 13 87" in said
    result = CliRunner().invoke(app, ["prompts", "show", "breast_density"])
    mine = tmp_path / "mine.yaml"
    mine.write_text(result.stdout)
    assert load_prompt_set(mine) == load_prompt_set("breast_density")
    said = run("prompts", "show", "breast_densty", code=2)
    assert "did you mean 'breast_density'?" in said


def test_lint_names_every_problem(folder, tmp_path):
    out = tmp_path / "lint.csv"
    said = run(
        *("prompts", "lint", folder / "prompts.json", "--model", "demo"),
        *("--out", out),
        code=1,
    )
    assert "Pleural effusion.: the same to the model as 'pleural effusion'" in said
    assert "It is not MedSigLIP" in said
    table = pd.read_csv(out)
    assert len(table) == 7
    good = tmp_path / "good.yaml"
    words = {"a": "pleural effusion", "b": "an enlarged heart"}
    good.write_text(yaml.safe_dump(words))
    said = run("prompts", "lint", good, "--model", "demo")
    assert "; 0 to fix" in said


def test_compare_writes_table_picture_and_choice(folder, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed").use("Agg")
    table, picture, chosen = (tmp_path / n for n in ("t.csv", "p.png", "c.json"))
    arguments = [
        *("prompts", "compare", folder / "prompts.json", "--model", "demo"),
        *("--labels", folder / "labels.csv", "--label-column", "effusion"),
        *("--group-column", "patient"),
    ]
    said = run(
        *arguments,
        *("--out", table, "--plot", picture, "--search", "--chosen", chosen),
    )
    assert "effusion: all prompts" in said
    assert "the same to the model as" in said
    assert "95% intervals over patients" in said
    assert "AUC on folds" in said
    written = pd.read_csv(table)
    assert written["label"].unique().tolist() == ["effusion"]
    assert len(written) == 6
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads(chosen.read_text())
    assert list(found) == ["effusion"]
    assert check_prompts(found).is_pairs
    assert load_prompt_set(chosen) == found
    out = tmp_path / "scores.csv"
    run(
        *("zero-shot", folder / "labels.csv", "--prompts", chosen, "--out", out),
        *("--model", "demo"),
    )
    assert pd.read_csv(out)["effusion"].between(0, 1).all()
    said = run(*arguments, "--out", table, code=2)
    assert "exists. Add --overwrite" in said
    said = run(*arguments, "--out", tmp_path / "none" / "t.csv", code=2)
    assert "does not exist; make it first" in said


def test_weighted_prompts_of_classes_fit_a_column_of_classes(folder, tmp_path):
    frame = pd.read_csv(folder / "labels.csv")
    frame["kind"] = frame["effusion"].map({0: "dry", 1: "wet"})
    frame.to_csv(folder / "kinds.csv", index=False)
    prompts = tmp_path / "weights.json"
    prompts.write_text(
        json.dumps({"wet": {"pleural effusion": 2, "fluid": 1}, "dry": ["a dry lung"]})
    )
    said = run(
        *("prompts", "compare", prompts, "--model", "demo"),
        *("--labels", folder / "kinds.csv", "--label-column", "kind"),
    )
    assert "wet: all prompts" in said
    assert "95% intervals over images" in said


def test_names_that_are_not_those_of_the_set_are_listed(folder):
    said = run(
        *("prompts", "compare", "chest_xray_13", "--model", "demo"),
        *("--labels", folder / "labels.csv", "--label-column", "effusion"),
        code=2,
    )
    assert "no prompts for effusion" in said
    assert "pleural effusion" in said


def test_what_cannot_be_done_is_said_before_any_work(folder, tmp_path, monkeypatch):
    def work(*_):
        raise AssertionError("work was begun")

    monkeypatch.setattr("sk_medsiglip.cli._embedding.embed_images", work)
    arguments = [
        *("prompts", "compare", folder / "prompts.json", "--model", "demo"),
        *("--labels", folder / "labels.csv", "--label-column", "effusion"),
    ]
    said = run(*arguments, "--chosen", tmp_path / "other.json", code=2)
    assert "--chosen needs --search" in said
    frame = pd.read_csv(folder / "labels.csv")
    frame.loc[:6, "patient"] = None
    blank = tmp_path / "blank.csv"
    frame.to_csv(blank, index=False)
    arguments[arguments.index("--labels") + 1] = blank
    said = run(*arguments, "--group-column", "patient", code=2)
    assert "7 of 60 images have no patient in column 'patient'" in said


def test_brackets_in_prompts_and_classes_are_printed(folder, tmp_path):
    prompts = tmp_path / "brackets.json"
    words = {"positive": ["fluid [left]"], "negative": ["no effusion [/red]"]}
    prompts.write_text(json.dumps({"effusion": words}))
    said = run(
        *("prompts", "compare", prompts, "--model", "demo", "--search"),
        *("--labels", folder / "labels.csv", "--label-column", "effusion"),
    )
    assert "fluid [left]" in said
    assert "no effusion [/red]" in said
    assert "gain 95% steps" in said
    assert "All gains are within noise" in said


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "wet: Ödem".encode("latin-1"), "not UTF-8"),
        ("a.yaml", "wet: Ödem".encode("latin-1"), "not UTF-8"),
        ("a.yaml", b"wet: [a]\ndry: [b]\nwet: [c]\n", "is repeated in line 3"),
        ("a.yaml", b"wet: 2025-99-99\n", "not valid YAML"),
        ("a.json", b'{"wet": "a", "dry": "b", "wet": "c"}', "is repeated"),
    ],
)
def test_files_of_prompts_are_refused_as_by_the_library(tmp_path, name, text, message):
    file = tmp_path / name
    file.write_bytes(text)
    assert message in run("prompts", "lint", file, "--model", "demo", code=2)


def test_numbers_of_classes_and_a_byte_order_mark_are_taken(folder, tmp_path):
    file = tmp_path / "numbers.yaml"
    file.write_text("\ufeff1: an effusion\n0: no effusion\n", "utf-8")
    said = run(
        *("prompts", "compare", file, "--model", "demo"),
        *("--labels", folder / "labels.csv", "--label-column", "effusion"),
    )
    assert "effusion: all prompts" in said
