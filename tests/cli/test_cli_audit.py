"""``sk-medsiglip audit``, on files."""

import numpy as np
import pandas as pd
import pytest
from command_line import run, write_collection

COLUMNS = ("--label-column", "effusion", "--group-column", "patient")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Phantoms, of which one has a wrong label and one is there twice."""
    folder = tmp_path_factory.mktemp("collection")
    sites = np.random.default_rng(0).choice(["North", "South"], 100)
    table = write_collection(folder, 100, seed=5, site=sites)
    table.loc[40, "effusion"] = 1 - table.loc[40, "effusion"]
    (folder / "60.png").write_bytes((folder / "20.png").read_bytes())
    (folder / "3.png").write_bytes(b"not an image")
    table.to_csv(folder / "labels.csv", index=False)
    return folder


def test_an_audit_of_a_table(folder, tmp_path):
    out = tmp_path / "audit.html"
    said = run(
        "audit", folder / "labels.csv", *COLUMNS, "--metadata-column", "site",
        "--model", "demo", "--out", out,
    )  # fmt: skip
    assert "1 of 100 images cannot be read" in said
    assert "look wrong" in said or "looks wrong" in said
    assert "1 image is a copy of an earlier image, 1 under another patient" in said
    assert "demonstration checkpoint" in said
    page = out.read_text(encoding="utf-8")
    assert "row 40" in page  # its place in the file, not among those that can be read
    assert "row 60" in page
    assert ".png" not in page
    assert "PHANTOM" not in page
    assert str(folder) not in page


def test_the_status_says_that_something_was_found(folder, tmp_path):
    command = (
        "audit", folder / "labels.csv", *COLUMNS, "--model", "demo",
        "--out", tmp_path / "audit.html", "--overwrite",
    )  # fmt: skip
    assert "status is 3: copies" in run(*command, "--fail-on", "copies", code=3)
    run(*command, "--fail-on", "unusual")
    assert "labels" in run(*command, "--fail-on", "any", code=3)


def test_several_findings_and_pictures(folder, tmp_path):
    out = tmp_path / "audit.html"
    table = pd.read_csv(folder / "labels.csv")
    table.loc[:10, "effusion"] = np.nan
    table.to_csv(folder / "blanks.csv", index=False)
    said = run(
        "audit", folder / "blanks.csv", "--label-column", "effusion",
        "--label-column", "cardiomegaly", "--model", "demo", "--out", out,
        "--show-images",
    )  # fmt: skip
    assert "images of patients" in said
    assert "<img" in out.read_text(encoding="utf-8")


def test_mistakes_are_named_before_images_are_read(folder, tmp_path):
    out = ("--out", tmp_path / "audit.html")
    table = folder / "labels.csv"
    assert "--metadata-column" in run(
        "audit", table, *COLUMNS, "--metadata-column", "scanner", *out, code=2
    )
    assert ".html" in run("audit", table, *COLUMNS, "--out", "audit.txt", code=2)
    assert "Traceback" not in run(
        "audit", table, *COLUMNS, "--metadata-column", "path", "--model", "demo", *out,
        code=2,
    )  # fmt: skip
    assert not list(tmp_path.iterdir())
