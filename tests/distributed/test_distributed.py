"""What needs no cluster: tables in pieces, reading, shards, the manifest, order."""

import csv
import functools
import http.server
import json
import os
import sys
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet
from ray_cluster import Deadly
from typer.testing import CliRunner

from sk_medsiglip import EmbeddingCache, MedSigLIPEmbedder
from sk_medsiglip.cli import app
from sk_medsiglip.datasets import make_chest_phantoms, write_phantoms
from sk_medsiglip.distributed import (
    _encoding,
    _manifest,
    _reading,
    _shards,
    _source,
    _storage,
    _tidying,
    embed_dataset,
    import_embeddings,
    load_embeddings,
)
from sk_medsiglip.embedding import find_facts
from sk_medsiglip.exceptions import (
    CacheError,
    CheckpointError,
    DatasetError,
    ImageReadError,
    MissingDependencyError,
)

DEMO = {"model": "demo", "cache": False}
RECIPE = {"model": "demo", "revision": "some"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of forty files in two formats, and their table."""
    folder = tmp_path_factory.mktemp("images")
    write_phantoms(make_chest_phantoms(40, random_state=0), folder)
    return folder


@pytest.fixture(scope="module")
def facts():
    return find_facts("demo")


def in_tens(n_rows):
    return 10


def collect(collection):
    """Every row of a collection, through its pieces."""
    tables = [t for piece in collection.pieces for t in piece.tables(7)]
    assert all(0 < table.num_rows <= 7 for table in tables)
    assert collection.n_rows == sum(table.num_rows for table in tables)
    return pa.concat_tables(tables)


# ----------------------------------------------------------------- what the user gives


def test_csv_file_is_cut_into_all_of_its_rows(images):
    found = _source.find_collection(images / "labels.csv", None, None, in_tens)
    assert found.image_column == "path"
    assert found.base == str(images)
    rows = collect(found)
    expected = pd.read_csv(images / "labels.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(rows.to_pandas(), expected, check_dtype=False)


cells = st.text(st.sampled_from('ab0 ,"\n\té☃'), max_size=6)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=300),
    size=st.integers(1, 200),
    bom=st.booleans(),
)
def test_any_csv_file_comes_back_as_it_was_written(tmp_path_factory, rows, size, bom):
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    with path.open("w", newline="", encoding="utf-8-sig" if bom else "utf-8") as file:
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(("path", "näme"))
        writer.writerows(rows)
    found = _source.find_collection(path, None, None, lambda n: size)
    assert found.columns == ("näme",)
    table = collect(found)
    back = zip(table["path"].to_pylist(), table["näme"].to_pylist(), strict=True)
    assert list(back) == rows


def test_csv_pieces_hold_as_many_rows_as_asked(tmp_path):
    frame = pd.DataFrame({"path": [f"{i}.png" for i in range(1000)], "n": range(1000)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    found = _source.find_collection(tmp_path / "t.csv", None, None, lambda n: n // 3)
    assert [piece.n_rows for piece in found.pieces] == [333, 333, 333, 1]
    assert collect(found)["n"].to_pylist() == [str(i) for i in range(1000)]


def test_tsv_and_crlf_and_empty_lines(tmp_path):
    (tmp_path / "t.tsv").write_bytes(b"file\tage\r\na.png\t007\r\n\r\nb.png\t\r\n\r\n")
    rows = collect(_source.find_collection(tmp_path / "t.tsv", None, None, in_tens))
    assert rows.to_pydict() == {"file": ["a.png", "b.png"], "age": ["007", ""]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"path,age\na.png,1\nb.png\n", "Expected 2 columns, got 1: b.png"),
        (b"path,path\na.png,1\n", "name each column once"),
        (b"path,age\n", "holds no rows"),
        (b"", "cannot be read as a CSV file"),
        (b"path\n\xff\xfe\n", "cannot be read as a CSV file"),
        (b'path,age\n"a.png,1\n', "cannot be read as a CSV file"),
    ],
)
def test_bad_csv_files_are_refused_before_the_job(tmp_path, text, said):
    path = tmp_path / "t.csv"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=said):
        _source.find_collection(path, None, None, in_tens)


def test_parquet_row_groups_are_cut(tmp_path):
    table = pa.table({"image_path": [f"{i}" for i in range(95)], "n": range(95)})
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=40)
    found = _source.find_collection(tmp_path / "t.parquet", None, None, lambda n: 25)
    assert [piece.n_rows for piece in found.pieces] == [25, 15, 25, 15, 15]
    assert collect(found)["n"].to_pylist() == list(range(95))
    one = _source.find_collection(tmp_path / "t.parquet", None, [], lambda n: 25)
    assert collect(one).column_names == ["image_path"]


def test_folder_of_parquet_files_with_images_in_them(tmp_path):
    for i in range(2):
        image = {"bytes": b"%d" % i, "path": f"{i}.png"}
        table = pa.table({"id": [i], "picture": pa.array([image])})
        parquet.write_table(table, tmp_path / f"{i}.parquet")
    found = _source.find_collection(tmp_path, None, None, in_tens)
    assert (found.image_column, found.columns) == ("picture", ("id",))
    assert collect(found)["id"].to_pylist() == [0, 1]


def test_folder_names_are_labels(tmp_path):
    for name in ("normal/1.png", "pneumonia/2.png", "3.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(path)
    rows = collect(_source.find_collection(tmp_path, None, None, in_tens)).to_pydict()
    assert rows["path"] == ["3.png", "normal/1.png", "pneumonia/2.png"]
    assert rows["label"] == [None, "normal", "pneumonia"]


@pytest.mark.parametrize("make", [list, np.array, pd.Series])
def test_paths_in_memory(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = _source.find_collection(make(["a.png", "b.png"]), None, None, in_tens)
    assert found.base == str(tmp_path)
    assert collect(found)["path"].to_pylist() == ["a.png", "b.png"]


def test_rows_in_memory_are_not_sent_with_every_piece():
    import pickle

    frame = pd.DataFrame({"path": [f"{i:0100}" for i in range(1000)]})
    found = _source.find_collection(frame, None, None, in_tens)
    assert len(pickle.dumps(found.pieces[0])) < 5000


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ("nothing.csv", DatasetError, "does not exist"),
        ([], ValueError, "holds no rows"),
        (["a.png", b"b"], TypeError, "either str or bytes"),
        ([np.zeros((3, 3))], TypeError, "on one machine"),
        ({"a": 1}, TypeError, "got dict"),
        (pd.DataFrame({"x": ["a"]}), ValueError, "Pass path_column, one of: x"),
    ],
)
def test_what_is_no_source(source, error, said):
    with pytest.raises(error, match=said):
        _source.find_collection(source, None, None, in_tens)


def test_columns_must_be_there(images, tmp_path):
    table = images / "labels.csv"
    with pytest.raises(ValueError, match="path_column.*'file'"):
        _source.find_collection(table, "file", None, in_tens)
    with pytest.raises(ValueError, match="columns.*'age'"):
        _source.find_collection(table, None, ["age"], in_tens)
    with pytest.raises(TypeError, match="list"):
        _source.find_collection(table, None, "patient", in_tens)
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"'\.docx'"):
        _source.find_collection(tmp_path / "a.docx", None, None, in_tens)
    with pytest.raises(ValueError, match="no image"):
        _source.find_collection(tmp_path, None, None, in_tens)


# ----------------------------------------------------------------------------- reading


@pytest.fixture
def work(facts, tmp_path):
    """What a job does, block by block, in this process: (embed, storage)."""
    storage = _storage.Storage(str(tmp_path / "out"))

    def embed(
        source,
        *,
        done=(),
        n_block=16,
        parameters=DEMO,
        columns=None,
        base=None,
        **reading,
    ):
        found = _source.find_collection(source, None, columns, lambda n: 20)
        found = found if base is None else replace(found, base=base)
        embedder = MedSigLIPEmbedder(**parameters)
        settings = _reading.Settings(embedder, facts, storage, RECIPE)
        reader = _reading.Reader(settings, found, n_block, **reading)
        encoder = _encoding.ShardEncoder(settings, found.columns, 1, is_urgent=False)
        known = np.sort(np.array(list(done), f"S{_shards.KEY_BYTES}"))
        reports = []
        for number, piece in enumerate(found.pieces):
            for block in reader.blocks(piece, known, number):
                for row in encoder(block).to_pylist():
                    reports.append(_encoding.BlockReport.from_row(row))
        assert [_encoding.unpack_error(r.error) for r in reports if r.error] == []
        assert sum(report.n_rows for report in reports) == found.n_rows
        return reports

    return embed, storage


def commit_all(storage, reports):
    shards = tuple(r.shard for r in reports if r.shard is not None)
    failures = tuple(f for r in reports for f in r.failures)
    _manifest.Manifest(storage, RECIPE).commit(_manifest.Commit(shards, failures))
    return _manifest.Manifest(storage, RECIPE).load()


def check_vectors(found, expected):
    """Equal to a millionth of their length: batches of another size round otherwise."""
    apart = np.linalg.norm(np.asarray(found) - expected, axis=1)
    assert (apart / np.linalg.norm(expected, axis=1)).max() < 1e-6


def vectors_by_source(storage):
    bunch = load_embeddings(storage.url)
    assert bunch.frame["source"].is_unique
    return dict(zip(bunch.frame["source"], bunch.X, strict=True))


def test_vectors_are_those_of_the_embedder(work, images):
    embed, storage = work
    commit_all(storage, embed(images / "labels.csv"))
    found = vectors_by_source(storage)
    paths = pd.read_csv(images / "labels.csv")["path"]
    expected = MedSigLIPEmbedder("demo", cache=False).transform(
        [str(images / path) for path in paths]
    )
    check_vectors([found[p] for p in paths], expected)


@pytest.mark.parametrize(
    "settings", [{"pad": True}, {"resize": "processor"}, {"batch_size": 3}]
)
def test_recipes_are_those_of_the_embedder(work, images, settings):
    embed, storage = work
    paths = sorted(map(str, images.glob("*.png")))[:6]
    commit_all(storage, embed(paths, parameters=DEMO | settings))
    expected = MedSigLIPEmbedder(**DEMO | settings).transform(paths)
    found = vectors_by_source(storage)
    check_vectors([found[p] for p in paths], expected)


def test_a_shard_is_imported_by_a_cache_and_serves_a_pipeline(work, images, tmp_path):
    embed, storage = work
    state = commit_all(storage, embed(images / "labels.csv"))
    cache = EmbeddingCache(tmp_path / "laptop")
    for name in state.shards:
        report = cache.import_parquet(tmp_path / "out" / _shards.SHARDS / name)
        assert report.new == report.rows == state.shards[name].n_rows
    assert cache.verify().ok
    paths = sorted(map(str, images.glob("*.*")))
    paths = [path for path in paths if not path.endswith("csv")]
    before = cache.stats()["rows_computed"]
    rows = MedSigLIPEmbedder("demo", cache=cache).transform(paths)
    assert cache.stats()["rows_computed"] == before == len(paths)
    plain = MedSigLIPEmbedder("demo", cache=False).transform(paths)
    check_vectors(rows, plain)
    cache.close()


def test_columns_of_the_table_stand_beside_the_vectors(work, images):
    embed, storage = work
    commit_all(storage, embed(images / "labels.csv", columns=["patient", "effusion"]))
    frame = load_embeddings(storage.url).frame
    assert list(frame.columns) == ["source", "patient", "effusion"]
    table = pd.read_csv(images / "labels.csv", dtype=str).set_index("path")
    pd.testing.assert_series_equal(
        frame.set_index("source")["patient"],
        table["patient"].loc[frame["source"]],
        check_names=False,
        check_dtype=False,
    )


def test_unreadable_images_are_failures_with_their_reason(work, images, tmp_path):
    embed, storage = work
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    good = str(min(images.glob("*.png")))
    state = commit_all(
        storage, embed([str(bad), good, str(tmp_path / "gone.png"), "", "  "])
    )
    assert state.n_rows == 1
    reasons = {f.source.rpartition("/")[2]: f.reason for f in state.failures.values()}
    assert reasons["bad.png"] == "it is not an image file"
    assert reasons["gone.png"] == "there is no such file"
    assert "there is no path" in reasons.values()


def test_a_block_of_failures_alone_writes_nothing(work, tmp_path):
    embed, storage = work
    (report,) = embed([str(tmp_path / "gone.png")])
    assert report.shard is None
    assert len(report.failures) == 1
    assert storage.sizes(_shards.SHARDS) == {}


def test_images_that_are_embedded_are_not_opened(work, images, monkeypatch):
    embed, storage = work
    paths = sorted(map(str, images.glob("*.png")))[:5]
    done = commit_all(storage, embed(paths[:4])).keys()
    opened = []
    plain = _reading.Reader.prepare
    monkeypatch.setattr(
        _reading.Reader, "prepare", lambda self, s: opened.append(s) or plain(self, s)
    )
    reports = embed(paths, done=done)
    assert opened == paths[4:]
    assert [(r.shard.n_rows, r.n_skipped) for r in reports] == [(1, 4)]


def test_a_file_that_changed_is_embedded_again(work, images, tmp_path):
    embed, storage = work
    path = tmp_path / "a.png"
    first, second = sorted(images.glob("*.png"))[:2]
    path.write_bytes(first.read_bytes())
    os.utime(path, (1, 1))
    (before,) = embed([str(path)])
    path.write_bytes(second.read_bytes())
    (after,) = embed([str(path)], done=[before.shard.keys])
    assert after.shard.n_rows == 1
    assert after.shard.keys[:12] == before.shard.keys[:12]
    # Whoever is younger stays.
    sources = _tidying._source_array(before.shard.keys + after.shard.keys)
    assert _tidying._find_youngest(sources).tolist() == [False, True]


def test_a_source_that_stands_twice_is_embedded_once(work, images):
    embed, _ = work
    path = str(min(images.glob("*.png")))
    (report,) = embed([path, path, os.path.relpath(path)])
    assert (report.shard.n_rows, report.n_skipped) == (1, 2)


def test_blocks_that_ray_joined_are_understood(facts, work, images):
    _, storage = work
    paths = sorted(map(str, images.glob("*.png")))[:6]
    settings = _reading.Settings(MedSigLIPEmbedder(**DEMO), facts, storage, RECIPE)
    reader = _reading.Reader(
        settings, _source.find_collection(paths, None, None, in_tens), 4
    )
    encoder = _encoding.ShardEncoder(settings, (), 1, is_urgent=False)
    nothing = np.empty(0, f"S{_shards.KEY_BYTES}")

    def blocks_of(sources, done=nothing):
        found = _source.find_collection(sources, None, None, lambda n: 10)
        return list(reader.blocks(found.pieces[0], done))

    def report_on(blocks):
        joined = pa.concat_tables(blocks, promote_options="default")
        (row,) = encoder(joined).to_pylist()
        return _encoding.BlockReport.from_row(row)

    fresh = blocks_of([*paths, "gone.png"])
    first = report_on(fresh)
    assert (first.shard.n_rows, len(first.failures)) == (6, 1)
    keys = np.frombuffer(first.shard.keys, f"S{_shards.KEY_BYTES}")
    old = blocks_of(paths, np.sort(keys))
    assert [block.column_names for block in old] == [["_skipped"]]
    both = report_on([*old, *fresh, *old])
    assert both.shard == replace(first.shard, time=both.shard.time)
    assert both.n_skipped == 12
    assert [f.source for f in both.failures] == ["gone.png"]
    wrong = pa.table({"_error": [_encoding.pack_error(ValueError("no table"))]})
    assert "no table" in str(_encoding.unpack_error(report_on([*fresh, wrong]).error))


def test_the_same_picture_under_two_names_has_two_rows(work, images, tmp_path):
    embed, storage = work
    source = min(images.glob("*.png"))
    copies = [tmp_path / "a.png", tmp_path / "b.png"]
    for copy in copies:
        copy.write_bytes(source.read_bytes())
    commit_all(storage, embed([str(copy) for copy in copies]))
    a, b = vectors_by_source(storage).values()
    np.testing.assert_array_equal(a, b)


def test_images_inside_a_table(work, images, tmp_path):
    embed, storage = work
    paths = sorted(images.glob("*.png"))[:3]
    cells = [{"bytes": p.read_bytes(), "path": p.name} for p in paths]
    table = pa.table({"image": pa.array(cells), "id": [1, 2, 3]})
    parquet.write_table(table, tmp_path / "t.parquet")
    state = commit_all(storage, embed(tmp_path / "t.parquet"))
    found = vectors_by_source(storage)
    expected = MedSigLIPEmbedder("demo", cache=False).transform(list(map(str, paths)))
    got = [found[path.name] for path in paths]
    check_vectors(got, expected)
    assert (
        sum(r.n_skipped for r in embed(tmp_path / "t.parquet", done=state.keys())) == 3
    )


@pytest.fixture
def server(images):
    """A web server of the images, which notes what is asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(f"{self.command} {self.path}")

    handler = functools.partial(Handler, directory=str(images))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def test_urls_are_read_and_their_secrets_are_not_kept(work, images, server, tmp_path):
    embed, storage = work
    url, asked = server
    names = sorted(path.name for path in images.glob("*.png"))[:3]
    signed = [f"{url}/{name}?X-Amz-Signature={i}" for i, name in enumerate(names)]
    state = commit_all(storage, embed(signed))
    assert set(vectors_by_source(storage)) == {f"{url}/{name}" for name in names}
    assert all(
        b"Signature" not in path.read_bytes() for path in tmp_path.glob("out/**/*.*")
    )
    # Another signature, the same image: one question, and no download.
    asked.clear()
    again = [f"{url}/{name}?X-Amz-Signature=other" for name in names]
    assert sum(r.n_skipped for r in embed(again, done=state.keys())) == 3
    assert {line.split()[0] for line in asked} == {"HEAD"}


def test_relative_urls_start_at_the_tables_folder(work, images, server):
    embed, storage = work
    url, _ = server
    names = sorted(path.name for path in images.glob("*.png"))[:2]
    paths = [f"/{names[0]}", f"{url}/{names[1]}"]
    state = commit_all(storage, embed(paths, base=url))
    assert state.n_rows == 2


def test_errors_that_are_the_users_to_mend_travel_as_results(
    facts, work, checkpoint, images
):
    _, storage = work
    paths = sorted(map(str, images.glob("*.png")))[:2]
    found = _source.find_collection(paths, None, None, in_tens)
    settings = _reading.Settings(MedSigLIPEmbedder(**DEMO), facts, storage, RECIPE)
    reader = _reading.Reader(settings, found, 8)
    (block,) = reader.blocks(found.pieces[0], np.empty(0, f"S{_shards.KEY_BYTES}"))
    other = MedSigLIPEmbedder(str(checkpoint), cache=False)
    encoder = _encoding.ShardEncoder(
        replace(settings, embedder=other), (), 1, is_urgent=True
    )
    (row,) = encoder(block).to_pylist()
    error = _encoding.unpack_error(_encoding.BlockReport.from_row(row).error)
    assert isinstance(error, CheckpointError)
    assert "not revision=" in str(error)
    assert "happened on a worker" in error.__notes__[0]


def test_only_errors_that_may_pass_are_tried_again():
    assert _encoding.may_pass(OSError("no answer"))
    assert _encoding.may_pass(MemoryError())
    assert not _encoding.may_pass(CacheError("an OSError, but ours"))
    assert not _encoding.may_pass(ValueError("a table that is none"))
    unfit = ValueError(threading.Lock())
    assert "ValueError" in str(_encoding.unpack_error(_encoding.pack_error(unfit)))


def test_an_image_that_kills_its_reader_is_a_failure():
    with _reading.IsolatedReader(Deadly(), 2) as prepare:
        assert prepare("a")[0] == b"a"
        with pytest.raises(ImageReadError, match="the process"):
            prepare("deadly")
        with pytest.raises(ImageReadError, match="is bad"):
            prepare("bad")
        assert prepare("b")[0] == b"b"


def test_isolated_reading_gives_the_same_blocks(facts, storage, images):
    paths = sorted(map(str, images.glob("*.png")))[:3] + ["gone.png"]
    found = _source.find_collection(paths, None, None, in_tens)
    settings = _reading.Settings(MedSigLIPEmbedder(**DEMO), facts, storage, RECIPE)
    reader = _reading.Reader(settings, found, 8)
    nothing = np.empty(0, f"S{_shards.KEY_BYTES}")
    (plain,) = reader.blocks(found.pieces[0], nothing)
    isolated = replace(reader, isolated=True)
    (apart,) = isolated.blocks(found.pieces[0], nothing)
    assert plain.equals(apart)
    assert plain[_reading.REASON].to_pylist() == [None] * 3 + ["there is no such file"]
    assert plain[_reading.PIXELS].type == pa.binary(facts.image_size**2 * 3)


# ------------------------------------------------------------------ shards and manifest


def entry_of(name, keys, when=1.0, n_bytes=3):
    return _shards.ShardEntry(name, n_bytes, b"".join(keys), "columns", when)


def keys_of(*names, state=b""):
    return [_shards.make_key(name, state) for name in names]


@pytest.fixture
def storage(tmp_path):
    return _storage.Storage(str(tmp_path / "out"))


def test_what_is_not_committed_does_not_count(storage):
    manifest = _manifest.Manifest(storage, RECIPE)
    assert manifest.load().n_rows == 0
    storage.put(f"{_shards.SHARDS}/a.parquet", b"abc")
    storage.put(f"{_shards.SHARDS}/b.parquet", b"abc")
    manifest.commit(_manifest.Commit((entry_of("a.parquet", keys_of("1", "2")),)))
    state = manifest.load()
    assert list(state.shards) == ["a.parquet"]
    assert state.keys().tolist() == sorted(keys_of("1", "2"))


@pytest.mark.parametrize("hurt", ["removed", "cut short"])
def test_a_committed_shard_that_is_not_whole_is_missing(storage, hurt):
    manifest = _manifest.Manifest(storage, RECIPE)
    storage.put(f"{_shards.SHARDS}/a.parquet", b"abc")
    manifest.commit(_manifest.Commit((entry_of("a.parquet", keys_of("1")),)))
    assert manifest.load().n_rows == 1
    if hurt == "removed":
        storage.remove([f"{_shards.SHARDS}/a.parquet"])
    else:
        storage.put(f"{_shards.SHARDS}/a.parquet", b"ab")
    assert manifest.load().n_rows == 0


def test_commits_of_several_jobs_add_up_in_any_order(storage):
    jobs = [_manifest.Manifest(storage, RECIPE) for _ in range(3)]
    for i, job in enumerate(jobs):
        storage.put(f"{_shards.SHARDS}/{i}", b"abc")
        job.commit(_manifest.Commit((entry_of(f"{i}", keys_of(str(i)), when=9.0 - i),)))
    again = entry_of("0", keys_of("0"), when=9.0)
    jobs[1].commit(_manifest.Commit((again,)))
    assert list(jobs[0].load().shards) == ["2", "1", "0"]


def test_a_commit_that_sums_up_replaces_others(storage):
    manifest = _manifest.Manifest(storage, RECIPE)
    for name in "ab":
        storage.put(f"{_shards.SHARDS}/{name}", b"abc")
    old = manifest.commit(_manifest.Commit((entry_of("a", keys_of("1")),)))
    manifest.commit(_manifest.Commit((entry_of("b", keys_of("1")),), (), (old,)))
    assert list(manifest.load().shards) == ["b"]
    # A shard of the same name may come back later.
    manifest.commit(_manifest.Commit((entry_of("a", keys_of("1")),)))
    assert set(manifest.load().shards) == {"a", "b"}


def test_the_last_failure_of_a_source_counts(storage):
    manifest = _manifest.Manifest(storage, RECIPE)
    old, new = keys_of("a", state=b"1") + keys_of("a", state=b"2")
    manifest.commit(
        _manifest.Commit((), (_manifest.Failure("a", "new", "", new, 2.0),))
    )
    manifest.commit(
        _manifest.Commit((), (_manifest.Failure("a", "old", "", old, 1.0),))
    )
    assert [f.reason for f in manifest.load().failures.values()] == ["new"]


def test_an_output_of_another_kind_is_refused(storage):
    _manifest.Manifest(storage, RECIPE).commit(_manifest.Commit())
    other = _manifest.Manifest(storage, RECIPE | {"revision": "other"})
    with pytest.raises(ValueError, match="'some'.*'other'"):
        other.load()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b'{"format": "1", "recipe": {}, "shards": {"a": {}}, "failures": []}',
        b'{"format": "1", "recipe": {}, "shards": {"a": {"keys": "AAA", "rows": 1}}}',
    ],
)
def test_a_damaged_commit_is_named(storage, text):
    storage.put(f"{_manifest.MANIFEST}/1.json", text)
    with pytest.raises(CacheError, match=r"1\.json"):
        _manifest.Manifest(storage, {}).load()


def test_a_manifest_of_another_version_is_refused(storage):
    storage.put(f"{_manifest.MANIFEST}/1.json", json.dumps({"format": "7"}).encode())
    with pytest.raises(CacheError, match="7.*Upgrade"):
        _manifest.Manifest(storage, {}).load()


def test_whole_shards_of_a_job_that_died_are_adopted(work, images):
    embed, storage = work
    reports = embed(images / "labels.csv")
    storage.put(f"{_shards.SHARDS}/damaged.parquet", b"PAR1 and no more")
    manifest = _manifest.Manifest(storage, RECIPE)
    state = manifest.adopt(manifest.load())
    assert {r.shard.name for r in reports} == set(state.shards)
    assert state.n_rows == 40
    assert manifest.adopt(state) is state
    # Of another recipe they are not.
    other = _manifest.Manifest(_storage.Storage(storage.url), {"other": 1})
    storage.remove(f"{_manifest.MANIFEST}/{name}" for name in state.commits)
    assert other.adopt(other.load()).n_rows == 0


def test_the_same_rows_are_the_same_file(work, images):
    embed, _ = work
    names = [[r.shard.name for r in embed(images / "labels.csv")] for _ in range(2)]
    assert names[0] == names[1]
    assert len(set(names[0])) == len(names[0]) > 1


def test_merged_shards_hold_every_kept_row_once(work, images):
    embed, storage = work
    state = commit_all(storage, embed(images / "labels.csv"))
    entries = list(state.shards.values())
    keep = [np.arange(e.n_rows) % 2 == 0 for e in entries]
    groups = list(_tidying._group(entries, keep, 1000))
    assert [len(group) for group in groups] == [len(entries)]
    merged = _tidying._merge(storage, groups[0])
    found = _shards.find_shard(storage, merged.name, RECIPE)
    assert found == replace(merged, time=found.time)
    expected = [
        entry.keys[16 * i : 16 * i + 16]
        for entry, mask in zip(entries, keep, strict=True)
        for i in np.flatnonzero(mask)
    ]
    assert merged.keys == b"".join(expected)
    cache = EmbeddingCache(storage.url + "/cache")
    path = f"{storage.url}/{_shards.SHARDS}/{merged.name}"
    assert cache.import_parquet(path).new == merged.n_rows
    cache.close()


@pytest.fixture
def call(work):
    """What a call of embed_dataset does, but for Ray: what it leaves, and how many."""
    embed, storage = work

    def run(source, **settings):
        manifest = _manifest.Manifest(storage, RECIPE)
        table = _shards.NewTable(storage)
        reports = embed(source, done=manifest.load().keys(), table=table, **settings)
        commit_all(storage, reports)
        manifest.commit(_manifest.Commit(table=table.name))
        _tidying.tidy(manifest, storage, 1000)
        return sum(r.shard.n_rows for r in reports if r.shard is not None)

    return run, storage


def test_the_table_of_the_last_call_decides(call, images):
    run, storage = call
    paths = [str(images / name) for name in sorted(os.listdir(images))[:30]]
    paths = [path for path in paths if path.endswith(".png")]
    first = pd.DataFrame({"path": paths, "label": "wrong", "site": "A"})
    assert run(first) == len(paths)
    before = load_embeddings(storage.url)
    vector_of = dict(zip(before.sources, before.X, strict=True))
    # Labels corrected, a column more and one less, rows withdrawn, in another order.
    second = pd.DataFrame(
        {"path": paths[::-1][2:], "label": "right", "age": range(len(paths) - 2)}
    )
    assert run(second) == 0
    after = load_embeddings(storage.url)
    assert list(after.frame) == ["source", "label", "age"]
    assert after.sources == second["path"].tolist() == after.frame["source"].tolist()
    assert after.frame["age"].tolist() == second["age"].tolist()
    assert set(after.frame["label"]) == {"right"}
    for source, vector in zip(after.sources, after.X, strict=True):
        np.testing.assert_array_equal(vector, vector_of[source])
    # One table is kept.
    names = storage.sizes("tables")
    assert len({name.rpartition("-")[0] for name in names}) == 1
    assert run(first) == 0
    assert load_embeddings(storage.url).sources == paths


def test_columns_that_are_called_as_ours_are_kept_apart(call, images):
    run, storage = call
    paths = sorted(str(path) for path in images.glob("*.png"))[:5]
    names = ["key", "source", "size", "vector", "_pixels", "table.key", "space"]
    table = pd.DataFrame(
        {"path": paths, **{n: [f"{n}{i}" for i in range(5)] for n in names}}
    )
    assert run(table) == 5
    bunch = load_embeddings(storage.url)
    pd.testing.assert_frame_equal(bunch.frame[names], table[names], check_dtype=False)
    assert bunch.sources == paths
    cache = EmbeddingCache(storage.url + "/cache")
    assert import_embeddings(storage.url, cache).rows == 5
    cache.close()


def test_no_readable_image_at_all(call, tmp_path):
    run, storage = call
    (tmp_path / "bad.png").write_bytes(b"nothing")
    assert run(pd.DataFrame({"path": [str(tmp_path / "bad.png"), ""]})) == 0
    assert len(pd.read_parquet(f"{storage.url}/failures.parquet")) == 2
    with pytest.raises(DatasetError, match="no embeddings"):
        load_embeddings(storage.url)


def test_groups_are_small_shards_and_those_with_rows_to_drop():
    whole = np.ones(10, dtype=bool)
    entries = [entry_of(str(i), [bytes(16)] * 10) for i in range(6)]
    keep = [whole] * 6
    names = [[p.entry.name for p in g] for g in _tidying._group(entries, keep, 30)]
    assert names == [["0", "1", "2"], ["3", "4", "5"]]
    # Over half full: left alone, but for one with a row too many.
    partly = [whole, whole, whole & (np.arange(10) > 3), whole, whole, whole]
    assert [
        [p.entry.name for p in g] for g in _tidying._group(entries, partly, 12)
    ] == [["2"]]
    # Other columns do not lie in one file.
    other = [replace(e, columns=str(i % 2)) for i, e in enumerate(entries)]
    names = {tuple(p.entry.name for p in g) for g in _tidying._group(other, keep, 100)}
    assert names == {("0", "2", "4"), ("1", "3", "5")}


@given(st.lists(st.integers(0, 20), max_size=60))
def test_of_every_source_the_last_row_is_kept(numbers):
    sources = _tidying._source_array(b"".join(keys_of(*map(str, numbers))))
    kept = np.flatnonzero(_tidying._find_youngest(sources))
    last = {number: i for i, number in enumerate(numbers)}
    assert sorted(kept.tolist()) == sorted(last.values())


# ----------------------------------------------------------------------------- storage


def test_a_file_is_there_whole_or_not_at_all(storage):
    storage.put("a/b", b"first")
    assert storage.sizes("a") == {"b": 5}

    class Broken:
        def __buffer__(self, flags):
            raise MemoryError("no room")

    with pytest.raises((TypeError, MemoryError)):
        storage.put("a/b", Broken())
    assert storage.get("a/b") == b"first"
    assert [path for path in os.listdir(f"{storage.url}/a") if path != "b"] == []


def test_an_output_that_cannot_be_written_is_said(storage, tmp_path):
    storage.check_writable()
    assert os.listdir(storage.url) == []
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="Give as"):
        _storage.Storage(str(tmp_path / "file")).check_writable()


def test_the_output_is_not_the_source(images):
    for source in (images, f"{images}/"):
        with pytest.raises(ValueError, match="both"):
            embed_dataset(source, images, model="demo")


def test_removing_what_is_gone_is_no_error(storage):
    storage.put("a/b", b"1")
    storage.remove(["a/b", "a/c"])
    assert storage.sizes("a") == storage.sizes("never") == {}


def test_a_folder_is_the_same_wherever_a_worker_stands(tmp_path, monkeypatch):
    import pickle

    monkeypatch.chdir(tmp_path)
    storage = _storage.Storage("out")
    storage.put("a/b", b"1")
    sent = pickle.dumps(storage)
    monkeypatch.chdir("/")
    assert pickle.loads(sent).get("a/b") == b"1"


def test_an_fsspec_protocol_serves_too():
    storage = _storage.Storage("memory://some/out")
    storage.put("a/b", b"12")
    assert storage.sizes("a") == {"b": 2}
    assert storage.get("a/b") == b"12"


# --------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"concurrency": 0}, "concurrency must be"),
        ({"concurrency": (4, 2)}, "concurrency must be"),
        ({"concurrency": "many"}, "concurrency must be"),
        ({"n_jobs": 0}, "n_jobs must be"),
        ({"rows_per_shard": 0}, "rows_per_shard must be"),
        ({"resize": "cubic"}, "resize"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_arguments_are_judged_before_ray_starts(settings, said, monkeypatch):
    monkeypatch.setattr("sk_medsiglip.distributed._embed_dataset.connected", None)
    with pytest.raises(ValueError, match=said):
        embed_dataset(["a.png"], "out", model="demo", **settings)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("out.npz", "--ray", "local"), "OUT is a folder or a URL"),
        (("out", "--ray", "local", "--normalize"), "--normalize"),
        (("out", "--ray", "127.0.0.1:9"), "no Ray cluster answers at 127.0.0.1:9"),
        (("out", "--ray", "ray://host:10001"), "ray job submit"),
        (("out.npz", "--encoders", "2"), "--encoders needs"),
    ],
)
def test_the_command_says_what_does_not_go_together(images, arguments, said):
    result = CliRunner().invoke(
        app, ["embed", str(images), *arguments, "--model", "demo"]
    )
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_missing_ray_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r'"sk-medsiglip\[ray\]"'):
        embed_dataset(["a.png"], "out", model="demo")


def test_nothing_to_load(tmp_path):
    with pytest.raises(DatasetError, match="no embeddings"):
        load_embeddings(tmp_path)
