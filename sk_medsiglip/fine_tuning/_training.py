"""One run, from settings and data to tuned weights."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip.encoder import Checkpoint, find_checkpoint, ran_out_of_memory
from sk_medsiglip.fine_tuning._batches import Collator
from sk_medsiglip.fine_tuning._examples import Examples, check_examples
from sk_medsiglip.fine_tuning._inputs import Inputs, read_inputs, scratch_folder
from sk_medsiglip.fine_tuning._network import (
    Network,
    build_network,
    load_trained,
    trained_tensors,
)
from sk_medsiglip.fine_tuning._processes import Processes, start_processes
from sk_medsiglip.fine_tuning._run_folder import (
    RunFolder,
    check_space,
    open_run,
    run_facts,
)
from sk_medsiglip.fine_tuning._save import licence_files
from sk_medsiglip.fine_tuning._settings import Pace, Settings, out_of_memory
from sk_medsiglip.fine_tuning._trainer import (
    TuningTrainer,
    history_table,
    make_arguments,
    quiet_trainer,
)
from sk_medsiglip.fine_tuning._tuned import Tuned, adapter_files, base_name, store_tuned

# Number of parameters from which memory is freed at once.
_HEAVY = 50_000_000

# Bytes of two checkpoints per trained parameter: its value and two states of AdamW.
_CHECKPOINT_BYTES = 2 * 3 * 4


def fine_tune(
    settings: Settings, X: ArrayLike, y: Any, groups: ArrayLike | None
) -> tuple[dict[str, Any], Tuned | None]:
    """Return the attributes that ``fit`` sets, and the weights if they changed."""
    processes = start_processes(settings.device)
    base = settings.embedder
    checkpoint = find_checkpoint(base.model, base.revision)
    examples = check_examples(settings, X, y, groups, checkpoint)
    seed = processes.share(settings.draw_seed())
    # Before images are read, since a split can be impossible with the given labels.
    validates = examples.split(settings.validation_fraction, seed)
    pace = settings.pace(int((~validates).sum()), processes.n)
    with scratch_folder(settings, processes) as scratch:
        inputs = read_inputs(settings, examples, checkpoint, scratch, processes)
        facts = run_facts(settings, examples, inputs.digest, checkpoint, processes.n)
        with open_run(settings, facts, seed, processes) as (folder, seed):
            validates = examples.split(settings.validation_fraction, seed)
            data = _Data(examples, inputs, validates, seed)
            try:
                with quiet_trainer():
                    return _train(settings, pace, data, checkpoint, folder, processes)
            except (RuntimeError, MemoryError) as error:
                if not ran_out_of_memory(error):
                    raise
                # The stack frames of the failed step keep its tensors alive.
                traceback.clear_frames(error.__traceback__)
                bf16 = settings.computes_in_bfloat16()
                raise out_of_memory(settings, settings.device, bf16=bf16) from error


@dataclass(frozen=True, eq=False)
class _Data:
    """The examples and inputs of a run, its validation rows and its seed."""

    examples: Examples
    inputs: Inputs
    validates: NDArray[np.bool_]
    seed: int

    def collator(self, rows: NDArray[np.intp], changes: Any = None) -> Collator:
        """Return the collator of some rows."""
        return Collator(rows, self.examples, self.inputs, changes, self.seed)


def _train(
    settings: Settings,
    pace: Pace,
    data: _Data,
    checkpoint: Checkpoint,
    folder: RunFolder,
    processes: Processes,
) -> tuple[dict[str, Any], Tuned | None]:
    rows, judged = np.flatnonzero(~data.validates), np.flatnonzero(data.validates)
    has_split = len(judged) > 0
    arguments = make_arguments(
        settings, pace, folder.path, data.seed, validates=has_split
    )
    torch.manual_seed(data.seed)
    network, low_rank = build_network(
        settings, data.examples, data.inputs.kept, checkpoint, rows, bf16=arguments.bf16
    )
    n_trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    check_space(
        folder.path,
        _CHECKPOINT_BYTES * n_trained,
        "Checkpoints of this run",
        ", or train less: train='lora'",
    )
    trainer = TuningTrainer(
        network,
        arguments,
        settings,
        pace,
        data.collator(rows, settings.augmentation),
        data.collator(judged) if has_split else None,
    )
    last = folder.last_checkpoint() if settings.resume else None
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    state = trainer.state
    best = state.best_global_step if has_split else None
    if best:
        processes.wait()
        load_trained(network, folder.checkpoint(best))
    tuned = _store(settings, network, low_rank, checkpoint, processes)
    learned = {
        "base_revision_": checkpoint.revision,
        "fingerprint_": tuned.fingerprint if tuned else checkpoint.revision,
        "history_": history_table(state.log_history, pace.steps_per_epoch),
        "n_steps_": state.global_step,
        "best_step_": best or state.global_step,
        "n_trained_": n_trained,
        "n_train_": len(rows),
        "validation_rows_": judged,
        "_n_features_out": checkpoint.embedding_dim,
    }
    layer, labels = network.classifier, data.examples.labels
    if layer is not None and labels is not None:
        learned["classes_"] = labels.classes_attribute
        learned["coef_"] = _array(layer.weight)
        learned["intercept_"] = _array(layer.bias)
    n_values = sum(p.numel() for p in network.parameters())
    if settings.device != "cpu" or n_values > _HEAVY:
        trainer.accelerator.free_memory()
    return learned, tuned


def _store(
    settings: Settings,
    network: Network,
    low_rank: Any,
    checkpoint: Checkpoint,
    processes: Processes,
) -> Tuned | None:
    """Store the tuned weights as a folder, and keep an adapter in memory too."""
    if not settings.trained_towers:
        return None
    base, files = settings.embedder, None
    name = base_name(base.model)
    if low_rank is not None:
        files = adapter_files(low_rank, name, checkpoint.revision)
    tensors = {
        key.removeprefix("siglip."): tensor
        for key, tensor in trained_tensors(network).items()
        if not key.startswith("classifier.")
    }
    beside = licence_files(name, checkpoint)
    new = Tuned("", name, checkpoint.revision)
    return store_tuned(new, base.cache, files, tensors, beside, processes)


def _array(parameter: torch.Tensor) -> NDArray[np.float32]:
    return parameter.detach().float().cpu().numpy().copy()
