"""Exact indexes on disk: whole or not there, for whoever reads at whatever moment."""

import json
import os
import pickle
import random
import resource
import shutil
import signal
import time

import forked
import numpy as np
import pandas as pd
import pytest

from sk_medsiglip.retrieval import ImageRetriever, SearchIndexError

WIDTH = 16

posix_only = pytest.mark.skipif(os.name != "posix", reason="runs on POSIX only")


def make_rows(mark, n_rows=3000):
    """Rows that tell which writer made them: all of one index have its mark."""
    vectors = np.random.default_rng(mark).normal(size=(n_rows, WIDTH))
    metadata = {
        "mark": [mark] * n_rows,
        "name": [f"{mark}-é-{i}" for i in range(n_rows)],
    }
    return vectors, pd.DataFrame(metadata)


def make_index(mark, **params):
    vectors, metadata = make_rows(mark)
    return ImageRetriever(model="demo", **params).fit(vectors, metadata=metadata)


def check_whole(retriever):
    """Check that every row is of one writer, vectors and metadata alike."""
    table = retriever.to_frame()
    (mark,) = table["mark"].unique()
    vectors, metadata = make_rows(int(mark))
    assert table["name"].tolist() == metadata["name"].tolist()
    some = [0, 17, len(vectors) - 1]
    assert retriever.kneighbors(vectors[some], 1)[1].ravel().tolist() == some
    return int(mark)


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_a_saved_index_opens_as_it_was(tmp_path, storage):
    rng = np.random.default_rng(0)
    metadata = pd.DataFrame(
        {
            "text": ["a", None, "é\n", ""] * 5,
            "count": pd.array([1, None, 2**62 + 1, 0] * 5, dtype="Int64"),
            "share": [0.5, np.nan, np.inf, 0] * 5,
            "flag": pd.array([True, None, False, True] * 5, dtype="boolean"),
            "time": pd.Series(
                pd.to_datetime(["2020-01-01", None, "1999-01-01", "2001-01-01"] * 5)
            ),
            "zoned": pd.Series(
                pd.to_datetime(["2020-01-01", None, "1999-01-01", "2001-01-01"] * 5)
            ).dt.tz_localize("Europe/Oslo"),
            "../../strange": range(20),
        }
    )
    retriever = ImageRetriever(model="demo", storage=storage).fit(
        rng.normal(size=(20, 8)), ids=[f"n{i}" for i in range(20)], metadata=metadata
    )
    retriever.remove(["n3"]).add(rng.normal(size=(1, 8)), ids=["late"])
    retriever.save(tmp_path / "index")
    opened = ImageRetriever.load(tmp_path / "index", metric="euclidean")
    pd.testing.assert_frame_equal(opened.to_frame(), retriever.to_frame())
    for X in (None, rng.normal(size=(5, 8))):
        distances, rows = retriever.kneighbors(X)
        again = opened.kneighbors(X)
        np.testing.assert_array_equal(again[1], rows)
        np.testing.assert_allclose(again[0], np.sqrt(2 * distances), atol=1e-6)
    assert opened.get_params()["storage"] == storage
    assert opened.get_params()["model"] == "demo"


def test_an_opened_index_can_be_changed_and_saved_in_its_place(tmp_path):
    make_index(1).save(tmp_path / "index")
    opened = ImageRetriever.load(tmp_path / "index")
    opened.remove(range(100, 3000)).add(
        make_rows(2)[0][:10], metadata={"mark": [2] * 10}
    )
    opened.update([5], make_rows(3)[0][:1])
    opened.save(tmp_path / "index")
    again = ImageRetriever.load(tmp_path / "index")
    pd.testing.assert_frame_equal(again.to_frame(), opened.to_frame())
    assert again.kneighbors(make_rows(3)[0][:1], 1)[1].item() == 5
    assert again.kneighbors(make_rows(2)[0][:1], 1)[1].item() == 3000
    assert len(list((tmp_path / "index").glob("rows-*"))) == 1


def test_an_empty_index_is_saved_and_filled_again(tmp_path):
    retriever = ImageRetriever(model="demo").fit(np.eye(4), metadata={"age": range(4)})
    retriever.remove(range(4)).save(tmp_path / "index")
    opened = ImageRetriever.load(tmp_path / "index")
    assert len(opened.search(np.ones(4), where="age > 1")) == 0
    assert len(opened.to_frame()) == 0
    opened.add(np.eye(4)[:2])
    assert opened.to_frame()["id"].tolist() == [4, 5]


def test_pickles_of_a_saved_index_hold_its_place(tmp_path):
    retriever = make_index(1)
    assert len(pickle.dumps(retriever)) > 3000 * WIDTH * 4
    retriever.save(tmp_path / "index")
    assert len(pickle.dumps(retriever)) < 3000
    opened = ImageRetriever.load(tmp_path / "index")
    small = pickle.dumps(opened)
    assert len(small) < 3000
    assert check_whole(pickle.loads(small)) == 1
    opened.remove(0)
    assert len(pickle.dumps(opened)) > 2999 * WIDTH * 4
    make_index(2).save(tmp_path / "index")
    with pytest.raises(SearchIndexError, match="anew"):
        pickle.loads(small)
    shutil.rmtree(tmp_path / "index")
    with pytest.raises(SearchIndexError, match="no index"):
        pickle.loads(small)


def test_another_process_opens_it(tmp_path):
    make_index(1).save(tmp_path / "index")
    code = f"""
import warnings
warnings.simplefilter("error")
import numpy as np
from sk_medsiglip.retrieval import ImageRetriever
opened = ImageRetriever.load({str(tmp_path / "index")!r})
print(opened.search(np.ones({WIDTH}), n=3, where="mark = 1")["id"].tolist())
"""
    done = forked.run_code(code)
    assert done.returncode == 0, done.stderr
    expected = make_index(1).search(np.ones(WIDTH), n=3)["id"].tolist()
    assert done.stdout.strip() == str(expected)


# -------------------------------------------------------------------- what is damaged


def test_a_damaged_index_is_an_error_that_says_so(tmp_path):
    make_index(1).save(tmp_path / "good")
    (rows,) = (tmp_path / "good").glob("rows-*")
    n_damaged = 0
    for file in ["index.json", *(f"{rows.name}/{p.name}" for p in rows.iterdir())]:
        for damage in ("cut", "gone", "other", "longer"):
            bad = tmp_path / "bad"
            shutil.rmtree(bad, ignore_errors=True)
            shutil.copytree(tmp_path / "good", bad)
            target = bad / file
            content = target.read_bytes()
            if damage == "gone":
                target.unlink()
            else:
                changed = {
                    "cut": content[: len(content) // 2],
                    "other": b"x" * 100,
                    "longer": content + b"x",
                }
                target.write_bytes(changed[damage])
            with pytest.raises(SearchIndexError, match="damaged|lacks|no index"):
                ImageRetriever.load(bad)
            n_damaged += 1
    assert n_damaged == 4 * 10


def test_an_index_of_the_future(tmp_path):
    make_index(1).save(tmp_path / "index")
    file = tmp_path / "index" / "index.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({**facts, "format": 99}))
    with pytest.raises(SearchIndexError, match="format 99.*Upgrade"):
        ImageRetriever.load(tmp_path / "index")


@pytest.mark.parametrize("rows", ["../elsewhere", "/tmp", "", "index.json", 3])
def test_an_index_names_nothing_outside_of_it(tmp_path, rows):
    make_index(1).save(tmp_path / "index")
    file = tmp_path / "index" / "index.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({**facts, "rows": rows}))
    with pytest.raises(SearchIndexError, match="damaged"):
        ImageRetriever.load(tmp_path / "index")


def test_no_array_is_a_pickle(tmp_path):
    """A file that would run code when it is unpickled is refused unread."""
    make_index(1).save(tmp_path / "index")
    (rows,) = (tmp_path / "index").glob("rows-*")

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was here"),)

    np.save(rows / "numbers.npy", np.array([Hostile()], dtype=object))
    with pytest.raises(SearchIndexError, match="damaged"):
        ImageRetriever.load(tmp_path / "index")
    assert not (tmp_path / "was here").exists()


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    retriever = make_index(1)
    with pytest.raises(FileExistsError, match=r"thesis\.txt"):
        retriever.save(tmp_path)
    with pytest.raises(FileExistsError, match="file"):
        retriever.save(tmp_path / "thesis.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    retriever.save(tmp_path / "index")
    (tmp_path / "index" / "notes.txt").write_text("mine")
    retriever.save(tmp_path / "index")
    assert (tmp_path / "index" / "notes.txt").read_text() == "mine"


@posix_only
def test_a_full_disk_leaves_the_old_index(tmp_path):
    make_index(1).save(tmp_path / "index")
    vectors, metadata = make_rows(2)
    retriever = ImageRetriever(model="demo").fit(vectors, metadata=metadata)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            retriever.save(tmp_path / "index")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert check_whole(ImageRetriever.load(tmp_path / "index")) == 1
    assert len(list((tmp_path / "index").iterdir())) == 2


# ----------------------------------------------------------- several processes at once


def save_without_end(folder, pipe):
    for mark in range(2, 10_000):
        make_index(mark).save(folder)
        pipe.send(mark)


@posix_only
def test_killed_while_building_leaves_the_old_index(tmp_path, running):
    """Writers that save again and again, each killed at a random moment."""
    folder = tmp_path / "index"
    rng = random.Random(0)
    marks = set()
    for n_saved in (1, 2, 3, 4):
        make_index(1).save(folder)
        assert check_whole(ImageRetriever.load(folder)) == 1
        with running(save_without_end, folder) as (process, pipe):
            while pipe.recv() <= n_saved:
                pass
            time.sleep(rng.uniform(0, 0.02))
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        marks.add(check_whole(ImageRetriever.load(folder)))
    assert len(marks) > 1
    # What the dead left is removed when it is so old that nobody writes it any more.
    left = [path for path in folder.iterdir() if path.name != "index.json"]
    for path in (p for one in left for p in (*one.glob("*"), one)):
        os.utime(path, (1, 1))
    make_index(2).save(folder)
    assert len(list(folder.iterdir())) == 2


def read_without_end(folder, pipe):
    """Open and check the index until told to stop; send the marks that were seen."""
    marks = []
    while not pipe.poll():
        marks.append(check_whole(ImageRetriever.load(folder)))
        if len(marks) == 1:
            pipe.send("ready")
    pipe.send(marks)


@posix_only
def test_two_readers_while_one_writes(tmp_path, running):
    folder = tmp_path / "index"
    retriever = make_index(0)
    retriever.save(folder)
    early = ImageRetriever.load(folder)
    with (
        running(read_without_end, folder) as (_, first),
        running(read_without_end, folder) as (_, second),
    ):
        for pipe in (first, second):
            assert pipe.recv() == "ready"
        for mark in range(1, 13):
            make_index(mark).save(folder)
        for pipe in (first, second):
            pipe.send("stop")
        for pipe in (first, second):
            assert pipe.poll(60)
            marks = pipe.recv()
            assert marks == sorted(marks)
            assert len(set(marks)) > 3
    # Who opened it before any of this still reads what was there then.
    assert check_whole(early) == 0
    assert check_whole(early.refresh()) == 12


_MEMORY = """
import resource, sys
import numpy as np
from sk_medsiglip.retrieval import ImageRetriever
n_rows, width, folder = int(sys.argv[1]), 32, sys.argv[2]
rng = np.random.default_rng(0)

def make(n, start):
    vectors = rng.normal(size=(n, width)).astype(np.float32)
    return vectors, {"age": np.arange(start, start + n) % 90, "site": ["north"] * n}

retriever = ImageRetriever(model="demo", storage="float16")
vectors, metadata = make(1000, 0)
retriever.fit(vectors, metadata=metadata)
first = vectors[0].copy()
retriever.search(first, where="age > 3")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
for start in range(1000, n_rows, 20_000):
    n = min(20_000, n_rows - start)
    vectors, metadata = make(n, start)
    retriever.add(vectors, metadata=metadata)
assert retriever.search(first, n=1, where="age < 3")["id"].item() == 0
retriever.save(folder)
print((peak() - before) / n_rows)
assert ImageRetriever.load(folder).kneighbors(first[None], 1)[1].item() == 0
"""


@posix_only
@pytest.mark.parametrize(
    "n_rows", [200_000, pytest.param(1_000_000, marks=pytest.mark.slow)]
)
def test_rows_added_in_batches_take_bounded_memory(tmp_path, n_rows):
    """Bound: twice the vectors, and 400 bytes a row for ids, source and two columns."""
    done = forked.run_code(_MEMORY, n_rows, tmp_path / "index")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2 * 32 * 2 + 400


# ----------------------------------------------------- what several processes save


def test_saving_over_what_another_process_saved_is_refused(tmp_path):
    folder = tmp_path / "index"
    make_index(1).save(folder)
    one, other = ImageRetriever.load(folder), ImageRetriever.load(folder)
    other.add(make_rows(2)[0][:10]).save(folder)
    one.remove([0])
    for act in (lambda: one.save(folder), one.refresh):
        with pytest.raises(SearchIndexError, match="another process"):
            act()
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(SearchIndexError, match="another process"):
        one.save(tmp_path / "link")
    assert len(ImageRetriever.load(folder).to_frame()) == 3010
    one.save(tmp_path / "aside")
    assert len(ImageRetriever.load(tmp_path / "aside").to_frame()) == 2999
    # Unchanged, it simply sees what there is.
    third = ImageRetriever.load(folder)
    other.remove([1]).save(folder)
    assert third.refresh().n_samples_fit_ == 3009
    # What is fitted anew replaces an index, as it says.
    make_index(3).save(folder)


def add_and_save(folder, mark, start, pipe):
    retriever = ImageRetriever.load(folder)
    retriever.add(make_rows(mark)[0][:1])
    start.wait()
    try:
        retriever.save(folder)
    except SearchIndexError:
        pipe.put(0)
    else:
        pipe.put(1)


@posix_only
def test_of_processes_that_save_at_once_one_alone_does(tmp_path):
    make_index(1).save(tmp_path / "index")
    context = forked.context
    start, pipe = context.Barrier(3), context.Queue()
    workers = [
        context.Process(target=add_and_save, args=(tmp_path / "index", i, start, pipe))
        for i in range(3)
    ]
    for worker in workers:
        worker.start()
    assert sum(pipe.get(timeout=100) for _ in workers) == 1
    for worker in workers:
        worker.join()
    assert len(ImageRetriever.load(tmp_path / "index").to_frame()) == 3001


@pytest.mark.parametrize("index", ["exact", "lancedb"])
def test_numbers_and_ids_are_never_given_again(tmp_path, index):
    if index == "lancedb":
        pytest.importorskip("lancedb")
    X = np.eye(8)
    kind = {"model": "demo", "index": index, "uri": tmp_path / "lance"}

    def again(retriever):
        if index == "lancedb":
            return ImageRetriever.load(tmp_path / "lance")
        retriever.save(tmp_path / "exact")
        return ImageRetriever.load(tmp_path / "exact")

    retriever = ImageRetriever(**kind).fit(X[:3], ids=[100, 200, 300]).add(X[3:4])
    assert retriever.to_frame()["id"].tolist() == [100, 200, 300, 301]
    retriever = again(retriever.remove([300, 301]))
    retriever = again(retriever.add(X[4:5]))
    assert retriever.to_frame()["id"].to_dict() == {0: 100, 1: 200, 4: 302}
    retriever = again(retriever.remove([100, 200, 302])).add(X[5:6])
    assert retriever.to_frame()["id"].to_dict() == {5: 303}
    names = ImageRetriever(**kind).fit(X[:2], ids=["a", "b"]).remove("b")
    assert names.add(X[:1], ids=["b"]).to_frame()["id"].to_dict() == {0: "a", 2: "b"}


# ------------------------------------------------------------ what a stranger may write


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        "[]",
        '"text"',
        '{"format": 1}',
        '{"format": 1, "rows": "rows-1", "n_rows": 1, "sizes": [], "about": {}}',
        '{"format": %s}' % ("9" * 5000),
    ],
)
def test_an_index_file_of_another_shape_is_damaged(tmp_path, content):
    make_index(1).save(tmp_path / "index")
    (tmp_path / "index" / "index.json").write_text(content)
    with pytest.raises(SearchIndexError, match="is damaged"):
        ImageRetriever.load(tmp_path / "index")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("width", True),
        ("width", "8"),
        ("id_kind", "date"),
        ("kinds", []),
        ("kinds", {"mark": "picture"}),
        ("model", None),
        ("recipe", 3),
    ],
)
def test_facts_of_another_kind_are_damage(tmp_path, key, value):
    make_index(1).save(tmp_path / "index")
    file = tmp_path / "index" / "index.json"
    facts = json.loads(file.read_text())
    facts["about"][key] = value
    file.write_text(json.dumps(facts))
    with pytest.raises(SearchIndexError, match="is damaged"):
        ImageRetriever.load(tmp_path / "index")


@pytest.mark.parametrize("kind", ["float64", "int32", "nan", "inf"])
def test_vectors_that_are_none_are_found_when_an_index_is_opened(tmp_path, kind):
    make_index(1).save(tmp_path / "index")
    (file,) = (tmp_path / "index").glob("rows-*/vectors.npy")
    vectors = np.load(file)
    if kind in ("nan", "inf"):
        vectors[7, 3] = float(kind)
    else:
        vectors = vectors.astype(kind)
    np.save(file, vectors)
    facts = json.loads((tmp_path / "index" / "index.json").read_text())
    facts["sizes"]["vectors.npy"] = file.stat().st_size
    (tmp_path / "index" / "index.json").write_text(json.dumps(facts))
    with pytest.raises(SearchIndexError, match="is damaged"):
        ImageRetriever.load(tmp_path / "index")


def test_an_index_that_names_a_model_of_its_own_is_told(tmp_path):
    X = np.eye(4)
    ImageRetriever(model="stranger/model").fit(X).save(tmp_path / "index")
    with pytest.warns(UserWarning, match="'stranger/model'"):
        ImageRetriever.load(tmp_path / "index")
    ImageRetriever.load(tmp_path / "index", model="stranger/model")
    make_index(1).save(tmp_path / "demo")
    ImageRetriever.load(tmp_path / "demo")
