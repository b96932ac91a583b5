"""Output files, checked before the work begins; tables; saved pipelines."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sk_medsiglip._files import new_file
from sk_medsiglip._optional import import_optional
from sk_medsiglip.cli._console import CommandError, complain, say

if TYPE_CHECKING:
    import pandas as pd
    import typer

RUNS_CODE = (
    "Loading a joblib file runs code that is in it: load only files whose origin you "
    "trust."
)

# Cells that a spreadsheet would take for formulas.
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.,]+(e[+-]?\d+)?$)", re.IGNORECASE)
# Options that do not affect the result, or that name places on this machine.
_LEFT_OUT = {"cache", "no_cache", "device", "n_jobs", "batch_size"}
_SKOPS, _PICKLES = ".skops", (".joblib", ".pkl", ".pickle")
_OURS = "sk_medsiglip."
#: Harmless types in a fitted MLPClassifier, which only hold numbers.
_HARMLESS = {
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
}


def check_out(
    file: Path | None, overwrite: bool, suffixes: tuple[str, ...] = ()
) -> None:
    """Raise if a file cannot be written, before hours of work."""
    if file is None:
        return
    if suffixes and file.suffix.lower() not in suffixes:
        *others, last = suffixes
        raise CommandError(
            f"{file} ends in {file.suffix or 'no suffix'!r}; the suffix must be "
            f"{', '.join(others)} or {last}."
        )
    if not file.absolute().parent.is_dir():
        raise CommandError(f"The folder {file.parent} does not exist; make it first.")
    if file.exists() and not overwrite:
        raise CommandError(f"{file} exists. Add --overwrite, or choose another name.")
    if not os.access(file.absolute().parent, os.W_OK):
        raise CommandError(f"The folder {file.parent} is not writable.")


def check_model_file(file: Path, overwrite: bool) -> None:
    """Raise if a classifier cannot be written, before hours of work."""
    _check_suffix(file)
    check_out(file, overwrite)
    if file.suffix == _SKOPS:
        _skops()


def write_csv(table: pd.DataFrame, file: Path, **how: Any) -> None:
    """Write a table, and warn of cells that a spreadsheet would take for formulas."""
    table.to_csv(file, index=False, **how)
    texts = table.select_dtypes(exclude=["number", "bool"]).astype(object)
    cells = [*table.columns, *texts.stack()]
    found = [one for one in map(str, cells) if _FORMULA.match(one)]
    if found:
        say(
            f"{len(found):,} cells begin with =, +, -, @ or a tab, such as "
            f"{found[0][:40]!r}: a spreadsheet would compute them. They are written "
            "unchanged; import these columns as text.",
            "yellow",
        )


def say_page(file: Path, *, shows_images: bool) -> None:
    """Print the name of an HTML file that was written."""
    say(f"Wrote {file} ({file.stat().st_size / 1e6:.1f} MB): open it in a browser.")
    if shows_images:
        say(
            "It holds images of patients: store and share it like the images "
            "themselves.",
            "yellow",
        )


def typed_command(context: typer.Context) -> str:
    """Return the command that was typed, with files named without their folders."""
    words = ["sk-medsiglip", str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in _LEFT_OUT or source is None or source.name.startswith("DEFAULT"):
            continue
        given = context.params[name]
        for value in given if isinstance(given, list | tuple) else [given]:
            if parameter.opts[0].startswith("-"):
                words.append(max(parameter.opts, key=len))
            if value is not True:
                is_folder = name == "model" and Path(value).is_absolute()
                short = isinstance(value, Path) or is_folder
                words.append(Path(value).name if short else str(value))
    return shlex.join(words)


def save_pipeline(embedder: Any, head: Any, file: Path) -> int:
    """Write a pipeline from images to classes, and return its size in bytes.

    Its parameters do not name devices or folders of this machine.
    """
    import joblib
    from sklearn.pipeline import Pipeline, make_pipeline

    from sk_medsiglip.cli._embedding import set_embedding

    set_embedding(embedder, verbose=0, device="auto", n_jobs=None, cache=True)
    steps = [step for _, step in head.steps] if isinstance(head, Pipeline) else [head]
    if "cache" in steps[-1].get_params():
        steps[-1].set_params(cache=True)
    pipeline = make_pipeline(embedder, *steps)
    with new_file(file) as draft:
        if file.suffix == _SKOPS:
            draft.write_bytes(_skops().dumps(pipeline))
        else:
            joblib.dump(pipeline, draft)
    return file.stat().st_size


def load_pipeline(file: Path, trusted: Sequence[str] = ()) -> Any:
    """Read a pipeline from images to classes, with a warning if that runs code."""
    from sklearn.pipeline import Pipeline

    from sk_medsiglip.embedding import MedSigLIPEmbedder, MedSigLIPPatchEmbedder

    found = load_classifier(file, trusted)
    embedders = MedSigLIPEmbedder | MedSigLIPPatchEmbedder
    if isinstance(found, Pipeline) and isinstance(found[0], embedders):
        return found
    raise CommandError(
        f"{file} holds a {type(found).__name__}, not a pipeline from images to "
        "classes. Write one with: sk-medsiglip train"
    )


def load_classifier(file: Path, trusted: Sequence[str] = ()) -> Any:
    """Read a saved estimator of any kind, with a warning if that runs code."""
    if not file.is_file():
        raise CommandError(
            f"There is no file {file}. Write one with: sk-medsiglip train"
        )
    _check_suffix(file)
    is_skops = file.suffix == _SKOPS
    return _load_skops(file, trusted) if is_skops else _load_pickle(file)


def foreign_types(file: Path) -> list[str]:
    """Return the types of other packages in a skops file."""
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


def _load_pickle(file: Path) -> Any:
    import joblib

    complain(f"Warning: {RUNS_CODE}", "yellow")
    try:
        return joblib.load(file)
    except (ValueError, EOFError, KeyError, IndexError) as error:
        raise CommandError(f"{file} cannot be read: {error}") from error


def _load_skops(file: Path, trusted: Sequence[str]) -> Any:
    if foreign := [name for name in foreign_types(file) if name not in trusted]:
        raise CommandError(
            f"{file} holds {', '.join(foreign)}. A damaged or forged file with these "
            "types could crash this program or do worse. If you trust its origin, add "
            f"{trust_options(foreign)}"
        )
    skops = _skops()
    return skops.load(file, trusted=skops.get_untrusted_types(file=file))


def _skops() -> Any:
    return import_optional("skops.io", extra="skops", purpose="A .skops file")


def _check_suffix(file: Path) -> None:
    if file.suffix not in (_SKOPS, *_PICKLES):
        raise CommandError(
            f"{file} ends in {file.suffix or 'no suffix'!r}; models are .skops or "
            ".joblib files."
        )
