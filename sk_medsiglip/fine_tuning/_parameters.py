"""Parameters of the fine-tuner: their defaults and types, and their former names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator

from sk_medsiglip._validation import Integral, Interval, Real, StrOptions
from sk_medsiglip._warning import warn_user
from sk_medsiglip.embedding import MedSigLIPEmbedder
from sk_medsiglip.fine_tuning._augmentation import Augmentation

# Parameters that moved to the embedder; the former names work until version 0.2.
_MOVED = (
    "model",
    "revision",
    "resize",
    "pad",
    "intensity",
    "frame",
    "max_pixels",
    "n_jobs",
    "device",
    "cache",
)

_POSITIVE = Interval(Real, 0, None, closed="neither")
_COUNT = Interval(Integral, 1, None, closed="left")


class Parameters(BaseEstimator):
    """Abstract: an estimator with the parameters of ``MedSigLIPFineTuner``."""

    _parameter_constraints: dict[str, Any] = {
        "embedder": [MedSigLIPEmbedder, None],
        "objective": [StrOptions({"contrastive", "classification"})],
        "prompts": [Mapping, None],
        "templates": [str, Sequence, Mapping, np.ndarray, None],
        "same_caption": [StrOptions({"positive", "ignore", "negative"})],
        "keep": [Mapping, Sequence, np.ndarray, None],
        "keep_weight": [_POSITIVE],
        "train": [StrOptions({"lora", "last_blocks", "head", "full"})],
        "towers": [StrOptions({"both", "image", "text"})],
        "lora_rank": [_COUNT],
        "lora_alpha": [_POSITIVE, None],
        "lora_dropout": [Interval(Real, 0, 1, closed="left")],
        "lora_layers": [StrOptions({"attention", "all"})],
        "n_blocks": [_COUNT],
        "epochs": [_COUNT],
        "max_steps": [_COUNT, None],
        "batch_size": [_COUNT],
        "accumulate": [_COUNT],
        "learning_rate": [_POSITIVE, StrOptions({"auto"})],
        "schedule": [StrOptions({"cosine", "linear", "constant"})],
        "warmup": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "layer_decay": [Interval(Real, 0, 1, closed="right")],
        "gradient_checkpointing": ["boolean"],
        "bf16": ["boolean", StrOptions({"auto"})],
        "pos_weight": [StrOptions({"balanced"}), _POSITIVE, "array-like", None],
        "augment": [StrOptions({"auto"}), Augmentation, None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
        "patience": [_COUNT, None],
        "checkpoint_every": [_COUNT, None],
        "run_dir": [str, os.PathLike, None],
        "resume": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        embedder: MedSigLIPEmbedder | None = None,
        *,
        objective: str = "contrastive",
        prompts: Mapping[Any, Any] | None = None,
        templates: str | Sequence[str] | Mapping[Any, Any] | None = None,
        same_caption: str = "positive",
        keep: Mapping[Any, Any] | Sequence[str] | None = None,
        keep_weight: float = 1.0,
        train: str = "lora",
        towers: str = "both",
        lora_rank: int = 8,
        lora_alpha: float | None = None,
        lora_dropout: float = 0.0,
        lora_layers: str = "attention",
        n_blocks: int = 2,
        epochs: int = 10,
        max_steps: int | None = None,
        batch_size: int = 16,
        accumulate: int = 1,
        learning_rate: float | str = "auto",
        schedule: str = "cosine",
        warmup: float = 0.05,
        weight_decay: float = 0.01,
        layer_decay: float = 1.0,
        gradient_checkpointing: bool = False,
        bf16: bool | str = "auto",
        pos_weight: Any = None,
        augment: str | Augmentation | None = "auto",
        validation_fraction: float | None = None,
        patience: int | None = 3,
        checkpoint_every: int | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        resume: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int | bool = 0,
        **deprecated: Any,
    ) -> None:
        # scikit-learn's checks pass every name of the signature, this one too.
        deprecated.pop("deprecated", None)
        self.embedder = _from_former(embedder, deprecated)
        self.objective = objective
        self.prompts = prompts
        self.templates = templates
        self.same_caption = same_caption
        self.keep = keep
        self.keep_weight = keep_weight
        self.train = train
        self.towers = towers
        self.lora_rank = lora_rank
        self.lora_alpha = lora_alpha
        self.lora_dropout = lora_dropout
        self.lora_layers = lora_layers
        self.n_blocks = n_blocks
        self.epochs = epochs
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.warmup = warmup
        self.weight_decay = weight_decay
        self.layer_decay = layer_decay
        self.gradient_checkpointing = gradient_checkpointing
        self.bf16 = bf16
        self.pos_weight = pos_weight
        self.augment = augment
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.checkpoint_every = checkpoint_every
        self.run_dir = run_dir
        self.resume = resume
        self.random_state = random_state
        self.verbose = verbose

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the fine-tuner, and as ``embedder__...`` of its embedder.

        Parameters
        ----------
        **params : dict
            Parameters by name.

        Returns
        -------
        self
        """
        params.pop("deprecated", None)
        former = {name: params.pop(name) for name in _MOVED if name in params}
        if former:
            line = ", ".join(f"embedder__{k}={v!r}" for k, v in former.items())
            _warn_of_former(former, f"set_params({line})")
            if self.embedder is None:
                self.embedder = MedSigLIPEmbedder()
            self.embedder.set_params(**former)
        return super().set_params(**params)

    def __getattr__(self, name: str) -> Any:
        if name not in _MOVED:
            # Once more, for the error of a property or method that is not available.
            return super().__getattribute__(name)
        _warn_of_former([name], f"embedder.{name}")
        return getattr(self.embedder or MedSigLIPEmbedder(), name)


def _from_former(embedder: Any, former: dict[str, Any]) -> Any:
    """Return the embedder that parameters of former versions mean."""
    if isinstance(embedder, str | os.PathLike):
        # The model was the first parameter.
        embedder, former = None, {"model": embedder, **former}
    if unknown := former.keys() - set(_MOVED):
        raise TypeError(f"MedSigLIPFineTuner got an unexpected {min(unknown)!r}.")
    if not former:
        return embedder
    if embedder is not None:
        raise TypeError(f"Pass {', '.join(former)} to the embedder, not beside it.")
    given = ", ".join(f"{name}={value!r}" for name, value in former.items())
    _warn_of_former(
        former, f"MedSigLIPFineTuner(embedder=MedSigLIPEmbedder({given}), ...)"
    )
    return MedSigLIPEmbedder(**former)


def _warn_of_former(names: Any, line: str) -> None:
    warn_user(
        f"{', '.join(names)} of MedSigLIPFineTuner moved to its embedder, and will no "
        f"longer be accepted in version 0.2. Write {line}.",
        FutureWarning,
    )
