"""Adapters: small files that turn a base checkpoint into a tuned one.

A folder is an adapter if it holds ``adapter_config.json`` and
``adapter_model.safetensors``, as written by peft for low-rank adaptation, or
``tuned_weights.safetensors``: weights that replace those of the base. The base is named
in ``tuning.json``, or without it in the configuration of peft.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from blake3 import blake3

from sk_medsiglip._json import read_json
from sk_medsiglip._optional import import_optional
from sk_medsiglip.encoder._adapter_config import PASSING, lora_settings
from sk_medsiglip.exceptions import CheckpointError, CheckpointWarning

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
TUNED_WEIGHTS = "tuned_weights.safetensors"
TUNING = "tuning.json"

# They do not affect the weights; "eva_config" stays in for digests written earlier.
_UNDIGESTED = PASSING - {"eva_config"}


@dataclass(frozen=True)
class Adapter:
    """An adapter whose weights have not been read yet."""

    folder: Path
    base_model: str
    base_revision: str | None
    record: str


def read_adapter(folder: Path) -> Adapter | None:
    """Return the adapter in a folder, or None if it holds something else.

    Parameters
    ----------
    folder : pathlib.Path

    Returns
    -------
    Adapter or None

    Raises
    ------
    CheckpointError
        If it is an adapter, but damaged, of another kind, or without the name of its
        base.
    """
    by_peft = folder / ADAPTER_CONFIG
    if not by_peft.is_file() and not (folder / TUNED_WEIGHTS).is_file():
        return None
    peft_config: dict[str, Any] = {}
    record = ADAPTER_CONFIG
    if by_peft.is_file():
        peft_config = _read_json(by_peft)
        kind = peft_config.get("peft_type")
        if kind != "LORA":
            raise CheckpointError(
                f"The adapter in {str(folder)!r} is of peft's type {kind!r}; this "
                "package loads low-rank adapters, 'LORA'."
            )
        if not (folder / ADAPTER_WEIGHTS).is_file():
            raise CheckpointError(_damaged(folder, f"{ADAPTER_WEIGHTS} is missing"))
    name, revision = (
        peft_config.get("base_model_name_or_path"),
        peft_config.get("revision"),
    )
    if (folder / TUNING).is_file():
        record = TUNING
        base = _read_json(folder / TUNING, {"base": dict}).get("base", {})
        name, revision = base.get("model", name), base.get("revision", revision)
    if not all(isinstance(one, str | None) for one in (name, revision)):
        raise CheckpointError(
            _damaged(folder, f"{record} names the base {name!r} at {revision!r}")
        )
    if not name:
        raise CheckpointError(
            f"The adapter in {str(folder)!r} does not name its base checkpoint. Add it "
            f'to {ADAPTER_CONFIG}: "base_model_name_or_path": "google/medsiglip-448".'
        )
    return Adapter(folder, name, revision, record)


def digest_adapter(folder: Path, base_revision: str) -> str:
    """Return the digest of an adapter and its base.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the adapter.
    base_revision : str
        Revision of its base checkpoint.

    Returns
    -------
    str
        ``"folder-"`` and 32 hexadecimal digits, the same on every machine.
    """
    whole = blake3(base_revision.encode() + b"\0")
    for name in (ADAPTER_WEIGHTS, TUNED_WEIGHTS):
        path = folder / name
        if path.is_file():
            whole.update(name.encode() + b"\0" + file_digest(path))
    if (folder / ADAPTER_CONFIG).is_file():
        config = _read_json(folder / ADAPTER_CONFIG)
        deciding = {
            # peft writes sets as lists, in any order.
            key: sorted(value) if _is_list_of_text(value) else value
            for key, value in config.items()
            if key not in _UNDIGESTED
        }
        whole.update(json.dumps(deciding, sort_keys=True).encode())
    return "folder-" + whole.hexdigest(length=16)


def apply_adapter(network: Any, folder: Path) -> None:
    """Apply an adapter to the weights of a network, in place."""
    if (folder / TUNED_WEIGHTS).is_file():
        _replace_weights(network, folder)
    if (folder / ADAPTER_CONFIG).is_file():
        _add_low_rank(network, folder)


def _replace_weights(network: Any, folder: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(folder / TUNED_WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_damaged(folder, str(error))) from error
    own = network.state_dict()
    strange = sorted(
        name
        for name, tensor in tensors.items()
        if name not in own or own[name].shape != tensor.shape
    )
    if strange:
        raise CheckpointError(_other_base(folder, strange[0]))
    network.load_state_dict(tensors, strict=False)


def _add_low_rank(network: Any, folder: Path) -> None:
    import_optional(
        "peft", extra="finetune", purpose=f"Loading the adapter in {str(folder)!r}"
    )
    from peft import LoraConfig, PeftModel
    from safetensors import SafetensorError

    try:
        settings = lora_settings(_read_json(folder / ADAPTER_CONFIG))
        # A classifier that was trained on top does not affect embeddings.
        others = set(settings.pop("modules_to_save", [])) - {"classifier", "score"}
        settings["modules_to_save"] = sorted(others) or None
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(
            f"The adapter in {str(folder)!r} is not loaded: in its {ADAPTER_CONFIG}, "
            f"{error}. Only settings that are known to be safe, and to give the same "
            "weights each time, are accepted. Merge it into its base with peft first "
            "(merge_and_unload) and load the result."
        ) from None
    try:
        with warnings.catch_warnings():
            # peft uses names that transformers is about to change.
            warnings.simplefilter("ignore", FutureWarning)
            # peft fills missing matrices with zeros, and warns.
            warnings.filterwarnings("error", "Found missing adapter keys")
            adapted = PeftModel.from_pretrained(
                network, folder, config=LoraConfig(**settings)
            )
    except (RuntimeError, ValueError, UserWarning) as error:
        # Unknown layers, missing matrices, or matrices of another shape.
        raise CheckpointError(_other_base(folder, str(error))) from error
    except (SafetensorError, OSError, TypeError, KeyError) as error:
        raise CheckpointError(_damaged(folder, str(error))) from error
    _pass_by_attention_outputs(adapted, folder)
    adapted.merge_and_unload()


def _pass_by_attention_outputs(adapted: Any, folder: Path) -> None:
    """Remove matrices on ``out_proj`` of the pooling heads, which peft never applies.

    torch's attention reads the weights of that layer without calling it, so the
    matrices had no effect in training; merging would add them.
    """
    from torch.nn import MultiheadAttention

    passed_by = [
        (name, module)
        for name, module in adapted.named_modules()
        if type(module) is MultiheadAttention
        and not name.endswith(".base_layer")
        and hasattr(module.out_proj, "get_base_layer")
    ]
    for _, module in passed_by:
        module.out_proj = module.out_proj.get_base_layer()  # type: ignore[operator]
    if passed_by:
        names = ", ".join(f"{name}.out_proj" for name, _ in passed_by)
        warnings.warn(
            f"The adapter in {str(folder)!r} has matrices for {names}. peft did not "
            "apply them in training, so they are ignored.",
            CheckpointWarning,
            stacklevel=2,
        )


def _read_json(path: Path, optional: Any = None) -> dict[str, Any]:
    try:
        return read_json(path, optional=optional)
    except (OSError, ValueError) as error:
        reason = f"{path.name} cannot be read ({error})"
        raise CheckpointError(_damaged(path.parent, reason)) from None


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def file_digest(path: Path) -> bytes:
    """Return the digest of the content of a file, computed once per state of it."""
    status = path.stat()
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return _digest(str(path), (status.st_ino, status.st_size, *times))


@lru_cache(maxsize=256)
def _digest(path: str, state: tuple[int, ...]) -> bytes:
    return blake3(max_threads=blake3.AUTO).update_mmap(path).digest()


def _damaged(folder: Path, reason: str) -> str:
    return (
        f"The adapter in {str(folder)!r} is incomplete or damaged: {reason}. Copy its "
        "folder here again."
    )


def _other_base(folder: Path, reason: str) -> str:
    return (
        f"The adapter in {str(folder)!r} does not fit its base checkpoint: {reason}. "
        "It was trained on another one."
    )
