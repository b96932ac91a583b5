"""What a run leaves: a folder that the encoder loads like any checkpoint.

An adapter of low-rank matrices is a few MB and can travel in a pickle; on the machine
where that is opened it becomes a folder again, named by its fingerprint, beside the
store of embeddings. Whole weights are a folder only.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.encoder import (
    TUNING,
    Checkpoint,
    digest_adapter,
    find_checkpoint,
)
from sk_medsiglip.exceptions import CheckpointError, ModelAccessError
from sk_medsiglip.fine_tuning._run_folder import RunFolderError
from sk_medsiglip.fine_tuning._scratch import make_scratch, scratch_in

__all__ = [
    "NOTICE",
    "TERMS",
    "Tuned",
    "adapters_folder",
    "base_name",
    "is_medsiglip",
    "notices",
    "put_in_place",
    "runs_folder",
    "store_adapter",
    "tuning_record",
    "write_files",
]

NOTICE = "NOTICE"
TERMS = "TERMS.md"

# What the model's licence asks for beside every copy of weights that were tuned.
_NOTICE = (
    "HAI-DEF is provided under and subject to the Health AI Developer Foundations "
    "Terms of Use found at "
    "https://developers.google.com/health-ai-developer-foundations/terms\n"
)

_TERMS = """\
# Terms of these weights

These weights were made by fine-tuning {base}. They are a modified version of it, or
what turns it into one, and are not the files that Google published.

Their use, and handing them on, are subject to the Health AI Developer Foundations Terms
of Use: https://developers.google.com/health-ai-developer-foundations/terms
and to the prohibited-use policy that these name. Read them there; this file is no copy.
Putting the weights where others can load or query them counts as handing them on. Who
hands them on passes these terms on too, keeps the file NOTICE beside the weights, and
says that they were changed.

Not a medical device. What they say of an image must not be used to diagnose or treat
anybody without the permission of the authorities in charge.
"""

# Width, px a side and px a patch of MedSigLIP: no other published SigLIP has these.
_MEDSIGLIP_SIZES = (1152, 448, 14)


@dataclass(frozen=True, eq=False, repr=False)
class Tuned:
    """Weights that a run changed, or where they are.

    Parameters
    ----------
    fingerprint : str
        Of the adapter and its base: ``revision`` of an encoder of both.
    base_model : str
        As it is found on this machine.
    base_revision : str
        Of the base.
    files : mapping of str to bytes, or None
        The adapter, by file name. None for whole weights, which are on disk only.
    home : str or None
        The folder of whole weights.
    """

    fingerprint: str
    base_model: str
    base_revision: str
    files: Mapping[str, bytes] | None
    home: str | None

    def __repr__(self) -> str:
        size = sum(map(len, (self.files or {}).values()))
        return f"<Tuned {self.fingerprint} {size / 1e6:.1f} MB>"

    def folder(
        self, cache: bool | str | os.PathLike[str] | EmbeddingCache, model: str
    ) -> Path:
        """Return the folder of the adapter on this machine, made where it is not there.

        Parameters
        ----------
        cache : bool, str, path-like or EmbeddingCache
            Beside which store.
        model : str
            Where the base lies here.

        Raises
        ------
        CheckpointError
            If whole weights are gone, or ``model`` is another checkpoint.
        """
        if self.files is None:
            if self.home is None or not Path(self.home).is_dir():
                raise CheckpointError(
                    f"The tuned weights are no longer in {self.home!r}. Load them from "
                    "where save(path) put them, MedSigLIPFineTuner.load(path), or fit "
                    "again."
                )
            return Path(self.home)
        files, here = self.files, replace(self, base_model=base_name(model))
        if here.base_model != self.base_model:
            here.check_base()
        _, folder = store_adapter(
            adapters_folder(cache), lambda scratch: write_files(scratch, files), here
        )
        return folder

    def check_base(self) -> None:
        """Raise if the base's name means another checkpoint on this machine."""
        folder = Path(self.base_model).is_dir() or self.base_model == "demo"
        wanted = None if folder else self.base_revision
        try:
            found = find_checkpoint(self.base_model, wanted, weights=False).revision
        except ModelAccessError:
            # Rows in the store may do without it.
            return
        if found != self.base_revision:
            raise CheckpointError(
                f"This fine-tuner was fitted on {self.base_revision}, but model="
                f"{self.base_model!r} is {found}. Set model= to where the base lies, "
                "or fit again."
            )


def store_adapter(
    root: Path, write: Callable[[Path], None], tuned: Tuned
) -> tuple[str, Path]:
    """Put an adapter into a folder that is named by its fingerprint.

    Parameters
    ----------
    root : pathlib.Path
        Folder of adapters.
    write : callable
        Writes the weights into the folder that it is given.
    tuned : Tuned
        Whose base is put on record; a fingerprint other than "" is checked.

    Returns
    -------
    fingerprint : str
    folder : pathlib.Path

    Raises
    ------
    RunFolderError
        If it cannot be written.
    CheckpointError
        If what was written has another fingerprint.
    """
    record = tuning_record(tuned.base_model, tuned.base_revision)
    known = root / tuned.fingerprint.removeprefix("folder-")
    if tuned.fingerprint and _holds(known, tuned, record):
        return tuned.fingerprint, known
    try:
        with scratch_in(root, "unfinished") as scratch:
            write(scratch)
            (scratch / TUNING).write_text(record, "utf-8")
            fingerprint = digest_adapter(scratch, tuned.base_revision)
            if tuned.fingerprint not in ("", fingerprint):
                raise CheckpointError(
                    f"The adapter of this fine-tuner is {fingerprint}, not "
                    f"{tuned.fingerprint}: it was damaged on the way. Copy it again."
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
    """Say whether a folder holds an adapter, whole, and names its base rightly."""
    try:
        return (folder / TUNING).read_text("utf-8") == record and digest_adapter(
            folder, tuned.base_revision
        ) == tuned.fingerprint
    except (OSError, CheckpointError):
        return False


def put_in_place(scratch: Path, folder: Path) -> None:
    """Move a finished folder to its place; what was there goes."""
    try:
        os.rename(scratch, folder)
    except OSError:
        if not folder.is_dir():
            raise
        old = scratch.with_name(scratch.name + ".old")
        os.rename(folder, old)
        os.rename(scratch, folder)
        shutil.rmtree(old, ignore_errors=True)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files by their names."""
    for name, content in files.items():
        (folder / name).write_bytes(content)


def tuning_record(base_model: str, base_revision: str) -> str:
    """Return what ``tuning.json`` says."""
    base = {"model": base_model, "revision": base_revision}
    return json.dumps({"format": 1, "base": base}, indent=1)


def base_name(model: str | os.PathLike[str]) -> str:
    """Return a model's name so that it means the same from everywhere."""
    name = os.fspath(model)
    if name == "demo" or not Path(name).expanduser().is_dir():
        return name
    return str(Path(name).expanduser().resolve())


def adapters_folder(cache: bool | str | os.PathLike[str] | EmbeddingCache) -> Path:
    """Return the folder of adapters beside a store; without one, for this process."""
    location = _location(cache)
    if location is None:
        return _for_this_process() / "adapters"
    return location / "adapters"


def runs_folder(
    cache: bool | str | os.PathLike[str] | EmbeddingCache,
) -> Path | None:
    """Return the folder of runs beside a store, or None where there is none."""
    location = _location(cache)
    return None if location is None else location / "runs"


def _location(cache: bool | str | os.PathLike[str] | EmbeddingCache) -> Path | None:
    if isinstance(cache, EmbeddingCache):
        return cache.location
    if cache is False:
        return None
    return EmbeddingCache(None if cache is True else cache).location


@lru_cache(maxsize=1)
def _for_this_process() -> Path:
    folder = make_scratch(None, "tuned")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def notices(base_model: str, base: Checkpoint | None) -> dict[str, bytes]:
    """Return what the licence of the base asks for beside tuned weights.

    Parameters
    ----------
    base_model : str
        Name of the base.
    base : Checkpoint or None
        Its sizes, where it is at hand: a copy may have any name.

    Returns
    -------
    dict of str to bytes
        By file name; nothing where the base is not MedSigLIP.
    """
    if not is_medsiglip(base_model, base):
        return {}
    terms = _TERMS.format(base=_shown(base_model))
    return {NOTICE: _NOTICE.encode(), TERMS: terms.encode()}


def is_medsiglip(base_model: str, base: Checkpoint | None) -> bool:
    """Say whether a base is MedSigLIP, by its name or by its sizes."""
    sizes = base and (base.embedding_dim, base.image_size, base.patch_size)
    return "medsiglip" in Path(base_model).name.lower() or sizes == _MEDSIGLIP_SIZES


def _shown(base_model: str) -> str:
    """Return a base's name without the folders of this machine."""
    return base_model if not os.path.isabs(base_model) else "google/medsiglip-448"
