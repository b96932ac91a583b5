"""Fetching MedMNIST: official files, mirrors, and what is not the file."""

import hashlib
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sk_medsiglip.datasets import _medmnist, fetch_medmnist, fetch_pneumonia_mnist
from sk_medsiglip.exceptions import DatasetError

COUNTS = {"train": 12, "val": 3, "test": 5}


def write_archive(path, name, size, **changes):
    """Write a file of the official format, with few pictures of noise."""
    facts = _medmnist.MEDMNIST[name]
    rng = np.random.default_rng(size)
    shape = (size, size) if facts["n_channels"] == 1 else (size, size, 3)
    arrays = {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, *shape), np.uint8)
        several = facts["task"] == "multilabel"
        columns, values = (
            (len(facts["labels"]), 2) if several else (1, len(facts["labels"]))
        )
        labels = rng.integers(0, values, (count, columns))
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    np.savez(path, **{**arrays, **changes})
    return arrays


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A real HTTP server on a folder of files, and what was asked of it."""
    folder = tmp_path / "served"
    folder.mkdir()
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv(_medmnist.MIRROR, f"http://127.0.0.1:{server.server_port}/")
    server.folder, server.asked = folder, asked
    yield server
    server.shutdown()
    server.server_close()


def publish(monkeypatch, path, name, size):
    """Make a file the official one: the real ones cannot be here."""
    digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setitem(_medmnist.MEDMNIST[name]["md5"], str(size), digest)


# --- what comes back --------------------------------------------------------------


@pytest.mark.parametrize("name", _medmnist.MEDMNIST)
def test_every_set_is_read_from_a_file_in_place(name, home):
    arrays = write_archive(home / f"{name}.npz", name, 28)
    bunch = fetch_medmnist(name, 28, "test", home)
    facts = _medmnist.MEDMNIST[name]
    assert_array_equal(bunch.images, arrays["test_images"])
    assert bunch.images.dtype == np.uint8
    labels = arrays["test_labels"]
    expected = labels if facts["task"] == "multilabel" else labels[:, 0]
    assert_array_equal(bunch.target, expected)
    assert bunch.target.dtype == np.int64
    assert bunch.target_names == list(facts["labels"])
    assert bunch.split == "test"
    assert "5 images of the official test split" in bunch.DESCR
    assert "not the official one" in bunch.DESCR
    assert bunch.source in bunch.DESCR


@pytest.mark.parametrize("size", _medmnist.SIZES)
@pytest.mark.parametrize("split", COUNTS)
def test_sizes_and_splits(size, split, home):
    suffix = "" if size == 28 else f"_{size}"
    write_archive(home / f"bloodmnist{suffix}.npz", "bloodmnist", size)
    images, target = fetch_medmnist("bloodmnist", size, split, home, return_X_y=True)
    assert images.shape == (COUNTS[split], size, size, 3)
    assert target.shape == (COUNTS[split],)


def test_224_is_the_default_and_the_environment_names_the_folder(home, monkeypatch):
    monkeypatch.setenv("SK_MEDSIGLIP_DATA", str(home))
    write_archive(home / "octmnist_224.npz", "octmnist", 224)
    assert fetch_medmnist("octmnist").images.shape == (12, 224, 224)


def test_who_forbids_commercial_use_is_said(home):
    for name in _medmnist.MEDMNIST:
        write_archive(home / f"{name}.npz", name, 28)
        bunch = fetch_medmnist(name, 28, "val", home)
        assert bunch.commercial_use == (name != "dermamnist")
        assert ("forbids commercial use" in bunch.DESCR) == (name == "dermamnist")
        assert f"Licence {bunch.licence}:" in bunch.DESCR


def test_facts_are_complete():
    assert len(_medmnist.MEDMNIST) == 12
    sums = [
        one for facts in _medmnist.MEDMNIST.values() for one in facts["md5"].values()
    ]
    assert len(set(sums)) == 48
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in sums)
    for facts in _medmnist.MEDMNIST.values():
        assert facts["licence"] in ("CC BY 4.0", "CC BY-NC 4.0")
        assert len(set(facts["labels"])) == len(facts["labels"]) >= 2


def test_a_real_file_is_what_the_other_loader_reads(shared_data):
    for split in COUNTS:
        bunch = fetch_medmnist("pneumoniamnist", 28, split, shared_data)
        other = fetch_pneumonia_mnist(shared_data, subset=split)
        assert_array_equal(bunch.images, other.images)
        assert_array_equal(bunch.target, other.target)
        assert bunch.target_names == other.target_names


# --- downloads --------------------------------------------------------------------


def test_downloads_once_and_checks_the_sum(mirror, home, monkeypatch):
    write_archive(mirror.folder / "breastmnist_64.npz", "breastmnist", 64)
    publish(monkeypatch, mirror.folder / "breastmnist_64.npz", "breastmnist", 64)
    for _ in range(2):
        bunch = fetch_medmnist("breastmnist", 64, "train", home)
    assert "the official one (its checksum agrees)" in bunch.DESCR
    assert mirror.asked == ["/breastmnist_64.npz"]
    assert [path.name for path in home.iterdir()] == ["breastmnist_64.npz"]


def test_another_file_is_refused(mirror, home):
    write_archive(mirror.folder / "breastmnist.npz", "breastmnist", 28)
    with pytest.raises(DatasetError, match="750601b1"):
        fetch_medmnist("breastmnist", 28, data_home=home, n_retries=1, delay=0)
    assert list(home.iterdir()) == []
    assert len(mirror.asked) == 2


def test_what_the_server_answers_is_said(mirror, home):
    with pytest.raises(DatasetError, match="PathMNIST.*404"):
        fetch_medmnist("pathmnist", data_home=home, n_retries=0)


def test_without_network_it_says_where_to_put_the_file(mirror, home):
    mirror.shutdown()
    mirror.server_close()
    with pytest.raises(DatasetError, match="no connection") as caught:
        fetch_medmnist("pathmnist", 64, data_home=home, n_retries=0)
    assert str(caught.value).endswith(f"put it at {home / 'pathmnist_64.npz'}")


def test_a_missing_file_that_may_not_be_fetched_is_named(home):
    url = "https://zenodo.org/records/10519652/files/tissuemnist_128.npz"
    with pytest.raises(DatasetError, match=re.escape(url)):
        fetch_medmnist("tissuemnist", 128, "val", home, False)


# --- what is not the file ---------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((12, 28, 28, 3))}, r"images are float64 \(12, 28"),
        (
            {"train_images": np.zeros((12, 28, 28), np.uint8)},
            r"28, 28\), expected",
        ),
        ({"train_labels": np.zeros((11, 1), np.uint8)}, "labels are not 1 of 0 to 4"),
        ({"train_labels": np.full((12, 1), 5)}, "labels are not 1 of 0 to 4"),
        ({"train_labels": np.array([None] * 12)}, "cannot be read"),
    ],
    ids=["floats", "size", "too few", "too high", "pickled"],
)
def test_other_arrays_are_named(changes, message, home):
    write_archive(home / "retinamnist.npz", "retinamnist", 28, **changes)
    with pytest.raises(DatasetError, match=message):
        fetch_medmnist("retinamnist", 28, "train", home)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 half"], ids=str)
def test_damaged_files_are_named(content, home):
    (home / "octmnist.npz").write_bytes(content)
    with pytest.raises(DatasetError, match="OCTMNIST.*Delete"):
        fetch_medmnist("octmnist", 28, "train", home)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnist"}, "name must be one of .*'organsmnist'"),
        ({"size": 32}, r"size must be one of \[28, 64, 128, 224\], got 32"),
        ({"split": "all"}, "split must be one of"),
    ],
    ids=["name", "size", "split"],
)
def test_bad_arguments_are_named(arguments, message, home):
    with pytest.raises(ValueError, match=message):
        fetch_medmnist(**{"name": "octmnist", "data_home": home, **arguments})
