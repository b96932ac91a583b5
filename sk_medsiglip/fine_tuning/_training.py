"""One run: from what ``fit`` is given to tuned weights."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip.encoder import Checkpoint, find_checkpoint
from sk_medsiglip.fine_tuning._adapter_files import Tuned
from sk_medsiglip.fine_tuning._batches import Collator
from sk_medsiglip.fine_tuning._building import build_network
from sk_medsiglip.fine_tuning._choices import augmentation_of, computes_in_bfloat16
from sk_medsiglip.fine_tuning._inputs import Inputs, read_inputs, scratch_folder
from sk_medsiglip.fine_tuning._keeping import keep_tuned
from sk_medsiglip.fine_tuning._material import Material, check_material
from sk_medsiglip.fine_tuning._memory import out_of_memory, ran_out_of_memory
from sk_medsiglip.fine_tuning._network import Network
from sk_medsiglip.fine_tuning._pace import Pace, pace_of
from sk_medsiglip.fine_tuning._processes import Processes, start_processes
from sk_medsiglip.fine_tuning._quiet import quiet_trainer
from sk_medsiglip.fine_tuning._run_folder import RunFolder
from sk_medsiglip.fine_tuning._this_run import check_space, open_run, run_facts
from sk_medsiglip.fine_tuning._trained_weights import load_trained
from sk_medsiglip.fine_tuning._trainer import (
    TuningTrainer,
    history_rows,
    make_arguments,
)

if TYPE_CHECKING:
    from sk_medsiglip.fine_tuning._fine_tuner import MedSigLIPFineTuner

__all__ = ["Outcome", "fine_tune"]

# Values of a network that is not left to the garbage collector's own time.
_HEAVY = 50_000_000


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run leaves.

    Parameters
    ----------
    tuned : Tuned or None
        None where the encoder stayed as it was.
    base : Checkpoint
    answers : tuple of ndarray, or None
        Classes, coefficients and intercepts of the classifier.
    history : DataFrame
        One row a step.
    n_steps, best_step : int
        Done, and of the weights that were kept.
    n_trained : int
        Trained values.
    n_train : int
        Images that were trained on.
    validation_rows : ndarray of int
        Rows that were left out of training.
    """

    tuned: Tuned | None
    base: Checkpoint
    answers: tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]] | None
    history: pd.DataFrame
    n_steps: int
    best_step: int
    n_trained: int
    n_train: int
    validation_rows: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class _Run:
    """What does not change any more once training starts.

    ``rows`` and ``validation`` are rows of the collection, trained on and judged on.
    """

    tuner: MedSigLIPFineTuner
    material: Material
    inputs: Inputs
    checkpoint: Checkpoint
    rows: NDArray[np.intp]
    validation: NDArray[np.intp]
    pace: Pace
    folder: RunFolder
    seed: int
    device: str
    processes: Processes


def fine_tune(
    tuner: MedSigLIPFineTuner,
    X: ArrayLike,
    y: Any,
    groups: ArrayLike | None,
    device: str,
) -> Outcome:
    """Train what the parameters say.

    Parameters
    ----------
    tuner : MedSigLIPFineTuner
    X, y, groups
        As for its ``fit``.
    device : {"cpu", "cuda", "mps"}

    Returns
    -------
    Outcome
    """
    processes = start_processes(device)
    checkpoint = find_checkpoint(tuner.model, tuner.revision)
    material = check_material(tuner, X, y, groups, checkpoint)
    seed = processes.share(_seed(tuner.random_state))
    # Before anything is read: a split that cannot be made is an error of the labels.
    n_validation = int(material.split(tuner.validation_fraction, seed).sum())
    pace = pace_of(tuner, len(material.sources) - n_validation, processes.n)
    with scratch_folder(tuner, processes) as scratch:
        inputs = read_inputs(tuner, material, checkpoint, scratch, processes)
        facts = run_facts(tuner, material, inputs, checkpoint, device, processes)
        with open_run(tuner, facts, seed, processes) as (folder, seed):
            judged = material.split(tuner.validation_fraction, seed)
            run = _Run(
                tuner,
                material,
                inputs,
                checkpoint,
                np.flatnonzero(~judged),
                np.flatnonzero(judged),
                pace,
                folder,
                seed,
                device,
                processes,
            )
            try:
                with quiet_trainer():
                    return _train(run)
            except (RuntimeError, MemoryError) as error:
                if not ran_out_of_memory(error):
                    raise
                # What the failed step allocated hangs on its frames.
                traceback.clear_frames(error.__traceback__)
                raise out_of_memory(
                    tuner.get_params(deep=False),
                    device,
                    bf16=computes_in_bfloat16(tuner, device),
                ) from error


def _train(run: _Run) -> Outcome:
    tuner, pace = run.tuner, run.pace
    bf16 = computes_in_bfloat16(tuner, run.device)
    validates = len(run.validation) > 0
    arguments = make_arguments(
        pace,
        run.folder.path,
        seed=run.seed,
        device=run.device,
        bf16=bf16,
        validates=validates,
    )
    torch.manual_seed(run.seed)
    network, low_rank = build_network(
        tuner, run.material, run.inputs.kept, run.checkpoint, run.rows, bf16=bf16
    )
    n_trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    check_space(run.folder, 4 * n_trained)
    collate = _collator(run)
    trainer = TuningTrainer(
        network,
        arguments,
        pace,
        collate(run.rows, augmentation=augmentation_of(tuner)),
        collate(run.validation, augmentation=None) if validates else None,
        seed=run.seed,
        verbose=tuner.verbose,
    )
    last = run.folder.last_checkpoint() if tuner.resume else None
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    state = trainer.state
    best = state.best_global_step if validates else None
    if best:
        run.processes.wait()
        load_trained(network, run.folder.checkpoint(best))
    outcome = Outcome(
        tuned=keep_tuned(tuner, network, low_rank, run.checkpoint, run.processes),
        base=run.checkpoint,
        answers=_answers(network, run.material),
        history=pd.DataFrame(history_rows(state.log_history, pace.steps_per_epoch)),
        n_steps=state.global_step,
        best_step=best or state.global_step,
        n_trained=n_trained,
        n_train=len(run.rows),
        validation_rows=run.validation,
    )
    if run.device != "cpu" or sum(p.numel() for p in network.parameters()) > _HEAVY:
        trainer.accelerator.free_memory()
    return outcome


def _answers(
    network: Network, material: Material
) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]] | None:
    layer, labels = network.classifier, material.labels
    if layer is None or labels is None:
        return None
    return labels.classes_attribute, _array(layer.weight), _array(layer.bias)


def _collator(run: _Run) -> partial[Collator]:
    return partial(
        Collator,
        pixels=run.inputs.pixels,
        image_vectors=run.inputs.image_vectors,
        image_ids=run.inputs.image_ids,
        pairs=run.material.pairs,
        token_ids=run.material.token_ids,
        text_vectors=run.inputs.text_vectors,
        targets=run.material.targets,
        seed=run.seed,
        kept=run.inputs.kept,
    )


def _seed(random_state: Any) -> int:
    from sklearn.utils import check_random_state

    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def _array(parameter: torch.Tensor) -> NDArray[np.float32]:
    return parameter.detach().float().cpu().numpy().copy()
