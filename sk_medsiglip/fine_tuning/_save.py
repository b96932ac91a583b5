"""Save, load and merge a fine-tuner: folders of safetensors and JSON."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.utils.validation import check_is_fitted

from sk_medsiglip._json import read_json
from sk_medsiglip._version import __version__
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
from sk_medsiglip.exceptions import CheckpointError, ModelAccessError
from sk_medsiglip.fine_tuning._adapter_files import (
    NOTICE,
    TERMS,
    Tuned,
    base_name,
    notices,
    put_in_place,
    tuning_record,
    write_files,
)
from sk_medsiglip.fine_tuning._model_card import CARD, model_card
from sk_medsiglip.fine_tuning._run_folder import RunFolderError
from sk_medsiglip.fine_tuning._saved import from_json, to_json
from sk_medsiglip.fine_tuning._scratch import scratch_in

if TYPE_CHECKING:
    from sk_medsiglip.fine_tuning._fine_tuner import MedSigLIPFineTuner

__all__ = ["SavesFolder"]

_RECORD = "fine_tuner.json"
_CLASSIFIER = "classifier.safetensors"
_FORMAT = 1

# Of this machine, or of one run.
_NOT_SAVED = frozenset({"cache", "n_jobs", "resume", "run_dir", "verbose"})
_ATTRIBUTES = (
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
)

# Of a checkpoint's folder, besides its weights: what a copy needs to be whole.
_BESIDE_WEIGHTS = ("*.json", "*.model", "*.txt")

T = TypeVar("T")


class SavesFolder:
    """Mixin of ``MedSigLIPFineTuner``: folders instead of pickles."""

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write the tuned encoder, and what else was learned, to a folder.

        Parameters
        ----------
        path : str or path-like
            A new or empty folder, or one that an earlier ``save`` wrote.

        Returns
        -------
        str
            The folder: a ``model=`` for every estimator of this package, where the
            encoder was changed at all. It holds the adapter as peft writes it, or the
            trained weights; not the base, which is found by its name.

        Raises
        ------
        RunFolderError
            If it holds something else, or cannot be written.
        """
        check_is_fitted(self)
        return _save(self, Path(path).expanduser())  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the fine-tuner that ``save`` wrote.

        Parameters
        ----------
        path : str or path-like
            Its folder. No pickle is opened.

        Returns
        -------
        MedSigLIPFineTuner
            Fitted.

        Raises
        ------
        CheckpointError
            If it is damaged, or its base is another one than was tuned.
        """
        return _load(cls, Path(path).expanduser())

    def merge(self, path: str | os.PathLike[str]) -> str:
        """Write base and tuned weights as one ordinary checkpoint.

        Parameters
        ----------
        path : str or path-like
            A new or empty folder.

        Returns
        -------
        str
            The folder, which ``transformers.SiglipModel.from_pretrained`` opens too. A
            classifier is not part of it.

        Raises
        ------
        RunFolderError
            If it holds something, or cannot be written.

        Notes
        -----
        Needs the base's weights: 3.5 GB of memory and of disk for MedSigLIP.
        """
        check_is_fitted(self)
        return _merge(self, Path(path).expanduser())  # type: ignore[arg-type]


def _save(tuner: MedSigLIPFineTuner, path: Path) -> str:
    tuned = tuner._tuned
    with _new_folder(path, ours=_RECORD) as scratch:
        if tuned is not None:
            _copy_weights(tuner, tuned, scratch)
            record = tuning_record(base_name(tuner.model), tuned.base_revision)
            (scratch / TUNING).write_text(record, "utf-8")
        if hasattr(tuner, "coef_"):
            layer = {"coef": tuner.coef_, "intercept": tuner.intercept_}
            save_file(
                {k: np.ascontiguousarray(v) for k, v in layer.items()},
                scratch / _CLASSIFIER,
            )
        parameters = tuner.get_params(deep=False)
        if not isinstance(parameters["random_state"], int | np.integer):
            parameters["random_state"] = None
        whole = {
            "format": _FORMAT,
            "version": __version__,
            "parameters": {
                name: to_json(value)
                for name, value in parameters.items()
                if name not in _NOT_SAVED
            },
            "attributes": {
                name: to_json(getattr(tuner, name))
                for name in _ATTRIBUTES
                if hasattr(tuner, name)
            },
        }
        (scratch / _RECORD).write_text(json.dumps(whole, indent=1), "utf-8")
        _write_notices(tuner, scratch, _at_hand(tuner), is_merged=False)
    return os.fspath(path)


def _copy_weights(tuner: MedSigLIPFineTuner, tuned: Tuned, scratch: Path) -> None:
    if tuned.files is not None:
        write_files(scratch, tuned.files)
        return
    home = tuned.folder(tuner.cache, os.fspath(tuner.model))
    shutil.copyfile(home / TUNED_WEIGHTS, scratch / TUNED_WEIGHTS)


def _write_notices(
    tuner: MedSigLIPFineTuner,
    folder: Path,
    base: Checkpoint | None,
    *,
    is_merged: bool,
) -> None:
    """Write what a reader of the weights must know: terms and a model card."""
    beside = notices(base_name(tuner.model), base)
    card = model_card(tuner, is_merged=is_merged, has_terms=bool(beside))
    write_files(folder, beside | {CARD: card.encode()})


def _at_hand(tuner: MedSigLIPFineTuner) -> Checkpoint | None:
    """Return the base's sizes, or None where it is not on this machine."""
    try:
        return find_checkpoint(tuner.model, tuner.revision, weights=False)
    except (ModelAccessError, CheckpointError):
        return None


def _load(cls: type[T], path: Path) -> T:
    whole = _read_record(path)
    try:
        given = {k: from_json(v) for k, v in whole["parameters"].items()}
        tuner: Any = cls(**given)
        for name, value in whole["attributes"].items():
            if name not in _ATTRIBUTES:
                raise CheckpointError(f"it holds the attribute {name!r}")
            setattr(tuner, name, from_json(value))
        if (path / _CLASSIFIER).is_file():
            layer = load_file(path / _CLASSIFIER)
            tuner.coef_, tuner.intercept_ = layer["coef"], layer["intercept"]
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError) as error:
        raise CheckpointError(
            f"The fine-tuner in {str(path)!r} is damaged, or was written by a newer "
            f"version ({whole.get('version')}): {error}."
        ) from error
    tuner._tuned = _tuned_in(path, tuner)
    return tuner


def _read_record(path: Path) -> dict[str, Any]:
    try:
        whole = read_json(
            path / _RECORD, {"format": int, "parameters": dict, "attributes": dict}
        )
        if whole["format"] != _FORMAT:
            raise ValueError(f"format {whole['format']}")
    except FileNotFoundError:
        raise CheckpointError(
            f"{str(path)!r} holds no {_RECORD}, so no fine-tuner was saved there. An "
            "adapter alone is used as model=, by MedSigLIPEmbedder and the others."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{_RECORD} in {str(path)!r} cannot be read: {error}."
        ) from error
    return whole


def _tuned_in(path: Path, tuner: MedSigLIPFineTuner) -> Tuned | None:
    """Return the tuned weights of a folder, checked against record and base."""
    adapter = [path / name for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG)]
    whole = path / TUNED_WEIGHTS
    revision = tuner.base_revision_
    if not whole.is_file() and not any(one.is_file() for one in adapter):
        if tuner.fingerprint_ != revision:
            raise CheckpointError(
                f"The tuned weights are missing in {str(path)!r}. Copy the folder here "
                "again."
            )
        return None
    if digest_adapter(path, revision) != tuner.fingerprint_:
        raise CheckpointError(
            f"The tuned weights in {str(path)!r} are not those that were saved. Copy "
            "the folder here again."
        )
    try:
        # Raises where the base's name means another checkpoint by now.
        find_checkpoint(path, weights=False)
    except ModelAccessError:
        # Rows in the store may do without it; who needs it says that it is missing.
        pass
    files = None
    if not whole.is_file():
        files = {
            one.name: one.read_bytes()
            for one in (*adapter, path / NOTICE, path / TERMS)
            if one.is_file()
        }
    home = None if files else os.fspath(path.resolve())
    return Tuned(tuner.fingerprint_, base_name(tuner.model), revision, files, home)


def _merge(tuner: MedSigLIPFineTuner, path: Path) -> str:
    checkpoint = find_checkpoint(tuner._tuned_model(), tuner.fingerprint_)
    network = load_network(checkpoint, "float32")
    with _new_folder(path, ours=None) as scratch:
        for pattern in _BESIDE_WEIGHTS:
            for file in checkpoint.folder.glob(pattern):
                if not file.name.endswith(".index.json"):
                    shutil.copyfile(file, scratch / file.name)
        with quiet_transformers():
            network.save_pretrained(scratch)
        _write_notices(tuner, scratch, checkpoint, is_merged=True)
    return os.fspath(path)


@contextmanager
def _new_folder(path: Path, ours: str | None) -> Iterator[Path]:
    """Yield a folder to write to; it takes its place when all is written.

    Parameters
    ----------
    path : pathlib.Path
        Its place.
    ours : str or None
        File that shows that what lies there may be replaced.

    Raises
    ------
    RunFolderError
        If something else lies there, or it cannot be written.
    """
    replaces = ours is not None and (path / ours).is_file()
    if path.exists() and not replaces and (path.is_file() or any(path.iterdir())):
        raise RunFolderError(
            f"{os.fspath(path)!r} holds something else. Pass a new or empty folder."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_in(path.parent, "unfinished") as scratch:
            yield scratch
            # It was made private; it is for others to read, as folders are.
            scratch.chmod(0o777 & ~_umask())
            put_in_place(scratch, path)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(
            f"{os.fspath(path)!r} cannot be written: {error}. Free space there, or "
            "choose another folder."
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
