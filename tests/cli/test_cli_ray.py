"""``sk-medsiglip embed --ray``: on a Ray that the command starts itself."""

import os
import socket

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.cli import app
from sk_medsiglip.datasets import make_chest_phantoms, write_phantoms
from sk_medsiglip.distributed import load_embeddings
from sk_medsiglip.encoder import clear_encoders

# Read when ray is imported: no reports to its makers, no C++ chatter.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

pytestmark = [
    # Starting a cluster takes minutes where others compute, and counts for a test.
    pytest.mark.timeout(900),
    # Ray's own: files and sockets that it leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of phantoms, and their table."""
    folder = tmp_path_factory.mktemp("images")
    write_phantoms(make_chest_phantoms(12, random_state=0), folder, formats="png")
    return folder


def embed(source, out, *more, ray="local"):
    arguments = [str(source), str(out), "--model", "demo", "--ray", ray, *more]
    return CliRunner().invoke(app, ["embed", *arguments])


def test_a_table_is_embedded(images, tmp_path):
    out = tmp_path / "out"
    first = embed(images / "labels.csv", out, "--encoders", "1")
    assert first.exit_code == 0, first.output
    assert "12 embedded, 0 skipped, 0 failed" in first.stdout
    assert "Nothing to do" not in first.stdout
    assert f'load_embeddings("{out}")' in first.stdout
    assert "Token authentication" not in first.output
    bunch = load_embeddings(out)
    expected = MedSigLIPEmbedder("demo", cache=False).transform(
        [str(images / source) for source in bunch.frame["source"]]
    )
    clear_encoders()
    apart = np.linalg.norm(bunch.X - expected, axis=1)
    assert (apart / np.linalg.norm(expected, axis=1)).max() < 1e-6


@pytest.mark.slow
def test_a_table_that_is_embedded_leaves_nothing_to_do(images, tmp_path):
    for said in ("12 embedded, 0 skipped, 0 failed", "0 embedded, 12 skipped"):
        done = embed(images / "labels.csv", tmp_path / "out", "--encoders", "1")
        assert done.exit_code == 0, done.output
        assert said in done.stdout
    assert "Nothing to do" in done.stdout


@pytest.mark.slow
def test_a_folder_is_embedded_and_what_cannot_be_read_is_said(images, tmp_path):
    folder, out = tmp_path / "images", tmp_path / "out"
    for i, path in enumerate(sorted(images.glob("*.png"))):
        place = folder / ("normal" if i % 2 else "effusion") / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    (folder / "normal" / "bad.png").write_bytes(b"nothing")
    done = embed(folder, out, "--encoders", "1")
    assert done.exit_code == 0, done.output
    assert "12 embedded, 0 skipped, 1 failed" in done.stdout
    assert "1 images cannot be read" in done.stderr.replace("image ", "images ")
    assert set(load_embeddings(out).frame["label"]) == {"normal", "effusion"}
    failures = pd.read_parquet(out / "failures.parquet")
    assert failures["source"].tolist() == ["normal/bad.png"]
    # Another recipe does not go into the same folder.
    other = embed(folder, out, "--pad")
    assert other.exit_code == 2
    assert "pad=False there, True here" in other.stderr


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("head", "'head' is not the address of a Ray cluster"),
        ("head:port", "'head:port' is not the address of a Ray cluster"),
        (":6379", "':6379' is not the address of a Ray cluster"),
        ("http://127.0.0.1:8265", "an address of a dashboard"),
        ("ray://127.0.0.1:10001", "ray job submit"),
        ("127.0.0.1:{closed}", "no Ray cluster answers at 127.0.0.1:"),
        ("no-such-host.invalid:6379", "no Ray cluster answers at no-such-host"),
    ],
)
def test_a_bad_address_is_said_at_once(images, tmp_path, address, said):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    result = embed(images, tmp_path / "out", ray=address.format(closed=closed))
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_auto_does_not_wait_for_a_cluster_that_is_gone(images, tmp_path, monkeypatch):
    from ray._private import services

    # What other tests run at the same time is no cluster of this machine.
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{closed}")
    result = embed(images, tmp_path / "out", ray="auto")
    assert result.exit_code == 2
    assert f"no Ray cluster answers at 127.0.0.1:{closed}" in result.stderr


def test_the_output_is_not_the_source(images):
    result = embed(images, images)
    assert result.exit_code == 2
    assert "source and out are both" in result.stderr
