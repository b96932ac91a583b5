"""The page started from a terminal: the command, its end, and a killed process."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from command_line import run, write_collection
from page_requests import Browser

from sk_medsiglip.cli._explore import _read_classes

COMMAND = [sys.executable, "-m", "sk_medsiglip.cli", "explore", "--no-browser"]


@contextmanager
def running(folder, *arguments, **environment):
    """Run the command in a folder; give the process, and a browser with its page."""
    with subprocess.Popen(
        [*COMMAND, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.STDOUT, env=os.environ | environment,
    ) as process:  # fmt: skip
        said = []
        while "http://" not in (line := process.stdout.readline()):
            assert line, said
            said.append(line)
        browser = Browser(line.split()[-1])
        browser.open()
        yield process, browser


@pytest.mark.skipif(os.name != "posix", reason="runs on POSIX only")
def test_a_table_becomes_labels_that_outlive_the_server(tmp_path):
    table = write_collection(tmp_path, 40, seed=3)
    patients = table["patient"].unique()
    table[table["patient"].isin(patients[:4])].to_csv(tmp_path / "test.csv")
    table[["path", "patient"]].to_csv(tmp_path / "images.csv", index=False)
    prompts = {"effusion": {"positive": "fluid", "negative": "no fluid"}}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    arguments = (
        "images.csv", "--group-column", "patient", "--lock", "test.csv",
        "--prompts", "prompts.json", "--model", "demo", "--cache", "cache",
    )  # fmt: skip
    n_locked = int(table["patient"].isin(patients[:4]).sum())
    with running(tmp_path, *arguments) as (process, browser):
        state = browser.ask("state")
        assert (state["title"], state["columns"]) == ("images", ["effusion"])
        assert (state["n_rows"], state["n_locked"]) == (40, n_locked)
        assert state["n_groups_locked"] == 4
        browser.send("label", rows=[39], column="effusion", value="yes")
        process.send_signal(signal.SIGKILL)
    with running(tmp_path, *arguments) as (process, again):
        assert again.url.path != browser.url.path
        assert again.ask("state")["n_labels"]["effusion"]["yes"] == 1
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        assert process.wait(60) == 0
    assert "labels.jsonl" in said
    assert "sk-medsiglip explore" in said
    assert "--lock test.csv" in said
    assert "Traceback" not in said
    assert (tmp_path / "explore" / "labels.jsonl").is_file()


def test_the_page_can_end_the_server(tmp_path):
    with running(tmp_path) as (process, browser):
        assert browser.ask("state")["is_demo"]
        while browser.ask("state")["is_embedding"]:
            time.sleep(0.2)
        browser.send("quit")
        assert process.wait(60) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["explore-phantoms"]


def test_mistakes_are_named(tmp_path):
    write_collection(tmp_path, 3, seed=0)
    pd.DataFrame({"path": ["none.png"]}).to_csv(tmp_path / "other.csv")
    images = tmp_path / "labels.csv"
    how = ("--model", "demo", "--no-browser", "--folder", tmp_path / "out")
    assert "table" in run("explore", "--lock", "0.2", code=2)
    wrong = ("--path-column", "path", "--lock", tmp_path / "other.csv")
    assert "none.png" in run("explore", images, *wrong, *how, code=2)
    assert "share" in run("explore", images, "--lock", "7", *how, code=2)
    table = pd.DataFrame({"path": ["0.png"] * 200, "size": np.arange(200) / 7})
    table.to_csv(tmp_path / "sizes.csv")
    sizes = (tmp_path / "sizes.csv", "--label-column", "size")
    assert "measurements" in run("explore", *sizes, *how, code=2)


@pytest.mark.parametrize(
    ("values", "names", "classes"),
    [
        ([1, 0, np.nan], None, None),
        ([1, 0, -1], ["label"], None),
        (["yes", "no", "unsure"], None, None),
        ([np.nan, np.nan, np.nan], None, None),
        (["b", "a", np.nan], None, ["a", "b"]),
        ([2.0, 1.0, np.nan], None, ["1", "2"]),
        (["b", "a", np.nan], ["other"], None),
    ],
)
def test_labels_in_the_table_decide_what_is_asked(values, names, classes):
    frame = pd.DataFrame({"label": values})
    table, found = _read_classes(frame, names, None)
    assert found == classes
    if classes:
        assert set(table["label"].dropna()) == set(classes)
