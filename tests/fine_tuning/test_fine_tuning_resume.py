"""Runs that are stopped: killed, interrupted, out of disk, or tampered with.

Nothing is mocked: processes are killed, files are damaged, limits are the system's.
"""

import json
import os
import pickle
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from children import mark_complete, start, tuner_of

from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.exceptions import CheckpointError

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

SETTINGS = {
    "max_steps": 10,
    "batch_size": 6,
    "accumulate": 1,
    "lora_dropout": 0.1,
    "checkpoint_every": 2,
}


def wait_for_checkpoint(folder, process, step):
    """Wait until a checkpoint of this step or later is complete."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        done = [
            int(path.parent.name.rpartition("-")[2])
            for path in folder.glob("checkpoint-*/complete.json")
        ]
        if max(done, default=0) >= step:
            return
        assert process.is_alive()
        time.sleep(0.01)
    raise AssertionError("no checkpoint was written")


@pytest.fixture(scope="module")
def examples():
    phantoms = make_chest_phantoms(24, random_state=0)
    return list(phantoms.images), phantoms.captions, phantoms.groups


@pytest.fixture(scope="module")
def fit(checkpoint, examples):
    """Return a function that fits a small encoder on phantoms."""

    def fitted(given=examples, **settings):
        images, captions, groups = given
        return tuner_of(checkpoint, **settings).fit(images, captions, groups=groups)

    return fitted


@posix_only
def test_killed_and_resumed_is_an_unbroken_run(tmp_path, fit, checkpoint):
    settings = SETTINGS | {"validation_fraction": 0.3}
    whole = fit(**settings, run_dir=tmp_path / "whole")
    folder = tmp_path / "stopped"
    told = settings | {"run_dir": folder, "max_steps": 10}
    child = start("fit", checkpoint, 24, told, tmp_path / "told")
    wait_for_checkpoint(folder, child, 4)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    # What a kill can leave: half of the next checkpoint.
    half = folder / "checkpoint-99"
    half.mkdir()
    (half / "trained.safetensors").write_bytes(b"half of it")

    resumed = fit(**settings, run_dir=folder, resume=True)
    assert resumed.history_["step"].tolist() == list(range(1, 11))
    np.testing.assert_allclose(
        resumed.history_["loss"], whole.history_["loss"], atol=1e-5, rtol=0
    )
    np.testing.assert_allclose(
        resumed.history_["validation_loss"],
        whole.history_["validation_loss"],
        atol=1e-5,
        rtol=0,
    )
    assert resumed.best_step_ == whole.best_step_
    # Not only near: the same adapter, to the byte.
    assert resumed.fingerprint_ == whole.fingerprint_
    assert not half.exists()


@posix_only
def test_interrupted_and_resumed_without_naming_a_folder(tmp_path, fit, checkpoint):
    """The run finds its checkpoints by settings and data; done, they are gone."""
    settings = SETTINGS | {"cache": str(tmp_path / "store")}
    child = start("fit", checkpoint, 24, settings, tmp_path / "told")
    runs = tmp_path / "store" / "runs"
    deadline = time.monotonic() + 240
    while not (started := [p for p in runs.glob("*") if (p / "run.json").exists()]):
        assert child.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (folder,) = started
    wait_for_checkpoint(folder, child, 2)
    os.kill(child.pid, signal.SIGINT)
    child.join()
    assert "KeyboardInterrupt" in (tmp_path / "told").read_text()
    assert folder.is_dir()
    # Pixels that were waiting beside it do not stay.
    assert not list(runs.glob(".unfinished-*"))

    resumed = fit(**settings, resume=True)
    whole = fit(**SETTINGS, cache=tmp_path / "other")
    assert resumed.fingerprint_ == whole.fingerprint_
    assert not folder.exists()
    # Nothing is there to go on from: it starts, and gets there too.
    again = fit(**settings, resume=True)
    assert again.fingerprint_ == whole.fingerprint_


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, fit):
    """The folder of a run that is done, as a run leaves it that is named."""
    folder = tmp_path_factory.mktemp("run") / "stopped"
    settings = SETTINGS | {"max_steps": 4}
    fit(**settings, run_dir=folder)
    return folder, settings


@pytest.fixture
def copied(stopped, tmp_path):
    import shutil

    folder, settings = stopped
    shutil.copytree(folder, tmp_path / "run")
    return tmp_path / "run", settings


def test_a_run_that_is_done_is_found_done(copied, fit):
    folder, settings = copied
    weights = folder / "checkpoint-4" / "trained.safetensors"
    before = weights.stat().st_mtime_ns
    tuner = fit(**settings, run_dir=folder, resume=True)
    assert tuner.n_steps_ == 4
    assert weights.stat().st_mtime_ns == before  # no step was taken again


def test_checkpoints_are_safetensors_and_safe_numbers(copied):
    from safetensors.torch import load_file

    folder, _ = copied
    (newest,) = folder.glob("checkpoint-4")
    weights = load_file(newest / "trained.safetensors")
    assert all(".lora_" in name for name in weights)
    for name in ("optimizer.pt", "scheduler.pt"):
        torch.load(newest / name, weights_only=True)
    assert {path.name for path in newest.iterdir()} == {
        "complete.json",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "trained.safetensors",
        "trainer_state.json",
    }


class Bomb:
    """A pickle that writes a file when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "scheduler.pt"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_planted_pickle_is_never_run(copied, fit, tmp_path, name, wrapped):
    folder, settings = copied
    target = folder / "checkpoint-4" / name
    planted = tmp_path / "planted"
    if wrapped:
        torch.save({"state": Bomb(planted)}, target)
    else:
        target.write_bytes(pickle.dumps(Bomb(planted)))
    # Noticed by its digest first; with a digest to match, by torch's reader.
    with pytest.raises(CheckpointError, match="changed"):
        fit(**settings, run_dir=folder, resume=True)
    (folder / "checkpoint-4" / "complete.json").unlink()
    mark_complete(folder / "checkpoint-4")
    if name == "rng_state.pth":
        # Random states are read where there are steps to go.
        _pretend_unfinished(folder)
    with pytest.raises(CheckpointError, match="numbers"):
        fit(**settings, run_dir=folder, resume=True)
    assert not planted.exists()


def _pretend_unfinished(folder):
    """Make the state of the last checkpoint that of a step before."""
    record = folder / "checkpoint-4" / "trainer_state.json"
    state = json.loads(record.read_text())
    state["global_step"] = 2
    record.write_text(json.dumps(state))
    mark_complete(folder / "checkpoint-4")


def test_a_damaged_checkpoint_is_named(copied, fit):
    folder, settings = copied
    weights = folder / "checkpoint-4" / "trained.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="trained.safetensors"):
        fit(**settings, run_dir=folder, resume=True)
    # As the message says: without it, the one before serves.
    import shutil

    shutil.rmtree(folder / "checkpoint-4")
    assert fit(**settings, run_dir=folder, resume=True).n_steps_ == 4


def test_another_run_is_told_by_what_differs(copied, fit, examples):
    folder, settings = copied
    images, captions, groups = examples
    other = settings | {"batch_size": 4}
    with pytest.raises(CheckpointError, match="batch_size"):
        fit(**other, run_dir=folder, resume=True)
    changed = [*captions[:-1], "a normal chest"]
    with pytest.raises(CheckpointError, match="y was"):
        fit((images, changed, groups), **settings, run_dir=folder, resume=True)
    turned = [*images[:-1], images[-1][::-1]]
    with pytest.raises(CheckpointError, match="images was"):
        fit((turned, captions, groups), **settings, run_dir=folder, resume=True)
    # Not resumed, it must not take the place of the other run either.
    with pytest.raises(CheckpointError, match="another"):
        fit(**other, run_dir=folder)


def test_the_same_run_starts_anew_where_it_is_not_resumed(copied, fit):
    folder, settings = copied
    before = (folder / "checkpoint-4" / "trained.safetensors").stat().st_mtime_ns
    tuner = fit(**settings, run_dir=folder)
    assert tuner.history_["step"].tolist() == [1, 2, 3, 4]
    after = (folder / "checkpoint-4" / "trained.safetensors").stat().st_mtime_ns
    assert after > before


def test_a_folder_of_other_files_is_left_alone(tmp_path, fit):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("1")
    with pytest.raises(OSError, match="holds files"):
        fit(**SETTINGS, run_dir=folder)
    assert [p.name for p in folder.iterdir()] == ["chapter.txt"]


def test_resuming_needs_to_know_where(fit):
    with pytest.raises(ValueError, match="run_dir"):
        fit(**SETTINGS, cache=False, resume=True)


@posix_only
def test_a_full_disk_is_told_and_costs_no_checkpoint_before(tmp_path, checkpoint):
    child = start("fit_on_a_full_disk", checkpoint, tmp_path)
    child.join()
    assert child.exitcode == 0
    *stopped, again = json.loads((tmp_path / "told.json").read_text())
    assert len(stopped) == 2
    for told, left in stopped:
        assert told.startswith("RunFolderError")
        assert "checkpoint of step 2 cannot be written" in told
        assert "resume=True" in told
        # Half a checkpoint is not kept.
        assert not left
    assert again[0] == "done"
    assert "checkpoint-6" in again[1]


def test_too_little_space_is_noticed_before_the_first_step(tmp_path, fit, monkeypatch):
    import shutil

    real = shutil.disk_usage

    def nearly_full(path):
        return real(path)._replace(free=1_000)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    with pytest.raises(OSError, match="Checkpoints"):
        fit(**SETTINGS, run_dir=tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoint-*"))
