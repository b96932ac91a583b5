"""Load checkpoints, and keep the last few in memory for the whole process."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Any

from sk_medsiglip.encoder._checkpoints import Checkpoint, damaged, find_checkpoint
from sk_medsiglip.encoder._encoder import Encoder
from sk_medsiglip.encoder._torch_towers import TorchTowers
from sk_medsiglip.exceptions import CheckpointError

__all__ = ["choose_device", "choose_dtype", "clear_encoders", "load_encoder"]

# MedSigLIP is 3.5 GB in float32: two are a base and its fine-tuned sister.
_MAX_ENCODERS = 2

_encoders: OrderedDict[tuple, Encoder] = OrderedDict()
_lock = threading.RLock()


def load_encoder(
    model: str | os.PathLike[str] = "google/medsiglip-448",
    revision: str | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
) -> Encoder:
    """Load a SigLIP checkpoint, or return the copy that is already in memory.

    Parameters
    ----------
    model : str or path-like, default="google/medsiglip-448"
        A repository on the Hugging Face hub, a checkpoint folder, or ``"demo"``.
    revision : str or None, default=None
        Commit, branch or tag. None takes what lies in the local hub cache, and asks
        the hub only where nothing does.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; "auto" takes the first of
        cuda, mps, cpu that this machine has.
    dtype : {"auto", "float32", "bfloat16"}, default="auto"
        Numeric type of weights and activations. "auto" is bfloat16 on a CUDA device
        that computes in it, float32 elsewhere.

    Returns
    -------
    Encoder
        With ``encode_images`` and ``encode_texts``.

    Raises
    ------
    ModelAccessError
        If the checkpoint is gated, unknown, or there is no network.
    CheckpointError
        If its files are missing or damaged, or it is not a SigLIP model.

    Notes
    -----
    The last two checkpoints used stay in memory, whoever asked for them;
    :func:`clear_encoders` frees them. Only safetensors files are read, and code in a
    repository is never run.

    Examples
    --------
    >>> from sk_medsiglip.encoder import load_encoder
    >>> encoder = load_encoder("demo")
    >>> encoder.encode_texts(["a normal chest X-ray"]).shape
    (1, 192)
    """
    checkpoint = find_checkpoint(model, revision)
    device = choose_device(device)
    dtype = choose_dtype(dtype, device)
    key = (str(checkpoint.folder), checkpoint.revision, device, dtype)
    with _lock:
        if key in _encoders:
            _encoders.move_to_end(key)
        else:
            _encoders[key] = _load(checkpoint, device, dtype)
            while len(_encoders) > _MAX_ENCODERS:
                _encoders.popitem(last=False)
        return _encoders[key]


def clear_encoders() -> None:
    """Drop every checkpoint that :func:`load_encoder` keeps in memory."""
    with _lock:
        _encoders.clear()


def choose_device(device: str) -> str:
    """Return the device that ``device`` means on this machine.

    Parameters
    ----------
    device : str
        ``"auto"`` or a torch device.

    Returns
    -------
    str
        A torch device.

    Raises
    ------
    ValueError
        If torch does not know it or this machine does not have it.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(
            f"device={device!r} is not a device that torch knows; use 'auto', 'cpu', "
            "'cuda', 'cuda:0' or 'mps'."
        ) from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={device!r}, but torch sees no CUDA device here. Use "
            "device='auto', or install a CUDA build of torch."
        )
    return device


def choose_dtype(dtype: str, device: str) -> str:
    """Return the numeric type that ``dtype`` means on a device.

    Parameters
    ----------
    dtype : str
        ``"auto"``, ``"float32"`` or ``"bfloat16"``.
    device : str
        As :func:`choose_device` returns it.

    Returns
    -------
    str
        ``"float32"`` or ``"bfloat16"``.
    """
    import torch

    if dtype != "auto":
        return dtype
    native = device.startswith("cuda") and torch.cuda.is_bf16_supported(
        including_emulation=False
    )
    return "bfloat16" if native else "float32"


def _load(checkpoint: Checkpoint, device: str, dtype: str) -> Encoder:
    towers = TorchTowers(checkpoint, device, dtype)
    return Encoder(checkpoint, towers, _load_tokenizer(checkpoint))


def _load_tokenizer(checkpoint: Checkpoint) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            damaged(checkpoint, f"its tokenizer cannot be loaded: {error}")
        ) from error


def _reset_after_fork() -> None:
    # Another thread of the parent may have held the lock when this child was made.
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
