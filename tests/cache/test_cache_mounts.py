"""Network disks are given a journal that is safe there."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from test_cache import SPACE, fingerprint, read, vectors_of

from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.cli import app


@pytest.fixture
def on_a_network(monkeypatch):
    """The tables of this machine say that everything is on NFS."""

    def judge(path):
        return "nfs4"

    monkeypatch.setattr("sk_medsiglip.cache._index.network_file_system", judge)
    monkeypatch.setattr("sk_medsiglip.cache._store.network_file_system", judge)


def journal_of(location):
    # A connection that stays open would keep others from changing the mode.
    with contextlib.closing(sqlite3.connect(location / "index.sqlite3")) as connection:
        return connection.execute("PRAGMA journal_mode").fetchone()[0]


def fill(location):
    cache = EmbeddingCache(location)
    known = [fingerprint(i) for i in range(100)]
    cache.put_many(SPACE, known, vectors_of(known))
    return cache, known


def test_no_shared_memory_on_a_network(tmp_path, on_a_network):
    cache, known = fill(tmp_path / "store")
    assert read(cache, known)[0].all()
    names = {path.name for path in cache.location.iterdir()}
    assert not {name for name in names if name.endswith(("-wal", "-shm"))}
    assert cache.stats()["network"] == "nfs4"
    cache.close()
    assert journal_of(cache.location) in ("delete", "truncate")
    assert cache.verify().ok


def test_a_store_that_was_moved_to_a_network_is_changed(tmp_path, monkeypatch):
    cache, known = fill(tmp_path / "store")
    cache.close()
    assert journal_of(cache.location) == "wal"
    monkeypatch.setattr(
        "sk_medsiglip.cache._index.network_file_system", lambda path: "nfs4"
    )
    assert read(cache, known)[0].all()
    cache.close()
    assert journal_of(cache.location) in ("delete", "truncate")


def test_local_disks_keep_the_log(tmp_path):
    cache, _ = fill(tmp_path / "store")
    if cache.stats()["network"]:
        pytest.skip("the temporary folder of this machine is on a network disk")
    cache.close()
    assert journal_of(cache.location) == "wal"


def test_people_are_told(tmp_path, on_a_network):
    from typer.testing import CliRunner

    cache, _ = fill(tmp_path / "store")
    there = ["--location", str(cache.location)]
    told = CliRunner().invoke(app, ["cache", "info", *there])
    assert "nfs4" in told.output
    assert Path(cache.location).is_dir()
