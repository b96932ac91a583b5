"""``ImageRetriever.from_parquet``: rows that were embedded elsewhere."""

import datetime as dt
import json
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.exceptions import (
    CheckpointError,
    MissingDependencyError,
    UnreadableImageWarning,
)
from sk_medsiglip.images import recipe_key
from sk_medsiglip.retrieval import ImageRetriever, SearchIndexError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

N, WIDTH = 60, 192


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(0).normal(size=(N, WIDTH)).astype(np.float32)


def facts(**changes):
    """What a cluster's shards say of themselves."""
    revision = MedSigLIPEmbedder("demo").fit([b"x"]).revision_
    known = {
        "model": "demo",
        "revision": revision,
        "embedding_dim": WIDTH,
        "image_size": 128,
        "resize": "medsiglip",
        "pad": False,
        "reading": recipe_key("auto", None),
    }
    return {"sk_medsiglip.recipe": json.dumps({**known, **changes})}


def as_column(vectors, form):
    if form == "binary":
        return pa.array([v.astype("<f4").tobytes() for v in vectors], pa.binary())
    if form == "list":
        return pa.array(vectors.tolist(), pa.list_(pa.float64()))
    flat = pa.array(vectors.ravel().astype("f2" if form == "half" else "f4"))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def write_shards(folder, vectors, form="fixed", n_shards=3, metadata=None, **columns):
    folder.mkdir(exist_ok=True)
    for i, rows in enumerate(np.array_split(np.arange(len(vectors)), n_shards)):
        table = pa.table(
            {
                "space": pa.array(["{}"] * len(rows)).dictionary_encode(),
                "checksum": pa.array([7] * len(rows), pa.uint32()),
                "key": pa.array([bytes([row] * 16) for row in rows], pa.binary(16)),
                "size": [None] * len(rows),
                "source": [f"s3://bucket/{row}.png" for row in rows],
                "vector": as_column(vectors[rows], form),
                **{
                    name: [values[row] for row in rows]
                    for name, values in columns.items()
                },
            }
        )
        stored = facts() if metadata is None else metadata
        table = table.replace_schema_metadata(stored)
        pq.write_table(table, folder / f"part-{i}.parquet", row_group_size=7)
    return folder


@pytest.mark.parametrize("form", ["fixed", "half", "list", "binary"])
@pytest.mark.parametrize("index", ["exact", "lancedb"])
def test_shards_are_what_fit_would_have_made(tmp_path, vectors, form, index):
    if index == "lancedb":
        pytest.importorskip("lancedb")
    ages = list(range(N))
    folder = write_shards(
        tmp_path / "shards", vectors, form, id=[f"n{i}" for i in range(N)], age=ages
    )
    params = {"index": index}
    if index == "lancedb":
        params["uri"] = tmp_path / "index"
    retriever = ImageRetriever.from_parquet(folder, **params)
    fitted = ImageRetriever(model="demo").fit(
        vectors,
        ids=[f"n{i}" for i in range(N)],
        metadata={"age": ages},
        sources=[f"s3://bucket/{i}.png" for i in range(N)],
    )
    pd.testing.assert_frame_equal(retriever.to_frame(), fitted.to_frame())
    found = retriever.search("effusion", n=5, where="age > 7")
    expected = fitted.search("effusion", n=5, where="age > 7")
    pd.testing.assert_frame_equal(found, expected, atol=1e-3)
    revision = MedSigLIPEmbedder("demo").fit([b"x"]).revision_
    assert retriever.get_params()["revision"] == revision
    retriever.add(vectors[:1], ids=["late"])
    assert retriever.kneighbors([np.zeros((9, 9), np.uint8)], 1)[1].shape == (1, 1)
    padded = MedSigLIPEmbedder("demo", pad=True)
    with pytest.raises(ValueError, match="prepared differently"):
        retriever.set_params(embedder=padded).kneighbors([np.zeros((9, 9))], 1)


def test_ids_are_a_column_or_numbers(tmp_path, vectors):
    folder = write_shards(tmp_path / "a", vectors)
    retriever = ImageRetriever.from_parquet(folder)
    assert retriever.to_frame()["id"].tolist() == list(range(N))
    by_key = ImageRetriever.from_parquet(folder, ids="key")
    assert by_key.to_frame()["id"].tolist() == [f"{i:02x}" * 16 for i in range(N)]
    twice = write_shards(tmp_path / "b", vectors, ids=[i // 2 for i in range(N)])
    with pytest.raises(ValueError, match="unique"):
        ImageRetriever.from_parquet(twice)
    with pytest.raises(ValueError, match="'name'"):
        ImageRetriever.from_parquet(folder, ids="name")


def test_metadata_of_all_kinds(tmp_path, vectors):
    moment = dt.datetime(2020, 1, 2, 3, 4, 5)
    table = pa.table(
        {
            "vector": as_column(vectors[:3], "fixed"),
            "text": pa.array(["a", None, "b"], pa.large_string()),
            "category": pa.array(["x", None, "x"]).dictionary_encode(),
            "small": pa.array([1, None, 3], pa.int8()),
            "share": pa.array([0.5, None, float("nan")], pa.float32()),
            "decimal": pa.array([Decimal("1.50"), None, Decimal("2.00")]),
            "flag": [True, None, False],
            "day": pa.array([moment.date(), None, dt.date(9999, 12, 31)]),
            "nano": pa.array([moment, None, moment], pa.timestamp("ns")),
            "zoned": pa.array(
                [moment, None, moment], pa.timestamp("s", tz="Asia/Tokyo")
            ),
            "nothing": pa.nulls(3),
            "more": [{"site": "north", "deep": {"room": 1}}, None, None],
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    retriever = ImageRetriever.from_parquet(tmp_path / "x.parquet", model="demo")
    assert retriever._index.about.kinds == {
        "text": "text",
        "category": "text",
        "small": "integer",
        "share": "number",
        "decimal": "number",
        "flag": "boolean",
        "day": "time",
        "nano": "time",
        "zoned": "time_utc",
        "nothing": "text",
        "site": "text",
        "room": "integer",
    }
    row = retriever.to_frame().loc[0]
    assert row["day"] == pd.Timestamp("2020-01-02")
    assert row["nano"] == pd.Timestamp(moment)
    assert row["zoned"] == pd.Timestamp(moment, tz="UTC")
    assert (row["decimal"], row["room"], row["site"]) == (1.5, 1, "north")
    found = retriever.search(vectors[0], where="zoned > '2020-01-01' and room = 1")
    assert found["id"].tolist() == [0]
    bad = table.append_column("tags", pa.array([["a"], ["b"], []]))
    pq.write_table(bad, tmp_path / "y.parquet")
    with pytest.raises(TypeError, match="'tags'"):
        ImageRetriever.from_parquet(tmp_path / "y.parquet", model="demo")


def test_rows_without_a_vector_are_kept_out(tmp_path, vectors):
    column = vectors[:4].tolist()
    column[1] = None
    column[2] = [float("nan")] * WIDTH
    table = pa.table({"vector": column, "source": list("abcd")})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.warns(UnreadableImageWarning, match="2 of"):
        retriever = ImageRetriever.from_parquet(tmp_path / "x.parquet", model="demo")
    assert retriever.rejected_["source"].tolist() == ["b", "c"]
    assert retriever.to_frame().index.tolist() == [0, 3]


def test_shards_must_be_by_one_model(tmp_path, vectors):
    folder = write_shards(tmp_path / "x", vectors[:30])
    write_shards(tmp_path / "y", vectors[30:], metadata=facts(revision="other"))
    (tmp_path / "y" / "part-0.parquet").rename(folder / "part-9.parquet")
    with pytest.raises(CheckpointError, match="'revision': 'other'"):
        ImageRetriever.from_parquet(folder)
    other = ImageRetriever.from_parquet(tmp_path / "y")
    with pytest.raises(CheckpointError):
        other.search("effusion")
    folder = write_shards(tmp_path / "f", vectors, metadata=facts(model="folder"))
    with pytest.raises(ValueError, match="pass model="):
        ImageRetriever.from_parquet(folder)
    assert len(ImageRetriever.from_parquet(folder, model="demo").search("x")) == 10
    broken = {"sk_medsiglip.recipe": json.dumps({"model": "demo"})}
    odd = write_shards(tmp_path / "odd", vectors, metadata=broken)
    with pytest.raises(SearchIndexError, match="read"):
        ImageRetriever.from_parquet(odd)
    silent = write_shards(tmp_path / "z", vectors, metadata={})
    with pytest.raises(ValueError, match="pass model="):
        ImageRetriever.from_parquet(silent)
    assert len(ImageRetriever.from_parquet(silent, model="demo").search("x")) == 10


def test_an_output_folder_with_leftovers(tmp_path, vectors):
    """A list of failures beside the shards, and a shard that was written twice."""
    write_shards(tmp_path / "shards", vectors)
    first = tmp_path / "shards" / "part-0.parquet"
    (tmp_path / "shards" / "part-9.parquet").write_bytes(first.read_bytes())
    failures = pa.table({"source": ["a.png"], "reason": ["it is empty"]})
    pq.write_table(failures, tmp_path / "failures.parquet")
    (tmp_path / "_manifest").mkdir()
    (tmp_path / "_manifest" / "1.json").write_text("{}")
    retriever = ImageRetriever.from_parquet(tmp_path)
    assert retriever.n_samples_fit_ == N
    by_source = ImageRetriever.from_parquet(tmp_path, ids="source")
    assert by_source.to_frame()["id"].is_unique


def test_what_is_no_parquet(tmp_path, vectors):
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    for place in (tmp_path / "x.parquet", tmp_path / "nowhere"):
        with pytest.raises(SearchIndexError, match="Parquet"):
            ImageRetriever.from_parquet(place)
    folder = write_shards(tmp_path / "shards", vectors)
    with pytest.raises(ValueError, match="'embedding'"):
        ImageRetriever.from_parquet(folder, vectors="embedding")
    ragged = pa.table({"vector": [[1.0, 2.0], [1.0]]})
    pq.write_table(ragged, tmp_path / "ragged.parquet")
    with pytest.raises(ValueError, match="width 2"):
        ImageRetriever.from_parquet(tmp_path / "ragged.parquet", model="demo")
    pq.write_table(ragged.slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="no vector"):
        ImageRetriever.from_parquet(tmp_path / "empty.parquet", model="demo")


def test_a_list_of_files_and_a_file_system(tmp_path, vectors):
    fsspec = pytest.importorskip("fsspec")
    folder = write_shards(tmp_path / "x", vectors)
    files = sorted(str(path) for path in folder.iterdir())
    retriever = ImageRetriever.from_parquet(files[1:])
    assert retriever.n_samples_fit_ == 40
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/shards", recursive=True)
    try:
        found = ImageRetriever.from_parquet("/shards", filesystem=memory)
        assert found.n_samples_fit_ == N
    finally:
        memory.rm("/shards", recursive=True)


def test_it_needs_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"sk-medsiglip\[parquet\]"):
        ImageRetriever.from_parquet(tmp_path)


_MEMORY = """
import resource, sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from sk_medsiglip.images import recipe_key
from sk_medsiglip.retrieval import ImageRetriever
folder, width = sys.argv[1], 256

def write(name, n):
    with pq.ParquetWriter(f"{folder}/{name}", schema) as writer:
        for start in range(0, n, 5000):
            vectors = rng.normal(size=(5000, width)).astype(np.float32)
            flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)
            writer.write_batch(pa.record_batch([flat, np.arange(5000)], schema=schema))

rng = np.random.default_rng(0)
schema = pa.schema({"vector": pa.list_(pa.float32(), width), "age": pa.int64()})
write("small.parquet", 20_000)
write("large.parquet", 150_000)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
read = lambda name: ImageRetriever.from_parquet(
    f"{folder}/{name}", model="demo", index="lancedb", uri=f"{folder}/{name}.index"
)
read("small.parquet")
before = peak()
assert read("large.parquet").n_samples_fit_ == 150_000
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="runs on POSIX only")
def test_building_from_shards_takes_bounded_memory(tmp_path):
    """Bound: 120 MB more than for 20,000 rows; the vectors are 154 MB."""
    pytest.importorskip("lancedb")
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert float(done.stdout) < 120


# --------------------------------------------------- files as other programs write them


def one_row(vectors, row=0, **columns):
    return pa.table({"vector": as_column(vectors[row : row + 1], "fixed")} | columns)


def test_folders_of_a_hive_are_a_column(tmp_path, vectors):
    for place, (site, year) in enumerate([("north", 2019), ("south", 2020)]):
        folder = tmp_path / f"site={site}" / f"year={year}"
        folder.mkdir(parents=True)
        pq.write_table(one_row(vectors, place, age=[place]), folder / "a.parquet")
    folder = tmp_path / "site=__HIVE_DEFAULT_PARTITION__" / "year=2021"
    folder.mkdir(parents=True)
    pq.write_table(one_row(vectors, 2, age=[2]), folder / "a.parquet")
    retriever = ImageRetriever.from_parquet(tmp_path, model="demo")
    frame = retriever.to_frame().set_index("age")
    assert frame["site"].fillna("?").to_dict() == {0: "north", 1: "south", 2: "?"}
    assert frame["year"].to_dict() == {0: 2019, 1: 2020, 2: 2021}
    found = retriever.search(vectors[0], where="year = 2020 and site = 'south'")
    assert found["age"].tolist() == [1]


def test_fields_of_one_name_keep_their_structs(tmp_path, vectors):
    table = one_row(
        vectors,
        front=[{"view": "PA", "kv": 120, "id": 7}],
        side=[{"view": "L", "deep": {"kv": 90}, "age": 3}],
        age=[61],
    )
    pq.write_table(table, tmp_path / "x.parquet")
    frame = ImageRetriever.from_parquet(tmp_path / "x.parquet", model="demo").to_frame()
    assert frame.iloc[0].drop(["id", "source"]).to_dict() == {
        "front.view": "PA",
        "front.kv": 120,
        "front.id": 7,
        "side.view": "L",
        "side.deep.kv": 90,
        "side.age": 3,
        "age": 61,
    }


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (pa.nulls(1), pa.array([7]), "integer"),
        (pa.nulls(1), pa.array(["a"]), "text"),
        (pa.nulls(1), pa.array(["a"]).dictionary_encode(), "text"),
        (pa.nulls(1), pa.array([dt.datetime(2020, 1, 1)]), "time"),
        (pa.nulls(1), pa.array([True]), "boolean"),
        (pa.array([7]), pa.array([0.5]), "number"),
        (pa.array([7], pa.int8()), pa.nulls(1), "integer"),
        (pa.array(["a"]), pa.array(["a"]).dictionary_encode(), "text"),
        (None, pa.array([7]), "integer"),
    ],
)
def test_columns_have_the_type_that_all_files_can_hold(
    tmp_path, vectors, first, second, kind
):
    columns = {} if first is None else {"a": first}
    pq.write_table(one_row(vectors, 0, **columns), tmp_path / "1.parquet")
    pq.write_table(one_row(vectors, 1, a=second), tmp_path / "2.parquet")
    retriever = ImageRetriever.from_parquet(tmp_path, model="demo")
    assert retriever._index.about.kinds == {"a": kind}
    values = [None if first is None else first[0].as_py(), second[0].as_py()]
    found = retriever.to_frame()["a"].tolist()
    assert [None if pd.isna(one) else one for one in found] == values


def test_vectors_and_structs_may_differ_from_file_to_file(tmp_path, vectors):
    half = pa.table({"vector": as_column(vectors[:1], "half"), "more": pa.nulls(1)})
    pq.write_table(half, tmp_path / "1.parquet")
    pq.write_table(one_row(vectors, 1, more=[{"age": 61}]), tmp_path / "2.parquet")
    retriever = ImageRetriever.from_parquet(tmp_path, model="demo")
    assert retriever.to_frame()["age"].fillna(0).tolist() == [0, 61]
    # The vector of the second file keeps its digits.
    expected = ImageRetriever(model="demo").fit(vectors[:2])
    found, wanted = (one.search(vectors[1], n=1) for one in (retriever, expected))
    assert found["score"].item() == wanted["score"].item()
    binary = pa.table({"vector": as_column(vectors[:1], "binary")})
    pq.write_table(binary, tmp_path / "3.parquet")
    with pytest.raises(TypeError, match="different types"):
        ImageRetriever.from_parquet(tmp_path, model="demo")


def test_values_and_types_that_do_not_fit_are_named(tmp_path, vectors):
    small = one_row(vectors, count=pa.array([2**63 - 1], pa.uint64()))
    pq.write_table(small, tmp_path / "x.parquet")
    retriever = ImageRetriever.from_parquet(tmp_path / "x.parquet", model="demo")
    assert retriever.to_frame()["count"].tolist() == [2**63 - 1]
    pq.write_table(
        one_row(vectors, count=pa.array([2**63], pa.uint64())), tmp_path / "x.parquet"
    )
    with pytest.raises(TypeError, match="'count'.*whole numbers"):
        ImageRetriever.from_parquet(tmp_path / "x.parquet", model="demo")
    pq.write_table(one_row(vectors, count=["many"]), tmp_path / "y.parquet")
    with pytest.raises(TypeError, match="count"):
        ImageRetriever.from_parquet(tmp_path, model="demo")


def test_an_empty_folder_holds_no_parquet(tmp_path):
    with pytest.raises(SearchIndexError, match="Parquet"):
        ImageRetriever.from_parquet(tmp_path, model="demo")


def test_files_without_rows(tmp_path, vectors):
    pq.write_table(one_row(vectors).slice(0, 0), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="0 rows"):
        ImageRetriever.from_parquet(tmp_path / "x.parquet", model="demo")
