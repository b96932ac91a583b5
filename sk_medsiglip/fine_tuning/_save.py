"""Saving, loading and merging of fine-tuners as folders of safetensors and JSON."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sk_medsiglip._files import new_folder
from sk_medsiglip._json import read_json
from sk_medsiglip._version import __version__
from sk_medsiglip.embedding import MedSigLIPEmbedder
from sk_medsiglip.encoder import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    TUNED_WEIGHTS,
    TUNING,
    Checkpoint,
    digest_adapter,
    find_checkpoint,
    load_network,
    quiet_transformers,
)
from sk_medsiglip.exceptions import CheckpointError, ModelAccessError, RunFolderError
from sk_medsiglip.fine_tuning._as_json import from_json, to_json
from sk_medsiglip.fine_tuning._tuned import (
    Tuned,
    base_name,
    tuning_record,
    write_files,
)

_RECORD = "fine_tuner.json"
_CLASSIFIER = "classifier.safetensors"
_LAYER = ("coef", "intercept")
#: In format 1 the parameters of the embedder were those of the fine-tuner.
_FORMAT = 2

ATTRIBUTES = (
    "base_revision_",
    "best_step_",
    "classes_",
    "fingerprint_",
    "history_",
    "n_steps_",
    "n_train_",
    "n_trained_",
    "validation_rows_",
    "_n_features_out",
    "coef_",
    "intercept_",
)

# Parameters that belong to one run or machine.
_NOT_SAVED = frozenset({"resume", "run_dir", "verbose"})

NOTICE = "NOTICE"
TERMS = "TERMS.md"
_CARD = "README.md"

# Width, image size and patch size of MedSigLIP, which no other published SigLIP has.
_MEDSIGLIP_SIZES = (1152, 448, 14)

# Parameters that are not listed among the settings of the model card.
_NOT_SETTINGS = _NOT_SAVED | {"embedder"}
_READING = ("resize", "pad", "intensity", "frame", "max_pixels")

# Files of a checkpoint other than weights, which are copied on merging.
_BESIDE_WEIGHTS = ("*.json", "*.model", "*.txt")


def save_folder(
    path: Path,
    parameters: Mapping[str, Any],
    learned: Mapping[str, Any],
    tuned: Tuned | None,
) -> str:
    """Write the parameters, attributes and tuned weights of a fitted fine-tuner."""
    embedder: MedSigLIPEmbedder = parameters["embedder"]
    with _empty_folder(path, ours=_RECORD) as scratch:
        if tuned is not None:
            if tuned.files is not None:
                write_files(scratch, tuned.files)
            else:
                home = tuned.folder(embedder.cache, embedder.model)
                shutil.copyfile(home / TUNED_WEIGHTS, scratch / TUNED_WEIGHTS)
            record = tuning_record(base_name(embedder.model), tuned.base_revision)
            (scratch / TUNING).write_text(record, "utf-8")
        if "coef_" in learned:
            layer = {k: np.ascontiguousarray(learned[f"{k}_"]) for k in _LAYER}
            save_file(layer, scratch / _CLASSIFIER)
        kept = {k: v for k, v in parameters.items() if k not in _NOT_SAVED}
        if not isinstance(kept["random_state"], int | np.integer):
            kept["random_state"] = None
        others = {k: v for k, v in learned.items() if k.rstrip("_") not in _LAYER}
        whole = {
            "format": _FORMAT,
            "version": __version__,
            "parameters": {k: to_json(v) for k, v in kept.items()},
            "attributes": {k: to_json(v) for k, v in others.items()},
        }
        (scratch / _RECORD).write_text(json.dumps(whole, indent=1), "utf-8")
        try:
            base = find_checkpoint(embedder.model, embedder.revision, weights=False)
        except (ModelAccessError, CheckpointError):
            base = None  # only its name is known
        write_files(scratch, _documents(base, parameters, learned, is_merged=False))
    return os.fspath(path)


def load_folder(
    path: Path, names: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any], Tuned | None]:
    """Return the parameters, attributes and tuned weights of a saved fine-tuner."""
    try:
        whole = read_json(
            path / _RECORD, {"format": int, "parameters": dict, "attributes": dict}
        )
        if whole["format"] not in (1, _FORMAT):
            raise ValueError(f"it has format {whole['format']}")
        given = {k: from_json(v) for k, v in whole["parameters"].items()}
        if whole["format"] == 1:
            of_embedder = MedSigLIPEmbedder().get_params().keys() - set(names)
            old = {k: given.pop(k) for k in of_embedder & given.keys()}
            given["embedder"] = MedSigLIPEmbedder(**old)
        learned = {k: from_json(v) for k, v in whole["attributes"].items()}
        if strange := given.keys() - set(names) | learned.keys() - set(ATTRIBUTES):
            raise ValueError(f"it holds {min(strange)!r}")
        if (path / _CLASSIFIER).is_file():
            layer = load_file(path / _CLASSIFIER)
            learned |= {f"{name}_": layer[name] for name in _LAYER}
    except FileNotFoundError:
        raise CheckpointError(
            f"{str(path)!r} does not hold {_RECORD}, so no fine-tuner was saved there. "
            "Use an adapter alone as MedSigLIPEmbedder(model=...)."
        ) from None
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"The fine-tuner in {str(path)!r} cannot be read: it is damaged, or was "
            f"written by a newer version ({error}). Copy it again, or update "
            "sk-medsiglip."
        ) from error
    return given, learned, _tuned_in(path, given["embedder"].model, learned)


def _tuned_in(
    path: Path, model: str | os.PathLike[str], learned: Mapping[str, Any]
) -> Tuned | None:
    """Return the tuned weights of a folder, checked against its record and the base."""
    names = (ADAPTER_WEIGHTS, ADAPTER_CONFIG, NOTICE, TERMS)
    found = {n: (path / n).read_bytes() for n in names if (path / n).is_file()}
    is_whole = (path / TUNED_WEIGHTS).is_file()
    revision, fingerprint = learned["base_revision_"], learned["fingerprint_"]
    is_there = is_whole or not found.keys().isdisjoint(names[:2])
    if not is_there and fingerprint == revision:
        return None
    if not is_there or digest_adapter(path, revision) != fingerprint:
        raise CheckpointError(
            f"The tuned weights in {str(path)!r} are missing, or differ from those "
            "that were saved. Copy the folder again."
        )
    try:
        # Raises if the name of the base now refers to another checkpoint.
        find_checkpoint(path, weights=False)
    except ModelAccessError:
        # The base is not needed if all embeddings are stored.
        pass
    if is_whole:
        home = os.fspath(path.resolve())
        return Tuned(fingerprint, base_name(model), revision, home=home)
    return Tuned(fingerprint, base_name(model), revision, found)


def merge_folder(
    path: Path,
    parameters: Mapping[str, Any],
    learned: Mapping[str, Any],
    tuned_model: str | os.PathLike[str],
) -> str:
    """Write base and tuned weights as one ordinary checkpoint."""
    checkpoint = find_checkpoint(tuned_model, learned["fingerprint_"])
    network = load_network(checkpoint, "float32")
    with _empty_folder(path) as scratch:
        for pattern in _BESIDE_WEIGHTS:
            for file in checkpoint.folder.glob(pattern):
                if not file.name.endswith(".index.json"):
                    shutil.copyfile(file, scratch / file.name)
        with quiet_transformers():
            network.save_pretrained(scratch)
        write_files(
            scratch, _documents(checkpoint, parameters, learned, is_merged=True)
        )
    return os.fspath(path)


def _documents(
    base: Checkpoint | None,
    parameters: Mapping[str, Any],
    learned: Mapping[str, Any],
    *,
    is_merged: bool,
) -> dict[str, bytes]:
    """Return the model card, and the terms of MedSigLIP if needed, by file name.

    The card does not contain paths of this machine or texts of the user.
    """
    embedder = parameters["embedder"]
    model = os.fspath(embedder.model)
    settings = {k: v for k, v in parameters.items() if k not in _NOT_SETTINGS}
    settings |= {name: getattr(embedder, name) for name in _READING}
    terms = licence_files(model, base)
    history = learned["history_"]
    last = history[history["step"] <= learned["best_step_"]].ffill().iloc[-1].dropna()
    # For a folder only its name.
    is_folder = Path(model).expanduser().is_dir()
    card = _template(_CARD).format(
        **{"n_train_": "an unknown number of", **learned},
        library="transformers" if is_merged else "peft",
        base=Path(model).name if is_folder else model,
        n_validation=len(learned["validation_rows_"]),
        version=__version__,
        licence=f"the terms of MedSigLIP: see {NOTICE} and {TERMS} in this folder"
        if terms
        else "that of the base",
        metrics="\n".join(
            f"- {name}: {value:.4g}"
            for name, value in last.items()
            if name.endswith(("loss", "auc"))
        ),
        settings="\n".join(f"- {key}: {_shown(one)}" for key, one in settings.items()),
    )
    return terms | {_CARD: card.encode()}


def _template(name: str) -> str:
    return (files(__package__) / "documents" / name).read_text("utf-8")


def _shown(value: object) -> str:
    """Return a setting as text, with only the type of mappings and arrays."""
    plain = value is None or isinstance(value, bool | int | float | str)
    return f"`{value!r}`" if plain else f"a {type(value).__name__}"


def licence_files(model: str, base: Checkpoint | None) -> dict[str, bytes]:
    """Return the files that the licence requires, if the base is MedSigLIP."""
    if not is_medsiglip(model, base):
        return {}
    # A path of this machine is replaced by the public name.
    name = "google/medsiglip-448" if os.path.isabs(model) else model
    terms = _template(TERMS).format(base=name)
    return {NOTICE: _template(NOTICE).encode(), TERMS: terms.encode()}


def is_medsiglip(model: str, base: Checkpoint | None) -> bool:
    """Tell whether a base is MedSigLIP, by its name or by its sizes."""
    sizes = base and (base.embedding_dim, base.image_size, base.patch_size)
    return "medsiglip" in Path(model).name.lower() or sizes == _MEDSIGLIP_SIZES


@contextmanager
def _empty_folder(path: Path, ours: str | None = None) -> Iterator[Path]:
    """Yield a temporary folder, which becomes ``path`` when all files are written.

    An existing folder is replaced if it is empty, or holds the file ``ours``.
    """
    replaces = ours is not None and (path / ours).is_file()
    if path.exists() and not replaces and (path.is_file() or any(path.iterdir())):
        raise RunFolderError(
            f"{os.fspath(path)!r} holds other files. Pass a new or empty folder."
        )
    try:
        with new_folder(path) as scratch:
            yield scratch
    except (OSError, SafetensorError) as error:
        raise RunFolderError(
            f"{os.fspath(path)!r} cannot be written: {error}. Free space there, or "
            "choose another folder."
        ) from error
