"""Fitted pipelines as files: skops, which holds no code, or joblib, which is code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib

from sk_medsiglip._files import new_file
from sk_medsiglip._optional import import_optional
from sk_medsiglip.cli._console import complain
from sk_medsiglip.cli._errors import CommandError
from sk_medsiglip.cli._written_files import check_out

RUNS_CODE = (
    "Loading a joblib file runs code that is in it: load only files whose origin you "
    "trust."
)

_SKOPS, _PICKLES = ".skops", (".joblib", ".pkl", ".pickle")
_OURS = "sk_medsiglip."
#: Plain Python objects that hold numbers, in a fitted MLPClassifier.
_HARMLESS = {
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
}


def check_model_file(file: Path, overwrite: bool) -> None:
    """Raise before hours of work if the file cannot be written, not after."""
    _check_suffix(file)
    check_out(file, overwrite)
    if file.suffix == _SKOPS:
        _skops()


def save_model(model: Any, file: Path) -> int:
    """Write a fitted estimator in one step; return the bytes written."""
    with new_file(file) as draft:
        if file.suffix == _SKOPS:
            draft.write_bytes(_skops().dumps(model))
        else:
            joblib.dump(model, draft)
    return file.stat().st_size


def save_pipeline(embedder: Any, head: Any, file: Path) -> int:
    """Write a pipeline from images to classes; nothing in it names this machine."""
    from sklearn.pipeline import Pipeline, make_pipeline

    plain = {"verbose": 0, "device": "auto", "n_jobs": None, "cache": True}
    embedder.set_params(**plain)
    steps = [step for _, step in head.steps] if isinstance(head, Pipeline) else [head]
    if "cache" in steps[-1].get_params():
        steps[-1].set_params(cache=True)
    return save_model(make_pipeline(embedder, *steps), file)


def load_model(file: Path, trusted: Sequence[str] = ()) -> Any:
    """Read a fitted estimator; warn first where that runs code."""
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
    if foreign := [name for name in foreign_types(file) if name not in trusted]:
        raise CommandError(
            f"{file} holds {', '.join(foreign)}, which a damaged or forged file could "
            "use to crash this program or worse. If you trust its origin, add "
            f"{trust_options(foreign)}"
        )
    skops = _skops()
    return skops.load(file, trusted=skops.get_untrusted_types(file=file))


def load_pipeline(file: Path, trusted: Sequence[str] = ()) -> Any:
    """Read a pipeline from images to classes."""
    from sklearn.pipeline import Pipeline

    from sk_medsiglip.embedding import MedSigLIPEmbedder

    found = load_model(file, trusted)
    if isinstance(found, Pipeline) and isinstance(found[0], MedSigLIPEmbedder):
        return found
    raise CommandError(
        f"{file} holds a {type(found).__name__}, not a pipeline from images to "
        "classes. Make one with: sk-medsiglip train"
    )


def foreign_types(file: Path) -> list[str]:
    """Return the types of other packages that a skops file holds."""
    if file.suffix != _SKOPS:
        return []
    try:
        unknown = _skops().get_untrusted_types(file=file)
    except Exception as error:
        raise CommandError(f"{file} is not a skops file: {error}") from error
    return [
        name for name in unknown if not name.startswith(_OURS) and name not in _HARMLESS
    ]


def trust_options(names: Sequence[str]) -> str:
    """Return the options that trust types."""
    return " ".join(f"--trust {name}" for name in names)


def _skops() -> Any:
    return import_optional("skops.io", extra="skops", purpose="A .skops file")


def _check_suffix(file: Path) -> None:
    if file.suffix not in (_SKOPS, *_PICKLES):
        raise CommandError(
            f"{file} ends in {file.suffix or 'no suffix'!r}; models are .skops files, "
            "or .joblib."
        )
