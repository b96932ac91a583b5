"""``load_encoder``: the checkpoints used last, kept in memory for the process."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path

from sk_medsiglip.encoder._checkpoints import Checkpoint, find_checkpoint
from sk_medsiglip.encoder._encoder import Encoder, Towers
from sk_medsiglip.encoder._numerics import choose_device, choose_dtype, choose_engine
from sk_medsiglip.encoder._openvino_towers import OpenVINOTowers, converted_folder
from sk_medsiglip.encoder._tokenizer import load_tokenizer
from sk_medsiglip.encoder._torch_towers import TorchTowers

# MedSigLIP takes 3.5 GB in float32; two allow for a base and a fine-tuned checkpoint.
_MAX_ENCODERS = 2

_encoders: OrderedDict[tuple, Encoder] = OrderedDict()
_lock = threading.RLock()


def load_encoder(
    model: str | os.PathLike[str] = "google/medsiglip-448",
    revision: str | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    engine: str = "auto",
    converted: str | os.PathLike[str] | None = None,
) -> Encoder:
    """Load a SigLIP checkpoint, or return the copy that is already in memory.

    Parameters
    ----------
    model : str or path-like, default="google/medsiglip-448"
        A repository on the Hugging Face hub, a folder of a checkpoint or of an adapter
        (whose base is then found by its name), or ``"demo"``.
    revision : str or None, default=None
        Commit, branch or tag. None uses the commit in the local hub cache, and asks the
        hub only if there is none.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``. "auto" selects the first of
        cuda, mps and cpu that is available.
    dtype : {"auto", "float32", "bfloat16"}, default="auto"
        Numeric type of weights and activations. "auto" selects bfloat16 on a GPU that
        supports it, and with ``engine="openvino"`` on a CPU that is faster in it; else
        float32.
    engine : {"auto", "torch", "openvino"}, default="auto"
        Engine that runs the model. "openvino" (an extra) is faster on CPUs; it converts
        the checkpoint first, which takes a minute for MedSigLIP. "auto" is "torch".
    converted : path-like or None, default=None
        Folder for converted checkpoints (2 GB for MedSigLIP in bfloat16). With None,
        every process converts again.

    Returns
    -------
    Encoder
        Loaded checkpoint with ``encode_images`` and ``encode_texts``.

    Raises
    ------
    ModelAccessError
        If the checkpoint is gated or unknown, or if there is no network.
    CheckpointError
        If its files are missing or damaged, or it is not a SigLIP model.
    MissingDependencyError
        If the engine is not installed.

    Notes
    -----
    The two checkpoints used last stay in memory for the whole process;
    :func:`clear_encoders` frees them. Only safetensors files are read, and code in a
    repository is never run.

    Examples
    --------
    >>> from sk_medsiglip.encoder import load_encoder
    >>> encoder = load_encoder("demo")
    >>> encoder.encode_texts(["a normal chest X-ray"]).shape
    (1, 192)
    """
    engine = choose_engine(engine)
    device = choose_device(device, engine)
    dtype = choose_dtype(dtype, device, engine)
    kept_in = None if converted is None else Path(converted)
    checkpoint = _find(model, revision, dtype, engine, kept_in)
    key = (str(checkpoint.folder), checkpoint.revision, device, dtype, engine)
    with _lock:
        if key in _encoders:
            _encoders.move_to_end(key)
        else:
            towers: Towers
            if engine == "openvino":
                towers = OpenVINOTowers(checkpoint, dtype, kept_in)
            else:
                towers = TorchTowers(checkpoint, device, dtype)
            tokenizer = load_tokenizer(checkpoint) if checkpoint.has_text else None
            _encoders[key] = Encoder(checkpoint, towers, tokenizer)
            while len(_encoders) > _MAX_ENCODERS:
                _encoders.popitem(last=False)
        return _encoders[key]


def clear_encoders() -> None:
    """Release every checkpoint that :func:`load_encoder` keeps in memory."""
    with _lock:
        _encoders.clear()


def _find(
    model: str | os.PathLike[str],
    revision: str | None,
    dtype: str,
    engine: str,
    kept_in: Path | None,
) -> Checkpoint:
    """Find the checkpoint, without its weights if they have been converted before."""
    if engine == "openvino" and kept_in is not None:
        checkpoint = find_checkpoint(model, revision, weights=False)
        if converted_folder(kept_in, checkpoint, dtype).is_dir():
            return checkpoint
    return find_checkpoint(model, revision)


def _reset_after_fork() -> None:
    # Another thread of the parent may have held the lock at the fork.
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
