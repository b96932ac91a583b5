"""Fitted pipelines as files: skops, which holds no code, or joblib, which is code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import joblib

from sk_medsiglip._optional import import_optional
from sk_medsiglip.cli._console import complain
from sk_medsiglip.cli._errors import CommandError

__all__ = ["RUNS_CODE", "check_model_file", "load_model", "save_model"]

RUNS_CODE = (
    "Loading a joblib file runs code that is in it: load only files whose origin you "
    "trust."
)

_SKOPS, _PICKLES = ".skops", (".joblib", ".pkl", ".pickle")
_OURS = "sk_medsiglip."


def check_model_file(file: Path, overwrite: bool) -> None:
    """Raise before hours of work if the file cannot be written, not after."""
    _check_suffix(file)
    if not file.parent.is_dir():
        raise CommandError(f"The folder {file.parent} does not exist; make it first.")
    if file.exists() and not overwrite:
        raise CommandError(f"{file} exists. Add --overwrite, or give another --out.")
    if not os.access(file.parent, os.W_OK):
        raise CommandError(f"The folder {file.parent} is not writable.")
    if file.suffix == _SKOPS:
        _skops()


def save_model(model: Any, file: Path) -> int:
    """Write a fitted estimator in one step; return the bytes written."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        if file.suffix == _SKOPS:
            draft.write_bytes(_skops().dumps(model))
        else:
            joblib.dump(model, draft)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    return file.stat().st_size


def load_model(file: Path) -> Any:
    """Read a fitted estimator; say so first where that runs code.

    Raises
    ------
    CommandError
        If there is no such file, or it holds types of other packages.
    """
    if not file.is_file():
        raise CommandError(
            f"There is no file {file}. Make one with: sk-medsiglip train"
        )
    _check_suffix(file)
    if file.suffix != _SKOPS:
        complain(f"Warning: {RUNS_CODE}", "yellow")
        try:
            return joblib.load(file)
        except (ValueError, EOFError, KeyError, IndexError) as error:
            raise CommandError(f"{file} cannot be read: {error}") from error
    skops = _skops()
    try:
        unknown = skops.get_untrusted_types(file=file)
    except Exception as error:
        raise CommandError(f"{file} is no skops file: {error}") from error
    foreign = [name for name in unknown if not name.startswith(_OURS)]
    if foreign:
        raise CommandError(
            f"{file} holds {', '.join(foreign[:3])}, of which this command does not "
            "know whether they are safe. Load it in Python, if you trust it, by "
            "skops.io.load(file, trusted=[...])."
        )
    return skops.load(file, trusted=unknown)


def _skops() -> Any:
    return import_optional("skops.io", extra="skops", purpose="A .skops file")


def _check_suffix(file: Path) -> None:
    if file.suffix not in (_SKOPS, *_PICKLES):
        raise CommandError(
            f"{file} ends in {file.suffix or 'no suffix'!r}; models are .skops files, "
            "or .joblib."
        )
