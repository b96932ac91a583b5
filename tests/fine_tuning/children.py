"""What child processes of these tests do: the functions below run in them."""

import json
import os
import pickle
import signal
import socket
import sys
import traceback
from pathlib import Path

import forked
import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.fine_tuning import (
    MedSigLIPFineTuner,
    _inputs,
    _losses,
    _run_folder,
    _training,
)


def start(function, *arguments, **environment):
    """Start a function of this file in a child process, with variables set."""
    child = forked.context.Process(target=_run, args=(function, arguments, environment))
    child.start()
    return child


def _run(name, arguments, environment):
    os.environ.update({key: str(value) for key, value in environment.items()})
    # A shell ignores it for what it runs in the background, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    globals()[name](*arguments)


def tuner_of(model="demo", *, cache=True, **settings):
    embedder = MedSigLIPEmbedder(model, device="cpu", cache=cache)
    return MedSigLIPFineTuner(embedder, random_state=0, **settings)


def fit(model, n_images, settings, told):
    """Fit on phantoms, and write how an error ends it."""
    phantoms = make_chest_phantoms(n_images, random_state=0)
    try:
        tuner_of(model, **settings).fit(
            list(phantoms.images), phantoms.captions, groups=phantoms.groups
        )
    except BaseException:
        Path(told).write_text(traceback.format_exc())
        raise


def fit_on_a_full_disk(model, folder):
    """Files may not grow past a limit: first the weights, then the optimizer."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    phantoms = make_chest_phantoms(24, random_state=0)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    lines = []
    # Fractions of the sizes of a checkpoint's two files.
    for name, limit in (("weights", 5_000), ("optimizer", 30_000), ("optimizer", None)):
        run_dir = folder / name
        tuner = tuner_of(
            model,
            cache=folder / "store",
            max_steps=6,
            batch_size=6,
            checkpoint_every=2,
            run_dir=run_dir,
            resume=True,
        )
        limit = unlimited[0] if limit is None else limit
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
        try:
            tuner.fit(list(phantoms.images), phantoms.captions)
            told = "done"
        except OSError as error:
            told = f"{type(error).__name__} {error}"
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        lines.append([told, [path.name for path in run_dir.glob("checkpoint-*")]])
    (folder / "told.json").write_text(json.dumps(lines))


def fit_without_memory(folder):
    """Fit where the address space may grow by 200 MB only."""
    import resource

    images = np.zeros((96, 128, 128), np.uint8)
    images[:, 5] = np.arange(96, dtype=np.uint8)[:, None]
    texts = ["a nodule", "an effusion"] * 48
    tuner = tuner_of(cache=folder / "store", max_steps=1, batch_size=256)
    tuner.fit(images[:8], texts[:8])
    status = Path("/proc/self/status").read_text()
    used = int(status.split("VmSize:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)
    try:
        tuner.fit(images, texts)
        told = "it fitted"
    except MemoryError as error:
        told = f"{type(error).__name__} {error}"
    (folder / "told").write_text(told)


def transform_a_pickle(folder):
    tuner = pickle.loads((folder / "tuner.pkl").read_bytes())
    found = tuner.transform(np.load(folder / "images.npy"))
    np.testing.assert_allclose(found, np.load(folder / "expected.npy"), atol=1e-4)
    assert tuner.as_embedder().revision == tuner.fingerprint_


def die_while(model, store, where, saved):
    """Be killed while training, or while saving."""

    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    _inputs.IN_MEMORY = 0
    images = np.random.default_rng(0).integers(0, 255, (8, 16, 16), np.uint8)
    tuner = tuner_of(model, cache=store, max_steps=1, batch_size=4)
    if where == "training":
        _training.build_network = die
    tuner.fit(images, [f"picture {i}" for i in range(8)])
    os.rename = die
    tuner.save(saved)


# ------------------------------------------------------------- two that fit together


def start_together(function, *arguments, **environment):
    """Start two processes with the variables that torchrun sets."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    shared = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"LOCAL_WORLD_SIZE": 2, **environment}
    return [
        start(function, *arguments, RANK=rank, LOCAL_RANK=rank, **shared)
        for rank in range(2)
    ]


class Towers(torch.nn.Module):
    """Two layers in place of towers, in float64."""

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
            return _losses.binary_loss(images, targets, torch.tensor([2.0, 1, 1, 1]))
        if kind == "classes":
            places = targets[:, 0].nan_to_num(3).long()
            return _losses.class_loss(images, places, torch.tensor([1.0, 2, 3, 4]))
        texts = _losses.gather_rows(self.text(t))
        signs = signs_of(*ids)
        return _losses.sigmoid_pair_loss(images, texts, self.scale, self.bias, signs)


def signs_of(rows, true, shown, pictures):
    """Return the signs of this process's rows with the texts of all."""
    gather = _losses.gather_rows
    return _losses.pair_signs(
        rows,
        gather(rows),
        true,
        true * 0 - 1,
        gather(shown),
        gather(pictures),
        pictures,
        "ignore",
    )


def mark_complete(checkpoint):
    """Make the record of a checkpoint's files anew."""
    _run_folder.mark_complete(checkpoint)


def fit_together(model, folder):
    """Fit, take losses, accumulate, and meet a broken image last.

    Each part leaves its files in the folder.
    """
    rank = int(os.environ["RANK"])
    phantoms = make_chest_phantoms(20, random_state=0)
    images = list(phantoms.images)
    store = folder / "store"
    tuner = tuner_of(
        model,
        cache=store,
        max_steps=4,
        batch_size=4,
        validation_fraction=0.3,
        checkpoint_every=2,
        run_dir=folder / "run",
        learning_rate=3e-4,
    ).fit(images, phantoms.captions, groups=phantoms.groups)
    np.save(folder / f"vectors-{rank}.npy", tuner.transform(images))
    weights = tuner._tuned["files"]["adapter_model.safetensors"]
    (folder / f"adapter-{rank}").write_bytes(weights)
    told = {
        "loss": tuner.history_["loss"].tolist(),
        "norm": tuner.history_["gradient_norm"].tolist(),
        "validation": tuner.history_["validation_loss"].dropna().tolist(),
        "best": tuner.best_step_,
        "fingerprint": tuner.fingerprint_,
    }
    (folder / f"told-{rank}.json").write_text(json.dumps(told))
    _take_losses(folder, rank)
    in_parts = with_blanks(model, store, batch_size=2, accumulate=3)
    in_parts.history_.to_json(folder / f"blanks-{rank}.json")
    images[3] = np.zeros((0, 5))
    try:
        tuner.set_params(run_dir=folder / "broken").fit(
            images, phantoms.captions, groups=phantoms.groups
        )
    except ValueError as error:
        (folder / f"refused-{rank}").write_text(str(error))
        sys.exit(1)


def with_blanks(model, store, **settings):
    """Return a head that learned from labels with blanks, all rows in each step."""
    phantoms = make_chest_phantoms(12, random_state=0)
    y = phantoms.target[:, :2].astype(float)
    y[:2] = [[0, 1], [1, 0]]
    y[4:, 0] = np.nan
    y[2:4] = [[0, 1], [1, 0]]
    return tuner_of(
        model,
        cache=store,
        objective="classification",
        train="head",
        max_steps=2,
        pos_weight=[3.0, 1.0],
        **settings,
    ).fit(list(phantoms.images), y)


def _take_losses(folder, rank):
    given = torch.load(folder / "given.pt", weights_only=True)
    assert distributed.get_rank() == rank  # the group that fitting has opened
    mine = slice(4 * rank, 4 * rank + 4)
    found = {}
    for kind in ("pairs", "binary", "classes"):
        network = DistributedDataParallel(Towers(), find_unused_parameters=True)
        ids = tuple(one[mine] for one in given["ids"])
        loss = network(
            kind, given["x"][mine], given["t"][mine], ids, given["targets"][mine]
        )
        loss.backward()
        mean = loss.detach().clone()
        distributed.all_reduce(mean)
        found[kind] = {"loss": mean / 2} | {
            name: parameter.grad
            for name, parameter in network.module.named_parameters()
            if parameter.grad is not None
        }
    torch.save(found, folder / f"found-{rank}.pt")
