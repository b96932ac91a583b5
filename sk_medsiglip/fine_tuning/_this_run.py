"""What decides a run, and the folder in which it can be found again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from blake3 import blake3

from sk_medsiglip.encoder import Checkpoint
from sk_medsiglip.fine_tuning._adapter_files import runs_folder
from sk_medsiglip.fine_tuning._inputs import Inputs
from sk_medsiglip.fine_tuning._material import Material
from sk_medsiglip.fine_tuning._processes import Processes
from sk_medsiglip.fine_tuning._run_folder import RunFolder, RunFolderError, run_digest
from sk_medsiglip.fine_tuning._saved import to_json
from sk_medsiglip.fine_tuning._scratch import make_scratch

if TYPE_CHECKING:
    from sk_medsiglip.fine_tuning._fine_tuner import MedSigLIPFineTuner

__all__ = ["check_space", "open_run", "run_facts"]

# Parameters that do not decide what a run computes, or are on record by content.
_PASSING = frozenset(
    {"cache", "device", "max_pixels", "model", "n_jobs", "resume", "revision"}
    | {"run_dir", "verbose"}
)

# Bytes of a checkpoint for each byte of trained weights: they, and AdamW's two states.
_CHECKPOINT_FACTOR = 3
_N_CHECKPOINTS = 2


def run_facts(
    tuner: MedSigLIPFineTuner,
    material: Material,
    inputs: Inputs,
    checkpoint: Checkpoint,
    device: str,
    processes: Processes,
) -> dict[str, Any]:
    """Return what decides a run: settings, base, and digests of the data.

    Parameters
    ----------
    tuner : MedSigLIPFineTuner
    material, inputs
        Its data.
    checkpoint : Checkpoint
        The base.
    device : {"cpu", "cuda", "mps"}
    processes : Processes

    Returns
    -------
    dict
        Of JSON's types; no text, label or path of the data.
    """
    given = tuner.get_params(deep=False)
    if not isinstance(tuner.random_state, int | np.integer | None):
        given["random_state"] = None
    facts = {k: to_json(v) for k, v in given.items() if k not in _PASSING}
    for name in ("prompts", "keep"):
        if facts[name] is not None:
            facts[name] = run_digest({name: facts[name]})
    content = blake3()
    if material.pairs is not None:
        for ids in (*material.pairs.true, *material.pairs.unknown):
            content.update(ids.tobytes() + b"|")
        content.update("\0".join(material.pairs.texts).encode())
    if material.labels is not None:
        content.update(material.labels.target.tobytes())
        content.update(repr(material.labels.classes_attribute.tolist()).encode())
    return facts | {
        "base": checkpoint.revision,
        "device type": device,
        "images": inputs.digest,
        "y": content.hexdigest(length=16),
        "groups": blake3(material.patients.tobytes()).hexdigest(length=16),
        "processes": processes.n,
    }


@contextmanager
def open_run(
    tuner: MedSigLIPFineTuner,
    facts: Mapping[str, Any],
    seed: int,
    processes: Processes,
) -> Iterator[tuple[RunFolder, int]]:
    """Open the folder of a run; one that the user did not name goes when it is done.

    Parameters
    ----------
    tuner : MedSigLIPFineTuner
    facts : mapping
        As :func:`run_facts` returns them.
    seed : int
        Of a new run.
    processes : Processes

    Yields
    ------
    folder : RunFolder
    seed : int
        Of this run: that of the stopped one, if it goes on.

    Raises
    ------
    ValueError
        If a run is to go on, and nothing says where it was.
    CheckpointError, RunFolderError
        See :class:`RunFolder`.
    """
    beside_store = runs_folder(tuner.cache)
    named = tuner.run_dir is not None
    if named:
        path = Path(os.path.abspath(os.path.expanduser(tuner.run_dir or "")))
    elif beside_store is not None:
        path = beside_store / run_digest(facts)
    elif tuner.resume:
        raise ValueError(
            "resume=True with cache=False needs run_dir=, the folder in which the run "
            "that was stopped left its checkpoints."
        )
    else:
        made = str(make_scratch(None, "run")) if processes.is_first else ""
        path = Path(processes.share(made))
    folder = RunFolder(path, facts)
    if processes.is_first:
        seed = folder.open(resume=tuner.resume, seed=seed)
    seed = processes.share(seed)
    try:
        yield folder, seed
    except BaseException:
        if not named and beside_store is None and processes.is_first:
            # Nobody could find it again.
            shutil.rmtree(path, ignore_errors=True)
        raise
    processes.wait()
    if not named and processes.is_first:
        shutil.rmtree(path, ignore_errors=True)


def check_space(folder: RunFolder, n_bytes: int) -> None:
    """Raise before the first step if the disk cannot hold the checkpoints.

    Parameters
    ----------
    folder : RunFolder
    n_bytes : int
        Of the trained weights.

    Raises
    ------
    RunFolderError
        With what is needed and what is there.
    """
    needed = _N_CHECKPOINTS * _CHECKPOINT_FACTOR * n_bytes
    free = shutil.disk_usage(folder.path).free
    if free < needed:
        raise RunFolderError(
            f"Checkpoints of this run take {needed / 1e9:.1f} GB, and the disk of "
            f"{str(folder.path)!r} has {free / 1e9:.1f} GB left. Free some, choose "
            "another disk with run_dir=, or train less: train='lora'."
        )
