"""Labels outlive crashes, other programs and other sessions."""

import copy
import json
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
import skops.io

from sk_medsiglip.exceptions import LabelFileWarning, SessionError

ENDLESS = """
import sys
import numpy as np
from sk_medsiglip.explore import ExploreSession
X = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
session = ExploreSession(X, model="demo", labels_path=sys.argv[1])
for row in range(500):
    session.label(row, "label", "yes")
    print(row, flush=True)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.jsonl"


def given(session):
    """Rows with a label, and their labels."""
    labels = session.labels.iloc[:, 0].dropna()
    return dict(zip(labels.index.tolist(), labels.tolist(), strict=True))


def test_every_line_says_what_when_and_by_whom(make_plain, path):
    session = make_plain(labels_path=path, user="anna", locked=0.2)
    session.label([3, 3, 1], "label", "yes")
    session.undo()
    start, label, undo = map(json.loads, path.read_text().splitlines())
    assert start["locked"] == np.flatnonzero(session.locked).tolist()
    assert (label["by"], label["rows"], label["value"]) == ("anna", [1, 3], "yes")
    assert label["at"].endswith("+00:00")
    assert undo["of"] == label["id"]


def test_a_killed_process_loses_no_label(path):
    command = [sys.executable, "-c", ENDLESS, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        said = [int(child.stdout.readline()) for _ in range(20)]
        os.kill(child.pid, signal.SIGKILL)
        said += map(int, child.stdout.read().split())
    lines = path.read_text().splitlines()
    stored = [row for line in lines[1:] for row in json.loads(line)["rows"]]
    assert stored[: len(said)] == said


def test_two_processes_write_to_one_file(make_plain, path):
    X = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    command = [sys.executable, "-c", ENDLESS, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        child.stdout.readline()
        session = make_plain(X=X, groups=None, labels_path=path)
        for row in range(100):
            session.label(row, "label", "no")
        child.stdout.read()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row for line in lines if line["what"] == "label" for row in line["rows"]]
    assert sorted(rows) == sorted([*range(500), *range(100)])


def test_a_torn_last_line_is_passed_over_and_not_joined_to(make_plain, path):
    make_plain(labels_path=path).label(0, "label", "yes")
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[-1][:40])
    with pytest.warns(LabelFileWarning, match="line 3"):
        session = make_plain(labels_path=path)
    session.label(1, "label", "no")
    assert given(session) == {0: "yes", 1: "no"}
    with pytest.warns(LabelFileWarning, match="line 3"):
        assert given(make_plain(labels_path=path)) == {0: "yes", 1: "no"}


def test_a_line_without_its_newline_counts_once(make_plain, path):
    make_plain(labels_path=path).label(0, "label", "yes")
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    session = make_plain(labels_path=path)
    session.label(1, "label", "no")
    assert given(session) == given(make_plain(labels_path=path)) == {0: "yes", 1: "no"}
    with path.open("a") as file:
        file.write("what is this?\n")
    with pytest.warns(LabelFileWarning, match="line 4"):
        session.refresh()


@pytest.mark.parametrize(
    "line",
    [
        "row,label",
        "[1, 2]",
        '{"image": "a.png", "label": 1}',
        '{"what": "label", "id": "1", "at": "", "by": "", "rows": [1]}',
        '{"what": "paint", "id": "1", "at": "", "by": ""}',
        '{"what": "undo", "id": "1", "at": "", "by": "", "of": "2"}',
        '{"what": "look", "id": "1", "at": "", "by": "", "score": 0.9}',
        "label:rows=[true]",
        "label:rows=[60]",
        "label:rows=[-1]",
        "label:rows=[1e30]",
        f"label:rows=[{10**30}]",
        "label:column=other",
        "label:value=perhaps",
        "[" * 200_000,
        "\x00\ufffd",
    ],
)
def test_other_lines_are_reported_by_number(make_plain, path, line):
    make_plain(labels_path=path).label(0, "label", "yes")
    if line.startswith("label:"):
        key, value = line.removeprefix("label:").split("=")
        own = json.loads(path.read_text().splitlines()[-1])
        value = json.loads(value) if key == "rows" else value
        line = json.dumps({**own, "id": "other", key: value})
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.warns(LabelFileWarning, match="line 3"):
        session = make_plain(labels_path=path)
    session.label(1, "label", "no")
    assert given(session) == {0: "yes", 1: "no"}


def test_a_file_of_another_program_is_not_written_to(make_plain, path):
    path.write_text("path,label\na.png,1\n")
    with pytest.warns(LabelFileWarning), pytest.raises(SessionError, match="new file"):
        make_plain(labels_path=path)
    assert path.read_text() == "path,label\na.png,1\n"


def test_two_sessions_see_each_other(make_plain, path):
    one = make_plain(labels_path=path, user="anna", locked=0.3, random_state=1)
    other = make_plain(labels_path=path, user="ben", locked=0.3, random_state=2)
    assert (one.locked == other.locked).all()
    a, b, c = np.flatnonzero(~one.locked)[:3]
    one.label(a, "label", "yes")
    other.label(b, "label", "no")
    one.refresh()
    assert given(one) == given(other) == {a: "yes", b: "no"}
    one.label(c, "label", "yes")
    assert other.undo()["rows"] == [b]  # not the last line, but the last of its user
    assert other.undo() is None
    one.refresh()
    assert given(one) == given(other) == {a: "yes", c: "yes"}


def test_undo_brings_the_label_before_back(make_plain, path):
    session = make_plain(labels_path=path)
    session.label([0, 1], "label", "yes")
    session.label(1, "label", "unsure")
    session.label(0, "label", None)
    assert given(session) == {1: "unsure"}
    again = make_plain(labels_path=path)
    for left in ({0: "yes", 1: "unsure"}, {0: "yes", 1: "yes"}, {}):
        again.undo()
        assert given(again) == left
    assert again.undo() is None
    assert given(make_plain(labels_path=path)) == {}


def test_a_label_of_a_session_that_another_has_ended_is_refused(make_plain, path):
    session = make_plain(labels_path=path, locked=0.3)
    open_rows = np.flatnonzero(~session.locked)
    session.label(open_rows[:2], "label", "yes")
    session.label(open_rows[2:4], "label", "no")
    other = make_plain(labels_path=path)
    session.end()
    with pytest.raises(SessionError, match="ended"):
        other.label(open_rows[5], "label", "yes")
    with pytest.raises(SessionError, match="final"):
        other.refit()


def test_labels_are_not_given_where_they_cannot_be_written(make_plain, path):
    session = make_plain(labels_path=path)
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        session.label(0, "label", "yes")
    assert given(session) == {}
    with pytest.raises(FileNotFoundError, match="make it"):
        make_plain(labels_path=path.parent / "none" / "labels.jsonl")


def test_a_file_of_other_images_or_questions_is_refused(make_plain, rows, path):
    names = [f"/a/{i}.png" for i in range(60)]
    make_plain(labels_path=path, images=names)
    # The folder may move, and the images may be embedded again.
    moved = [f"/b/{i}.png" for i in range(60)]
    make_plain(labels_path=path, images=moved, X=rows + 1)
    with pytest.raises(SessionError, match="order"):
        make_plain(labels_path=path, images=names[::-1])
    with pytest.raises(SessionError, match="effusion"):
        make_plain(labels_path=path, images=names, label="effusion")
    other = path.with_name("rows.jsonl")
    make_plain(labels_path=other)
    with pytest.raises(SessionError, match="order"):
        make_plain(labels_path=other, X=rows[::-1].copy())


def test_the_locked_rows_stay_when_the_session_is_opened_again(make_plain, path):
    locked = make_plain(labels_path=path, locked=0.3).locked
    assert locked.any()
    for again in (None, 0.5, locked):
        assert (make_plain(labels_path=path, locked=again).locked == locked).all()
    with pytest.raises(SessionError, match="both|others"):
        make_plain(labels_path=path, groups=np.roll(np.arange(60) // 2, 1))
    with pytest.raises(SessionError, match="once"):
        make_plain(labels_path=path, locked=np.roll(locked, 2))


@pytest.mark.parametrize("save", [pickle.dumps, copy.copy, skops.io.dumps])
def test_a_session_is_not_saved_and_says_what_is(make_plain, save):
    with pytest.raises(TypeError, match="labels_path"):
        save(make_plain())
