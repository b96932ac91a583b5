"""From a model's name to a folder, a revision and the sizes in its configuration.

Nothing here reads weights into memory or imports torch, so that feature names, cache
keys and error messages cost milliseconds.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from blake3 import blake3

from sk_medsiglip.encoder._adapters import Adapter, digest_adapter, read_adapter
from sk_medsiglip.encoder._hub import hub_folder
from sk_medsiglip.exceptions import CheckpointError, ModelAccessError

__all__ = [
    "DEMO_FOLDER",
    "Checkpoint",
    "damaged",
    "find_checkpoint",
    "is_demonstration",
]

DEMO_FOLDER = Path(__file__).parent / "demo_checkpoint"

# What decides a vector: weights, architecture, tokenizer, image processor.
_DIGESTED = ("*.safetensors", "*.safetensors.index.json", "*.model", "*.txt")
_DIGESTED_JSON = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)

# Defaults of transformers' SiglipConfig, for keys that a config.json leaves out.
_DEFAULT_WIDTH = 768
_DEFAULT_IMAGE_SIZE = 224
_DEFAULT_PATCH_SIZE = 16
_DEFAULT_TEXT_TOKENS = 64


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found, before any weight is read.

    Parameters
    ----------
    model : str
        Its name as the user gave it.
    folder : pathlib.Path
        Where its files lie.
    revision : str
        The hub commit, or ``"folder-"`` and a digest of the folder's files.
    embedding_dim : int
        Values in one embedding.
    image_size : int
        Height and width of the input, in px.
    patch_size : int
        Height and width of one patch, in px.
    text_tokens : int
        Tokens that the text tower reads.
    adapters : tuple of pathlib.Path, default=()
        Folders of the adapters that change it, the first one first. ``folder`` is
        that of the base, ``revision`` is of both.
    """

    model: str
    folder: Path
    revision: str
    embedding_dim: int
    image_size: int
    patch_size: int
    text_tokens: int
    adapters: tuple[Path, ...] = ()


def find_checkpoint(
    model: str | os.PathLike[str], revision: str | None = None, *, weights: bool = True
) -> Checkpoint:
    """Find a checkpoint by name, folder or ``"demo"``.

    Parameters
    ----------
    model : str or path-like
        ``"demo"``, a folder of a checkpoint or of an adapter, or a repository on the
        hub.
    revision : str or None, default=None
        For a repository: commit, branch or tag. For a folder: the digest that it
        must have, as an earlier ``fit`` recorded it.
    weights : bool, default=True
        Whether the weights will be needed; without them a download is a few kB.

    Returns
    -------
    Checkpoint
        Folder, resolved revision and sizes.

    Raises
    ------
    CheckpointError
        If the folder is not a SigLIP checkpoint, or not at ``revision``.
    ModelAccessError
        If a repository cannot be had.

    Notes
    -----
    A folder is digested once for each state of its files: about a second a GB, then
    remembered in this process.
    """
    name = os.fspath(model)
    local = _local_folder(name)
    if local is None:
        folder = hub_folder(name, revision, weights=weights)
        resolved = folder.name
    else:
        folder = local
        adapter = read_adapter(folder)
        if adapter is not None:
            return _find_adapted(name, adapter, revision, weights=weights)
        resolved = _folder_digest(folder)
        _check_revision(name, resolved, revision)
    return Checkpoint(name, folder, resolved, *_read_sizes(folder, name))


def is_demonstration(model: str | os.PathLike[str]) -> bool:
    """Return whether a model is the demonstration, a copy, or was tuned from it.

    Parameters
    ----------
    model : str or path-like
        As :func:`find_checkpoint` takes it. Nothing is downloaded.

    Returns
    -------
    bool
        False also for a folder whose base is not at hand.
    """
    name = os.fspath(model)
    if name == "demo" or not Path(name).expanduser().is_dir():
        return name == "demo"
    try:
        found = find_checkpoint(name, weights=False)
    except (CheckpointError, ModelAccessError):
        return False
    sizes = (found.embedding_dim, found.image_size, found.patch_size)
    return sizes == _read_sizes(DEMO_FOLDER, "demo")[:3]


def _check_revision(name: str, found: str, wanted: str | None) -> None:
    if wanted is not None and wanted != found:
        raise CheckpointError(
            f"The checkpoint in {name!r} is {found}, not revision={wanted!r}. "
            "Its files are others than those asked for; leave revision=None to "
            "use them as they are."
        )


def _find_adapted(
    name: str, adapter: Adapter, revision: str | None, *, weights: bool
) -> Checkpoint:
    """Find the base of an adapter, which may be an adapted one itself."""
    where = f"The adapter in {name!r} was trained on {adapter.base_model!r}"
    try:
        local = _local_folder(adapter.base_model)
        if local == adapter.folder:
            raise CheckpointError(f"The adapter in {name!r} names itself as its base.")
        # A commit is asked for; what lies in a folder is what it is.
        wanted = adapter.base_revision if local is None else None
        base = find_checkpoint(adapter.base_model, wanted, weights=weights)
    except ModelAccessError as error:
        raise ModelAccessError(
            f"{where}, which is not to be had here. {error} If it lies elsewhere on "
            "this machine, change the base's \"model\" in the adapter's tuning.json."
        ) from error
    if local is not None and adapter.base_revision not in (None, base.revision):
        raise CheckpointError(
            f"{where} at {adapter.base_revision}, which is another one now: "
            f"{base.revision}. On that it means nothing. Get the files of its base "
            "back, or fine-tune again."
        )
    resolved = digest_adapter(adapter.folder, base.revision)
    _check_revision(name, resolved, revision)
    return replace(
        base,
        model=name,
        revision=resolved,
        adapters=(*base.adapters, adapter.folder),
    )


def _local_folder(name: str) -> Path | None:
    """Return the folder that ``name`` means, or None if it is a hub repository."""
    if name == "demo":
        return DEMO_FOLDER
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    # "owner/name" could be a relative path too; anything else can only be one.
    looks_local = path.is_absolute() or name.startswith((".", "~"))
    if looks_local or path.exists():
        raise ModelAccessError(
            f"model={name!r} is not a folder. Pass the folder that holds config.json "
            'and model.safetensors, a hub repository such as "google/medsiglip-448", '
            'or "demo".'
        )
    return None


def _read_sizes(folder: Path, name: str) -> tuple[int, int, int, int]:
    """Return width, px a side, px a patch, and tokens."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{name!r} holds no config.json, so it is not a checkpoint folder. A "
            "complete one also has model.safetensors, preprocessor_config.json and "
            "the tokenizer's files."
        ) from None
    except ValueError as error:
        raise CheckpointError(
            f"config.json of {name!r} is not valid JSON ({error}). Download the "
            f"checkpoint again: hf download {name} --force-download"
        ) from None
    if config.get("model_type") != "siglip":
        raise CheckpointError(
            f"{name!r} is a checkpoint of type {config.get('model_type')!r}; this "
            'package reads "siglip" checkpoints, such as "google/medsiglip-448".'
        )
    vision = config.get("vision_config") or {}
    text = config.get("text_config") or {}
    return (
        vision.get("hidden_size", _DEFAULT_WIDTH),
        vision.get("image_size", _DEFAULT_IMAGE_SIZE),
        vision.get("patch_size", _DEFAULT_PATCH_SIZE),
        text.get("max_position_embeddings", _DEFAULT_TEXT_TOKENS),
    )


# Digests of folders by the state of their files. A folder of weights is gigabytes.
_digests: dict[tuple, str] = {}
_digests_lock = threading.Lock()


def _folder_digest(folder: Path) -> str:
    """Return ``"folder-"`` and 32 hexadecimal digits of its files' content."""
    files = sorted(
        {path for pattern in _DIGESTED for path in folder.glob(pattern)}
        | {folder / name for name in _DIGESTED_JSON if (folder / name).is_file()}
    )
    state = tuple((str(path), *_stat_key(path)) for path in files)
    with _digests_lock:
        if state not in _digests:
            whole = blake3()
            for path in files:
                content = blake3(max_threads=blake3.AUTO).update_mmap(path)
                whole.update(path.name.encode() + b"\0" + content.digest())
            _digests[state] = "folder-" + whole.hexdigest(length=16)
        return _digests[state]


def _stat_key(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _reset_after_fork() -> None:
    # Another thread of the parent may have held the lock when this child was made.
    global _digests_lock
    _digests_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def damaged(checkpoint: Checkpoint, reason: str) -> str:
    """Return the message of an incomplete checkpoint: what is wrong, what to do."""
    name = checkpoint.model
    if "/" in name and not Path(name).expanduser().exists():
        mend = f"Download it again: hf download {name} --force-download"
    elif name == "demo":
        mend = "Install the package again: pip install --force-reinstall sk-medsiglip"
    else:
        mend = "Copy the checkpoint's folder here again."
    return f"The checkpoint {name!r} is incomplete or damaged: {reason}. {mend}"
