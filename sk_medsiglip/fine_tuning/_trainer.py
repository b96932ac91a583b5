"""Subclass of transformers' ``Trainer`` for pairs and classes.

The loss, the order of batches, the validation and the checkpoints differ. Checkpoints
hold only trained weights, as safetensors, and optimizer and random states that are read
with ``weights_only``; each is marked when it is complete. The training loop, schedules,
processes and clipping are those of transformers.
"""

from __future__ import annotations

import errno
import pickle
import random
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
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
from sk_medsiglip.exceptions import CheckpointError, RunFolderError
from sk_medsiglip.fine_tuning._batches import Collator, RunOrder
from sk_medsiglip.fine_tuning._network import (
    Network,
    load_trained,
    parameter_groups,
    save_trained,
)
from sk_medsiglip.fine_tuning._run_folder import mark_complete
from sk_medsiglip.fine_tuning._settings import Pace, Settings
from sk_medsiglip.fine_tuning._validation import validation_scores

# Norm to which gradients are clipped.
_MAX_GRADIENT = 1.0

# Messages of torch when the disk is full, which does not raise OSError.
_WRITER_FAILED = ("PytorchStreamWriter", "unexpected pos", "No space left")

# Names in the log of the trainer, and in ``history_``.
_LOGGED = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "eval_loss": "validation_loss",
    "eval_auc": "validation_auc",
}


@contextmanager
def quiet_trainer() -> Iterator[None]:
    """Silence the logs and warnings of transformers, and restore random states.

    A run seeds the random numbers of Python, numpy and torch.
    """
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    python, in_numpy = random.getstate(), np.random.get_state()
    logging.set_verbosity_error()
    try:
        with (
            warnings.catch_warnings(),
            torch.random.fork_rng(range(torch.cuda.device_count())),
        ):
            # peft and transformers warn of coming changes in each other.
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)
        random.setstate(python)
        np.random.set_state(in_numpy)


def make_arguments(
    settings: Settings, pace: Pace, folder: Path, seed: int, *, validates: bool
) -> TrainingArguments:
    """Return the arguments of transformers' ``Trainer``."""
    bf16 = settings.computes_in_bfloat16()
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=pace.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        max_steps=pace.n_steps,
        learning_rate=pace.learning_rate,
        lr_scheduler_type=settings.schedule.replace("constant", "constant_with_warmup"),
        warmup_steps=pace.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=_MAX_GRADIENT,
        seed=seed,
        use_cpu=settings.device == "cpu",
        bf16=bf16,
        logging_steps=1,
        # We raise on NaN ourselves, and this filter would wait for the GPU each step.
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validates else "no",
        eval_steps=pace.check_every,
        save_strategy="steps",
        save_steps=pace.check_every,
        # The newest may be incomplete after a crash, and the best is kept.
        save_total_limit=3 if validates else 2,
        metric_for_best_model="eval_loss" if validates else None,
        greater_is_better=False if validates else None,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=settings.device == "cuda",
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
    )
    if not bf16:
        # Overrides an option of "accelerate launch".
        arguments.mixed_precision = "no"
    # Each process uses one GPU.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


class TuningTrainer(Trainer):
    """Train a :class:`Network` on the rows of a collator, and validate on another's."""

    optimizer: Any
    control: Any

    def __init__(
        self,
        network: Network,
        arguments: TrainingArguments,
        settings: Settings,
        pace: Pace,
        collator: Collator,
        validation: Collator | None,
    ) -> None:
        self._settings = settings
        self._pace = pace
        self._validation = validation
        verbose = int(settings.verbose) if arguments.process_index == 0 else 0
        callbacks = [_CheckNumbers(), _Bar(pace.n_steps, verbose)]
        if validation is not None and settings.patience is not None:
            callbacks.append(_StopEarly(settings.patience))
        super().__init__(
            model=network,
            args=arguments,
            data_collator=collator,
            train_dataset=range(len(collator.rows)),
            eval_dataset=None if validation is None else range(len(validation.rows)),
            callbacks=callbacks,
        )
        # Ours replace these, which print every log or draw a progress bar.
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """Return the batches of this process over all epochs.

        They are not prepared by accelerate, since the order is divided among processes.
        """
        pace, args = self._pace, self.args
        n_rows = len(self.data_collator.rows)
        order = RunOrder(
            n_rows,
            pace.batch_size,
            pace.n_steps * self._settings.accumulate,
            self.data_collator.seed,
            args.world_size,
            args.process_index,
        )
        n_epochs = -(-len(order) // order.batches_per_epoch)
        return torch.utils.data.DataLoader(
            # The collator interprets the items.
            range(n_rows * n_epochs),  # type: ignore[arg-type]
            batch_sampler=order,
            collate_fn=self.data_collator,
            pin_memory=args.dataloader_pin_memory,
        )

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Return the passes of a step, each with its share of the known labels.

        The loss of a pass is a mean over its known labels. Weighted by these shares,
        the mean over passes equals the loss of a single pass with all rows.
        """
        passes, n_items = super().get_batch_samples(*args, **kwargs)
        if len(passes) > 1 and "targets" in passes[0]:
            known = torch.stack([self.model.n_known(one["targets"]) for one in passes])
            known = self.accelerator.reduce(known.to(self.args.device))
            shares = len(passes) * known / known.sum().clamp(min=1e-12)
            for one, share in zip(passes, shares, strict=True):
                one["share"] = share
        return passes, n_items

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return AdamW over groups of weights with different learning rates."""
        if self.optimizer is None:
            groups = parameter_groups(
                self.model,
                learning_rate=self._pace.learning_rate,
                classifier_rate=self._pace.classifier_rate,
                weight_decay=self._settings.weight_decay,
                layer_decay=self._settings.layer_decay,
            )
            # Fused, since a dozen small operations per weight take longer.
            self.optimizer = torch.optim.AdamW(
                groups, lr=self._pace.learning_rate, fused=True
            )
        return self.optimizer

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: Any = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Score the validation rows, independently of the number of processes."""
        assert self._validation is not None
        scores = validation_scores(
            self.model,
            self._validation,
            self._pace.batch_size * self.args.world_size,
            self._pace.batch_size,
            self.accelerator,
        )
        metrics = {f"{metric_key_prefix}_{name}": one for name, one in scores.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
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
            # An incomplete checkpoint takes up space that is needed to recover.
            shutil.rmtree(folder, ignore_errors=True)
            raise RunFolderError(
                f"The checkpoint of step {self.state.global_step} cannot be written to "
                f"{str(folder.parent)!r}: {error}. Free space there, then fit again "
                "with resume=True to continue from the last checkpoint."
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
    """Turn an error of torch's safe reader into one that explains it."""
    try:
        with warnings.catch_warnings():
            # torch warns of the pickle protocol before it raises.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            yield
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"A file of {checkpoint!r} holds objects other than numbers and was not "
            "loaded. It was not written by this package; delete the checkpoint."
        ) from error


def _disk_failed(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
    return isinstance(error, SafetensorError) or any(
        words in str(error) for words in _WRITER_FAILED
    )


class _Bar(TrainerCallback):
    """Progress bar with the losses."""

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
        values = {name: f"{logs[k]:.4g}" for k, name in shown.items() if k in logs}
        if values and not self._bar.disable:  # the last record has no loss
            self._bar.set_postfix(values, refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.close()


class _StopEarly(TrainerCallback):
    """Stop when the validation loss has not improved for a while.

    It reads the log, which is part of checkpoints, so that a resumed run stops at the
    same step as an uninterrupted one.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        losses = [one["eval_loss"] for one in state.log_history if "eval_loss" in one]
        if len(losses) - 1 - int(np.argmin(losses)) >= self._patience:
            control.should_training_stop = True


class _CheckNumbers(TrainerCallback):
    """Stop a run whose loss is NaN or infinite."""

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any
    ) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"The loss is {loss} at step {state.global_step}, since steps are too "
                f"large. Use a learning_rate below {args.learning_rate:g}, a longer "
                "warmup, or bf16=False."
            )


def history_table(log: list[dict[str, Any]], steps_per_epoch: float) -> pd.DataFrame:
    """Return the log of the trainer as a table with one row per step."""
    table = pd.DataFrame(log).groupby("step", as_index=False).first()
    table["epoch"] = table["step"] / steps_per_epoch
    names = [name for name in _LOGGED if name in table]
    return table[["step", "epoch", *names]].rename(columns=_LOGGED)
