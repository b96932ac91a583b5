"""Two processes that fit together: over gloo, as torchrun starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors

from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.fine_tuning import MedSigLIPFineTuner
from sk_medsiglip.fine_tuning._losses import (
    binary_loss,
    class_loss,
    pair_signs,
    sigmoid_pair_loss,
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
def launched(given, tmp_path_factory):
    """Two processes of one launch fit, take losses, and meet a broken image last.

    Starting them is what costs here, so that they do everything; each part leaves
    its files in the folder.
    """
    folder = tmp_path_factory.mktemp("launched")
    torch.save(given, folder / "given.pt")
    path = folder / "script.py"
    path.write_text(FIT + LOSSES + BROKEN)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(path), str(folder)]
    root = Path(__file__).parents[2]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(root),
        "SK_MEDSIGLIP_CACHE": str(folder / "store"),
    }
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True
    )
    return folder, done


FIT = """
import json, os, sys
import numpy as np
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.fine_tuning import MedSigLIPFineTuner
folder, rank = sys.argv[1], int(os.environ["RANK"])
phantoms = make_chest_phantoms(20, random_state=0)
def new(run_dir):
    return MedSigLIPFineTuner(
        "demo", random_state=0, device="cpu", max_steps=4, batch_size=4,
        validation_fraction=0.3, checkpoint_every=2, run_dir=folder + run_dir,
        learning_rate=3e-4,
    )
tuner = new("/run")
images = list(phantoms.images)
tuner.fit(images, phantoms.captions, groups=phantoms.groups)
np.save(f"{folder}/vectors-{rank}.npy", tuner.transform(images))
open(f"{folder}/adapter-{rank}", "wb").write(
    tuner._tuned.files["adapter_model.safetensors"]
)
json.dump({
    "loss": tuner.history_["loss"].tolist(),
    "norm": tuner.history_["gradient_norm"].tolist(),
    "validation": tuner.history_["validation_loss"].dropna().tolist(),
    "best": tuner.best_step_,
    "fingerprint": tuner.fingerprint_,
}, open(f"{folder}/told-{rank}.json", "w"))
"""

LOSSES = """
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from sk_medsiglip.fine_tuning._losses import (
    binary_loss, class_loss, gather_rows, pair_signs, sigmoid_pair_loss
)

class Towers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.image = torch.nn.Linear(5, 4, dtype=torch.float64)
        self.text = torch.nn.Linear(3, 4, dtype=torch.float64)
        self.scale = torch.nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
        self.bias = torch.nn.Parameter(torch.tensor(-2.0, dtype=torch.float64))

    def forward(self, kind, x, t, ids, targets):
        images = self.image(x)
        if kind == "binary":
            return binary_loss(images, targets, torch.tensor([2.0, 1, 1, 1]))
        if kind == "classes":
            weight = torch.tensor([1.0, 2, 3, 4])
            return class_loss(images, targets[:, 0].nan_to_num(3).long(), weight)
        rows, true, shown, pictures = ids
        signs = pair_signs(rows, gather_rows(rows), true, true * 0 - 1,
                           gather_rows(shown), gather_rows(pictures), pictures,
                           "ignore")
        texts = gather_rows(self.text(t))
        return sigmoid_pair_loss(images, texts, self.scale, self.bias, signs)

given = torch.load(folder + "/given.pt", weights_only=True)
assert distributed.get_rank() == rank  # the group that fitting has opened
mine = slice(4 * rank, 4 * rank + 4)
found = {}
for kind in ("pairs", "binary", "classes"):
    network = DistributedDataParallel(Towers(), find_unused_parameters=True)
    ids = tuple(one[mine] for one in given["ids"])
    loss = network(kind, given["x"][mine], given["t"][mine], ids,
                   given["targets"][mine])
    loss.backward()
    mean = loss.detach().clone()
    distributed.all_reduce(mean)
    found[kind] = {"loss": mean / 2} | {
        name: parameter.grad
        for name, parameter in network.module.named_parameters()
        if parameter.grad is not None
    }
torch.save(found, f"{folder}/found-{rank}.pt")
"""

BROKEN = """
images[3] = np.zeros((0, 5))
try:
    new("/broken").fit(images, phantoms.captions, groups=phantoms.groups)
except ValueError as error:
    open(f"{folder}/refused-{rank}", "w").write(str(error))
    raise
open(f"{folder}/fitted-{rank}", "w").close()
"""


class Towers(torch.nn.Module):
    """As in the script above, for all rows at once."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.image = torch.nn.Linear(5, 4, dtype=torch.float64)
        self.text = torch.nn.Linear(3, 4, dtype=torch.float64)
        self.scale = torch.nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
        self.bias = torch.nn.Parameter(torch.tensor(-2.0, dtype=torch.float64))


def test_losses_and_gradients_are_those_of_one_process(launched, given):
    folder, done = launched
    assert (folder / "found-1.pt").exists(), done.stderr
    rows, _, shown, _ = given["ids"]
    targets = given["targets"]
    signs = pair_signs(
        rows,
        rows,
        shown[:, None],
        torch.full((8, 1), -1),
        shown,
        rows,
        rows,
        "ignore",
    )
    assert (signs == 0).sum() == 4
    for kind in ("pairs", "binary", "classes"):
        alone = Towers()
        images = alone.image(given["x"])
        if kind == "binary":
            loss = binary_loss(images, targets, torch.tensor([2.0, 1, 1, 1]))
        elif kind == "classes":
            places = targets[:, 0].nan_to_num(3).long()
            loss = class_loss(images, places, torch.tensor([1.0, 2, 3, 4]))
        else:
            loss = sigmoid_pair_loss(
                images, alone.text(given["t"]), alone.scale, alone.bias, signs
            )
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


def test_two_processes_fit_as_one_with_their_batches_joined(launched, tmp_path):
    folder, done = launched
    assert (folder / "told-1.json").exists(), done.stderr
    told = [json.loads((folder / f"told-{r}.json").read_text()) for r in range(2)]
    assert told[0] == told[1]
    phantoms = make_chest_phantoms(20, random_state=0)
    images = list(phantoms.images)
    alone = MedSigLIPFineTuner(
        "demo",
        random_state=0,
        device="cpu",
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
    ours = load_tensors(alone._tuned.files["adapter_model.safetensors"])
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
    assert not list(folder.glob(".pixels-*"))


def test_an_image_that_cannot_be_read_ends_both(launched):
    folder, done = launched
    assert done.returncode != 0
    assert "row 3" in done.stderr
    # Each by itself, not because the launcher ends the one when the other fails.
    for rank in range(2):
        assert "row 3" in (folder / f"refused-{rank}").read_text()
    assert not list(folder.glob("fitted-*"))
