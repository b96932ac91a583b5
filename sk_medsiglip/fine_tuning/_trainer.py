"""transformers' ``Trainer`` for pairs and classes, and what it must not do its own way.

Ours are the loss, the order of batches, validation over whole vectors, and checkpoints:
only trained weights, as safetensors; optimizer and random state by ``weights_only``;
each marked when it is complete. Its loop, schedules, processes and clipping stay.
"""

from __future__ import annotations

import errno
import pickle
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from sk_medsiglip._progress import progress_bar
from sk_medsiglip.exceptions import CheckpointError
from sk_medsiglip.fine_tuning._batches import Collator, Rows, RunOrder
from sk_medsiglip.fine_tuning._network import Network
from sk_medsiglip.fine_tuning._pace import Pace
from sk_medsiglip.fine_tuning._run_folder import RunFolderError, mark_complete
from sk_medsiglip.fine_tuning._trainable import parameter_groups
from sk_medsiglip.fine_tuning._trained_weights import load_trained, save_trained
from sk_medsiglip.fine_tuning._validation_scores import validation_scores

__all__ = ["TuningTrainer", "history_rows", "make_arguments"]

# What torch's writer says when the disk is full; it raises no OSError.
_WRITER_FAILED = ("PytorchStreamWriter", "unexpected pos", "No space left")


def make_arguments(
    pace: Pace,
    folder: Path,
    *,
    seed: int,
    device: str,
    bf16: bool,
    validates: bool,
) -> TrainingArguments:
    """Return what transformers' ``Trainer`` is told.

    Parameters
    ----------
    pace : Pace
    folder : pathlib.Path
        For checkpoints.
    seed : int
    device : {"cpu", "cuda", "mps"}
    bf16 : bool
        Whether products are computed in bfloat16.
    validates : bool
        Whether there is a validation split.
    """
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=pace.batch_size,
        gradient_accumulation_steps=pace.accumulate,
        max_steps=pace.n_steps,
        learning_rate=pace.learning_rate,
        lr_scheduler_type=pace.schedule,
        warmup_steps=pace.warmup_steps,
        weight_decay=pace.weight_decay,
        max_grad_norm=pace.max_gradient,
        seed=seed,
        use_cpu=device == "cpu",
        bf16=bf16,
        logging_steps=1,
        # What is no number is an error of ours, and looking costs a wait each step.
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validates else "no",
        eval_steps=pace.check_every,
        save_strategy="steps",
        save_steps=pace.check_every,
        # The newest may be half-written when the process dies; the best one is kept
        # besides.
        save_total_limit=3 if validates else 2,
        metric_for_best_model="eval_loss" if validates else None,
        greater_is_better=False if validates else None,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=device == "cuda",
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
    )
    if not bf16:
        # "accelerate launch" may have been told another one.
        arguments.mixed_precision = "no"
    # One process has one GPU; several are used by one process each.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


class TuningTrainer(Trainer):
    """Train a :class:`Network`.

    Parameters
    ----------
    network : Network
    arguments : TrainingArguments
    pace : Pace
    collator : Collator
        Of the training rows.
    validation : Collator or None
        Of those of validation.
    seed : int
        Of the order of rows.
    verbose : int
        Over 0 shows a progress bar.
    """

    def __init__(
        self,
        network: Network,
        arguments: TrainingArguments,
        pace: Pace,
        collator: Collator,
        validation: Collator | None,
        *,
        seed: int,
        verbose: int | bool,
    ) -> None:
        self._pace = pace
        self._validation = validation
        self._seed = seed
        bar = _Bar(pace.n_steps, int(verbose) if arguments.process_index == 0 else 0)
        callbacks: list[TrainerCallback] = [_CheckNumbers(), bar]
        if validation is not None and pace.patience is not None:
            callbacks.append(_StopEarly(pace.patience))
        super().__init__(
            model=network,
            args=arguments,
            data_collator=collator,
            train_dataset=Rows(len(collator.rows)),
            eval_dataset=None if validation is None else Rows(len(validation.rows)),
            callbacks=callbacks,
        )
        # Its own print every log, or draw a bar with other words than ours.
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """Return the batches of this process, over all epochs.

        Not prepared by accelerate: the order already knows of the other processes.
        """
        pace, args = self._pace, self.args
        n_rows = len(self.data_collator.rows)
        order = RunOrder(
            n_rows,
            pace.batch_size,
            pace.n_steps * pace.accumulate,
            self._seed,
            args.world_size,
            args.process_index,
        )
        n_epochs = -(-len(order) // order.batches_per_epoch)
        return torch.utils.data.DataLoader(
            Rows(n_rows * n_epochs),
            batch_sampler=order,
            collate_fn=self.data_collator,
            pin_memory=args.dataloader_pin_memory,
        )

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Return the passes of a step, each with its share of the labels of all.

        Each pass is a mean over what is known in it; weighed by these shares, their
        mean is that of one pass with all rows, wherever the blanks are.
        """
        passes, n_items = super().get_batch_samples(*args, **kwargs)
        if len(passes) > 1 and "targets" in passes[0]:
            known = torch.stack([self.model.n_known(one["targets"]) for one in passes])
            known = self.accelerator.reduce(known.to(self.args.device))
            shares = len(passes) * known / known.sum().clamp(min=1e-12)
            for one, share in zip(passes, shares, strict=True):
                one["share"] = share
        return passes, n_items

    optimizer: Any
    control: Any

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return AdamW over groups of weights that move at their own speed."""
        if self.optimizer is None:
            pace = self._pace
            groups = parameter_groups(
                self.model,
                learning_rate=pace.learning_rate,
                classifier_rate=pace.classifier_rate,
                weight_decay=pace.weight_decay,
                layer_decay=pace.layer_decay,
            )
            # One pass over each weight, instead of a dozen small operations on it.
            self.optimizer = torch.optim.AdamW(
                groups, lr=pace.learning_rate, fused=True
            )
        return self.optimizer

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: Any = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Judge the validation rows, over whole vectors: any number of processes."""
        assert self._validation is not None
        metrics = {
            f"{metric_key_prefix}_{name}": value
            for name, value in validation_scores(
                self.model,
                self._validation,
                self._pace.batch_size * self.args.world_size,
                self._pace.batch_size,
                self.accelerator,
            ).items()
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the trained weights, and nothing that is a pickle of objects."""
        if self.args.should_save:
            save_trained(self.model, Path(output_dir or self.args.output_dir))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
            # Every process has written its random state.
            self.accelerator.wait_for_everyone()
            if self.args.process_index == 0:
                mark_complete(folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            if not _disk_failed(error):
                raise
            # Half a checkpoint holds the space that the way out may need.
            shutil.rmtree(folder, ignore_errors=True)
            raise RunFolderError(
                f"The checkpoint of step {self.state.global_step} cannot be written to "
                f"{str(folder.parent)!r}: {error}. Free space there, then fit again "
                "with resume=True: it goes on from the checkpoint before."
            ) from error

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: Any = None
    ) -> None:
        load_trained(self.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _unpickling_refused(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _unpickling_refused(checkpoint):
            super()._load_rng_state(checkpoint)


@contextmanager
def _unpickling_refused(checkpoint: str | None) -> Iterator[None]:
    """Say what a file is that torch's safe reader refuses."""
    try:
        with warnings.catch_warnings():
            # It says first that others than it write such pickles, and refuses then.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            yield
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"A file of {checkpoint!r} holds more than numbers and was not opened. "
            "This package did not write it."
        ) from error


def _disk_failed(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
    return any(words in str(error) for words in _WRITER_FAILED) or isinstance(
        error, SafetensorError
    )


class _Bar(TrainerCallback):
    """The house's progress bar, with the loss beside it."""

    def __init__(self, n_steps: int, verbose: int) -> None:
        self._n_steps = n_steps
        self._verbose = verbose
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar = progress_bar(
            self._n_steps,
            done=state.global_step,
            desc="fine-tuning",
            unit="step",
            verbose=self._verbose,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.update()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any
    ) -> None:
        shown = {"loss": "loss", "eval_loss": "validation"}
        if self._bar is not None and not self._bar.disable:
            values = {shown[k]: f"{v:.4g}" for k, v in logs.items() if k in shown}
            if values:
                self._bar.set_postfix(values, refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.close()


class _StopEarly(TrainerCallback):
    """Stop when the validation loss has not been better for a while.

    All it knows is in the log that checkpoints carry: a run that goes on stops where
    an unbroken one would.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        losses = [one["eval_loss"] for one in state.log_history if "eval_loss" in one]
        if len(losses) - 1 - int(np.argmin(losses)) >= self._patience:
            control.should_training_stop = True


class _CheckNumbers(TrainerCallback):
    """Stop a run whose loss is no number any more."""

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any
    ) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"The loss is {loss} at step {state.global_step}: the steps are too "
                f"large. Use a smaller learning_rate than {args.learning_rate:g}, a "
                "longer warmup, or bf16=False."
            )


def history_rows(
    log: list[dict[str, Any]], steps_per_epoch: float
) -> list[dict[str, float]]:
    """Return one row a step from what the trainer logged.

    Parameters
    ----------
    log : list of dict
        ``TrainerState.log_history``.
    steps_per_epoch : float
    """
    rows: dict[int, dict[str, float]] = {}
    names = {
        "loss": "loss",
        "learning_rate": "learning_rate",
        "grad_norm": "gradient_norm",
        "eval_loss": "validation_loss",
        "eval_auc": "validation_auc",
    }
    for entry in log:
        step = int(entry["step"])
        row = rows.setdefault(step, {"step": step, "epoch": step / steps_per_epoch})
        row.update({names[k]: v for k, v in entry.items() if k in names})
    return [row for row in rows.values() if len(row) > 2]
