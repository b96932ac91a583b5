"""Settings of a run: what the parameters mean together, and its pace."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from sk_medsiglip.embedding import MedSigLIPEmbedder, MedSigLIPTextEmbedder
from sk_medsiglip.encoder import choose_device
from sk_medsiglip.exceptions import OutOfMemoryError
from sk_medsiglip.fine_tuning._augmentation import Augmentation

# Low-rank matrices start at zero and can move fast; whole weights have something to
# lose.
_LEARNING_RATES = {"lora": 1e-3, "last_blocks": 5e-5, "head": 1e-3, "full": 1e-5}

# A new classifier starts at zero, so it moves at least this fast.
_CLASSIFIER_RATE = 1e-3

# Checkpoints of a run by default: an epoch of a small collection is a step or two.
_MOST_CHECKPOINTS = 50

_DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Pace:
    """The numbers of steps and the rates of a run."""

    n_steps: int
    steps_per_epoch: float
    batch_size: int
    learning_rate: float
    classifier_rate: float
    warmup_steps: int
    check_every: int


@dataclass(frozen=True, eq=False)
class Settings:
    """The parameters of a fine-tuner, checked against each other."""

    embedder: MedSigLIPEmbedder
    objective: str
    prompts: Any
    templates: Any
    same_caption: str
    keep: Any
    keep_weight: float
    train: str
    towers: str
    lora_rank: int
    lora_alpha: float | None
    lora_dropout: float
    lora_layers: str
    n_blocks: int
    epochs: int
    max_steps: int | None
    batch_size: int
    accumulate: int
    learning_rate: float | str
    schedule: str
    warmup: float
    weight_decay: float
    layer_decay: float
    gradient_checkpointing: bool
    bf16: bool | str
    pos_weight: Any
    augment: Any
    validation_fraction: float | None
    patience: int | None
    checkpoint_every: int | None
    run_dir: str | os.PathLike[str] | None
    resume: bool
    random_state: Any
    verbose: int | bool

    def __post_init__(self) -> None:
        """Raise if parameters contradict each other."""
        device = self.embedder.device
        if device not in _DEVICES:
            raise ValueError(
                f"device={device!r} of the embedder is not one of {_DEVICES}. One "
                "process trains on one GPU: choose it with CUDA_VISIBLE_DEVICES."
            )
        if self.prompts is None and self.templates is not None:
            raise ValueError("templates needs prompts= to be filled with.")
        if not self.classifies:
            if self.pos_weight is not None:
                raise ValueError("pos_weight belongs to objective='classification'.")
            return
        if self.prompts is not None:
            raise ValueError(
                "objective='classification' trains a layer of its own and does not use "
                "prompts. Leave them out, or use objective='contrastive'."
            )
        if self.towers == "text":
            raise ValueError(
                "objective='classification' trains the image tower; with towers='text' "
                "nothing is trained. Use towers='image' or 'both'."
            )
        if self.keep is not None and self.train == "head":
            raise ValueError(
                "objective='classification' with train='head' does not change the "
                "encoder: nothing is forgotten, so leave keep out."
            )

    @property
    def classifies(self) -> bool:
        """Whether a classifier is trained, instead of pairs of images and texts."""
        return self.objective == "classification"

    @property
    def device(self) -> str:
        """The device of the embedder, with "auto" resolved."""
        return choose_device(self.embedder.device)

    @property
    def trained_towers(self) -> tuple[str, ...]:
        """The towers whose weights are trained."""
        if self.classifies:
            return () if self.train == "head" else ("image",)
        return ("image", "text") if self.towers == "both" else (self.towers,)

    @property
    def augmentation(self) -> Augmentation | None:
        """The changes of training images; "auto" only where their tower is trained."""
        if isinstance(self.augment, str):
            return Augmentation() if "image" in self.trained_towers else None
        return self.augment

    @property
    def running_towers(self) -> tuple[str, ...]:
        """The towers that run in a step; the output of others is computed once."""
        trained = self.trained_towers
        images = self.augmentation is not None or "image" in trained
        return ("image",) * images + ("text",) * ("text" in trained)

    @property
    def run_path(self) -> Path | None:
        """The folder that the user named for the run."""
        if self.run_dir is None:
            return None
        return Path(os.path.abspath(os.path.expanduser(self.run_dir)))

    @property
    def has_seed(self) -> bool:
        """Whether ``random_state`` alone decides the random numbers."""
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
            return True  # "accelerate launch" was told so
        return self.device == "cuda" and torch.cuda.is_bf16_supported(
            including_emulation=False
        )

    def text_embedder(self) -> MedSigLIPTextEmbedder:
        """Return the text embedder of the checkpoint before it is tuned."""
        given = self.embedder.get_params()
        shared = ("model", "revision", "dtype", "device", "engine", "cache", "verbose")
        return MedSigLIPTextEmbedder(**{name: given[name] for name in shared})

    def pace(self, n_rows: int, n_processes: int) -> Pace:
        """Return the pace for a number of training rows, shared by the processes."""
        # Fewer rows than a batch make a smaller batch.
        batch = max(1, min(self.batch_size, n_rows // n_processes))
        if not self.classifies and batch * n_processes < 2:
            raise ValueError(
                f"batch_size={self.batch_size} with {n_rows} training rows shows one "
                "pair at a time, with nothing to tell it from. Use batch_size=2 at "
                "least; 16 and more are better."
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
    """Return the error that names the three settings to change first."""
    lora, batch = settings.train == "lora", settings.batch_size
    half = f"batch_size={batch // 2} with accumulate={2 * settings.accumulate}"
    changes = [
        (not settings.gradient_checkpointing, "gradient_checkpointing=True"),
        (batch > 1, f"{half} (as many images in a step, compared in smaller groups)"),
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
