"""Tuned weights as a folder that the encoder can load.

An adapter of low-rank matrices has a few MB and can be part of a pickle. On the machine
where the pickle is loaded it becomes a folder beside the store of embeddings, named by
its fingerprint. Whole weights exist as a folder only.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from sk_medsiglip._files import make_scratch_folder, put_in_place, scratch_folder
from sk_medsiglip.embedding import open_cache
from sk_medsiglip.encoder import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    TUNED_WEIGHTS,
    TUNING,
    digest_adapter,
    find_checkpoint,
)
from sk_medsiglip.exceptions import CheckpointError, ModelAccessError, RunFolderError
from sk_medsiglip.fine_tuning._processes import Processes


@dataclass(frozen=True, eq=False)
class Tuned:
    """Weights that were trained: the files of an adapter, or a folder of whole weights.

    ``fingerprint`` is the digest of the weights and their base, and the ``revision`` of
    the tuned encoder. ``base_model`` is the name of the base on this machine.
    """

    fingerprint: str
    base_model: str
    base_revision: str
    files: Mapping[str, bytes] | None = None
    home: str | None = None

    def folder(self, cache: Any, model: str | os.PathLike[str]) -> Path:
        """Return the folder on this machine, created beside a store if needed."""
        if self.files is None:
            if self.home is None or not Path(self.home).is_dir():
                raise CheckpointError(
                    f"The tuned weights are no longer in {self.home!r}. Load a folder "
                    "that save(path) wrote with MedSigLIPFineTuner.load(path), or fit "
                    "again."
                )
            return Path(self.home)
        here = replace(self, base_model=base_name(model))
        if here.base_model != self.base_model:
            here._check_base()
        write = partial(write_files, files=self.files)
        return _store(_adapters_folder(cache), write, here)[1]

    def _check_base(self) -> None:
        """Raise if the name of the base is another checkpoint on this machine."""
        folder = Path(self.base_model).is_dir() or self.base_model == "demo"
        wanted = None if folder else self.base_revision
        try:
            found = find_checkpoint(self.base_model, wanted, weights=False).revision
        except ModelAccessError:
            # The base is not needed if all embeddings are stored.
            return
        if found != self.base_revision:
            raise CheckpointError(
                f"This fine-tuner was fitted on {self.base_revision}, but model="
                f"{self.base_model!r} is {found}. Set embedder__model= to the folder "
                "of the base, or fit again."
            )


def store_tuned(
    new: Tuned,
    cache: Any,
    files: dict[str, bytes] | None,
    tensors: Mapping[str, Any],
    beside: Mapping[str, bytes],
    processes: Processes,
) -> Tuned:
    """Store the files of an adapter, or whole weights, written by the first process.

    ``new`` names the base, and ``beside`` holds documents to write next to the weights.
    """
    root = _adapters_folder(cache)
    if files is not None:
        files |= beside
        fingerprint, _ = _store(root, partial(write_files, files=files), new)
        return replace(new, fingerprint=fingerprint, files=files)

    def write(folder: Path) -> None:
        from safetensors.torch import save_file

        save_file(dict(tensors), folder / TUNED_WEIGHTS)
        write_files(folder, beside)

    stored = _store(root, write, new) if processes.is_first else ("", root)
    fingerprint, home = processes.share(stored)
    return replace(new, fingerprint=fingerprint, home=str(home))


def adapter_files(low_rank: Any, model: str, revision: str) -> dict[str, bytes]:
    """Return the files of an adapter in the format of peft."""
    from peft import get_peft_model_state_dict

    tensors = {
        name: tensor.detach().float().cpu().contiguous().numpy()
        for name, tensor in get_peft_model_state_dict(low_rank).items()
    }
    config = low_rank.peft_config["default"].to_dict() | {
        "base_model_name_or_path": model,
        "revision": revision,
        "inference_mode": True,
    }
    # Sets of peft are sorted, so that the digest is reproducible.
    text = json.dumps(config, indent=1, sort_keys=True, default=sorted)
    return {ADAPTER_WEIGHTS: save(tensors), ADAPTER_CONFIG: text.encode()}


def _adapters_folder(cache: Any) -> Path:
    """Return the folder of adapters beside a store, or a temporary one."""
    store = open_cache(cache)
    return (_folder_of_this_process() if store is None else store.location) / "adapters"


@lru_cache(maxsize=1)
def _folder_of_this_process() -> Path:
    folder = make_scratch_folder(Path(tempfile.gettempdir()), mode=0o700)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _store(root: Path, write: Callable[[Path], None], tuned: Tuned) -> tuple[str, Path]:
    """Write weights to a folder named by their fingerprint, and return both."""
    record = tuning_record(tuned.base_model, tuned.base_revision)
    known = root / tuned.fingerprint.removeprefix("folder-")
    if tuned.fingerprint and _holds(known, tuned, record):
        return tuned.fingerprint, known
    try:
        with scratch_folder(root, mode=0o700) as scratch:
            write(scratch)
            (scratch / TUNING).write_text(record, "utf-8")
            fingerprint = digest_adapter(scratch, tuned.base_revision)
            if tuned.fingerprint not in ("", fingerprint):
                raise CheckpointError(
                    f"The adapter of this fine-tuner has the digest {fingerprint} in "
                    f"place of {tuned.fingerprint}: it is damaged. Copy the file again."
                )
            folder = root / fingerprint.removeprefix("folder-")
            put_in_place(scratch, folder)
    except OSError as error:
        raise RunFolderError(
            f"The tuned weights cannot be written to {str(root)!r}: {error}. Free "
            "space there, or pass another cache=."
        ) from error
    return fingerprint, folder


def _holds(folder: Path, tuned: Tuned, record: str) -> bool:
    """Tell whether a folder holds these weights undamaged, and names their base."""
    try:
        return (folder / TUNING).read_text("utf-8") == record and digest_adapter(
            folder, tuned.base_revision
        ) == tuned.fingerprint
    except (OSError, CheckpointError):
        return False


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files by their names."""
    for name, content in files.items():
        (folder / name).write_bytes(content)


def tuning_record(base_model: str, base_revision: str) -> str:
    """Return the content of ``tuning.json``."""
    base = {"model": base_model, "revision": base_revision}
    return json.dumps({"format": 1, "base": base}, indent=1)


def base_name(model: str | os.PathLike[str]) -> str:
    """Return the name of a model, with an absolute path for a folder."""
    name = os.fspath(model)
    if name == "demo" or not Path(name).expanduser().is_dir():
        return name
    return str(Path(name).expanduser().resolve())
