"""The folder, revision and sizes of a checkpoint, found by its name.

Weights are not read into memory and torch is not imported, so that feature names, cache
keys and error messages take milliseconds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from sk_medsiglip._json import read_json
from sk_medsiglip.encoder._adapters import (
    TUNING,
    Adapter,
    digest_adapter,
    file_digest,
    read_adapter,
)
from sk_medsiglip.encoder._hub import commits_here, hub_folder
from sk_medsiglip.exceptions import CheckpointError, ModelAccessError

DEMO_FOLDER = Path(__file__).parent / "demo_checkpoint"

# Files that affect vectors: weights, architecture, tokenizer, image processor.
_DIGESTED = ("*.safetensors", "*.safetensors.index.json", "*.model", "*.txt")
_DIGESTED_JSON = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)

_DIGEST = "folder-"
# Longer chains of adapters are a mistake, or an attack.
_MAX_ADAPTERS = 8

# Defaults of transformers' SiglipConfig, for keys missing in config.json.
_DEFAULT_WIDTH = 768
_DEFAULT_IMAGE_SIZE = 224
_DEFAULT_PATCH_SIZE = 16
_DEFAULT_TEXT_TOKENS = 64


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose weights have not been read yet.

    Parameters
    ----------
    model : str
        Name given by the user.
    folder : pathlib.Path
        Folder of its files.
    revision : str
        The hub commit, or ``"folder-"`` and a digest of the files of the folder.
    embedding_dim : int
        Width of an embedding.
    image_size : int
        Height and width of the input, in pixels.
    patch_size : int
        Height and width of a patch, in pixels.
    text_tokens : int
        Number of tokens read by the text tower.
    adapters : tuple of pathlib.Path, default=()
        Folders of its adapters, in the order in which they are applied. ``folder`` is
        then that of the base, and ``revision`` covers both.
    has_text : bool, default=True
        Whether there is a text tower besides the image tower.
    """

    model: str
    folder: Path
    revision: str
    embedding_dim: int
    image_size: int
    patch_size: int
    text_tokens: int
    adapters: tuple[Path, ...] = ()
    has_text: bool = True


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
        Commit, branch or tag of a repository. For a folder, the digest that it must
        have, as recorded by an earlier ``fit``.
    weights : bool, default=True
        Whether the weights are needed; without them a download takes a few kB.

    Returns
    -------
    Checkpoint
        Folder, resolved revision and sizes.

    Raises
    ------
    CheckpointError
        If the folder is not a SigLIP checkpoint, or not at ``revision``.
    ModelAccessError
        If a repository cannot be accessed.

    Notes
    -----
    A folder is digested once per state of its files, which takes about a second per
    GB; the digest is then remembered in this process.
    """
    return _find(os.fspath(model), revision, weights, ())


def is_demonstration(model: str | os.PathLike[str]) -> bool:
    """Return whether a model is the demonstration checkpoint or was tuned from it.

    Parameters
    ----------
    model : str or path-like
        As in :func:`find_checkpoint`. Nothing is downloaded.

    Returns
    -------
    bool
        True also for a copy; False also for an adapter whose base is not available.
    """
    name = os.fspath(model)
    if name == "demo" or not Path(name).expanduser().is_dir():
        return name == "demo"
    try:
        found = find_checkpoint(name, weights=False)
    except (CheckpointError, ModelAccessError):
        return False
    own = _read_config(DEMO_FOLDER, "demo")
    sizes = ("embedding_dim", "image_size", "patch_size")
    return all(getattr(found, size) == own[size] for size in sizes)


def _find(
    name: str, revision: str | None, weights: bool, above: tuple[Path, ...]
) -> Checkpoint:
    """Find a checkpoint; ``above`` are the adapters that name it as their base."""
    folder = _local_folder(name)
    # The hub does not know the digest of an adapter.
    of_files = folder is not None or (revision or "").startswith(_DIGEST)
    if folder is None:
        for commit in commits_here(name) if of_files else ():
            found = _find(name, commit, weights, above)
            if found.revision == revision:
                return found
        folder = hub_folder(name, None if of_files else revision, weights=weights)
    adapter = read_adapter(folder)
    if adapter is not None:
        base = _find_base(name, adapter, weights, above)
        resolved = digest_adapter(adapter.folder, base.revision)
        adapters = (*base.adapters, adapter.folder)
        found = replace(base, model=name, revision=resolved, adapters=adapters)
    else:
        resolved = folder.name
        if _local_folder(name) is not None:
            resolved = _folder_digest(folder)
        found = Checkpoint(name, folder, resolved, **_read_config(folder, name))
    if of_files and revision not in (None, resolved):
        raise CheckpointError(
            f"The checkpoint in {name!r} is {resolved}, not revision={revision!r}: its "
            "files have changed. Set revision=None to use them as they are."
        )
    return found


def _find_base(
    name: str, adapter: Adapter, weights: bool, above: tuple[Path, ...]
) -> Checkpoint:
    """Find the base of an adapter, which may itself be an adapter."""
    where = f"The adapter in {name!r} was trained on {adapter.base_model!r}"
    above = (*above, adapter.folder.resolve())
    local = _local_folder(adapter.base_model) if _is_there(adapter.base_model) else None
    if local is not None and local.resolve() in above:
        raise CheckpointError(
            f"{where}, which leads back to itself: an adapter cannot be its own base."
        )
    if len(above) > _MAX_ADAPTERS:
        raise CheckpointError(
            f"{where}, a chain of {len(above)} adapters; at most {_MAX_ADAPTERS} are "
            "loaded. Merge them into one checkpoint."
        )
    try:
        # Only a repository can be requested at a revision.
        wanted = adapter.base_revision if local is None else None
        base = _find(adapter.base_model, wanted, weights, above)
    except ModelAccessError as error:
        key = '"model"' if adapter.record == TUNING else '"base_model_name_or_path"'
        raise ModelAccessError(
            f"{where}, which is not available here. {error} If it is elsewhere on this "
            f"machine, change {key} in {adapter.record} of the adapter."
        ) from error
    recorded = adapter.base_revision or ""
    # peft writes "main" for a folder too; only a digest can be compared with files.
    if local is not None and recorded.startswith(_DIGEST) and recorded != base.revision:
        raise CheckpointError(
            f"{where} at {recorded}, but that is now at {base.revision}, to which the "
            "adapter does not apply. Restore the files of its base, or fine-tune again."
        )
    return base


def _is_there(name: str) -> bool:
    """Whether a name is that of an existing folder."""
    return name == "demo" or Path(name).expanduser().is_dir()


def _local_folder(name: str) -> Path | None:
    """Return the local folder of a checkpoint, or None for a hub repository."""
    if name == "demo":
        return DEMO_FOLDER
    path = Path(name).expanduser()
    if path.is_dir():
        _check_copy(path)
        return path
    # "owner/name" may be a relative path or a repository.
    looks_local = path.is_absolute() or name.startswith((".", "~"))
    if looks_local or path.exists():
        raise ModelAccessError(
            f"model={name!r} is not a folder. Pass the folder with config.json "
            'and model.safetensors, a hub repository such as "google/medsiglip-448", '
            'or "demo".'
        )
    return None


def _check_copy(folder: Path) -> None:
    """Raise for a copy of the hub cache without its files, or with several commits."""
    for path in folder.iterdir():
        if path.is_symlink() and not path.exists():
            raise CheckpointError(
                f"{path.name} in {str(folder)!r} is a link to {os.readlink(path)!r}, "
                "which does not exist here: the hub cache contains links. Copy the "
                "files themselves, with 'cp -rL FOLDER DESTINATION', or download them "
                "without links: hf download REPOSITORY --local-dir FOLDER"
            )
    above = folder / "snapshots" if (folder / "snapshots").is_dir() else folder
    commits = sorted(path.parent for path in above.glob("*/*config.json"))
    if not any(folder.glob("*.json")) and commits:
        named = " or ".join(f"model={str(one)!r}" for one in dict.fromkeys(commits))
        raise CheckpointError(
            f"{str(folder)!r} holds commits of a repository, not a checkpoint. Pass "
            f"one of them: {named}."
        )


def _read_config(folder: Path, name: str) -> dict[str, Any]:
    """Return the sizes in ``config.json`` as arguments of :class:`Checkpoint`."""
    try:
        towers = dict.fromkeys(("vision_config", "text_config"), (dict, type(None)))
        config = read_json(folder / "config.json", optional=towers)
    except FileNotFoundError:
        raise CheckpointError(
            f"{name!r} does not contain config.json, so it is not a checkpoint folder. "
            "A complete one also has model.safetensors, preprocessor_config.json and "
            "the files of the tokenizer."
        ) from None
    except ValueError as error:
        raise CheckpointError(
            f"config.json of {name!r} cannot be read ({error}). Download the "
            f"checkpoint again: hf download {name} --force-download"
        ) from None
    kind = config.get("model_type")
    if kind not in ("siglip", "siglip_vision_model"):
        raise CheckpointError(
            f"{name!r} is a checkpoint of type {kind!r}; this "
            'package reads "siglip" checkpoints, such as "google/medsiglip-448".'
        )
    if config.get("quantization_config"):
        raise CheckpointError(
            f"{name!r} is quantised; this package reads weights in float32, float16 or "
            'bfloat16. Use the original checkpoint, with dtype="bfloat16" if memory '
            "is short."
        )
    alone = kind == "siglip_vision_model"
    vision = config if alone else config.get("vision_config") or {}
    text = config.get("text_config") or {}
    if vision.get("vision_use_head") is False:
        raise CheckpointError(
            f"{name!r} has no pooling head (vision_use_head is false), which computes "
            "the embedding. Use a checkpoint with a pooling head."
        )
    sizes = {
        "embedding_dim": vision.get("hidden_size", _DEFAULT_WIDTH),
        "image_size": vision.get("image_size", _DEFAULT_IMAGE_SIZE),
        "patch_size": vision.get("patch_size", _DEFAULT_PATCH_SIZE),
        "text_tokens": text.get("max_position_embeddings", _DEFAULT_TEXT_TOKENS),
    }
    for key, value in sizes.items():
        if type(value) is not int or not 0 < value < 100_000:
            raise CheckpointError(
                f"config.json of {name!r} gives {value!r} as {key}; a positive integer "
                "is expected."
            )
    classifier = config.get("architectures") == ["SiglipForImageClassification"]
    return {**sizes, "has_text": not (alone or classifier)}


def _folder_digest(folder: Path) -> str:
    """Return ``"folder-"`` and 32 hexadecimal digits for the content of a folder."""
    files = sorted(
        {path for pattern in _DIGESTED for path in folder.glob(pattern)}
        | {folder / name for name in _DIGESTED_JSON if (folder / name).is_file()}
        # An index may name files in other folders, or with other suffixes.
        | {path for path in named_shards(folder) if path.is_file()}
    )
    whole = blake3()
    for path in files:
        whole.update(path.name.encode() + b"\0" + file_digest(path))
    return _DIGEST + whole.hexdigest(length=16)


def named_shards(folder: Path) -> list[Path]:
    """Return the weight files named by the index of a folder, if it has an index."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    try:
        weight_map = read_json(index, {"weight_map": dict})["weight_map"]
        names = sorted(set(weight_map.values()))
        inside = folder.resolve()
        outside = [
            n for n in names if not (inside / n).is_relative_to(inside) or ".." in n
        ]
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{index.name} in {str(folder)!r} cannot be read ({error}). Copy or "
            "download the checkpoint again."
        ) from None
    if outside:
        raise CheckpointError(
            f"{index.name} in {str(folder)!r} names {outside[0]!r}, a file outside of "
            "that folder, which is not read. Copy the file there and correct the index."
        )
    return [folder / name for name in names]


def damaged(checkpoint: Checkpoint, reason: str) -> str:
    """Return the message for an incomplete checkpoint, with a remedy."""
    name = checkpoint.model
    if "/" in name and not Path(name).expanduser().exists():
        hint = f"Download it again: hf download {name} --force-download"
    elif name == "demo":
        hint = "Install the package again: pip install --force-reinstall sk-medsiglip"
    else:
        hint = "Copy the checkpoint folder here again."
    return f"The checkpoint {name!r} is incomplete or damaged: {reason}. {hint}"
