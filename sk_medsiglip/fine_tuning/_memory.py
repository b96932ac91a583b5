"""What to change when memory runs out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sk_medsiglip.exceptions import OutOfMemoryError

__all__ = ["out_of_memory", "ran_out_of_memory"]

_N_SETTINGS = 3

# What torch says where a CPU's memory is full: its allocator, the standard library,
# and oneDNN, whose kernels or scratch find none.
_WITHOUT_MEMORY = (
    "std::bad_alloc",
    "could not create a primitive",
    "could not execute a primitive",
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory is full."""
    import torch

    message = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and (
            ("DefaultCPUAllocator" in message and "memory" in message)
            or "can't allocate memory" in message
            or message.startswith(_WITHOUT_MEMORY)
        )
    )


def out_of_memory(
    settings: Mapping[str, Any], device: str, *, bf16: bool
) -> OutOfMemoryError:
    """Return the error that names the settings to change.

    Parameters
    ----------
    settings : mapping
        Parameters of the fine-tuner.
    device : str
        Whose memory is full.
    bf16 : bool
        Whether products are computed in bfloat16 already.
    """
    batch, accumulate = settings["batch_size"], settings["accumulate"]
    half = max(1, batch // 2)
    changes = [
        (
            not settings["gradient_checkpointing"],
            "gradient_checkpointing=True (a third slower, and what each layer keeps "
            "for the way back is gone)",
        ),
        (
            batch > 1,
            f"batch_size={half} with accumulate={2 * accumulate} (steps as large as "
            "before, compared in smaller groups)",
        ),
        (
            settings["train"] not in ("lora", "head"),
            "train='lora' (no gradients nor optimizer states of whole matrices)",
        ),
        (not bf16, "bf16=True (half the memory of a pass)"),
        (
            settings["objective"] == "contrastive" and settings["towers"] == "both",
            "towers='image' (the text tower's vectors are computed once)",
        ),
        (
            settings["train"] == "lora" and settings["lora_rank"] > 1,
            f"lora_rank={max(1, settings['lora_rank'] // 2)}",
        ),
        (settings["train"] != "head", "train='head'"),
        (True, "model= a smaller checkpoint"),
        (True, "device='cpu'" if device != "cpu" else "a machine with more memory"),
    ]
    chosen = [change for applies, change in changes if applies][:_N_SETTINGS]
    listed = "; ".join(f"({i}) {change}" for i, change in enumerate(chosen, 1))
    return OutOfMemoryError(
        f"A training step does not fit into the memory of {device}. Change one or more "
        f"of these three, in this order: {listed}."
    )
