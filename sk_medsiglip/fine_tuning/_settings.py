"""Parameters of the fine-tuner, their checks, and the pace of a run."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from sk_medsiglip._validation import Integral, Interval, Real, StrOptions
from sk_medsiglip._warning import warn_user
from sk_medsiglip.embedding import MedSigLIPEmbedder, MedSigLIPTextEmbedder
from sk_medsiglip.encoder import choose_device
from sk_medsiglip.exceptions import OutOfMemoryError
from sk_medsiglip.fine_tuning._augmentation import Augmentation

# Low-rank matrices start at zero and can change fast, unlike pretrained weights.
_LEARNING_RATES = {"lora": 1e-3, "last_blocks": 5e-5, "head": 1e-3, "full": 1e-5}

# Lowest rate of a new classifier, which starts at zero.
_CLASSIFIER_RATE = 1e-3

# Default limit of checkpoints, since an epoch of a small data set is a step or two.
_MOST_CHECKPOINTS = 50

_DEVICES = ("auto", "cpu", "cuda", "mps")


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
    """Abstract estimator with the parameters of ``MedSigLIPFineTuner``."""

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
        # scikit-learn's checks pass every name of the signature, including this one.
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
        """Set parameters of the fine-tuner and of its embedder.

        Parameters
        ----------
        **params : dict
            Parameters by name; those of the embedder are ``embedder__...``.

        Returns
        -------
        self
            The fine-tuner.
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
            # Repeated for its error, since __getattr__ hides that of available_if.
            return super().__getattribute__(name)
        _warn_of_former([name], f"embedder.{name}")
        return getattr(self.embedder or MedSigLIPEmbedder(), name)


def _from_former(embedder: Any, former: dict[str, Any]) -> Any:
    """Return the embedder that former parameters describe."""
    if isinstance(embedder, str | os.PathLike):
        # The model was the first parameter.
        embedder, former = None, {"model": embedder, **former}
    if unknown := former.keys() - set(_MOVED):
        raise TypeError(
            f"MedSigLIPFineTuner got an unexpected parameter {min(unknown)!r}."
        )
    if not former:
        return embedder
    if embedder is not None:
        raise TypeError(f"Pass {', '.join(former)} to the embedder only.")
    given = ", ".join(f"{name}={value!r}" for name, value in former.items())
    _warn_of_former(
        former, f"MedSigLIPFineTuner(embedder=MedSigLIPEmbedder({given}), ...)"
    )
    return MedSigLIPEmbedder(**former)


def _warn_of_former(names: Any, line: str) -> None:
    warn_user(
        f"{', '.join(names)} of MedSigLIPFineTuner moved to its embedder and will be "
        f"removed in version 0.2. Write {line}.",
        FutureWarning,
    )


@dataclass(frozen=True)
class Pace:
    """Numbers of steps and learning rates of a run."""

    n_steps: int
    steps_per_epoch: float
    batch_size: int
    learning_rate: float
    classifier_rate: float
    warmup_steps: int
    check_every: int


class Settings:
    """Parameters of a fine-tuner as attributes, checked against each other."""

    def __init__(self, **parameters: Any) -> None:
        vars(self).update(parameters)
        self._check()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def _check(self) -> None:
        """Raise if parameters contradict each other."""
        device = self.embedder.device
        if device not in _DEVICES:
            raise ValueError(
                f"device={device!r} of the embedder is not one of {_DEVICES}. One "
                "process trains on one GPU: choose it with CUDA_VISIBLE_DEVICES."
            )
        if self.prompts is None and self.templates is not None:
            raise ValueError("templates needs prompts= to fill them with.")
        if not self.classifies:
            if self.pos_weight is not None:
                raise ValueError("pos_weight needs objective='classification'.")
            return
        if self.prompts is not None:
            raise ValueError(
                "objective='classification' trains a linear layer and does not use "
                "prompts. Leave them out, or use objective='contrastive'."
            )
        if self.towers == "text":
            raise ValueError(
                "objective='classification' trains the image tower, so towers='text' "
                "would train nothing. Use towers='image' or 'both'."
            )
        if self.keep is not None and self.train == "head":
            raise ValueError(
                "objective='classification' with train='head' does not change the "
                "encoder, so no scores can change. Leave keep out."
            )

    @property
    def classifies(self) -> bool:
        """Whether a classifier is trained rather than pairs of images and texts."""
        return self.objective == "classification"

    @property
    def device(self) -> str:
        """Device of the embedder, with "auto" resolved."""
        return choose_device(self.embedder.device)

    @property
    def trained_towers(self) -> tuple[str, ...]:
        """Names of the towers whose weights are trained."""
        if self.classifies:
            return () if self.train == "head" else ("image",)
        return ("image", "text") if self.towers == "both" else (self.towers,)

    @property
    def augmentation(self) -> Augmentation | None:
        """Changes of training images, with "auto" resolved."""
        if isinstance(self.augment, str):
            return Augmentation() if "image" in self.trained_towers else None
        return self.augment

    @property
    def running_towers(self) -> tuple[str, ...]:
        """Names of the towers that run in each step; others are computed once."""
        trained = self.trained_towers
        images = self.augmentation is not None or "image" in trained
        return ("image",) * images + ("text",) * ("text" in trained)

    @property
    def run_path(self) -> Path | None:
        """Folder that the user chose for the run."""
        if self.run_dir is None:
            return None
        return Path(os.path.abspath(os.path.expanduser(self.run_dir)))

    @property
    def has_seed(self) -> bool:
        """Whether ``random_state`` is a seed that can be used again."""
        return isinstance(self.random_state, int | np.integer)

    def draw_seed(self) -> int:
        """Return the seed of a new run."""
        if self.has_seed:
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def computes_in_bfloat16(self) -> bool:
        """Return whether products are computed in bfloat16."""
        import torch

        if not isinstance(self.bf16, str):
            return bool(self.bf16)
        if os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16":
            return True  # an option of "accelerate launch"
        return self.device == "cuda" and torch.cuda.is_bf16_supported(
            including_emulation=False
        )

    def text_embedder(self) -> MedSigLIPTextEmbedder:
        """Return the text embedder of the checkpoint before fine-tuning."""
        given = self.embedder.get_params()
        shared = ("model", "revision", "dtype", "device", "engine", "cache", "verbose")
        return MedSigLIPTextEmbedder(**{name: given[name] for name in shared})

    def pace(self, n_rows: int, n_processes: int) -> Pace:
        """Return the pace for training rows that are shared by the processes."""
        # With few rows the batch is smaller.
        batch = max(1, min(self.batch_size, n_rows // n_processes))
        if not self.classifies and batch * n_processes < 2:
            raise ValueError(
                f"batch_size={self.batch_size} with {n_rows} training rows gives "
                "batches of one pair, which has nothing to be compared with. Use at "
                "least batch_size=2; 16 and more are better."
            )
        passes = max(1, n_rows // (batch * n_processes))
        per_epoch = passes / self.accumulate
        n_steps = self.max_steps or math.ceil(self.epochs * per_epoch)
        rate = self.learning_rate
        rate = _LEARNING_RATES[self.train] if isinstance(rate, str) else float(rate)
        top_rate = rate if self.train == "head" else max(rate, _CLASSIFIER_RATE)
        often = max(math.ceil(per_epoch), math.ceil(n_steps / _MOST_CHECKPOINTS))
        return Pace(
            n_steps=n_steps,
            steps_per_epoch=per_epoch,
            batch_size=batch,
            learning_rate=rate,
            classifier_rate=top_rate,
            warmup_steps=round(self.warmup * n_steps),
            check_every=self.checkpoint_every or often,
        )


def out_of_memory(settings: Settings, device: str, *, bf16: bool) -> OutOfMemoryError:
    """Return an error that names three settings to change."""
    lora, batch = settings.train == "lora", settings.batch_size
    half = f"batch_size={batch // 2} with accumulate={2 * settings.accumulate}"
    changes = [
        (not settings.gradient_checkpointing, "gradient_checkpointing=True"),
        (batch > 1, f"{half} (the same images per step, compared in smaller groups)"),
        (not lora and settings.train != "head", "train='lora'"),
        (not bf16, "bf16=True (half the memory of a pass)"),
        (len(settings.trained_towers) == 2, "towers='image'"),
        (lora and settings.lora_rank > 1, f"lora_rank={settings.lora_rank // 2}"),
        (settings.train != "head", "train='head'"),
        (True, "a smaller checkpoint as model"),
        (True, "device='cpu'" if device != "cpu" else "a machine with more memory"),
    ]
    chosen = [change for applies, change in changes if applies][:3]
    listed = "; ".join(f"({i}) {change}" for i, change in enumerate(chosen, 1))
    return OutOfMemoryError(
        f"A training step does not fit into the memory of {device}. Change one or more "
        f"of these three, in this order: {listed}."
    )
