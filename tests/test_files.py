"""Files and folders are put in place whole, or not at all."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sk_medsiglip import _files, _json

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and permissions")

KILLED = """
import os, signal, sys
from pathlib import Path
from sk_medsiglip._files import new_file, new_folder
place = Path(sys.argv[2])
with {"file": new_file, "folder": new_folder}[sys.argv[1]](place) as draft:
    target = draft if sys.argv[1] == "file" else draft / "part"
    target.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "table.csv"
    for text in ("first", "second"):
        before = path.read_text() if path.exists() else None
        with _files.new_file(path) as draft:
            draft.write_text(text)
            assert (path.read_text() if path.exists() else None) == before
        assert path.read_text() == text
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_durable_file_is_written_too(tmp_path):
    with _files.new_file(tmp_path / "facts", durable=True) as draft:
        draft.write_bytes(b"1")
    assert (tmp_path / "facts").read_bytes() == b"1"


def write_half(path):
    with _files.new_file(path) as draft:
        draft.write_text("half")
        raise KeyError


def test_a_failure_leaves_the_file_before_and_no_draft(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("before")
    with pytest.raises(KeyError):
        write_half(path)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_lines_are_added_behind_one_that_was_cut_off(tmp_path):
    path = tmp_path / "labels.jsonl"
    _files.append_line(path, b"first")
    _files.append_line(path, b"second")
    assert path.read_bytes() == b"first\nsecond\n"
    path.write_bytes(b"first\nsec")
    _files.append_line(path, b"third")
    assert path.read_bytes() == b"first\nsec\nthird\n"


def test_a_folder_is_swapped_whole(tmp_path):
    path = tmp_path / "run"
    for name in ("a", "b"):
        with _files.new_folder(path) as scratch:
            (scratch / name).touch()
        assert os.listdir(path) == [name]
    with pytest.raises(KeyError), _files.new_folder(path) as scratch:
        raise KeyError
    assert os.listdir(path) == ["b"]
    assert os.listdir(tmp_path) == ["run"]


def test_the_folder_of_a_faster_process_may_stay(tmp_path):
    path = tmp_path / "converted"
    with _files.new_folder(path, replace=False) as slow:
        (slow / "slow").touch()
        with _files.new_folder(path, replace=False) as fast:
            (fast / "fast").touch()
    assert os.listdir(path) == ["fast"]
    assert os.listdir(tmp_path) == ["converted"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "taken").touch()
    with (
        _files.scratch_folder(tmp_path) as scratch,
        pytest.raises(OSError, match="taken"),
    ):
        _files.put_in_place(scratch, tmp_path / "taken")
    assert (tmp_path / "taken").is_file()


@posix_only
def test_permissions_follow_the_mask_or_are_private(tmp_path):
    before = os.umask(0o027)
    try:
        for name, mode in (("usual", None), ("private", 0o700)):
            given = {} if mode is None else {"mode": mode}
            with _files.new_file(tmp_path / name, **given):
                pass
            with _files.new_folder(tmp_path / f"{name}s", **given):
                pass
    finally:
        os.umask(before)
    modes = {one.name: one.stat().st_mode & 0o777 for one in tmp_path.iterdir()}
    assert modes == {
        "usual": 0o640,
        "usuals": 0o750,
        "private": 0o700,
        "privates": 0o700,
    }


@posix_only
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_kill_leaves_what_was_there_and_the_rest_goes_at_the_next_write(
    tmp_path, kind
):
    path = tmp_path / "place"
    if kind == "file":
        path.write_text("before")
    else:
        path.mkdir()
        (path / "part").write_text("before")
    done = subprocess.run([sys.executable, "-c", KILLED, kind, str(path)])
    assert done.returncode == -signal.SIGKILL
    whole = path if kind == "file" else path / "part"
    assert whole.read_text() == "before"
    assert len(os.listdir(tmp_path)) == 2
    with _files.new_file(tmp_path / "other"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["other", "place"]


def test_what_living_processes_write_is_left_alone(tmp_path):
    with (
        _files.new_file(tmp_path / "a") as first,
        _files.new_file(tmp_path / "b") as second,
    ):
        first.write_text("a")
        second.write_text("b")
    assert (tmp_path / "a").read_text() + (tmp_path / "b").read_text() == "ab"


@posix_only
def test_a_full_disk_leaves_the_file_before(tmp_path):
    import resource

    path = tmp_path / "vectors"
    path.write_text("before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with (
            pytest.raises(OSError, match="large") as caught,
            _files.new_file(path) as draft,
        ):
            draft.write_bytes(bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["vectors"]


@posix_only
def test_a_folder_that_is_read_only_is_told_by_the_file_s_own_name():
    # Nobody, not even root, makes files here.
    with (
        pytest.raises(OSError, match="/proc/report.html"),
        _files.new_file(Path("/proc/report.html")),
    ):
        pass


def test_a_folder_that_is_missing_is_told_by_the_file_s_own_name(tmp_path):
    path = tmp_path / "missing" / "report.html"
    with pytest.raises(FileNotFoundError, match=r"report\.html"), _files.new_file(path):
        pass


# ------------------------------------------------------------------------ records


def test_what_is_expected_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1, "b": [1], "c": null, "more": {}}', "utf-8")
    expected = {"a": 1, "b": [1], "c": None, "more": {}}
    schema = {"a": float, "b": list, "c": (str, type(None))}
    assert _json.read_json(path, schema, {"d": str}) == expected
    assert _json.read_json(path.read_bytes()) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested"),
        (
            '{"a": ' + "[" * (_json.MAX_DEPTH + 1) + "]" * (_json.MAX_DEPTH + 1) + "}",
            "nested",
        ),
        ("[1]", "a list, not an object"),
        ("3", "a whole number, not an object"),
        ('{"b": 1}', "'a' is missing"),
        ('{"a": true}', "'a' is true or false, not a number"),
        ('{"a": "1"}', "'a' is a text, not a number"),
        ('{"a": 1, "d": 1}', "'d' is a whole number, not a text or null"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
        ("{", "Expecting"),
        (b"\xff\xfe\x00", "decode"),
    ],
)
def test_other_shapes_are_value_errors(text, message):
    with pytest.raises(ValueError, match=message):
        _json.read_json(text, {"a": float}, {"d": (str, type(None))})
