"""``index="lancedb"``: the same answers from a disk, and what a disk is asked for."""

import os
import pickle
import random
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import forked
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.base import clone

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.exceptions import (
    ImageReadError,
    MissingDependencyError,
    UnreadableImageWarning,
)
from sk_medsiglip.retrieval import ImageRetriever, Query, SearchIndexError


@pytest.fixture(autouse=True, scope="module")
def lancedb():
    """Import it late: collecting tests does not need its two seconds."""
    return pytest.importorskip("lancedb", reason="lancedb is not installed")


WIDTH = 16

posix_only = pytest.mark.skipif(os.name != "posix", reason="runs on POSIX only")


def make_rows(mark, n_rows=2000):
    """Rows that tell which writer made them."""
    vectors = np.random.default_rng(mark).normal(size=(n_rows, WIDTH))
    metadata = {
        "mark": [mark] * n_rows,
        "name": [f"{mark}-é-{i}" for i in range(n_rows)],
    }
    return vectors.astype(np.float32), pd.DataFrame(metadata)


def make_index(uri, mark, n_rows=2000, **params):
    vectors, metadata = make_rows(mark, n_rows)
    retriever = ImageRetriever(model="demo", index="lancedb", uri=uri, **params)
    return retriever.fit(vectors, metadata=metadata)


def check_whole(retriever):
    """Check that all rows are of one writer, vectors and metadata alike."""
    table = retriever.to_frame()
    (mark,) = table["mark"].unique()
    vectors, metadata = make_rows(int(mark), len(table))
    assert table["name"].tolist() == metadata["name"].tolist()
    some = [0, 17, len(vectors) - 1]
    assert retriever.kneighbors(vectors[some], 1)[1].ravel().tolist() == some
    return int(mark)


@pytest.fixture(scope="module")
def phantoms():
    return make_chest_phantoms(60, random_state=7)


@pytest.fixture(scope="module")
def both(phantoms, tmp_path_factory):
    """The same images in memory and in LanceDB; do not change them."""
    metadata = pd.DataFrame(phantoms.target, columns=phantoms.target_names)
    metadata["patient"] = phantoms.groups
    uri = tmp_path_factory.mktemp("lance") / "index"
    made = (
        ImageRetriever(model="demo"),
        ImageRetriever(model="demo", index="lancedb", uri=uri),
    )
    for retriever in made:
        retriever.fit(list(phantoms.images), metadata=metadata)
    return made


def test_answers_are_those_of_the_exact_index(both, phantoms):
    exact, lance = both
    queries = [
        "a large pleural effusion",
        Query("cardiomegaly") - "a pacemaker",
        [Query(image=phantoms.images[3]) + "effusion", "a nodule"],
    ]
    options = [
        {},
        {"where": "effusion = 0 and patient <> 'x'"},
        {"n": 1000},
        {"deduplicate": 0.97},
        {"diversity": 0.3, "n": 5},
        {"where": "effusion > 7"},
    ]
    for query in queries:
        for option in options:
            pd.testing.assert_frame_equal(
                lance.search(query, **option), exact.search(query, **option), atol=1e-5
            )
    for X in (None, list(phantoms.images[:5])):
        for ours, theirs in zip(
            lance.kneighbors(X, 4), exact.kneighbors(X, 4), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
    pd.testing.assert_frame_equal(lance.to_frame(), exact.to_frame())
    pd.testing.assert_frame_equal(
        lance.find_duplicates(0.95), exact.find_duplicates(0.95), atol=1e-6
    )


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_random_changes_do_what_they_do_in_memory(tmp_path, monkeypatch, storage):
    monkeypatch.setattr("sk_medsiglip.retrieval._incoming.ROWS_AT_ONCE", 7)
    rng = np.random.default_rng(1)
    made = [
        ImageRetriever(model="demo", storage=storage),
        ImageRetriever(
            model="demo", storage=storage, index="lancedb", uri=tmp_path / "x"
        ),
    ]
    X = rng.normal(size=(40, 8)).astype(np.float32)
    for retriever in made:
        retriever.fit(X, ids=[f"n{i}" for i in range(40)], metadata={"age": range(40)})
    for step in range(12):
        known = made[0].to_frame()["id"].tolist()
        some = rng.permutation(known)[: rng.integers(1, 9)].tolist()
        new = rng.normal(size=(len(some), 8)).astype(np.float32)
        ages = {"age": rng.integers(0, 9, len(some))}
        for retriever in made:
            if step % 4 == 0:
                retriever.remove(some)
            elif step % 4 == 1:
                ids = [f"{step} {i}" for i in range(len(some))]
                retriever.add(new, ids=ids, metadata=ages, sources=ids)
            elif step % 4 == 2:
                retriever.update(some, new)
            else:
                retriever.update(some, metadata=ages)
        pd.testing.assert_frame_equal(made[1].to_frame(), made[0].to_frame())
        assert made[1].n_samples_fit_ == made[0].n_samples_fit_
        found = [r.search(X[0], n=9, where="age > 2") for r in made]
        pd.testing.assert_frame_equal(found[1], found[0], atol=2e-3)
        made[1].optimize()


def test_searches_in_threads(both):
    _, lance = both
    expected = lance.search("effusion", where="effusion = 1")
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(
                lambda _: lance.search("effusion", where="effusion = 1"), range(12)
            )
        )
    for one in found:
        pd.testing.assert_frame_equal(one, expected)


def test_failed_changes_change_nothing(tmp_path):
    retriever = make_index(tmp_path / "x", 1)
    before = retriever.to_frame()
    vectors, _ = make_rows(2, 3)
    for change, match in (
        (lambda: retriever.add(vectors, ids=[5, 9001, 9002]), "already: 5"),
        (lambda: retriever.add(vectors[:, :3]), "expecting 16 features"),
        (lambda: retriever.remove([1, 9001]), "no such ids: 9001"),
        (lambda: retriever.update([9001], vectors[:1]), "no such ids: 9001"),
    ):
        with pytest.raises(ValueError, match=match):
            change()
    for change, match in (
        (lambda: retriever.add(vectors, ids=list("abc")), "'a'"),
        (
            lambda: retriever.add(vectors, metadata={"mark": [1, 2, "x"]}),
            "'x' of row 2",
        ),
    ):
        with pytest.raises(TypeError, match=match):
            change()
    pd.testing.assert_frame_equal(retriever.to_frame(), before)


def test_an_error_half_way_is_the_error_and_leaves_the_old_index(
    phantoms, tmp_path, monkeypatch
):
    """What a reader of images raises comes through LanceDB as it was."""
    monkeypatch.setattr("sk_medsiglip.retrieval._incoming.ROWS_AT_ONCE", 2)
    uri = tmp_path / "x"
    embedder = MedSigLIPEmbedder("demo")
    retriever = ImageRetriever(embedder=embedder, index="lancedb", uri=uri)
    retriever.fit(list(phantoms.images[:4]))
    bad = [*phantoms.images[4:9], b"no image"]
    for write in (
        retriever.fit,
        retriever.add,
        lambda X: retriever.update(range(4), X),
    ):
        with pytest.raises((ImageReadError, ValueError), match="row 5|4 ids"):
            write(bad)
        assert retriever.to_frame()["id"].tolist() == [0, 1, 2, 3]
        assert ImageRetriever.load(uri).n_samples_fit_ == 4
    monkeypatch.setattr(
        "sk_medsiglip.retrieval._incoming.conform",
        lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt),
    )
    with pytest.raises(KeyboardInterrupt):
        retriever.fit(list(phantoms.images[:4]))
    assert ImageRetriever.load(uri).n_samples_fit_ == 4


def test_unreadable_images_are_kept_out(phantoms, tmp_path):
    images = [phantoms.images[0], b"no image", phantoms.images[2]]
    retriever = ImageRetriever(model="demo", index="lancedb", uri=tmp_path / "x")
    with pytest.warns(UnreadableImageWarning, match="1 of"):
        retriever.fit(images, ids=list("abc"))
    assert retriever.rejected_["id"].tolist() == ["b"]
    assert retriever.kneighbors([phantoms.images[2]], 1)[1].item() == 2
    with pytest.raises(ValueError, match="1 rows"):
        retriever.fit([b"no image"])
    assert ImageRetriever.load(tmp_path / "x").n_samples_fit_ == 2


# -------------------------------------------------------------- approximate search


@pytest.mark.parametrize("ann", ["ivf_sq", "ivf_pq", "hnsw"])
def test_an_approximate_index_finds_nearly_all(tmp_path, ann, monkeypatch):
    monkeypatch.setattr("sk_medsiglip.retrieval._lance_index.MIN_ROWS_FOR_ANN", 1000)
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(40, WIDTH))
    X = centers[rng.integers(0, 40, 4000)] + 0.5 * rng.normal(size=(4000, WIDTH))
    X = X.astype(np.float32)
    metadata = {"part": np.arange(4000) % 50}
    params = {"model": "demo", "n_neighbors": 10}
    exact = ImageRetriever(**params).fit(X, metadata=metadata)
    lance = ImageRetriever(**params, index="lancedb", uri=tmp_path / "x", ann=ann)
    lance.fit(X, metadata=metadata)
    assert lance._index._has_ann()
    queries = X[:30] + 0.1 * rng.normal(size=(30, WIDTH))
    distances, rows = lance.kneighbors(queries)
    expected_distances, expected = exact.kneighbors(queries)
    hits = [len(set(a) & set(b)) for a, b in zip(rows, expected, strict=True)]
    assert np.mean(hits) > 9
    # Candidates are compared by their stored vectors: distances are exact.
    same = rows == expected
    np.testing.assert_allclose(distances[same], expected_distances[same], atol=1e-5)
    # A narrow filter leaves few rows: all of them are found all the same.
    hits = lance.search(queries[0], n=100, where="part = 7")
    assert set(hits["id"]) == set(range(7, 4000, 50))
    # A search that looks at less than it is to return looks at more.
    lance.set_params(nprobes=1, ef=5)
    assert len(lance.search(queries[0], n=2000)) == 2000
    lance.set_params(nprobes=None, ef=None)
    # Rows that were added since are found, before and after they are indexed.
    new = rng.normal(size=(5, WIDTH))
    lance.add(new)
    for _ in range(2):
        assert lance.kneighbors(new, 1)[1].ravel().tolist() == list(range(4000, 4005))
        lance.optimize()
    lance.remove([4000])
    assert lance.kneighbors(new[:1], 1)[1].item() != 4000


def test_more_than_the_parts_that_are_looked_into_hold(tmp_path):
    X = np.random.default_rng(0).normal(size=(20_000, 8))
    retriever = ImageRetriever(
        model="demo", index="lancedb", uri=tmp_path / "x", ann="ivf_sq", nprobes=1
    )
    retriever.fit(X, metadata={"part": np.arange(20_000) % 200})
    assert retriever._index._has_ann()
    found = retriever.search(X[0], n=15_000)["id"]
    exact = ImageRetriever(model="demo").fit(X).search(X[0], n=15_000)["id"]
    assert len(found) == 15_000
    assert len(set(found) & set(exact)) > 14_990  # float32 rounds at the last ones
    some = retriever.search(X[0], n=1000, where="part = 7")
    assert set(some["id"]) == set(range(7, 20_000, 200))


def test_of_equal_rows_the_first_comes_first(tmp_path):
    X = np.tile(np.random.default_rng(0).normal(size=(3, 8)), (40, 1))
    retriever = ImageRetriever(model="demo", index="lancedb", uri=tmp_path / "x")
    retriever.fit(X[:60]).add(X[60:])
    rows = retriever.kneighbors(X[:3], 12, return_distance=False)
    assert rows.tolist() == [[i + 3 * k for k in range(12)] for i in range(3)]
    # Updated rows lie elsewhere on the disk.
    retriever.update([0, 6], X[:2] * 2).update([6], X[:1])
    rows = retriever.kneighbors(X[:1], 40, return_distance=False)
    assert rows.tolist() == [list(range(0, 120, 3))]


def test_few_rows_are_compared_one_by_one(tmp_path):
    retriever = make_index(tmp_path / "x", 1, ann="hnsw")
    assert not retriever._index._has_ann()


# ----------------------------------------------------------------- opening it elsewhere


def test_it_opens_as_it_was(both, tmp_path):
    exact, lance = both
    opened = ImageRetriever.load(lance.uri)
    assert opened.get_params()["index"] == "lancedb"
    assert opened.get_params()["model"] == "demo"
    assert opened.get_params()["revision"] == lance.embedder_.revision_
    pd.testing.assert_frame_equal(
        opened.search("effusion"), exact.search("effusion"), atol=1e-5
    )
    assert ImageRetriever.load(str(lance.uri)).n_samples_fit_ == 60
    with pytest.raises(ValueError, match="prepared differently"):
        ImageRetriever.load(
            lance.uri, embedder=MedSigLIPEmbedder("demo", pad=True)
        ).search(Query(image=np.zeros((9, 9), np.uint8)))
    with pytest.raises(ValueError, match="stored already"):
        opened.save(tmp_path / "x")


def test_pickles_hold_the_place_and_not_the_rows(both, tmp_path):
    _, lance = both
    content = pickle.dumps(lance)
    assert len(content) < 3000
    expected = lance.search("effusion")
    pd.testing.assert_frame_equal(pickle.loads(content).search("effusion"), expected)
    moved = tmp_path / "x"
    shutil.copytree(lance.uri, moved)
    opened = ImageRetriever.load(moved)
    content = pickle.dumps(opened)
    make_index(moved, 1)
    with pytest.raises(SearchIndexError, match="built anew"):
        pickle.loads(content).search(np.ones(192))
    shutil.rmtree(moved)
    with pytest.raises(SearchIndexError, match="no index"):
        pickle.loads(content).search(np.ones(192))


def test_a_relative_place_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(make_index("x", 1))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert check_whole(pickle.loads(content)) == 1


def test_a_url_is_a_place(tmp_path):
    retriever = make_index(f"file://{tmp_path}/x", 3)
    assert check_whole(retriever) == 3
    assert check_whole(ImageRetriever.load(f"file://{tmp_path}/x")) == 3
    with pytest.raises(SearchIndexError, match="opened"):
        ImageRetriever.load(f"file://{tmp_path}/nowhere")


def test_secrets_are_in_no_repr_and_no_pickle(tmp_path):
    options = {
        "aws_access_key_id": "AKIASECRET",
        "aws_secret_access_key": "GEHEIM",
        "session_token": "GEHEIM",
        "azure_storage_sas_key": "GEHEIM",
        "region": "eu-north-1",
        "endpoint": "http://localhost:9000",
    }
    retriever = ImageRetriever(
        index="lancedb", uri=tmp_path / "x", storage_options=options, model="demo"
    )
    retriever.fit(np.eye(4))
    for shown in (
        repr(retriever),
        str(retriever.get_params()),
        str(retriever._repr_mimebundle_()),
        str(pickle.dumps(retriever)),
        str(pickle.dumps(clone(retriever))),
        str(skops.io.dumps(retriever)),
        repr(ImageRetriever().set_params(storage_options=options)),
        repr(vars(retriever)),
        repr(retriever._index.state()),
    ):
        assert "GEHEIM" not in shown
        assert "AKIASECRET" not in shown
    assert "eu-north-1" in repr(retriever)
    # In this process nothing is lost, and elsewhere what is not secret.
    assert clone(retriever).storage_options == options
    again = pickle.loads(pickle.dumps(retriever))
    assert again.storage_options == {k: options[k] for k in ("region", "endpoint")}
    assert len(again.search(np.ones(4))) == 4


@pytest.mark.parametrize(
    ("params", "error", "match"),
    [
        ({}, ValueError, "uri="),
        ({"uri": "x", "storage_options": {"a": 1}}, TypeError, "must be text"),
        ({"uri": "db://cloud"}, ValueError, "LanceDB's cloud"),
    ],
)
def test_places_that_are_none(params, error, match):
    with pytest.raises(error, match=match):
        ImageRetriever(index="lancedb", **params).fit(np.eye(3))


def test_it_needs_lancedb(tmp_path, monkeypatch):
    retriever = ImageRetriever(index="lancedb", uri=tmp_path / "x")
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(MissingDependencyError, match=r"sk-medsiglip\[retrieval\]"):
        retriever.fit(np.eye(3))


def test_a_table_that_is_another_programs(tmp_path):
    import lancedb

    lancedb.connect(tmp_path / "x").create_table("images", [{"vector": [1.0, 2.0]}])
    with pytest.raises(SearchIndexError, match="written"):
        ImageRetriever.load(tmp_path / "x")


# ----------------------------------------------------------- several processes at once


def build_without_end(uri, pipe):
    make_index(uri, 2, n_rows=500)
    pipe.send(2)
    for mark in range(3, 10_000):
        retriever = make_index(uri, mark)
        pipe.send(mark)
        vectors, metadata = make_rows(mark, 2100)
        retriever.add(vectors[2000:], metadata=metadata.iloc[2000:])
        retriever.optimize()


@posix_only
def test_killed_while_building_leaves_the_old_index(tmp_path, running):
    """Writers that build again and again, each killed at a random moment."""
    rng = random.Random(0)
    for n_built in (2, 3):
        uri = tmp_path / f"{n_built}"
        with running(build_without_end, uri) as (process, pipe):
            while pipe.recv() < n_built:
                pass
            time.sleep(rng.uniform(0, 0.1))
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        opened = ImageRetriever.load(uri)
        assert opened.n_samples_fit_ in (500, 2000, 2100)
        # What was announced is there, or what was built after it.
        assert check_whole_or_more(opened) >= n_built
        # The next writer is not in the way of what the dead one left.
        assert check_whole(make_index(uri, 1)) == 1


def check_whole_or_more(retriever):
    """As check_whole, of an index to which rows may have been added."""
    table = retriever.to_frame()
    (mark,) = table["mark"].unique()
    vectors, metadata = make_rows(int(mark), len(table))
    if len(table) == 2100:
        # The first 2000 were built of fewer draws.
        vectors[:2000], metadata.iloc[:2000] = make_rows(int(mark), 2000)
    assert table["name"].tolist() == metadata["name"].tolist()
    assert retriever.kneighbors(vectors[[3, -1]], 1)[1].ravel().tolist() == [
        3,
        len(table) - 1,
    ]
    return int(mark)


def read_without_end(uri, pipe):
    """Open, search and refresh until told to stop; send the sizes that were seen."""
    retriever = ImageRetriever.load(uri)
    sizes = []
    while not pipe.poll():
        n_rows = retriever.refresh().n_samples_fit_
        # All of it is of one moment, whatever is written meanwhile.
        assert len(retriever.to_frame()) == n_rows
        assert len(retriever.search(np.ones(WIDTH), n=10_000)) == n_rows
        assert ImageRetriever.load(uri).n_samples_fit_ >= n_rows
        sizes.append(n_rows)
        if len(sizes) == 1:
            pipe.send("ready")
    pipe.send(sizes)


@posix_only
def test_two_readers_while_one_adds(tmp_path, running):
    uri = tmp_path / "x"
    writer = make_index(uri, 1, n_rows=1000)
    early = ImageRetriever.load(uri)
    with (
        running(read_without_end, uri) as (_, first),
        running(read_without_end, uri) as (_, second),
    ):
        for pipe in (first, second):
            assert pipe.recv() == "ready"
        for step in range(6):
            vectors, metadata = make_rows(step + 2, 50)
            writer.add(vectors, metadata=metadata)
            if step == 3:
                writer.optimize()
        for pipe in (first, second):
            pipe.send("stop")
        for pipe in (first, second):
            assert pipe.poll(60)
            sizes = pipe.recv()
            assert sizes == sorted(sizes)
            assert set(sizes) <= set(range(1000, 1301, 50))
            assert len(set(sizes)) > 1
    assert early.n_samples_fit_ == len(early.to_frame()) == 1000
    assert early.refresh().n_samples_fit_ == 1300


def test_a_writer_sees_what_another_one_wrote(tmp_path):
    """Ids stay unique and numbers too, though this one opened it before."""
    one = make_index(tmp_path / "x", 1)
    other = ImageRetriever.load(tmp_path / "x")
    vectors, _ = make_rows(2, 2)
    one.add(vectors, ids=[5000, 5001])
    with pytest.raises(ValueError, match="already: 5000"):
        other.add(vectors[:1], ids=[5000])
    other.add(vectors[:1], ids=[6000])
    table = other.to_frame()
    assert len(table) == 2003
    assert table.index.is_unique
    other.remove(5001)
    with pytest.raises(ValueError, match="5001"):
        one.update(5001, vectors[:1])


_MEMORY = """
import resource, sys
import numpy as np
from sk_medsiglip.retrieval import ImageRetriever
n_rows, width, folder = int(sys.argv[1]), 32, sys.argv[2]
rng = np.random.default_rng(0)

def make(n, start):
    vectors = rng.normal(size=(n, width)).astype(np.float32)
    return vectors, {"age": np.arange(start, start + n) % 90, "site": ["north"] * n}

retriever = ImageRetriever(model="demo", index="lancedb", uri=folder)
vectors, metadata = make(20_000, 0)
retriever.fit(vectors, metadata=metadata)
first = vectors[0].copy()
retriever.search(first, where="age > 3")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
before = peak()
for start in range(20_000, n_rows, 20_000):
    vectors, metadata = make(20_000, start)
    retriever.add(vectors, metadata=metadata)
assert retriever.search(first, n=1, where="age < 3")["id"].item() == 0
print(peak() - before)
"""


@posix_only
@pytest.mark.parametrize(
    "n_rows", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)]
)
def test_rows_added_in_batches_take_bounded_memory(tmp_path, n_rows):
    """Bound: 250 MB, whatever the number of rows; a million vectors are 128 MB."""
    done = forked.run_code(_MEMORY, n_rows, tmp_path / "x")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 250


# ------------------------------------------------------------------ what is removed


def files_with(folder, text):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if text in path.read_bytes()]


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_what_is_removed_is_erased(tmp_path):
    names = [f"patient {i} {os.urandom(8).hex()}" for i in range(50)]
    X = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    retriever = ImageRetriever(model="demo", index="lancedb", uri=tmp_path)
    retriever.fit(X, metadata={"name": names})
    gone, changed = names[7].encode(), names[8].encode()
    assert files_with(tmp_path, gone)
    retriever.remove([7]).update([8], metadata={"name": ["another"]})
    # Whoever opened it before goes on, for a week.
    other = ImageRetriever.load(tmp_path)
    retriever.optimize()
    assert other.search(X[7], n=3)["id"].tolist() == (
        retriever.search(X[7], n=3)["id"].tolist()
    )
    retriever.optimize(keep_days=0)
    assert not files_with(tmp_path, gone)
    assert not files_with(tmp_path, changed)
    assert files_with(tmp_path, names[9].encode())
    assert retriever.n_samples_fit_ == len(ImageRetriever.load(tmp_path).to_frame())
    once = size_of(tmp_path / "images.lance" / "data")
    retriever.optimize(keep_days=0)
    assert size_of(tmp_path / "images.lance" / "data") == once
    with pytest.raises(ValueError, match="keep_days"):
        retriever.optimize(keep_days=-1)


def test_numbers_of_removed_rows_outlive_erasing(tmp_path):
    retriever = make_index(tmp_path, 1, 10).remove([9])
    retriever.optimize(keep_days=0)
    again = ImageRetriever.load(tmp_path).add(make_rows(1, 1)[0])
    assert again.to_frame()["id"].tolist()[-1] == 10


# ------------------------------------------------------- few matches, many additions


def test_few_matches_of_a_filter_are_all_compared(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 16)).astype(np.float32)
    chosen = rng.permutation(20_000)[:106]
    metadata = {"rare": np.isin(np.arange(20_000), chosen)}
    retriever = ImageRetriever(model="demo", index="lancedb", uri=tmp_path)
    retriever.set_params(ann="ivf_sq", nprobes=1, refine_factor=1)
    retriever.fit(X, metadata=metadata)
    assert retriever._index._has_ann()
    exact = ImageRetriever(model="demo").fit(X, metadata=metadata)
    queries = rng.normal(size=(20, 16)).astype(np.float32)
    found = [r.search(queries, n=10, where="rare") for r in (retriever, exact)]
    assert found[0]["id"].tolist() == found[1]["id"].tolist()
    # Without a filter the approximate index is still what answers.
    without = [r.search(queries, n=10) for r in (retriever, exact)]
    assert without[0]["id"].tolist() != without[1]["id"].tolist()


def test_many_additions_become_few_files(tmp_path):
    retriever = make_index(tmp_path, 1, 10)
    for _ in range(40):
        retriever.add(make_rows(2, 3)[0], metadata={"mark": [2] * 3})
        files = retriever._index._table.stats()["fragment_stats"]["num_fragments"]
        assert files <= 17
    assert len(retriever.to_frame()) == 130
    assert retriever.to_frame()["id"].is_unique
