"""The store of embeddings when processes die, disks fill up and bits flip.

Nothing here is mocked: writers are killed, file systems are full, files are damaged.
"""

import contextlib
import errno
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import forked
import numpy as np
import pytest
from test_cache import SPACE, fingerprint, read, vectors_of

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.cache import (
    EmbeddingCache,
    Space,
    VerifyReport,
)
from sk_medsiglip.exceptions import CacheError, CacheWarning

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals, fork")


@contextlib.contextmanager
def running(target, *args):
    """Run ``target(*args, pipe)`` in another process; yield it and our end."""
    ours, theirs = forked.context.Pipe()
    process = forked.context.Process(target=target, args=(*args, theirs))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()


def put(cache, contents):
    fingerprints = [fingerprint(content) for content in contents]
    cache.put_many(SPACE, fingerprints, vectors_of(fingerprints))
    return fingerprints


def index_of(location):
    return location / "index.sqlite3"


def segment_of(location):
    (path,) = location.glob("segments/*.rows")
    return path


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


# --------------------------------------------------------------------- processes dying


def write_without_end(location, name, pipe):
    cache = EmbeddingCache(location)
    rng = random.Random(name)
    n = 0
    while True:
        size = rng.choice([1, 2, 32, 300])
        put(cache, [f"{name} {i}" for i in range(n, n + size)])
        n += size
        pipe.send(n)


def kill_a_writer(location, name, seconds):
    """Return how many rows the writer had reported when it was killed."""
    with running(write_without_end, location, name) as (process, pipe):
        pipe.recv()
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        n = 0
        with contextlib.suppress(EOFError, OSError):
            while True:
                n = pipe.recv()
    return n


def check_killed_writers(location, n_writers):
    rng = random.Random(0)
    reported = []
    for i in range(n_writers):
        reported.append(kill_a_writer(location, f"writer {i}", rng.uniform(0, 0.15)))
        for name in range(i + 1):
            wanted = [fingerprint(f"writer {name} {k}") for k in range(reported[name])]
            assert read(EmbeddingCache(location), wanted).all()
    cache = EmbeddingCache(location)
    n_before = len(cache)
    put(cache, ["the next writer"])  # takes over the segment of the dead
    assert cache.stats()["segments"] == 1
    n_after = len(cache)
    assert n_after > n_before >= sum(reported)
    report = cache.verify()
    assert (report.rows, report.dropped) == (n_after, 0)
    cache.close()


@posix_only
def test_what_a_killed_writer_reported_is_there(location):
    check_killed_writers(location, 5)


@posix_only
@pytest.mark.slow
def test_what_many_killed_writers_reported_is_there(location):
    check_killed_writers(location, 30)


@posix_only
def test_rows_without_an_index_entry_are_adopted_by_the_next_writer(cache, location):
    put(cache, range(10))
    cache.close()
    shutil.copy(index_of(location), location / "old")
    put(cache, range(10, 20))
    cache.close()
    # As if the writer had died after the rows, before the index; in mid-row.
    os.replace(location / "old", index_of(location))
    with open(segment_of(location), "ab") as file:
        file.write(b"half a row")
    assert read(cache, [fingerprint(i) for i in range(20)]).sum() == 10
    put(cache, ["new"])
    assert read(cache, [fingerprint(i) for i in range(20)]).all()
    assert cache.verify() == VerifyReport(rows=21, segments=1)


def hold_a_claim(location, pipe):
    cache = EmbeddingCache(location)
    wanted = [fingerprint("wanted")]
    pipe.send(cache.claim(SPACE, wanted))
    pipe.recv()
    put(cache, ["wanted"])
    cache.release(SPACE, wanted)
    pipe.send("released")
    pipe.recv()


def test_another_process_waits_for_the_claim_and_reads(cache, location):
    wanted = [fingerprint("wanted")]
    with running(hold_a_claim, location) as (_, pipe):
        assert pipe.recv() == [True]
        assert cache.claim(SPACE, [*wanted, fingerprint("other")]) == [False, True]
        cache.release(SPACE, [fingerprint("other")])
        assert not cache.wait(SPACE, wanted, timeout=0.02)
        pipe.send("go on")
        assert cache.wait(SPACE, wanted, timeout=30)
        assert read(cache, wanted).all()
        assert pipe.recv() == "released"
        assert cache.claim(SPACE, wanted) == [True]
        cache.release(SPACE, wanted)


@posix_only
def test_a_dead_holder_blocks_nobody(cache, location):
    wanted = [fingerprint("wanted")]
    with running(hold_a_claim, location) as (process, pipe):
        assert pipe.recv() == [True]
        assert cache.claim(SPACE, wanted) == [False]
        timer = threading.Timer(0.05, os.kill, (process.pid, signal.SIGKILL))
        timer.start()
        assert cache.wait(SPACE, wanted, timeout=30)
        timer.join()
    assert cache.claim(SPACE, wanted) == [True]
    cache.release(SPACE, wanted)


# --------------------------------------------------------------- many at the same time


def work_through(location, contents, pipe):
    cache = EmbeddingCache(location)
    for start in range(0, len(contents), 10):
        part = contents[start : start + 10]
        assert read(cache, put(cache, part)).all()
        if start % 100 == 0:
            cache.close()  # opening and closing is when SQLite locks longest
    pipe.send("done")


def test_processes_write_the_same_and_different_rows_at_once(cache, location):
    same = list(range(400))
    jobs = [same + [f"{name} {i}" for i in range(200)] for name in range(3)]
    with contextlib.ExitStack() as stack:
        pipes = [
            stack.enter_context(running(work_through, location, job))[1] for job in jobs
        ]
        put(cache, same)
        assert [pipe.recv() for pipe in pipes] == ["done"] * 3
    assert len(cache) == 1000
    for job in jobs:
        assert read(cache, [fingerprint(content) for content in job]).all()
    stats = cache.stats()
    assert (stats["rows_computed"], stats["repeated_puts"]) == (1000, 1200)
    assert cache.verify().ok


def test_threads_read_write_and_close_at_once(cache):
    known = put(cache, range(500))
    failures = []

    def work(name):
        try:
            for i in range(20):
                assert read(cache, known).all()
                assert read(cache, put(cache, [f"{name} {i}"])).all()
                if i % 10 == name:
                    cache.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(cache) == 500 + 8 * 20
    assert cache.verify().ok


def read_without_end(location, n_rows, pipe):
    cache = EmbeddingCache(location)
    known = [fingerprint(i) for i in range(n_rows)]
    n_found = n_times = 0
    while not pipe.poll():
        n_found += int(read(cache, known).sum())
        n_times += 1
        if n_times == 1:
            pipe.send("reading")
    pipe.send((n_found, n_times))


def test_pruning_while_another_process_reads(cache, location, monkeypatch):
    monkeypatch.setattr("sk_medsiglip.cache._writer.SEGMENT_LIMIT", 100_000)
    put(cache, range(6000))
    with running(read_without_end, location, 6000) as (_, pipe):
        assert pipe.recv() == "reading"
        for limit in range(600_000, 0, -100_000):
            cache.prune(limit)
            assert cache.verify().ok
        pipe.send("stop")
        n_found, n_times = pipe.recv()  # right rows or none, or it would have died
    assert 6000 <= n_found <= 6000 * n_times


def test_pruning_while_another_process_writes(cache, location):
    with running(write_without_end, location, "writer") as (_, pipe):
        for _ in range(10):
            pipe.recv()
            assert cache.prune(20_000) >= 0
            assert cache.verify().dropped == 0
    put(cache, range(10))
    cache.prune(20_000)
    assert cache.verify().ok


@posix_only
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_goes_on_beside_its_parent(cache, location):
    known = put(cache, range(100))
    assert cache.claim(SPACE, [fingerprint("claimed")]) == [True]
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            assert cache.claim(SPACE, [fingerprint("claimed")]) == [False]
            assert read(cache, known).all()
            for i in range(50):
                put(cache, [f"child {i}"])
            status = 0
        os._exit(status)
    for i in range(50):
        put(cache, [f"parent {i}"])
    assert os.waitpid(child, 0)[1] == 0
    assert cache.claim(SPACE, [fingerprint("claimed")]) == [False]
    cache.release(SPACE, [fingerprint("claimed")])
    assert len(cache) == 200
    assert cache.verify().ok


# ---------------------------------------------------------------------- damaged files


def flip_bits_everywhere(location, n_flips, seed, pipe):
    """Flip one bit of one file at a time; send the outcomes, one a flip."""
    warnings.simplefilter("error")
    rng = random.Random(seed)
    pristine = {
        path: path.read_bytes()
        for path in sorted(location.rglob("*"))
        if path.is_file() and path.stat().st_size
    }
    known = [fingerprint(i) for i in range(60)]
    model = EmbeddingCache(location).recall_model("demo", None)
    for i in range(n_flips):
        cache = EmbeddingCache(location)
        path = list(pristine)[i % len(pristine)]
        flip(path, rng.randrange(8 * len(pristine[path])))
        out = np.empty((60, 16), np.float32)
        outcome = "right"
        try:
            try:
                found = cache.get_many(SPACE, known, out)
            except CacheWarning as warning:
                outcome = f"warned: {'sk-medsiglip cache verify' in str(warning)}"
                warnings.simplefilter("ignore", CacheWarning)
                found = cache.get_many(SPACE, known, out)
                warnings.simplefilter("error", CacheWarning)
            wanted = vectors_of(known)
            assert np.array_equal(out[found], wanted[found])
            missing = [f for f, ok in zip(known, found, strict=True) if not ok]
            cache.put_many(SPACE, missing, vectors_of(missing))
            assert cache.get_many(SPACE, known, out).all()
            assert np.array_equal(out, wanted)
            outcome = "missed" if missing and outcome == "right" else outcome
        except CacheError as error:
            advised = "sk-medsiglip cache verify" in str(error)
            outcome = "error" if advised else f"error without advice: {error}"
        if outcome.startswith("error"):
            cache.verify()
            cache.put_many(SPACE, known, vectors_of(known))
            assert read(cache, known).all()
        assert cache.recall_model("demo", None) in (model, None)
        pipe.send(outcome)
        cache.clear()
        cache.close()
        for file in location.rglob("*.*"):
            if file.is_file() and file not in pristine:
                file.unlink()
        for path, data in pristine.items():
            path.write_bytes(data)
    pipe.send("survived")


@pytest.mark.parametrize("log", [False, True], ids=["at rest", "with a log"])
def test_flipped_bits_never_make_a_wrong_vector(location, tmp_path, log):
    cache = EmbeddingCache(location)
    put(cache, range(60))
    cache.remember_model("demo", None, {"logit_scale": 112.7})
    copied = tmp_path / "copied"
    if log:  # the files as a killed writer leaves them
        shutil.copytree(location, copied)
    cache.close()
    if not log:
        shutil.copytree(location, copied)
    outcomes = []
    with running(flip_bits_everywhere, copied, 150, int(log)) as (_, pipe):
        while outcomes[-1:] != ["survived"]:
            outcomes.append(pipe.recv())
    assert outcomes.count("right") > 10
    assert set(outcomes) <= {"right", "warned: True", "missed", "error", "survived"}


def test_a_damaged_row_is_missing_until_it_is_stored_again(cache, location):
    known = put(cache, range(100))
    cache.close()
    path = segment_of(location)
    flip(path, 8 * (path.stat().st_size - 40))
    with pytest.warns(CacheWarning, match="1 .*verify"):
        assert read(cache, known).tolist() == [True] * 99 + [False]
    assert not read(cache, known)[99]
    put(cache, [99])
    assert read(cache, known).all()


def test_verify_drops_damaged_rows(cache, location):
    known = put(cache, range(100))
    cache.close()
    path = segment_of(location)
    flip(path, 8 * (path.stat().st_size - 40))
    report = cache.verify()
    assert report == VerifyReport(rows=99, dropped=1, segments=1)
    assert not report.ok
    assert cache.verify().ok
    assert read(cache, known).sum() == 99


def test_either_copy_of_a_segments_header_will_do(cache, location):
    known = put(cache, range(10))
    for place in (20, 2068):
        cache.close()
        flip(segment_of(location), 8 * place)
        if place == 20:
            assert read(cache, known).all()
            assert cache.verify().ok
    with pytest.warns(CacheWarning):
        assert not read(cache, known).any()
    assert cache.verify().unreadable_segments == 1
    put(cache, range(10))
    assert read(cache, known).all()


def test_a_segment_cut_short_loses_its_last_rows_only(cache, location):
    known = put(cache, range(100))
    path = segment_of(location)
    os.truncate(path, path.stat().st_size - 250)  # while it is open for reading
    with pytest.warns(CacheWarning, match="3 stored"):
        assert read(cache, known).sum() == 97
    cache.close()
    put(cache, range(100))
    assert read(cache, known).all()
    assert cache.verify().ok


def test_a_lost_segment_is_a_miss(cache, location):
    known = put(cache, range(10))
    segment_of(location).unlink()
    with pytest.warns(CacheWarning, match="10 stored"):
        assert not read(cache, known).any()
    put(cache, range(10))
    assert read(cache, known).all()
    assert cache.verify().ok


def delete(path):
    path.unlink()


def write_nonsense(path):
    path.write_bytes(b"This is no database. " * 500)


def cut_in_half(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def damage_the_table(path):
    # The rows' table lies in the pages after the first.
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))


@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
@pytest.mark.parametrize(
    "damage", [delete, write_nonsense, cut_in_half, empty, damage_the_table]
)
def test_a_lost_index_is_rebuilt_from_the_segments(cache, location, damage, is_open):
    known = put(cache, range(2000))
    cache.close()
    if is_open:
        assert read(cache, known[:1]).all()
    damage(index_of(location))
    # Pages that SQLite has in memory are as good as ever: only the rest shows damage.
    assert read(cache, known).all()
    cache.close()
    assert read(cache, known).all()
    assert cache.verify() == VerifyReport(rows=2000, segments=1)


def test_verify_rebuilds_a_damaged_index(cache, location):
    put(cache, range(2000))
    cache.close()
    damage_the_table(index_of(location))
    assert cache.verify() == VerifyReport(rows=2000, segments=1, index_rebuilt=True)
    assert cache.verify().ok


def change_index(location, statement, *values):
    connection = sqlite3.connect(index_of(location))
    with connection:
        connection.execute(statement, values)
    connection.close()


@pytest.fixture
def settled(monkeypatch):
    """Let every row go into the tree of the index at once."""
    monkeypatch.setattr("sk_medsiglip.cache._recent_rows.MOST_RECENT", 1)


@pytest.mark.usefixtures("settled")
def test_a_place_with_another_row_in_it_is_a_miss(cache, location):
    known = put(cache, range(10))
    cache.close()
    one, other = SPACE.keys(known[:2]).tolist()
    change_index(
        location,
        "UPDATE rows SET place = (SELECT place FROM rows WHERE key = ?) WHERE key = ?",
        one,
        other,
    )
    for order in (known, known[::-1]):
        with pytest.warns(CacheWarning, match="1 stored"):
            assert read(cache, order).sum() == 9
        cache.close()
        change_index(
            location,
            "INSERT INTO rows SELECT ?, place FROM rows WHERE key = ?",
            other,
            one,
        )
    assert cache.verify() == VerifyReport(rows=10, dropped=1, recovered=1, segments=1)
    assert read(cache, known).all()


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("place", ["text", b"bytes", 0.5, -1, 2**62])
def test_a_place_that_cannot_be_one_is_noticed(cache, location, place):
    known = put(cache, range(10))
    cache.close()
    key = SPACE.keys(known[:1]).tolist()[0]
    change_index(location, "UPDATE rows SET place = ? WHERE key = ?", place, key)
    if place == 2**62:
        with pytest.warns(CacheWarning, match="1 stored"):
            assert read(cache, known).sum() == 9
        put(cache, range(10))
    assert read(cache, known).all()
    assert len(cache) == 10


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("keys", b"no multiple of eight"),
        ("keys", 5),
        ("keys", b"another key.." * 8),
        ("first", -(2**40)),
        ("first", 2**62),
        ("first", 2**40 + 3),
    ],
)
def test_damage_among_the_newest_rows_is_noticed(cache, location, column, value):
    known = put(cache, range(10))
    cache.close()
    change_index(location, f"UPDATE recent SET {column} = ?", value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        read(cache, known)  # right rows, as many as there are
        put(cache, range(10))
    assert read(cache, known).all()
    cache.verify()
    assert (len(cache), cache.verify().ok) == (10, True)


def test_an_index_without_newest_rows_is_brought_up_to_date(cache, location):
    known = put(cache, range(10))
    cache.close()
    change_index(location, "INSERT INTO counters VALUES ('kept', 3)")
    index = index_of(location)
    with sqlite3.connect(index) as connection:
        (first, keys) = connection.execute("SELECT * FROM recent").fetchone()
        pairs = [(k, first + i) for i, k in enumerate(np.frombuffer(keys, "<i8"))]
        connection.executemany(
            "INSERT INTO rows VALUES (?, ?)", [(int(k), p) for k, p in pairs]
        )
        connection.execute("DROP TABLE recent")
    connection.close()
    set_format(location, 1)
    assert read(cache, known).all()
    put(cache, range(20))
    assert len(cache) == 20
    cache.close()
    with sqlite3.connect(index) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        # Brought up to date, not built anew.
        kept = connection.execute("SELECT value FROM counters WHERE name = 'kept'")
        assert kept.fetchone() == (3,)
    connection.close()


def set_format(location, number):
    change_index(location, f"PRAGMA user_version = {number}")


def test_the_index_of_another_version_is_refused(cache, location):
    known = put(cache, range(10))
    cache.close()
    set_format(location, 7)
    with pytest.raises(CacheError, match="7.*Upgrade"):
        read(cache, known)
    with pytest.raises(CacheError, match="format 7"):
        put(cache, [11])
    # The segments are this version's: so it was a flipped bit, and verify may mend.
    assert cache.verify().index_rebuilt
    assert read(cache, known).all()
    cache.close()
    set_format(location, 7)
    segment_of(location).unlink()
    with pytest.raises(CacheError, match="format 7"):
        cache.verify()


def test_damaged_facts_on_a_model_are_forgotten(cache, location):
    cache.remember_model("demo", None, {"logit_scale": 112.7})
    (path,) = location.glob("models/*.json")
    path.write_text(path.read_text().replace("112.7", "113.7"))
    assert cache.recall_model("demo", None) is None


def test_damaged_notes_on_files_are_forgotten(cache, location, tmp_path):
    from test_cache import wait_until_at_rest

    from sk_medsiglip.cache import file_stamps

    path = tmp_path / "image.png"
    path.touch()
    wait_until_at_rest(path)
    stamps = file_stamps([path])
    cache.remember_files(stamps, "", [fingerprint(1)])
    cache.close()
    index = index_of(location)
    data = index.read_bytes()
    index.write_bytes(data.replace(fingerprint(1), fingerprint(2)))
    assert cache.recall_files(stamps, "") == [None]
    assert cache.verify().dropped_files == 1
    assert cache.verify().ok


# ----------------------------------------------------------------- disks that say no


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if (
        shutil.which("mount") is None
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        pytest.skip("mounting a small disk is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_an_error_and_leaves_a_sound_store(small_disk):
    wide = Space("image", "demo", "1f0c", "", "float32", "torch", 1152)
    cache = EmbeddingCache(small_disk / "store")
    stored, refusals = [], []
    for i in range(60):
        some = [fingerprint(10 * i + k) for k in range(10)]
        try:
            cache.put_many(wide, some, vectors_of(some, 1152))
            stored += some
        except CacheError as error:
            refusals.append(str(error))
    assert len(stored) > 50
    assert refusals
    assert all("full" in text or "No space" in text for text in refusals)
    assert read(cache, stored, wide).all()
    cache.close()
    assert read(cache, stored, wide).all()
    assert len(cache) == len(stored)
    cache.clear()
    cache.put_many(wide, stored[:10], vectors_of(stored[:10], 1152))
    assert read(cache, stored[:10], wide).all()
    assert cache.verify().ok
    cache.close()


@posix_only
def test_a_file_that_may_not_grow_is_an_error(location):
    code = """
import resource, signal, sys
import pytest
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.exceptions import CacheError
from test_cache import fingerprint, read
from test_cache_breakage import put

cache = EmbeddingCache(sys.argv[1])
known = put(cache, range(500))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
with pytest.raises(CacheError, match="written"):
    put(cache, range(500, 1000))
assert read(cache, known).all()
assert not read(cache, [fingerprint(i) for i in range(500, 1000)]).any()
"""
    run_script(code, location)
    cache = EmbeddingCache(location)
    assert len(cache) == 500
    assert cache.verify() == VerifyReport(rows=500, segments=1)
    cache.close()


@posix_only
@pytest.mark.parametrize("is_open", [False, True], ids=["at rest", "being written"])
def test_a_read_only_folder_can_be_read(open_to_all, is_open):
    location = open_to_all / "store"
    cache = EmbeddingCache(location)
    put(cache, range(100))
    if not is_open:
        cache.close()
    code = """
import os, sys
import numpy.testing
import pytest
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.exceptions import CacheError
from test_cache import SPACE, fingerprint, read
from test_cache_breakage import put

if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
cache = EmbeddingCache(sys.argv[1])
known = [fingerprint(i) for i in range(100)]
n_found = int(read(cache, known).sum())
with pytest.raises(CacheError):
    put(cache, ["new"])
with pytest.raises(CacheError):
    cache.remember_model("demo", None, {})
with cache.claimed(SPACE, known[:2]) as mine:
    assert mine == [True, True]
assert int(read(cache, known).sum()) == n_found
assert len(cache) == n_found
print(n_found)
"""
    folders = [location, location / "segments"]
    for folder in folders:
        folder.chmod(0o555)
    for path in location.rglob("*"):
        if path.is_file():
            path.chmod(0o444)
    try:
        n_found = int(run_script(code, location))
    finally:
        for folder in folders:
            folder.chmod(0o700)
        cache.close()
    # Rows still in the log of a process at work may be out of sight.
    assert n_found == 100 or is_open


@posix_only
def test_rows_that_cannot_be_read_now_are_kept(location):
    code = """
import os, resource, sys, warnings
import pytest
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.exceptions import CacheError, CacheWarning
from test_cache import read
from test_cache_breakage import put

cache = EmbeddingCache(sys.argv[1])
known = put(cache, range(100))
cache.close()
assert len(cache) == 100  # opens the index, and no segment
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))

def use_up():
    handles = []
    try:
        while True:
            handles.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return handles

handles = use_up()
with pytest.warns(CacheWarning, match="Too many"):
    assert not read(cache, known).any()
for handle in handles:
    os.close(handle)
assert read(cache, known).all()
cache.close()
handles = use_up()
with pytest.raises(CacheError):
    read(cache, known)
with pytest.raises(CacheError, match="Too many"):
    cache.verify()
for handle in handles:
    os.close(handle)
assert read(cache, known).all()
assert cache.verify().ok
"""
    run_script(code, location)


def test_a_disk_that_reads_nothing_is_not_taken_for_damage(cache, monkeypatch):
    known = put(cache, range(100))
    assert read(cache, known).all()

    def read_at(fd, buffers, offset):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("sk_medsiglip.cache._segments.read_at", read_at)
    with pytest.warns(CacheWarning, match="100 stored"):
        assert not read(cache, known).any()
    with pytest.raises(CacheError, match="checked"):
        cache.verify()
    monkeypatch.undo()
    assert read(cache, known).all()
    assert cache.verify().ok


def rows_and_warnings(cache):
    """Embed two pictures; return their rows and what was said of the store."""
    pictures = [np.full((20, 20), value, np.uint8) for value in (50, 100)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = MedSigLIPEmbedder("demo", device="cpu", cache=cache).transform(pictures)
    caught = [one for one in caught if issubclass(one.category, CacheWarning)]
    assert all(one.filename == __file__ for one in caught)
    return rows, [str(one.message) for one in caught]


@pytest.mark.parametrize("spare", [0, 4096, 16384, 65536])
def test_a_new_store_on_a_full_disk_costs_one_warning(small_disk, spare):
    with (
        (small_disk / "full").open("wb", buffering=0) as file,
        contextlib.suppress(OSError),
    ):
        while file.write(bytes(4096)):
            pass
    size = (small_disk / "full").stat().st_size
    os.truncate(small_disk / "full", size - spare)
    expected, _ = rows_and_warnings(False)
    for _ in range(2):
        rows, said = rows_and_warnings(small_disk / "store")
        np.testing.assert_array_equal(rows, expected)
        assert len(said) == 1
        assert any(why in said[0] for why in ("full", "No space", "disk I/O error"))
    (small_disk / "full").unlink()
    assert rows_and_warnings(small_disk / "store")[1] == []
    assert len(EmbeddingCache(small_disk / "store")) == 2
    EmbeddingCache(small_disk / "store").close()


@posix_only
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_costs_one_warning(location, number, monkeypatch):
    import fcntl

    stored, said = rows_and_warnings(location)
    assert said == []

    def no_lock(*_):
        raise OSError(number, os.strerror(number))

    EmbeddingCache(location).close()
    monkeypatch.setattr(fcntl, "flock", no_lock)
    monkeypatch.setattr(fcntl, "lockf", no_lock)
    rows, said = rows_and_warnings(location)
    np.testing.assert_array_equal(rows, stored)
    assert said == []
    rows, said = rows_and_warnings(location.parent / "new")
    np.testing.assert_array_equal(rows, stored)
    assert len(said) == 1
    assert os.strerror(number) in said[0]
    with pytest.raises(CacheError, match=os.strerror(number)):
        EmbeddingCache(location).clear()


def clear_without_end(location, pipe):
    cache = EmbeddingCache(location)
    while not pipe.poll(0.002):
        with contextlib.suppress(OSError):  # no folder for them yet
            for number in range(100):  # more to delete, so that others come between
                (location / "segments" / f"{number:08x}.rows").touch()
        cache.clear()
    pipe.send("done")


def test_clearing_beside_readers_and_writers(cache, location):
    put(cache, range(50))
    with running(clear_without_end, location) as (_, pipe):
        deadline = time.monotonic() + 3
        n_found, i = 0, 0
        while time.monotonic() < deadline:
            i += 1
            known = put(cache, range(i, i + 30))
            n_found += int(read(cache, known).sum())
            cache.stats()
        pipe.send("stop")
        pipe.recv()
    assert n_found
    known = put(cache, range(30))
    assert read(cache, known).all()
    assert cache.verify().dropped == 0


OTHER_USER = """
import os, sys, warnings
import numpy as np
from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.cache import EmbeddingCache

location, user, group, first, last = sys.argv[1], *map(int, sys.argv[2:])
MedSigLIPEmbedder("demo", device="cpu", cache=False).transform(
    [np.zeros((8, 8), np.uint8)]
)
os.setgroups([group])
os.setgid(user)
os.setuid(user)
os.umask(0o077)
warnings.simplefilter("always")
where = True if location == "default" else location
embedder = MedSigLIPEmbedder("demo", device="cpu", cache=where)
pictures = [np.full((20, 20), 5 * i, np.uint8) for i in range(first, last)]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert np.isfinite(embedder.transform(pictures)).all()
texts = [str(one.message) for one in caught]
assert all("cache" in text for text in texts), texts
rows = None if texts else EmbeddingCache(location).stats()["rows_computed"]
print(rows, len(texts), *texts)
"""


@pytest.fixture
def open_to_all():
    """A folder that every user may reach."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


as_root = pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="becoming other users"
)


@as_root
@pytest.mark.parametrize("mode", [0o2770, 0o770, 0o777, 0o1777, 0o3775])
def test_a_shared_folder_is_a_store_of_several_users(open_to_all, mode):
    code = """
import os, sys
from sk_medsiglip.cache import EmbeddingCache
from test_cache import fingerprint, read
from test_cache_breakage import put

os.umask(0o077)
n_before = 0
for user, first, last in ((65533, 0, 3), (65534, 0, 5), (65533, 2, 6), (65534, 2, 7)):
    child = os.fork()
    if not child:
        os.setgroups([4321])
        os.setgid(user)
        os.setuid(user)
        cache = EmbeddingCache(sys.argv[1])
        assert read(cache, [fingerprint(i) for i in range(n_before)]).all()
        put(cache, range(first, last))
        cache.remember_model("demo", None, {"revision": "1f0c"})
        assert cache.recall_model("demo", None)
        assert len(cache) == last
        cache.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    n_before = last
"""
    location = open_to_all / "shared"
    location.mkdir()
    os.chown(location, 0, 4321)
    location.chmod(mode)
    run_script(code, location)
    for path in location.rglob("*"):
        assert path.stat().st_gid == 4321 or mode & 0o2, path
        assert mode & 0o2 or not path.stat().st_mode & 0o2, path


@as_root
def test_a_folder_that_others_only_read_stays_the_owners(open_to_all):
    location = open_to_all / "mine"
    location.mkdir()
    location.chmod(0o755)
    cache = EmbeddingCache(location)
    put(cache, range(3))
    cache.close()
    for path in location.rglob("*"):
        assert not path.stat().st_mode & 0o77, path


@as_root
def test_the_store_of_another_user_costs_one_warning(open_to_all):
    location = open_to_all / "theirs"
    cache = EmbeddingCache(location)
    put(cache, range(3))
    cache.close()
    said = run_script(OTHER_USER, location, 65534, 65534, 0, 3)
    assert said.startswith("None 1 Embeddings are computed but not stored")


@as_root
def test_a_user_without_a_home_gets_rows_and_one_warning(monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "SK_MEDSIGLIP_CACHE"):
        monkeypatch.delenv(name, raising=False)
    said = run_script(OTHER_USER, "default", 54321, 54321, 0, 3)
    assert said.startswith(
        "None 1 Embeddings are computed but not stored: this user has"
    )
    assert "SK_MEDSIGLIP_CACHE" in said


def run_script(code, *arguments):
    """Run a script in a child process; return what it prints."""
    warn = "import warnings\nwarnings.simplefilter('error')\n"
    done = forked.run_code(warn + code, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout
