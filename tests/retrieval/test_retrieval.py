"""``ImageRetriever``: what it finds, what it refuses, what it says."""

import datetime as dt
import pickle
import subprocess
import sys
import uuid
import warnings
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.estimator_checks import parametrize_with_checks

from sk_medsiglip import (
    MedSigLIPEmbedder,
    MedSigLIPTextEmbedder,
    MedSigLIPVolumeEmbedder,
)
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.exceptions import (
    CheckpointError,
    ImageReadError,
    UnreadableImageWarning,
)
from sk_medsiglip.retrieval import ImageRetriever, Query

SAID_AS = {
    "cardiomegaly": "cardiomegaly",
    "effusion": "pleural effusion",
    "pneumothorax": "pneumothorax",
    "consolidation": "consolidation",
    "nodule": "a nodule",
    "device": "a pacemaker",
}


@pytest.fixture(scope="module")
def phantoms():
    return make_chest_phantoms(200, random_state=5)


@pytest.fixture(scope="module")
def retriever(phantoms):
    """Images with metadata; do not change it."""
    metadata = pd.DataFrame(phantoms.target, columns=phantoms.target_names)
    metadata["patient"] = phantoms.groups
    return ImageRetriever(model="demo").fit(list(phantoms.images), metadata=metadata)


@pytest.fixture(scope="module")
def embeddings(phantoms):
    return MedSigLIPEmbedder("demo").transform(list(phantoms.images))


@pytest.fixture
def files(tmp_path, phantoms):
    """Six image files, of which the second and the fifth cannot be read."""
    paths = []
    for i in range(6):
        path = tmp_path / f"{i}.png"
        Image.fromarray(phantoms.images[i]).save(path)
        paths.append(path)
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    paths[4].unlink()
    return paths


@parametrize_with_checks(
    [
        ImageRetriever(model="demo"),
        ImageRetriever(model="demo", metric="euclidean", storage="float16"),
    ]
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


# ------------------------------------------------------------------- what is found


@pytest.mark.parametrize("finding", SAID_AS)
def test_a_text_finds_images_of_what_it_says(retriever, finding):
    hits = retriever.search(SAID_AS[finding], n=15)
    prevalence = retriever.to_frame()[finding].mean()
    assert hits[finding].mean() > 0.9 > 2.5 * prevalence
    assert list(hits["rank"]) == list(range(1, 16))
    assert (np.diff(hits["score"]) <= 0).all()


def test_turning_away_from_a_finding(retriever):
    both = retriever.search(Query("cardiomegaly") + "pleural effusion", n=5)
    assert both["cardiomegaly"].sum() + both["effusion"].sum() >= 9
    one = retriever.search(Query("cardiomegaly") - "pleural effusion", n=10)
    assert one["cardiomegaly"].mean() >= 0.9
    assert one["effusion"].mean() == 0


def test_an_image_and_a_text_find_both(retriever, phantoms):
    table = retriever.to_frame()
    large_hearts = table.index[(table.cardiomegaly == 1) & (table.effusion == 0)]
    images = [Query(image=phantoms.images[i]) for i in large_hearts[:15]]
    alone = retriever.search(images, n=5)
    joined = retriever.search([q + 2 * Query("pleural effusion") for q in images], n=5)
    assert alone["effusion"].mean() < 0.2
    assert joined["effusion"].mean() > 0.8
    assert joined["cardiomegaly"].mean() > 0.5


def test_scores_are_cosines(retriever, embeddings):
    text = MedSigLIPTextEmbedder("demo", normalize=True).transform(["effusion"])[0]
    rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    hits = retriever.search("effusion", n=200)
    expected = rows @ text
    np.testing.assert_allclose(hits["score"], np.sort(expected)[::-1], atol=1e-6)
    np.testing.assert_allclose(
        hits["score"], expected[hits["id"].to_numpy(int)], atol=1e-6
    )


def test_parts_of_a_query_count_as_they_are_weighted(retriever, phantoms, embeddings):
    encode = MedSigLIPTextEmbedder("demo", normalize=True).transform
    image = embeddings[3] / np.linalg.norm(embeddings[3])
    heart, large = encode(["cardiomegaly", "a large heart"])
    device = encode(["a pacemaker"])[0]
    several = heart + large
    expected = (
        several / np.linalg.norm(several) - 0.5 * device + 2 * image + embeddings[7] * 0
    )
    query = (
        Query(["cardiomegaly", "a large heart"])
        - 0.5 * Query("a pacemaker")
        + Query(image=phantoms.images[3]) * 2
    )
    wanted = expected / np.linalg.norm(expected)
    rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    hits = retriever.search(query, n=20)
    np.testing.assert_allclose(
        hits["score"], np.sort(rows @ wanted)[::-1][:20], atol=1e-5
    )
    by_embedding = retriever.search(Query(embedding=7 * wanted), n=20)
    pd.testing.assert_frame_equal(by_embedding, hits, atol=1e-5)


def test_a_list_asks_several_things(retriever, phantoms, files):
    queries = ["effusion", Query("a nodule") - "effusion", phantoms.images[2], files[0]]
    batch = retriever.search(queries, n=4)
    assert list(batch["query"]) == [i for i in range(4) for _ in range(4)]
    for place, query in enumerate(queries):
        one = batch[batch["query"] == place].drop(columns="query")
        pd.testing.assert_frame_equal(
            one.reset_index(drop=True), retriever.search(query, n=4), atol=1e-6
        )
    assert batch["id"].iloc[8] == 2
    assert batch["id"].iloc[12] == 0


def test_rows_of_embeddings_are_a_batch(retriever, embeddings):
    hits = retriever.search(embeddings[:3], n=1)
    assert list(hits["query"]) == list(hits["id"]) == [0, 1, 2]
    assert list(retriever.search(embeddings[5], n=1)["id"]) == [5]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("kind", ["embeddings", "images", "none"])
def test_kneighbors_is_scikit_learns(phantoms, embeddings, metric, kind):
    rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    theirs = NearestNeighbors(n_neighbors=7, metric=metric, algorithm="brute").fit(rows)
    ours = ImageRetriever(model="demo", metric=metric, n_neighbors=7).fit(embeddings)
    asked = {
        "embeddings": (3 * embeddings[:20], rows[:20]),
        "images": (list(phantoms.images[:20]), rows[:20]),
        "none": (None, None),
    }
    X, same = asked[kind]
    distances, places = ours.kneighbors(X)
    expected_distances, expected = theirs.kneighbors(same)
    np.testing.assert_allclose(distances, expected_distances, atol=2e-3)
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(ours.kneighbors(X, return_distance=False), places)
    assert ours.kneighbors(X, n_neighbors=2)[0].shape == (len(places), 2)
    assert distances.dtype == np.float32
    assert places.dtype == np.int64


def test_float16_finds_the_same(retriever, embeddings):
    half = ImageRetriever(model="demo", storage="float16").fit(embeddings)
    full = retriever.search("effusion", n=20)
    hits = half.search("effusion", n=20)
    np.testing.assert_allclose(hits["score"], full["score"], atol=1e-3)
    assert len(set(hits["id"]) & set(full["id"])) >= 19
    assert len(pickle.dumps(half)) < 0.7 * len(
        pickle.dumps(ImageRetriever(model="demo").fit(embeddings))
    )


def test_studies_of_many_slices():
    rng = np.random.default_rng(0)
    studies = [rng.random((n, 64, 64)) for n in (3, 5, 4)]
    embedder = MedSigLIPVolumeEmbedder(MedSigLIPEmbedder("demo"), n_slices=3)
    retriever = ImageRetriever(embedder=embedder).fit(studies, ids=["a", "b", "c"])
    assert retriever.search(Query(image=studies[1]), n=1)["id"].item() == "b"
    assert len(retriever.search("a normal chest", n=3)) == 3
    doubled = clone(embedder).set_params(pooling="mean+max")
    wide = ImageRetriever(embedder=doubled).fit(studies)
    assert wide.kneighbors(studies, 1)[1].ravel().tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="width 384"):
        wide.search("a normal chest")


# -------------------------------------------------------------------- queries as such


def test_a_query_shows_what_it_is():
    query = "effusion" - Query(["a", "b"]) * 2 + "c"
    assert repr(query) == "Query('effusion') - 2 * Query(['a', 'b']) + Query('c')"
    assert repr(-Query("x")) == "-Query('x')"
    assert repr(Query(image=Path("a.png"))) == "Query(image='a.png')"
    assert repr(Query(image="https://me:secret@host/a.png?token=1")) == (
        "Query(image='https://host/a.png?...')"
    )
    assert repr(np.float64(0.5) * Query("x")) == "0.5 * Query('x')"


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Query(), TypeError, "one of text, image and embedding, got 0"),
        (lambda: Query("a", image="b"), TypeError, "got 2"),
        (lambda: Query(""), ValueError, "empty"),
        (lambda: Query([]), ValueError, "at least one text"),
        (lambda: Query(["a", 1]), TypeError, "must be str, got int"),
        (lambda: Query(embedding=[[1, 2]]), ValueError, "one row"),
        (lambda: Query(embedding=[0, 0]), ValueError, "not all 0"),
        (lambda: Query(embedding=[np.nan, 1]), ValueError, "finite"),
        (lambda: Query("a") * np.inf, ValueError, "finite number"),
        (lambda: Query("a") * "b", TypeError, "unsupported operand|can't multiply"),
        (lambda: Query("a") + 1, TypeError, "unsupported operand"),
        (lambda: 1 - Query("a"), TypeError, "unsupported operand"),
    ],
)
def test_what_is_no_query(make, error, match):
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize(
    ("query", "error", "match"),
    [
        ("chest.png", ValueError, r"Query\(image='chest.png'\)"),
        (Query("a") - "a", ValueError, "cancel out"),
        ([], ValueError, "empty"),
        ([[]], TypeError, "got list"),
        (3, TypeError, "got int"),
        (None, TypeError, "got NoneType"),
        (np.ones(5), ValueError, "has 5 values; those of the index have 192"),
        (np.ones((2, 5)), ValueError, "has 5 values; those of the index have 192"),
        (Path("no_such.png"), ImageReadError, "no such file"),
        (Query("effusion") + Query(image="no_such.png"), ImageReadError, "no such"),
    ],
)
def test_what_cannot_be_searched_for(retriever, query, error, match):
    with pytest.raises(error, match=match):
        retriever.search(query)


@pytest.mark.parametrize("n", [0, -1, 1.5, "3", True, None])
def test_how_many_is_a_whole_number(retriever, n):
    with pytest.raises(ValueError, match="an int"):
        retriever.search("effusion", n=n)


def test_more_than_there_are(retriever, embeddings):
    assert len(retriever.search("effusion", n=10_000)) == 200
    with pytest.raises(ValueError, match="n_neighbors"):
        retriever.kneighbors(embeddings, 201)
    with pytest.raises(ValueError, match="n_neighbors"):
        retriever.kneighbors(n_neighbors=200)


# ------------------------------------------------------ rows that cannot or must not be


def test_unreadable_images_are_kept_out_and_reported(files):
    retriever = ImageRetriever(model="demo")
    with pytest.warns(UnreadableImageWarning, match="2 of") as caught:
        retriever.fit(files, ids=list("abcdef"), metadata={"place": range(6)})
    assert len(caught) == 1
    assert "no such file" in str(caught[0].message)
    rejected = retriever.rejected_
    assert list(rejected["row"]) == [1, 4]
    assert list(rejected["id"]) == ["b", "e"]
    assert list(rejected["source"]) == [str(files[1]), str(files[4])]
    assert "no such file" in rejected["reason"][1]
    assert retriever.n_samples_fit_ == 4
    table = retriever.to_frame()
    assert list(table.index) == list(table["place"]) == [0, 2, 3, 5]
    assert list(table["source"]) == [str(files[i]) for i in (0, 2, 3, 5)]
    # Numbers of rows are places in X, whatever was kept out.
    assert retriever.kneighbors([files[5]], 1)[1].item() == 5
    hits = retriever.search(files[3], n=1)
    assert hits["id"].item() == "d"


def test_an_embedder_that_raises_raises(files):
    retriever = ImageRetriever(embedder=MedSigLIPEmbedder("demo"))
    with pytest.raises(ImageReadError, match="row 1"):
        retriever.fit(files)
    assert not hasattr(retriever, "n_samples_fit_")


def test_the_row_of_an_error_is_that_of_X(files, monkeypatch):
    monkeypatch.setattr("sk_medsiglip.retrieval._incoming.ROWS_AT_ONCE", 2)
    retriever = ImageRetriever(embedder=MedSigLIPEmbedder("demo"))
    with pytest.raises(ImageReadError, match="row 4"):
        retriever.fit([files[0], files[2], files[3], files[5], files[4]])


def test_batches_change_nothing(files, monkeypatch):
    whole = ImageRetriever(model="demo")
    parts = ImageRetriever(model="demo")
    with pytest.warns(UnreadableImageWarning):
        whole.fit(files, metadata={"place": range(6)})
    monkeypatch.setattr("sk_medsiglip.retrieval._incoming.ROWS_AT_ONCE", 2)
    with pytest.warns(UnreadableImageWarning) as caught:
        parts.fit(files, metadata={"place": range(6)})
    assert len(caught) == 1
    pd.testing.assert_frame_equal(parts.to_frame(), whole.to_frame())
    pd.testing.assert_frame_equal(parts.rejected_, whole.rejected_)


def test_embeddings_without_a_direction_are_kept_out():
    X = np.eye(6, dtype=np.float32)
    X[1, 2] = np.nan
    X[3] = 0
    X[4, 0] = -np.inf
    with pytest.warns(UnreadableImageWarning, match="3 of"):
        retriever = ImageRetriever(model="demo").fit(X)
    assert list(retriever.rejected_["reason"]) == [
        "the embedding holds NaN",
        "the embedding is 0 throughout",
        "the embedding holds infinity",
    ]
    assert retriever.kneighbors(X[[5]], 1)[1].item() == 5
    with pytest.raises(ValueError, match="row 1"):
        retriever.kneighbors(X, 1)
    with pytest.raises(ValueError, match="2 rows"):
        ImageRetriever(model="demo").fit(np.full((2, 3), np.nan))
    with pytest.warns(UnreadableImageWarning, match="1 of"):
        retriever.add(X[[1]])
    assert retriever.n_samples_fit_ == 3


@pytest.mark.parametrize(
    ("ids", "error", "match"),
    [
        ([1, 2, 1, 2], ValueError, r"unique; twice or more: 1, 2\."),
        (["a", "b", "c", "b"], ValueError, r"twice or more: 'b'"),
        ([1, 2, 3], ValueError, "4 rows and 3 ids"),
        ([1, 2, None, 4], ValueError, "the id of row 2 is missing"),
        ([1, "2", 3, 4], TypeError, "text, numbers.*no mixture"),
        ([1.5, 2.5, 3.5, 4.5], TypeError, "whole numbers or text"),
        ([True, False, True, False], TypeError, "whole numbers or text"),
        ("abcd", TypeError, "must be a list"),
        (np.eye(4, dtype=int), ValueError, "one column"),
    ],
)
def test_ids_are_unique_and_plain(ids, error, match):
    with pytest.raises(error, match=match):
        ImageRetriever(model="demo").fit(np.eye(4), ids=ids)


def test_ids_may_be_of_many_types():
    names = [uuid.UUID(int=i) for i in range(4)]
    for ids, kept in (
        (names, [str(name) for name in names]),
        (pd.Index([3, 1, 2, 0]), [3, 1, 2, 0]),
        (np.array([3, 1, 2, 0], np.uint8), [3, 1, 2, 0]),
        ([Path("a"), Path("b"), Path("c"), Path("d")], list("abcd")),
        (pd.Series(list("wxyz"), index=[9, 8, 7, 6]), list("wxyz")),
        (pd.Categorical(list("wxyz")), list("wxyz")),
    ):
        retriever = ImageRetriever(model="demo").fit(np.eye(4), ids=ids)
        assert retriever.to_frame()["id"].tolist() == kept


# --------------------------------------------------------------------------- metadata


def test_odd_metadata_comes_back_as_its_kind():
    metadata = pd.DataFrame(
        {
            "text": ["a", None, pd.NA],
            "category": pd.Categorical(["x", None, "x"]),
            "path": [Path("a/b"), None, Path("c")],
            "count": pd.array([1, None, 3], dtype="Int8"),
            "unsigned": np.array([1, 2, 3], np.uint64),
            "big": pd.Series([2**62 + 1, None, 3], dtype=object),
            "share": [0.5, np.nan, 1],
            "small": np.array([0.5, np.inf, 2], np.float16),
            "decimal": [Decimal("1.5"), None, Decimal(2)],
            "flag": [True, None, False],
            "day": [dt.date(2020, 1, 2), None, dt.date(9999, 12, 31)],
            "time": pd.to_datetime(
                ["2020-01-02 03:04:05.678901", None, "1999-01-01"], format="ISO8601"
            ),
            "zoned": pd.to_datetime(
                ["2020-01-02 03:00", None, "1999-01-01"], format="ISO8601"
            ).tz_localize("Europe/Stockholm"),
            "nothing": [None, None, None],
            "weird, name\n": [1, 2, 3],
        }
    )
    retriever = ImageRetriever(model="demo").fit(np.eye(3), metadata=metadata)
    table = retriever.to_frame()
    assert table.dtypes.map(str).drop(["id", "source"]).to_dict() == {
        "text": "string",
        "category": "string",
        "path": "string",
        "count": "Int64",
        "unsigned": "Int64",
        "big": "Int64",
        "share": "float64",
        "small": "float64",
        "decimal": "float64",
        "flag": "boolean",
        "day": "datetime64[us]",
        "time": "datetime64[us]",
        "zoned": "datetime64[us, UTC]",
        "nothing": "string",
        "weird, name\n": "Int64",
    }
    assert table["big"][0] == 2**62 + 1
    assert table["path"][0] == str(Path("a/b"))
    assert table["day"][2] == pd.Timestamp("9999-12-31")
    assert table["zoned"][0] == pd.Timestamp("2020-01-02 02:00", tz="UTC")
    missing = table.isna().sum()
    assert missing["nothing"] == 3
    assert missing["text"] == 2
    assert missing.drop(["nothing", "text", "source"]).isin([0, 1]).all()


@pytest.mark.parametrize(
    ("column", "match"),
    [
        ([[1], [2]], "holds list, first"),
        ([["a"], ["b"]], r"map\(', '\.join\)"),
        ([{"a": 1}, None], "holds dict"),
        ([b"x", b"y"], "holds bytes"),
        ([1, "a"], "holds int, str"),
        ([True, "a"], "no mixture"),
        ([True, 2], "no mixture"),
        ([1j, 2j], "complex"),
        (pd.to_timedelta([1, 2], unit="s"), r"dt\.total_seconds"),
        (pd.period_range("2020", periods=2, freq="D"), "holds Period"),
        ([dt.time(1), dt.time(2)], "holds time"),
        ([2**64, 1], "whole numbers"),
        (np.array([2**64 - 1, 1], np.uint64), "whole numbers"),
        (pd.array([2**64 - 1, None], "UInt64"), "whole numbers"),
        (["\ud800", "a"], "text"),
        (
            [dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=dt.UTC)],
            "with and without a time zone",
        ),
    ],
)
def test_metadata_that_no_index_can_hold(column, match):
    metadata = pd.DataFrame(
        {"column": pd.Series(column, dtype=getattr(column, "dtype", object))}
    )
    with pytest.raises(TypeError, match=match):
        ImageRetriever(model="demo").fit(np.eye(2), metadata=metadata)


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        (pd.DataFrame({"id": [1, 2]}), r"ids=metadata.pop\('id'\)"),
        (pd.DataFrame({"source": [1, 2]}), r"sources=metadata.pop\('source'\)"),
        (pd.DataFrame({"score": [1, 2]}), "'score_'"),
        (pd.DataFrame([[1, 2], [1, 2]], columns=["a", "a"]), "two columns named 'a'"),
        (pd.DataFrame([[1], [1]]), "column named 0"),
        (pd.DataFrame({"a": [1, 2, 3]}), "2 rows"),
    ],
)
def test_metadata_that_does_not_fit(metadata, match):
    with pytest.raises(ValueError, match=match):
        ImageRetriever(model="demo").fit(np.eye(2), metadata=metadata)


def test_metadata_must_be_of_the_same_rows():
    X = pd.Series([np.full((9, 9), i, np.uint8) for i in range(3)], index=[5, 6, 7])
    table = pd.DataFrame({"age": [1, 2, 3]}, index=[7, 6, 5])
    retriever = ImageRetriever(model="demo")
    with pytest.raises(ValueError, match=r"metadata\.loc\[X\.index\]"):
        retriever.fit(X, metadata=table)
    retriever.fit(X, metadata=table.loc[X.index])
    assert retriever.to_frame()["age"].tolist() == [3, 2, 1]
    with pytest.raises(TypeError, match="list"):
        retriever.fit(X, metadata=[1, 2, 3])


def test_sources_are_paths_and_urls_without_secrets(files):
    url = f"file://{files[0]}"
    retriever = ImageRetriever(model="demo").fit([str(files[0]), files[2], url])
    assert retriever.to_frame()["source"].tolist() == [
        str(files[0]),
        str(files[2]),
        url,
    ]
    images = [np.zeros((8, 8), np.uint8), np.ones((8, 8), np.uint8)]
    assert ImageRetriever(model="demo").fit(images).to_frame()["source"].isna().all()
    named = ImageRetriever(model="demo").fit(np.eye(2), sources=["x", None])
    assert named.to_frame()["source"].fillna("").tolist() == ["x", ""]
    with pytest.raises(ValueError, match="1 sources"):
        named.fit(np.eye(2), sources=["x"])


# ------------------------------------------------------------------ add, remove, update


def test_random_changes_leave_what_a_dict_would_hold(monkeypatch):
    """Model-based: 300 random changes, checked against plain Python after each 20."""
    monkeypatch.setattr("sk_medsiglip.retrieval._incoming.ROWS_AT_ONCE", 7)
    rng = np.random.default_rng(0)

    def make(n):
        X = rng.normal(size=(n, 6)).astype(np.float32)
        return X / np.linalg.norm(X, axis=1, keepdims=True), rng.integers(0, 9, n)

    X, ages = make(10)
    retriever = ImageRetriever(model="demo").partial_fit(X, metadata={"age": ages})
    truth = {i: (X[i], ages[i]) for i in range(10)}
    for step in range(300):
        n = int(rng.integers(1, 12))
        known = rng.permutation(list(truth))[: min(n, len(truth) - 3)].tolist()
        action = rng.choice(["add", "remove", "vectors", "ages"])
        if action == "add":
            X, ages = make(n)
            ids = (1000 * (step + 1) + np.arange(n)).tolist()
            retriever.partial_fit(X, ids=ids, metadata={"age": ages})
            truth.update(zip(ids, zip(X, ages, strict=True), strict=True))
        elif not known:
            continue
        elif action == "remove":
            retriever.remove(known)
            for one in known:
                del truth[one]
        else:
            X, ages = make(len(known))
            if action == "vectors":
                retriever.update(known, X)
                truth.update(
                    {i: (x, truth[i][1]) for i, x in zip(known, X, strict=True)}
                )
            else:
                retriever.update(known, metadata={"age": ages})
                truth.update(
                    {i: (truth[i][0], a) for i, a in zip(known, ages, strict=True)}
                )
        assert retriever.n_samples_fit_ == len(truth)
        if step % 20 == 0:
            table = retriever.to_frame()
            assert dict(zip(table["id"], table["age"], strict=True)) == {
                i: age for i, (_, age) in truth.items()
            }
            assert table.index.is_unique
            query = make(1)[0][0]
            hits = retriever.search(query, n=5, where="age > 2")
            scores = {i: x @ query for i, (x, age) in truth.items() if age > 2}
            best = sorted(scores, key=scores.get, reverse=True)[:5]
            assert hits["id"].tolist() == best


def test_changes_that_fail_change_nothing(embeddings):
    retriever = ImageRetriever(model="demo").fit(
        embeddings[:50], metadata={"age": range(50), "sex": ["F"] * 50}
    )
    before = retriever.to_frame()
    state = pickle.dumps(retriever)
    for change, error, match in (
        (lambda: retriever.add(embeddings[:2], ids=[3, 99]), ValueError, "already: 3"),
        (lambda: retriever.add(embeddings[:2], ids=[99, 99]), ValueError, "twice"),
        (
            lambda: retriever.add(embeddings[:2], ids=["a", "b"]),
            TypeError,
            "'a'",
        ),
        (
            lambda: retriever.add(embeddings[:2, :5]),
            ValueError,
            "expecting 192 features",
        ),
        (
            lambda: retriever.add(embeddings[:1], metadata={"height": [1]}),
            ValueError,
            "'height'",
        ),
        (
            lambda: retriever.add(embeddings[:2], metadata={"age": [1, 2.5]}),
            TypeError,
            r"2\.5 of row 1",
        ),
        (
            lambda: retriever.add(embeddings[:2], metadata={"sex": ["F", 3]}),
            TypeError,
            "3 of row 1",
        ),
        (lambda: retriever.remove([3, 99]), ValueError, r"no such ids: 99\."),
        (lambda: retriever.remove("a"), TypeError, "'a'"),
        (lambda: retriever.remove([3, 3]), ValueError, "twice"),
        (lambda: retriever.update([3, 98], embeddings[:2]), ValueError, "ids: 98"),
        (
            lambda: retriever.update([3], embeddings[:2]),
            ValueError,
            "1 ids and 2 images",
        ),
        (lambda: retriever.update([3]), ValueError, "nothing to update"),
        (
            lambda: retriever.update([3], metadata={"age": ["old"]}),
            TypeError,
            "'old' of row 0",
        ),
        (
            lambda: retriever.fit(embeddings, ids=[1] * 200),
            ValueError,
            "must be unique",
        ),
    ):
        with pytest.raises(error, match=match):
            change()
        pd.testing.assert_frame_equal(retriever.to_frame(), before)
    assert pickle.dumps(retriever) == state


def test_an_interrupted_addition_is_not_there(phantoms, monkeypatch):
    monkeypatch.setattr("sk_medsiglip.retrieval._incoming.ROWS_AT_ONCE", 3)
    embedder = MedSigLIPEmbedder("demo")
    retriever = ImageRetriever(embedder=embedder).fit(list(phantoms.images[:5]))
    images = [*phantoms.images[5:14], b"no image"]
    with pytest.raises(ImageReadError, match="row 9"):
        retriever.add(images)
    assert retriever.n_samples_fit_ == len(retriever.to_frame()) == 5
    retriever.add(images[:-1])
    hits = retriever.search(list(phantoms.images[:14]), n=1)
    assert hits["id"].tolist() == list(range(14))


def test_updating_puts_an_image_in_the_place_of_another(files, phantoms):
    retriever = ImageRetriever(model="demo")
    retriever.fit([files[0], files[2]], ids=["a", "b"], metadata={"age": [1, 2]})
    with pytest.warns(UnreadableImageWarning, match="1 of"):
        retriever.update(["b", "a"], [files[3], files[4]])
    table = retriever.to_frame().set_index("id")
    assert table["source"].to_dict() == {"a": str(files[0]), "b": str(files[3])}
    assert table["age"].to_dict() == {"a": 1, "b": 2}
    assert retriever.rejected_["id"].tolist() == ["a"]
    assert retriever.search(phantoms.images[3], n=1)["id"].item() == "b"
    assert retriever.kneighbors([files[3]], 1)[1].item() == 1


def test_ids_of_text_are_asked_for(embeddings):
    retriever = ImageRetriever(model="demo").fit(embeddings[:2], ids=["a", "b"])
    with pytest.raises(ValueError, match="pass ids="):
        retriever.add(embeddings[2:4])


# ------------------------------------------------------------- one model, one recipe


def test_an_index_refuses_another_models_queries(make_checkpoint, phantoms):
    images = list(phantoms.images[:5])
    folder = make_checkpoint(seed=1)
    other = make_checkpoint(seed=2)
    retriever = ImageRetriever(model=folder).fit(images)
    saved = retriever.to_frame()
    for target in ("model.safetensors", "config.json"):
        (folder / target).write_bytes((other / target).read_bytes())
    for ask in (
        lambda: retriever.search("effusion"),
        lambda: retriever.search(Query(image=images[0])),
        lambda: retriever.kneighbors(images, 1),
        lambda: retriever.add(images),
        lambda: retriever.update([0], images[:1]),
    ):
        with pytest.raises(CheckpointError):
            ask()
    pd.testing.assert_frame_equal(retriever.to_frame(), saved)
    assert len(retriever.fit(images).search("effusion", n=1)) == 1


def test_embeddings_are_of_the_model_that_is_named(embeddings, checkpoint):
    retriever = ImageRetriever(model="demo").fit(embeddings)
    retriever.set_params(model=checkpoint)
    with pytest.raises(CheckpointError, match="model='demo'"):
        retriever.search("effusion")
    narrow = ImageRetriever(model="demo").fit(embeddings[:, :32])
    with pytest.raises(ValueError, match="width 32.*192"):
        narrow.search("effusion")
    revision = MedSigLIPEmbedder("demo").fit([b"x"]).revision_
    known = ImageRetriever(model="demo", revision=revision).fit(embeddings)
    assert len(known.search("effusion")) == 10
    wrong = ImageRetriever(model="demo", revision="folder-0").fit(embeddings)
    with pytest.raises(CheckpointError):
        wrong.search("effusion")


def test_images_must_be_prepared_alike(phantoms, tmp_path):
    images = list(phantoms.images[:3])
    padded = MedSigLIPEmbedder("demo", pad=True)
    retriever = ImageRetriever(embedder=padded).fit(images)
    retriever.save(tmp_path / "index")
    opened = ImageRetriever.load(tmp_path / "index")
    for ask in (
        lambda: opened.search(images[0]),
        lambda: opened.kneighbors(images, 1),
        lambda: opened.add(images),
    ):
        with pytest.raises(ValueError, match="(?s)pad=True.*pad=False.*embedder="):
            ask()
    assert len(opened.search("effusion")) == 3
    same = ImageRetriever.load(tmp_path / "index", embedder=padded)
    assert same.search(images[1], n=1)["id"].item() == 1


# ----------------------------------------------------------------- the estimator itself


def test_no_model_for_embeddings():
    """Neither transformers nor weights are touched until a text is asked for.

    Torch is, for products that are large enough to be worth its import.
    """
    code = """
import sys
import numpy as np
from sk_medsiglip.retrieval import ImageRetriever
X = np.random.default_rng(0).normal(size=(50, 192))
retriever = ImageRetriever().fit(X, metadata={"age": range(50)})
retriever.add(X[:3], ids=[100, 101, 102]).remove([3])
retriever.kneighbors(X[:2], 3)
retriever.search(X[0])
assert "transformers" not in sys.modules and "torch" not in sys.modules
from sk_medsiglip.retrieval import _top_rows
_top_rows._SMALL_WORK = 1e4
retriever.kneighbors(X[:20], 3)
assert "transformers" not in sys.modules and "torch" in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_pickles_hold_rows_but_no_weights(retriever):
    size = len(pickle.dumps(retriever))
    assert 200 * 192 * 4 < size < 1.3 * 200 * 192 * 4
    again = pickle.loads(pickle.dumps(retriever))
    pd.testing.assert_frame_equal(
        again.search("effusion"), retriever.search("effusion")
    )
    assert not hasattr(clone(retriever), "n_samples_fit_")
    assert len(pickle.dumps(clone(retriever))) < 1000


def test_searching_changes_nothing(retriever, phantoms):
    before = pickle.dumps(retriever)
    attributes = set(vars(retriever))
    retriever.search("effusion", where="patient <> 'x'")
    retriever.kneighbors(list(phantoms.images[:2]))
    retriever.to_frame()
    assert set(vars(retriever)) == attributes
    assert pickle.dumps(retriever) == before


def test_the_kind_of_X_may_change_from_fit_to_fit(phantoms, embeddings):
    retriever = ImageRetriever(model="demo").fit(list(phantoms.images[:5]))
    assert retriever.embedder_.revision_
    frame = pd.DataFrame(embeddings[:6]).add_prefix("e")
    retriever.fit(frame)
    assert not hasattr(retriever, "embedder_")
    assert retriever.feature_names_in_[0] == "e0"
    retriever.kneighbors(frame, 1)
    with pytest.raises(ValueError, match="feature names"):
        retriever.kneighbors(frame.add_prefix("x"), 1)
    retriever.fit(list(phantoms.images[:5]))
    assert not hasattr(retriever, "feature_names_in_")


def test_everything_in_threads(retriever):
    from concurrent.futures import ThreadPoolExecutor

    expected = retriever.search("effusion", where="effusion = 1")
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(
                lambda _: retriever.search("effusion", where="effusion = 1"), range(16)
            )
        )
    for one in found:
        pd.testing.assert_frame_equal(one, expected)


@pytest.mark.parametrize(
    "params",
    [
        {"index": "faiss"},
        {"metric": "l1"},
        {"storage": "int8"},
        {"n_neighbors": 0},
        {"embedder": "demo"},
        {"model": 3},
        {"ann": "ivf"},
        {"nprobes": 0},
    ],
)
def test_parameters_are_judged_in_fit(params):
    with pytest.raises(ValueError, match=next(iter(params))):
        ImageRetriever(**params).fit(np.eye(3))


def test_no_warning_where_all_is_well(phantoms):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageRetriever(model="demo").fit(list(phantoms.images[:3]))


# ------------------------------------------------------------ copies, and results alike


def test_near_copies_give_way_to_others(phantoms, embeddings):
    """Each image ten times over, slightly changed: results are of ten images."""
    rng = np.random.default_rng(0)
    base = embeddings[:30] / np.linalg.norm(embeddings[:30], axis=1, keepdims=True)
    copies = np.repeat(base, 10, axis=0)
    copies += 1e-3 * rng.normal(size=copies.shape)
    metadata = {"image": np.repeat(np.arange(30), 10)}
    retriever = ImageRetriever(model="demo").fit(copies, metadata=metadata)
    plain = retriever.search("effusion", n=10)
    assert plain["image"].nunique() <= 2
    best = ImageRetriever(model="demo").fit(base).search("effusion", n=10)
    hits = retriever.search("effusion", n=10, deduplicate=0.9995)
    assert hits["image"].nunique() == 10
    assert set(hits["image"]) >= set(best["id"][:8])
    assert (np.diff(hits["score"]) <= 0).all()
    # There are not more images than these, however many rows.
    every = retriever.search("effusion", n=100, deduplicate=0.9995)
    assert 25 <= len(every) == every["image"].nunique() <= 30
    none = retriever.search("effusion", deduplicate=0.98, where="image > 99")
    assert len(none) == 0


def test_diverse_results_differ_and_still_fit(retriever, embeddings):
    rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)

    def mean_cosine(hits):
        vectors = rows[hits["id"].to_numpy(int)]
        return (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)].mean()

    plain = retriever.search("effusion", n=10)
    same = retriever.search("effusion", n=10, diversity=0)
    pd.testing.assert_frame_equal(same, plain)
    hits = retriever.search("effusion", n=10, diversity=0.3)
    assert mean_cosine(hits) < mean_cosine(plain) - 0.05
    assert hits["id"][0] == plain["id"][0]
    assert hits["effusion"].mean() > 0.7
    assert list(hits["rank"]) == list(range(1, 11))
    batch = retriever.search(["effusion", "a nodule"], n=10, diversity=0.3)
    pd.testing.assert_frame_equal(
        batch[batch["query"] == 0].drop(columns="query"), hits, atol=1e-6
    )


def test_duplicates_of_a_whole_collection(phantoms):
    images = [*phantoms.images[:5], phantoms.images[2], phantoms.images[2]]
    retriever = ImageRetriever(model="demo").fit(images, ids=list("abcdefg"))
    table = retriever.find_duplicates(0.9999)
    assert table[["id", "duplicate_of"]].to_numpy().tolist() == [["f", "c"], ["g", "c"]]
    assert table.index.tolist() == [5, 6]
    np.testing.assert_allclose(table["score"], 1, atol=1e-6)
    assert len(retriever.remove(table["id"]).find_duplicates(0.9999)) == 0
    assert len(retriever.remove(list("abcde")).find_duplicates()) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"deduplicate": 0},
        {"deduplicate": 1.1},
        {"deduplicate": True},
        {"deduplicate": "all"},
        {"diversity": -0.1},
        {"diversity": 2},
        {"diversity": None},
        {"diversity": np.nan},
    ],
)
def test_options_out_of_range(retriever, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        retriever.search("effusion", **options)


def test_parameters_that_are_set_later_count(embeddings):
    retriever = ImageRetriever(model="demo").fit(embeddings)
    assert retriever.kneighbors(embeddings[:2])[1].shape == (2, 5)
    retriever.set_params(n_neighbors=3, metric="euclidean", device="nowhere")
    with pytest.raises(ValueError, match="nowhere"):
        retriever.kneighbors(embeddings[:2])
    retriever.set_params(device="cpu")
    assert retriever.kneighbors(embeddings[:2])[1].shape == (2, 3)
