"""The store of embeddings, used as intended by one process."""

import copy
import os
import pickle
import stat
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from sk_medsiglip.cache import (
    EmbeddingCache,
    Space,
    VerifyReport,
    combined_stamp,
    content_stamp,
    file_stamps,
)
from sk_medsiglip.exceptions import CacheError

SPACE = Space("image", "demo", "1f0c", "resize=medsiglip", "float32", "torch", 16)
BFLOAT16 = Space("image", "demo", "1f0c", "resize=medsiglip", "bfloat16", "torch", 16)


def fingerprint(content):
    return blake3(str(content).encode()).digest()


def vectors_of(fingerprints, width=16):
    """Vectors that anybody can tell from the fingerprints alone."""
    return np.array(
        [
            np.frombuffer(blake3(f).digest(width), np.uint8).astype(np.float32)
            for f in fingerprints
        ]
    ).reshape(-1, width)


def read(cache, fingerprints, space=SPACE, **options):
    out = np.empty((len(fingerprints), space.width), np.float32)
    found = cache.get_many(space, fingerprints, out, **options)
    np.testing.assert_array_equal(
        out[found],
        vectors_of(
            [f for f, ok in zip(fingerprints, found, strict=True) if ok], space.width
        ),
    )
    return found


@pytest.fixture
def cache(tmp_path):
    cache = EmbeddingCache(tmp_path / "store")
    yield cache
    cache.close()


@pytest.fixture
def known(cache):
    """Return fingerprints of 1,000 rows that are stored."""
    fingerprints = [fingerprint(i) for i in range(1000)]
    cache.put_many(SPACE, fingerprints, vectors_of(fingerprints))
    return fingerprints


def test_rows_come_back_in_the_order_asked_for(cache, known):
    asked = [known[5], fingerprint("new"), known[7], known[5], known[0], known[999]]
    assert read(cache, asked).tolist() == [True, False, True, True, True, True]
    shuffled = [known[i] for i in np.random.default_rng(0).permutation(1000)]
    assert read(cache, shuffled).all()
    assert not read(cache, []).size


def test_rows_outlive_the_handles(cache, known):
    cache.close()
    assert read(EmbeddingCache(cache.location), known).all()


def test_reading_and_asking_touch_no_disk(cache):
    assert not read(cache, [fingerprint(1)]).any()
    assert not read(cache, [fingerprint(1)], any_numeric=True).any()
    assert cache.recall_files(file_stamps([__file__]), "as is") == [None]
    assert cache.recall_model("demo", None) is None
    assert (len(cache), list(cache), bool(cache)) == (0, [], True)
    assert cache.stats()["rows"] == 0
    assert cache.verify() == VerifyReport()
    assert cache.prune(0) == 0
    cache.clear()
    assert repr(cache) == f"EmbeddingCache({str(cache.location)!r})"
    assert not cache.location.exists()


def test_spaces_keep_apart(cache, known):
    others = [
        Space("text", "demo", "1f0c", "resize=medsiglip", "float32", "torch", 16),
        Space("image", "demo", "2a", "resize=medsiglip", "float32", "torch", 16),
        Space("image", "demo", "1f0c", "resize=processor", "float32", "torch", 16),
        Space("image", "demo", "1f0c", "resize=medsiglip", "float32", "openvino", 16),
        BFLOAT16,
    ]
    for other in others:
        assert not read(cache, known[:9], other).any()
    assert read(cache, known[:9], BFLOAT16, any_numeric=True).all()
    assert not read(cache, known[:9], others[2], any_numeric=True).any()


def test_any_numeric_prefers_float32(cache):
    one, other = fingerprint(1), fingerprint(2)
    cache.put_many(BFLOAT16, [one, other], np.zeros((2, 16)))
    cache.put_many(SPACE, [one], np.ones((1, 16)))
    out = np.empty((2, 16), np.float32)
    assert cache.get_many(BFLOAT16, [one, other], out, any_numeric=True).all()
    assert out[:, 0].tolist() == [1, 0]
    assert cache.get_many(BFLOAT16, [one, other], out).all()
    assert out[:, 0].tolist() == [0, 0]


def test_stored_rows_stay_and_repeats_are_counted(cache, known):
    cache.put_many(SPACE, known[:3], np.zeros((3, 16)))
    cache.put_many(
        SPACE, [fingerprint("new")] * 2, vectors_of([fingerprint("new")] * 2)
    )
    assert read(cache, known[:3]).all()
    stats = cache.stats()
    assert (stats["rows"], stats["rows_computed"], stats["repeated_puts"]) == (
        1001,
        1001,
        4,
    )


def test_many_rows_and_several_segments(cache, monkeypatch):
    monkeypatch.setattr("sk_medsiglip.cache._writer.SEGMENT_LIMIT", 200_000)
    fingerprints = [fingerprint(i) for i in range(10_000)]
    cache.put_many(SPACE, fingerprints, vectors_of(fingerprints))
    assert cache.stats()["segments"] == 5
    assert read(cache, fingerprints[::-1]).all()
    assert cache.verify() == VerifyReport(rows=10_000, segments=5)


def test_a_new_process_goes_on_with_the_segment_of_the_last(cache, known):
    for i in range(5):
        cache.close()
        cache.put_many(SPACE, [fingerprint(f"new {i}")], np.zeros((1, 16)))
    assert cache.stats()["segments"] == 1


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty((1, 8), np.float32), "shape"),
        (np.empty((1, 16), np.float64), "float32"),
        (np.empty((1, 32), np.float32)[:, ::2], "contiguous"),
    ],
)
def test_out_must_fit(cache, out, message):
    with pytest.raises(ValueError, match=message):
        cache.get_many(SPACE, [fingerprint(1)], out)


def test_wrong_arguments_are_refused(cache):
    with pytest.raises(ValueError, match="32 bytes"):
        cache.put_many(SPACE, [b"short"], np.zeros((1, 16)))
    with pytest.raises(ValueError, match=r"\(1, 16\)"):
        cache.put_many(SPACE, [fingerprint(1)], np.zeros((1, 15)))
    endless = Space("image", "demo", "1", "very " * 999, "float32", "torch", 16)
    with pytest.raises(ValueError, match="recipe"):
        cache.put_many(endless, [fingerprint(1)], np.zeros((1, 16)))


def test_it_is_a_mapping(cache, known):
    cache.put_many(BFLOAT16, known[:1], np.zeros((1, 16)))
    assert len(cache) == 1001
    assert (SPACE, known[3]) in cache
    assert (BFLOAT16, known[3]) not in cache
    np.testing.assert_array_equal(cache[SPACE, known[3]], vectors_of(known[3:4])[0])
    assert cache.get((BFLOAT16, known[3])) is None
    with pytest.raises(KeyError):
        cache[BFLOAT16, known[3]]
    assert set(cache) == {(SPACE, f) for f in known} | {(BFLOAT16, known[0])}


def test_copies_carry_the_location_only(cache, known):
    for twin in (pickle.loads(pickle.dumps(cache)), copy.deepcopy(cache)):
        assert twin == cache
        assert hash(twin) == hash(cache)
        assert read(twin, known).all()
    assert len(pickle.dumps(cache)) < 400
    assert cache != EmbeddingCache(cache.location / "other")
    assert cache != "store"


def test_clones_of_estimators_share_it(cache):
    from sklearn.base import BaseEstimator, clone

    class Holder(BaseEstimator):
        def __init__(self, cache=None):
            self.cache = cache

    assert clone(Holder(cache)).cache is cache


def test_location_comes_from_the_argument_the_environment_or_the_user(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("SK_MEDSIGLIP_CACHE", str(tmp_path / "env"))
    default = EmbeddingCache()
    assert default.location == tmp_path / "env"
    assert EmbeddingCache(str(tmp_path)).location == tmp_path
    assert EmbeddingCache("~/x").location == Path.home() / "x"
    pickled = pickle.dumps(default)
    monkeypatch.delenv("SK_MEDSIGLIP_CACHE")
    # As on another machine: a pickled default means the default there.
    assert pickle.loads(pickled).location != tmp_path / "env"
    assert pickle.loads(pickled).location.is_absolute()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_only_the_owner_may_look(cache, known):
    cache.remember_model("demo", None, {"width": 16})
    cache.claim(SPACE, known[:1])
    for path in [cache.location, *cache.location.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    cache.release(SPACE, known[:1])


def test_a_store_deleted_under_a_running_process_begins_anew(cache, known):
    for path in sorted(cache.location.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    cache.location.rmdir()
    assert not read(cache, known).any()
    cache.put_many(SPACE, known[:5], vectors_of(known[:5]))
    assert read(cache, known).sum() == 5
    assert len(cache) == 5


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
def test_handles_are_closed(tmp_path):
    def use(location):
        cache = EmbeddingCache(location)
        cache.put_many(SPACE, [fingerprint(1)], np.zeros((1, 16)))
        cache.claim(SPACE, [fingerprint(2)])

    for i in range(6):  # fills the few places for stores that stay open
        use(tmp_path / str(i))
    n_open = len(os.listdir("/proc/self/fd"))
    for i in range(20):
        use(tmp_path / f"more {i}")
    assert len(os.listdir("/proc/self/fd")) <= n_open


# ------------------------------------------------------------------------------ claims


def test_one_thread_computes_and_the_others_wait(cache):
    wanted = [fingerprint(i) for i in range(20)]
    computed = []
    found = []
    start = threading.Barrier(8)

    def work():
        start.wait()
        todo = wanted
        while todo:
            with cache.claimed(SPACE, todo) as mine:
                ours = [f for f, ok in zip(todo, mine, strict=True) if ok]
                stored = read(cache, ours)
                missing = [f for f, ok in zip(ours, stored, strict=True) if not ok]
                computed.extend(missing)
                time.sleep(0.001)
                cache.put_many(SPACE, missing, vectors_of(missing))
            assert cache.wait(SPACE, todo)
            todo = [f for f, ok in zip(todo, read(cache, todo), strict=True) if not ok]
        found.append(read(cache, wanted).all())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8
    assert sorted(computed) == sorted(wanted)
    assert cache.stats()["repeated_puts"] == 0


def test_claims_exclude_until_released(cache):
    one, two = fingerprint(1), fingerprint(2)
    assert cache.claim(SPACE, [one, one]) == [True, True]
    assert cache.claim(SPACE, [one, two]) == [False, True]
    assert cache.claim(BFLOAT16, [one]) == [True]
    assert not cache.wait(SPACE, one, timeout=0.01)
    cache.release(SPACE, [one, fingerprint("never claimed")])
    assert cache.wait(SPACE, [one], timeout=10)
    assert cache.claim(SPACE, [one]) == [True]
    cache.release(SPACE, [one, two])
    cache.release(BFLOAT16, [one])


def test_claims_end_with_the_block_whatever_happens(cache):
    def fail():
        with cache.claimed(SPACE, [fingerprint(1)]) as mine:
            raise RuntimeError(mine)

    with pytest.raises(RuntimeError, match="True"):
        fail()
    assert cache.wait(SPACE, fingerprint(1), timeout=0)


# --------------------------------------------------------------------- files and models


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "Jane Doe.png"
    path.write_bytes(b"pixels")
    wait_until_at_rest(path)
    return path


def wait_until_at_rest(path):
    while not is_at_rest(path):
        time.sleep(0.01)


def is_at_rest(path):
    return combined_stamp(file_stamps([path])) is not None


def test_a_file_is_recalled_in_the_state_and_reading_it_was_read_in(cache, image_file):
    stamps = file_stamps([image_file, "no such file"])
    cache.remember_files(stamps, "as is", [fingerprint(1), fingerprint(2)])
    assert cache.recall_files(stamps, "as is") == [fingerprint(1), None]
    assert cache.recall_files(file_stamps([image_file]), "as is") == [fingerprint(1)]
    assert cache.recall_files(stamps, "window=lung") == [None, None]
    assert cache.stats()["files"] == 1

    before = image_file.stat()
    image_file.write_bytes(b"PIXELS")
    os.utime(image_file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cache.recall_files(file_stamps([image_file]), "as is") == [None]


def test_relative_and_absolute_paths_are_one_file(cache, image_file, monkeypatch):
    monkeypatch.chdir(image_file.parent)
    cache.remember_files(file_stamps([image_file.name]), "", [fingerprint(1)])
    assert cache.recall_files(file_stamps([image_file]), "") == [fingerprint(1)]


def test_a_file_that_changed_just_now_is_not_trusted(cache, image_file):
    image_file.write_bytes(b"changed")
    racy = file_stamps([image_file])
    cache.remember_files(racy, "", [fingerprint(1)])
    assert cache.recall_files(racy, "") == [None]
    wait_until_at_rest(image_file)
    settled = file_stamps([image_file])
    cache.remember_files(settled, "", [fingerprint(2)])
    assert cache.recall_files(settled, "") == [fingerprint(2)]


def test_a_file_stamped_before_it_changed_is_not_recalled(cache, image_file):
    stamps = file_stamps([image_file])
    image_file.write_bytes(b"changed while it was read")
    cache.remember_files(stamps, "", [fingerprint("old")])
    wait_until_at_rest(image_file)
    assert cache.recall_files(file_stamps([image_file]), "") == [None]


def test_several_files_have_one_state(cache, tmp_path):
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(b"slice")
    assert combined_stamp(file_stamps(paths)) is None, "they changed just now"
    for path in paths:
        wait_until_at_rest(path)

    study = combined_stamp(file_stamps(paths), b"every slice")
    slices = fingerprint(1) + fingerprint(2) + fingerprint(3)
    cache.remember_files([study], "", [slices])
    again = combined_stamp(file_stamps(paths), b"every slice")
    assert cache.recall_files([again], "") == [slices]

    others = [
        combined_stamp(file_stamps(paths), b"every second slice"),
        combined_stamp(file_stamps(paths[:2]), b"every slice"),
        combined_stamp(file_stamps(paths[::-1]), b"every slice"),
    ]
    assert cache.recall_files(others, "") == [None] * 3
    assert combined_stamp(file_stamps([*paths, tmp_path / "gone"])) is None
    assert combined_stamp([]) is None


def test_parts_of_a_file_and_contents_are_recalled_as_what_they_are(cache, image_file):
    (whole,) = file_stamps([image_file])
    stamps = [whole, whole._replace(part=b"left"), content_stamp(b"left")]
    cache.remember_files(stamps, "", [fingerprint(i) for i in range(3)])
    assert cache.recall_files(stamps[::-1], "") == [fingerprint(i) for i in (2, 1, 0)]
    assert cache.recall_files([content_stamp(b"right")], "") == [None]


def test_no_path_is_stored(cache, image_file, known):
    cache.remember_files(file_stamps([image_file]), "", [fingerprint(1)])
    cache.remember_model(str(image_file), None, {"width": 16})
    for path in cache.location.rglob("*"):
        assert "Jane" not in path.name
        assert path.is_dir() or b"Jane" not in path.read_bytes()


def test_models_are_recalled_as_they_were_asked_for(cache):
    facts = {"revision": "1f0c", "width": 16, "logit_scale": 112.7, "logit_bias": -1e-9}
    cache.remember_model("demo", None, {"width": 1})
    cache.remember_model("demo", None, facts)
    assert cache.recall_model("demo", None) == facts
    assert cache.recall_model("demo", "main") is None
    # As it was asked for, and by the commit that was found.
    assert cache.recall_model("demo", "1f0c") == facts
    assert cache.stats()["models"] == 1


# ------------------------------------------------------------------------- housekeeping


def test_stats_name_the_spaces(cache, known):
    cache.put_many(BFLOAT16, known[:2], np.zeros((2, 16)))
    cache.close()
    stats = cache.stats()
    rows = {space["dtype"]: space["rows"] for space in stats["spaces"]}
    assert rows == {"float32": 1000, "bfloat16": 2}
    sizes = [p.stat().st_size for p in cache.location.rglob("*") if p.is_file()]
    assert stats["bytes"] == sum(sizes)


def test_prune_keeps_what_was_used_last(cache):
    fingerprints = [fingerprint(i) for i in range(2560)]
    cache.put_many(SPACE, fingerprints, vectors_of(fingerprints))
    assert cache.prune(10**9) == 0
    used = fingerprints[512:1024] + fingerprints[2304:]
    assert read(cache, used).all()
    (segment,) = cache.location.glob("segments/*")
    limit = segment.stat().st_size * 1000 // 2560
    assert cache.prune(limit) > 0
    segments = list(cache.location.glob("segments/*"))
    assert sum(path.stat().st_size for path in segments) <= limit
    assert read(cache, used).all()
    assert len(cache) == 768
    assert cache.verify() == VerifyReport(rows=768, segments=1)
    cache.put_many(SPACE, fingerprints, vectors_of(fingerprints))
    assert read(cache, fingerprints).all()
    assert cache.prune(0) > 0
    assert not list(cache.location.glob("segments/*"))
    assert not read(cache, fingerprints).any()


def test_clear_leaves_nothing_behind(cache, known, image_file):
    cache.remember_files(file_stamps([image_file]), "", known[:1])
    cache.remember_model("demo", None, {"width": 16})
    cache.clear()
    assert len(cache) == 0
    assert not read(cache, known).any()
    assert cache.recall_model("demo", None) is None
    assert cache.recall_files(file_stamps([image_file]), "") == [None]
    assert not [p for p in cache.location.rglob("*") if p.suffix not in {"", ".lock"}]
    cache.put_many(SPACE, known, vectors_of(known))
    assert read(cache, known).all()


def test_a_place_that_cannot_be_one_is_said_so(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    cache = EmbeddingCache(tmp_path / "file")
    assert not read(cache, [fingerprint(1)]).any()
    assert cache.claim(SPACE, [fingerprint(1)]) == [True]
    cache.release(SPACE, [fingerprint(1)])
    with pytest.raises(CacheError, match="written"):
        cache.put_many(SPACE, [fingerprint(1)], np.zeros((1, 16)))
    with pytest.raises(CacheError, match="facts"):
        cache.remember_model("demo", None, {})


@pytest.mark.parametrize(
    ("size", "error"), [("10KB", TypeError), (True, TypeError), (-1, ValueError)]
)
def test_prune_wants_a_whole_number_of_bytes(tmp_path, size, error):
    with pytest.raises(error, match="max_bytes"):
        EmbeddingCache(tmp_path).prune(size)
