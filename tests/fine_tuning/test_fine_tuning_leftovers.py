"""What a killed fine-tuning run leaves on the disk, and who removes it."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from sk_medsiglip.fine_tuning import MedSigLIPFineTuner
from sk_medsiglip.fine_tuning._scratch import make_scratch, scratch_in

posix_only = pytest.mark.skipif(os.name != "posix", reason="processes of POSIX")

CHILD = """
    import os, sys
    import numpy as np
    from sk_medsiglip.fine_tuning import MedSigLIPFineTuner, _inputs, _save, _training

    def die(*args, **kwargs):
        os.kill(os.getpid(), 9)

    _inputs.IN_MEMORY = 0
    images = np.random.default_rng(0).integers(0, 255, (8, 16, 16), np.uint8)
    tuner = MedSigLIPFineTuner(
        sys.argv[1], max_steps=1, batch_size=4, cache=sys.argv[2], device="cpu"
    )
    if sys.argv[3] == "training":
        _training.build_network = die
    else:
        _save.put_in_place = die
    tuner.fit(images, [f"picture {i}" for i in range(8)])
    tuner.save(sys.argv[4])
"""


def run_and_die(checkpoint, store, where, saved):
    code = textwrap.dedent(CHILD)
    arguments = [sys.executable, "-c", code, checkpoint, store, where, saved]
    child = subprocess.run([str(one) for one in arguments], capture_output=True)
    assert child.returncode == -9, child.stderr.decode()


def test_pixels_have_no_name_and_their_folder_goes_with_the_next_run(
    checkpoint, tmp_path
):
    if os.name != "posix":
        pytest.skip("Windows keeps the name of an open file")
    store = tmp_path / "store"
    run_and_die(checkpoint, store, "training", tmp_path / "saved")
    (left,) = (store / "runs").glob(".pixels-*")
    assert not list(left.iterdir())
    images = np.zeros((4, 16, 16), np.uint8)
    images[1:3] = 200
    MedSigLIPFineTuner(
        checkpoint, max_steps=1, batch_size=4, cache=store, device="cpu"
    ).fit(images, list("abcd"))
    assert not list((store / "runs").glob(".pixels-*"))


@posix_only
def test_half_a_save_goes_with_the_next_one(checkpoint, tmp_path):
    run_and_die(checkpoint, tmp_path / "store", "saving", tmp_path / "saved")
    (left,) = tmp_path.glob(".unfinished-*")
    assert list(left.iterdir())
    with scratch_in(tmp_path, "unfinished"):
        assert not left.exists()
    assert not list(tmp_path.glob(".unfinished-*"))


@posix_only
def test_only_folders_of_dead_processes_are_removed(tmp_path):
    living = make_scratch(tmp_path, "pixels")
    parent = tmp_path / living.name.replace(f"-{os.getpid()}-", f"-{os.getppid()}-")
    elsewhere = tmp_path / f".pixels-00000000-{os.getpid()}-abc"
    aside = tmp_path / living.name.replace(f"-{os.getpid()}-", "-999999999-")
    aside = aside.with_name(aside.name + ".old")
    foreign = tmp_path / ".pixels-of-my-camera"
    long_ago = tmp_path / f".pixels-11111111-{os.getpid()}-abc"
    for folder in (parent, elsewhere, aside, foreign, long_ago):
        folder.mkdir()
    os.utime(long_ago, (0, 0))
    make_scratch(tmp_path, "pixels")
    for folder in (living, parent, elsewhere, aside, foreign):
        assert folder.is_dir()
    assert not long_ago.exists()
