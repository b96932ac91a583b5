"""What the parameters of a fine-tuner mean together."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sk_medsiglip.fine_tuning._augmentation import Augmentation

if TYPE_CHECKING:
    from sk_medsiglip.fine_tuning._fine_tuner import MedSigLIPFineTuner

__all__ = [
    "augmentation_of",
    "check_settings",
    "computes_in_bfloat16",
    "needed_towers",
    "trained_towers",
]


def check_settings(tuner: MedSigLIPFineTuner) -> None:
    """Raise if settings contradict each other.

    Parameters
    ----------
    tuner : MedSigLIPFineTuner

    Raises
    ------
    ValueError
        With what to change.
    """
    classifies = tuner.objective == "classification"
    if classifies and tuner.prompts is not None:
        raise ValueError(
            "objective='classification' trains a layer of its own and has no use for "
            "prompts. Leave them out, or use objective='contrastive'."
        )
    if classifies and tuner.towers == "text":
        raise ValueError(
            "objective='classification' trains the image tower; towers='text' leaves "
            "nothing. Use towers='image' or 'both'."
        )
    if tuner.prompts is None and tuner.templates is not None:
        raise ValueError("templates is given, but no prompts to put into them.")
    if tuner.keep is not None and not trained_towers(tuner):
        raise ValueError(
            "objective='classification' with train='head' leaves the encoder as it is: "
            "nothing is forgotten, and keep has no use."
        )
    if not classifies and tuner.pos_weight is not None:
        raise ValueError(
            "pos_weight belongs to objective='classification'; pairs have none."
        )


def trained_towers(tuner: MedSigLIPFineTuner) -> tuple[str, ...]:
    """Return the towers whose weights are trained."""
    if tuner.objective == "classification":
        return () if tuner.train == "head" else ("image",)
    return ("image", "text") if tuner.towers == "both" else (tuner.towers,)


def augmentation_of(tuner: MedSigLIPFineTuner) -> Augmentation | None:
    """Return how images are changed; "auto" only where their tower learns."""
    if isinstance(tuner.augment, str):
        return Augmentation() if "image" in trained_towers(tuner) else None
    return tuner.augment


def needed_towers(tuner: MedSigLIPFineTuner) -> tuple[str, ...]:
    """Return the towers that run in a step; what the others give is computed once."""
    trained = trained_towers(tuner)
    changed = augmentation_of(tuner) is not None
    images = ("image",) if changed or "image" in trained else ()
    return images + (("text",) if "text" in trained else ())


def computes_in_bfloat16(tuner: MedSigLIPFineTuner, device: str) -> bool:
    """Say whether products are computed in bfloat16.

    Parameters
    ----------
    tuner : MedSigLIPFineTuner
    device : {"cpu", "cuda", "mps"}
    """
    import torch

    if not isinstance(tuner.bf16, str):
        return bool(tuner.bf16)
    if os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16":
        # "accelerate launch" was told so.
        return True
    return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
