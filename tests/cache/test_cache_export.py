"""Rows from one machine to another, in one Parquet file."""

import json
import os
import shutil
import sys
import textwrap
from zlib import crc32

import forked
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from test_cache import SPACE, fingerprint, vectors_of
from typer.testing import CliRunner

from sk_medsiglip import (
    MedSigLIPEmbedder,
    MedSigLIPTextEmbedder,
    make_zero_shot_pipeline,
)
from sk_medsiglip.cache import EmbeddingCache, ImportReport, Space
from sk_medsiglip.cli import app
from sk_medsiglip.encoder import clear_encoders
from sk_medsiglip.exceptions import CacheError, MissingDependencyError

OTHER = Space("text", "some/model", "c0ffee", "64 tokens", "bfloat16", "openvino", 24)


FACTS = {
    "revision": "c0ffee",
    "embedding_dim": 16,
    "image_size": 8,
    "patch_size": 4,
    "text_tokens": 8,
    "logit_scale": 9.5,
    "logit_bias": -1.0,
}


@pytest.fixture
def full(tmp_path):
    """A store of two spaces, several segments, and a model."""
    cache = EmbeddingCache(tmp_path / "full")
    for space, n in ((SPACE, 5000), (OTHER, 300)):
        known = [fingerprint(i) for i in range(n)]
        cache.put_many(space, known, vectors_of(known, space.width))
    cache.remember_model("some/model", None, FACTS)
    cache.remember_model("other/model", None, FACTS | {"revision": "beef"})
    yield cache
    cache.close()


@pytest.fixture
def empty(tmp_path):
    cache = EmbeddingCache(tmp_path / "empty")
    yield cache
    cache.close()


@pytest.fixture
def exported(full, tmp_path):
    path = tmp_path / "rows.parquet"
    assert full.export_parquet(path) == 5300
    return path


def rows_of(cache):
    """Every row of a store, by space and fingerprint."""
    return {key: cache[key].tobytes() for key in cache}


def test_all_rows_arrive(full, empty, exported):
    assert empty.import_parquet(exported) == ImportReport(5300, 5300, 1)
    assert rows_of(empty) == rows_of(full)
    assert empty.verify().ok
    assert empty.recall_model("some/model", None) == FACTS
    # Nothing is known of a model without rows.
    assert empty.recall_model("other/model", None) is None


def test_importing_again_changes_nothing(full, empty, exported):
    empty.import_parquet(exported)
    before = rows_of(empty)
    assert empty.import_parquet(exported) == ImportReport(5300, 0, 1)
    assert rows_of(empty) == before


def test_rows_that_are_there_stay(empty, exported):
    known = [fingerprint(0)]
    own = np.full((1, SPACE.width), 7, np.float32)
    empty.put_many(SPACE, known, own)
    assert empty.import_parquet(exported).new == 5299
    np.testing.assert_array_equal(empty[SPACE, known[0]], own[0])


@pytest.mark.parametrize(("model", "n"), [("some/model", 300), ("c0ff", 300)])
def test_one_model_alone(full, empty, tmp_path, model, n):
    path = tmp_path / "one.parquet"
    assert full.export_parquet(path, model=model) == n
    assert empty.import_parquet(path).new == n
    assert {space for space, _ in empty} == {OTHER}


def test_nothing_to_export(full, empty, tmp_path):
    path = tmp_path / "none.parquet"
    with pytest.raises(CacheError, match="no rows"):
        empty.export_parquet(path)
    with pytest.raises(CacheError, match="'resnet'.*some/model"):
        full.export_parquet(path, model="resnet")
    assert not path.exists()


def test_damaged_and_dropped_rows_are_not_exported(full, tmp_path, empty):
    full.close()
    damaged = max((full.location / "segments").iterdir(), key=os.path.getsize)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    path = tmp_path / "rows.parquet"
    assert full.export_parquet(path) == 5299
    assert empty.import_parquet(path).new == 5299


def test_people_can_read_it(full, exported):
    import pandas as pd

    frame = pd.read_parquet(exported)
    assert list(frame.columns) == ["space", "fingerprint", "checksum", "vector"]
    row = frame.iloc[-1]
    space = Space(**json.loads(row["space"]))
    vector = np.frombuffer(row["vector"], "<f4")
    np.testing.assert_array_equal(full[space, row["fingerprint"]], vector)


def test_existing_file_is_replaced_when_complete(full, exported, monkeypatch):
    before = exported.read_bytes()

    def break_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sk_medsiglip.cache._parquet._to_batch", break_off)
    with pytest.raises(KeyboardInterrupt):
        full.export_parquet(exported)
    assert exported.read_bytes() == before
    assert [p.name for p in exported.parent.glob(".export-*")] == []


def test_memory_is_bounded_and_a_bar_is_shown(full, tmp_path, capsys):
    full.export_parquet(tmp_path / "rows.parquet", verbose=1)
    assert "5300/5300" in capsys.readouterr().err
    file = parquet.ParquetFile(tmp_path / "rows.parquet")
    assert file.num_row_groups > 2


# ------------------------------------------------------------------------ bad files


def test_what_is_no_export_is_refused(empty, tmp_path):
    for name, content in (("text", b"no table"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CacheError, match="damaged"):
            empty.import_parquet(tmp_path / name)
    foreign = tmp_path / "foreign.parquet"
    parquet.write_table(pa.table({"x": [1, 2]}), foreign)
    with pytest.raises(CacheError, match="an export"):
        empty.import_parquet(foreign)
    with pytest.raises(CacheError, match="no file"):
        empty.import_parquet(tmp_path / "missing")
    assert len(empty) == 0


def test_another_format_is_refused(empty, exported, tmp_path):
    table = parquet.read_table(exported)
    other = tmp_path / "other.parquet"
    metadata = {**table.schema.metadata, b"sk_medsiglip.format": b"9"}
    parquet.write_table(table.replace_schema_metadata(metadata), other)
    with pytest.raises(CacheError, match="9.*Upgrade"):
        empty.import_parquet(other)


def test_changed_rows_are_refused(empty, exported, tmp_path):
    table = parquet.read_table(exported)
    vectors = table["vector"].to_pylist()
    vectors[-1] = vectors[-1][:9] + b"\x7f" + vectors[-1][10:]
    changed = table.set_column(
        3, table.schema.field(3), pa.array(vectors, table.schema.field(3).type)
    )
    path = tmp_path / "changed.parquet"
    parquet.write_table(changed, path)
    with pytest.raises(CacheError, match="1 rows"):
        empty.import_parquet(path)


def test_damage_anywhere_is_an_error_or_harmless(tmp_path):
    """60 flipped bits and 10 cut files: right rows or a CacheError, in a child."""
    store = EmbeddingCache(tmp_path / "store")
    known = [fingerprint(i) for i in range(300)]
    store.put_many(SPACE, known, vectors_of(known))
    store.export_parquet(tmp_path / "rows.parquet")
    store.close()
    code = textwrap.dedent("""
        import sys, random
        from pathlib import Path
        from sk_medsiglip.cache import EmbeddingCache
        from sk_medsiglip.exceptions import CacheError
        source, scratch, store = map(Path, sys.argv[1:])
        whole = EmbeddingCache(store)
        right = {key: whole[key].tobytes() for key in whole}
        content = source.read_bytes()
        chosen = random.Random(0)
        refused = 0
        for i in range(70):
            damaged = bytearray(content)
            if i < 60:
                # Half of them in the last 3 %, where the file describes itself.
                start = 0 if i % 2 else int(0.97 * len(content))
                place = chosen.randrange(start, len(content))
                damaged[place] ^= 1 << chosen.randrange(8)
            else:
                del damaged[chosen.randrange(len(content)):]
            scratch.write_bytes(damaged)
            cache = EmbeddingCache(scratch.parent / f"store{i}")
            try:
                cache.import_parquet(scratch)
            except CacheError:
                refused += 1
            for key in cache:
                assert cache[key].tobytes() == right[key], key
            cache.close()
        print(refused)
    """)
    ran = forked.run_code(
        code, tmp_path / "rows.parquet", tmp_path / "damaged", store.location
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) >= 30


@pytest.mark.parametrize("vector", [b"", b"short", None])
def test_vectors_of_another_length_are_refused(empty, exported, tmp_path, vector):
    table = parquet.read_table(exported)
    vectors = table["vector"].to_pylist()
    vectors[-1] = vector
    changed = table.set_column(
        3, table.schema.field(3), pa.array(vectors, table.schema.field(3).type)
    )
    path = tmp_path / "changed.parquet"
    parquet.write_table(changed, path)
    with pytest.raises(CacheError, match="vector"):
        empty.import_parquet(path)


def test_a_record_of_a_model_cannot_leave_its_folder(full, empty, exported, tmp_path):
    table = parquet.read_table(exported)
    record = [{"name": "../../evil", "facts": {"revision": "x"}}]
    metadata = {**table.schema.metadata, b"sk_medsiglip.models": json.dumps(record)}
    path = tmp_path / "evil.parquet"
    parquet.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(CacheError, match="record"):
        empty.import_parquet(path)
    assert not list(tmp_path.rglob("evil.json"))


DEEP = "[" * 100_000
MODELS = {
    "facts are a list": [{"name": "0" * 32, "facts": []}],
    "facts lack a size": [{"name": "0" * 32, "facts": {"revision": "x"}}],
    "not a record": [3],
    "not a list": {"name": "0" * 32},
    "nothing": None,
}


@pytest.mark.parametrize(
    "models", [*map(json.dumps, MODELS.values()), DEEP, "\xff", "[" + "9" * 5000 + "]"]
)
def test_records_of_another_shape_are_refused(empty, exported, tmp_path, models):
    table = parquet.read_table(exported)
    metadata = {**table.schema.metadata, b"sk_medsiglip.models": models}
    path = tmp_path / "odd.parquet"
    parquet.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(CacheError):
        empty.import_parquet(path)
    assert empty.recall_model("some/model", None) is None


LINE = json.loads(SPACE.line)
LINES = [
    *(json.dumps(LINE | {"width": width}) for width in (-16, 0, 10**30, "16", 16.0)),
    *(json.dumps(LINE | {"kind": kind}) for kind in (None, ["image"], {})),
    json.dumps(LINE | {"more": 1}),
    json.dumps({"kind": "image"}),
    json.dumps([LINE]),
    '{"kind":' * 100_000,
    "null",
    "",
]


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_spaces_of_another_shape_are_refused(empty, exported, tmp_path, line):
    table = parquet.read_table(exported).slice(0, 3)
    table = table.set_column(0, "space", pa.array([line] * 3))
    path = tmp_path / "odd.parquet"
    parquet.write_table(table, path)
    with pytest.raises(CacheError):
        empty.import_parquet(path)
    assert len(empty) == 0


def test_rows_that_are_not_finite_or_not_known_are_refused(empty, exported, tmp_path):
    table = parquet.read_table(exported).slice(0, 1)
    line = table["space"][0].as_py()
    vector = np.full(SPACE.width, np.nan, np.float32).tobytes()
    for known, value in (
        (bytes(32), vector),
        (bytes(31), bytes(4 * SPACE.width)),
    ):
        checksum = crc32(value, crc32(known, crc32(line.encode())))
        columns = {"fingerprint": [known], "vector": [value]}
        columns["checksum"] = pa.array([checksum], pa.uint32())
        odd = pa.table({"space": [line], **columns})
        odd = odd.replace_schema_metadata(table.schema.metadata)
        parquet.write_table(odd, tmp_path / "odd.parquet")
        with pytest.raises(CacheError, match="damaged"):
            empty.import_parquet(tmp_path / "odd.parquet")
    assert len(empty) == 0


def test_missing_package_says_how_to_install(full, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"sk-medsiglip\[parquet\]"):
        full.export_parquet(tmp_path / "rows.parquet")


# ----------------------------------------------------------------- a laptop, no model


def test_train_and_ask_without_model_or_network(make_checkpoint, tmp_path):
    """Embed here; with the model's folder gone and no network, fit and ask there."""
    folder = shutil.copytree(make_checkpoint(seed=15), tmp_path / "model")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 30, 30), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    prompts = {"well": ["a normal X-ray"], "ill": ["an effusion", "a nodule"]}
    here = {"cache": tmp_path / "gpu box", "device": "cpu"}
    rows = MedSigLIPEmbedder(folder, **here).transform(list(images))
    words = MedSigLIPTextEmbedder(folder, **here).transform(["an effusion"])
    asked = make_zero_shot_pipeline(prompts, model=folder, **here).fit(list(images))
    expected = asked.predict_proba(list(images))
    np.savez(tmp_path / "expected.npz", rows=rows, words=words, expected=expected)
    store = EmbeddingCache(tmp_path / "gpu box")
    store.export_parquet(tmp_path / "rows.parquet")
    shutil.rmtree(folder)
    store.close()
    shutil.rmtree(store.location)
    clear_encoders()
    code = textwrap.dedent(f"""
        import os, socket
        os.chdir({str(tmp_path)!r})
        def refuse(*_, **__): raise OSError("no network here")
        socket.socket.connect = socket.create_connection = refuse
        import numpy as np
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import NearestNeighbors
        from sklearn.pipeline import make_pipeline
        from sk_medsiglip import (EmbeddingCache, MedSigLIPEmbedder,
                                  MedSigLIPTextEmbedder, make_zero_shot_pipeline)
        EmbeddingCache("laptop").import_parquet("rows.parquet")
        model, images = {str(folder)!r}, list(np.load("images.npy"))
        known = np.load("expected.npz")
        there = dict(cache="laptop", device="cpu")
        embedder = MedSigLIPEmbedder(model, **there)
        np.testing.assert_array_equal(embedder.transform(images), known["rows"])
        y = np.arange(20) % 2
        pipe = make_pipeline(embedder, LogisticRegression()).fit(images, y)
        assert pipe.predict(images).shape == (20,)
        asked = make_zero_shot_pipeline({prompts!r}, model=model, **there)
        np.testing.assert_allclose(
            asked.fit(images).predict_proba(images), known["expected"], rtol=1e-6)
        words = MedSigLIPTextEmbedder(model, **there).transform(["an effusion"])
        np.testing.assert_array_equal(words, known["words"])
        nearest = NearestNeighbors(metric="cosine").fit(known["rows"])
        assert nearest.kneighbors(words, 3)[1].shape == (1, 3)
    """)
    ran = forked.run_code(code)
    assert ran.returncode == 0, ran.stderr


# ----------------------------------------------------------------------- command line


def test_command_line(full, tmp_path):
    run = CliRunner().invoke
    out, location = tmp_path / "rows.parquet", str(full.location)
    there = ["--location", location]
    done = run(app, ["cache", "export", str(out), *there])
    assert done.exit_code == 0, done.output
    assert "5,300 rows" in done.output
    again = run(app, ["cache", "export", str(out), *there])
    assert again.exit_code != 0
    assert "--overwrite" in again.output
    one = ["--overwrite", "--model", "some/model"]
    assert "300 rows" in run(app, ["cache", "export", str(out), *there, *one]).output
    target = tmp_path / "target"
    done = run(app, ["cache", "import", str(out), "--location", str(target)])
    assert done.exit_code == 0, done.output
    assert "300 new rows of 300" in done.output
    assert len(EmbeddingCache(target)) == 300
    missing = run(app, ["cache", "import", str(tmp_path / "no"), *there])
    assert missing.exit_code != 0
    assert "there is no file" in missing.output
