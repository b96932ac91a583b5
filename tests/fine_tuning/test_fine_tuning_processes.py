"""Two processes that fit together over gloo, with the variables of torchrun."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from children import Towers, signs_of, start_together, tuner_of, with_blanks
from safetensors.torch import load as load_tensors

from sk_medsiglip.datasets import make_chest_phantoms


@pytest.fixture(scope="module")
def given():
    """Rows for the losses, some texts and pictures shared across the processes."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.arange(8)
    shown = torch.tensor([0, 1, 2, 3, 0, 4, 5, 3])
    targets = torch.randint(0, 2, (8, 4), generator=generator).double()
    targets[0, :3] = targets[5, 1] = torch.nan  # as many blanks as not on either side
    return {
        "x": torch.randn(8, 5, generator=generator, dtype=torch.float64),
        "t": torch.randn(8, 3, generator=generator, dtype=torch.float64),
        "ids": (rows, shown[:, None], shown, rows),
        "targets": targets,
    }


@pytest.fixture(scope="module")
def launched(given, checkpoint, tmp_path_factory):
    """Two processes of one launch, and the folder that they wrote their files to."""
    folder = tmp_path_factory.mktemp("launched")
    torch.save(given, folder / "given.pt")
    processes = start_together("fit_together", checkpoint, folder)
    for one in processes:
        one.join()
    return folder, [one.exitcode for one in processes]


def test_losses_and_gradients_are_those_of_one_process(launched, given):
    folder, _ = launched
    rows, _, shown, _ = given["ids"]
    targets = given["targets"]
    assert (signs_of(rows, shown[:, None], shown, rows) == 0).sum() == 4
    for kind in ("pairs", "binary", "classes"):
        alone = Towers()
        ids = (rows, shown[:, None], shown, rows)
        loss = alone(kind, given["x"], given["t"], ids, targets)
        loss.backward()
        for rank in range(2):
            found = torch.load(folder / f"found-{rank}.pt", weights_only=True)[kind]
            torch.testing.assert_close(
                found.pop("loss"), loss.detach(), rtol=1e-6, atol=0
            )
            trained = {
                n: p.grad for n, p in alone.named_parameters() if p.grad is not None
            }
            assert found.keys() == trained.keys()
            for name, gradient in trained.items():
                torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-8)


def test_two_processes_fit_as_one_with_their_batches_joined(
    launched, checkpoint, tmp_path
):
    folder, _ = launched
    told = [json.loads((folder / f"told-{r}.json").read_text()) for r in range(2)]
    assert told[0] == told[1]
    phantoms = make_chest_phantoms(20, random_state=0)
    images = list(phantoms.images)
    alone = tuner_of(
        checkpoint,
        max_steps=4,
        batch_size=8,
        validation_fraction=0.3,
        checkpoint_every=2,
        learning_rate=3e-4,
        cache=tmp_path / "alone",
    ).fit(images, phantoms.captions, groups=phantoms.groups)
    history = alone.history_
    np.testing.assert_allclose(told[0]["loss"], history["loss"], rtol=1e-5)
    np.testing.assert_allclose(told[0]["norm"], history["gradient_norm"], rtol=1e-4)
    np.testing.assert_allclose(
        told[0]["validation"], history["validation_loss"].dropna(), rtol=1e-5
    )
    assert told[0]["best"] == alone.best_step_
    theirs = load_tensors((folder / "adapter-0").read_bytes())
    ours = load_tensors(alone._tuned["files"]["adapter_model.safetensors"])
    assert theirs.keys() == ours.keys()
    for name, tensor in ours.items():
        # Adam goes as far for a gradient near zero, whose sign another order of sums
        # may turn: a twentieth of the way is left to that.
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=4e-5)
        if ".lora_B" in name:  # these start at zero
            assert 5e-4 < tensor.abs().max() < 12e-4
    np.testing.assert_allclose(
        np.load(folder / "vectors-1.npy"), alone.transform(images), atol=1e-3
    )
    # Each has its own random state; weights and optimizer are written once.
    written = {path.name for path in (folder / "run" / "checkpoint-4").iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt"} <= written
    complete = json.loads((folder / "run/checkpoint-4/complete.json").read_text())
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= complete.keys()
    assert not list(folder.glob(".unfinished-*"))


def test_accumulated_passes_of_processes_weigh_labels_with_blanks(
    launched, checkpoint, tmp_path
):
    """Two processes of three passes, wherever the blanks are, are one batch."""
    folder, _ = launched
    alone = with_blanks(checkpoint, tmp_path / "alone", batch_size=12).history_
    for rank in range(2):
        together = pd.read_json(folder / f"blanks-{rank}.json")
        for name in ("loss", "gradient_norm"):
            np.testing.assert_allclose(together[name], alone[name], rtol=1e-5)


def test_an_image_that_cannot_be_read_ends_both(launched):
    folder, exits = launched
    assert exits == [1, 1]
    for rank in range(2):
        assert "row 3" in (folder / f"refused-{rank}").read_text()
