"""Fixtures: a local cache of the hub, beside which nothing is asked."""

import shutil

import pytest


@pytest.fixture
def put_on_hub(tmp_path, monkeypatch):
    """Return a function that puts a checkpoint into the hub cache of this process."""
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(model, checkpoint, commit="0123456789abcdef0123456789abcdef01234567"):
        """Copy the checkpoint; return the folder of the snapshot."""
        name = model.replace("/", "--")
        repository = tmp_path / "hub" / f"models--{name}"
        snapshot = repository / "snapshots" / commit
        shutil.copytree(checkpoint, snapshot)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit, "utf-8")
        return snapshot

    return put
