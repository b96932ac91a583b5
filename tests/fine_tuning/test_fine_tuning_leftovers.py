"""Folders that a killed fine-tuning run leaves on the disk, and their removal."""

import os
import signal

import numpy as np
import pytest
from children import start, tuner_of

posix_only = pytest.mark.skipif(os.name != "posix", reason="processes of POSIX")


def run_and_die(model, store, where, saved):
    child = start("die_while", model, store, where, saved)
    child.join()
    assert child.exitcode == -signal.SIGKILL


@posix_only
def test_pixels_have_no_name_and_their_folder_goes_with_the_next_run(
    checkpoint, tmp_path
):
    store = tmp_path / "store"
    run_and_die(checkpoint, store, "training", tmp_path / "saved")
    (left,) = (store / "runs").glob(".unfinished-*")
    assert not list(left.iterdir())
    images = np.zeros((4, 16, 16), np.uint8)
    images[1:3] = 200
    tuner_of(checkpoint, cache=store, max_steps=1, batch_size=4).fit(
        images, list("abcd")
    )
    assert not list((store / "runs").glob(".unfinished-*"))


@posix_only
def test_half_a_save_goes_with_the_next_one(checkpoint, tmp_path):
    run_and_die(checkpoint, tmp_path / "store", "saving", tmp_path / "saved")
    (left,) = tmp_path.glob(".unfinished-*")
    assert list(left.iterdir())
    images = np.zeros((4, 16, 16), np.uint8)
    images[1:3] = 200
    tuner = tuner_of(checkpoint, cache=tmp_path / "store", max_steps=1, batch_size=4)
    tuner.fit(images, list("abcd")).save(tmp_path / "saved")
    assert not list(tmp_path.glob(".unfinished-*"))
