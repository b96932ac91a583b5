"""``sk-medsiglip doctor``: check the installation, and say how to fix problems."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from sk_medsiglip._version import __version__
from sk_medsiglip.cli._cache import format_bytes
from sk_medsiglip.cli._console import console, say
from sk_medsiglip.cli._options import MEDSIGLIP, MODEL_VARIABLE
from sk_medsiglip.exceptions import SkMedSiglipError

_PACKAGES = (
    *("scikit-learn", "numpy", "scipy", "pandas", "torch", "transformers"),
    *("safetensors", "huggingface-hub", "pillow", "pydicom", "joblib"),
)
_PURPOSES = {
    "plot": "figures of demo, reports and searches",
    "parquet": "embed to .parquet",
    "dicom": "compressed DICOM files",
    "nifti": "volumes in NIfTI files",
    "slides": "tiles of slides",
    "remote": "images by URL",
    "openvino": "twice the speed on many CPUs",
    "tune": "train --search",
    "retrieval": "index with --where, on disk",
    "finetune": "finetune",
    "ray": "embed --ray",
    "skops": "classifiers saved without pickles",
    "serve": "a saved classifier behind HTTP",
    "explore": "labelling and training in the browser",
    "onnx": "classifiers written as ONNX files",
}
_MARKS = {
    "ok": ("ok  ", "green"),
    "note": ("note", "yellow"),
    "problem": ("FAIL", "bold red"),
}


@dataclass(frozen=True)
class Finding:
    """A line of the report; only a "problem" prevents the main tasks."""

    state: Literal["ok", "note", "problem"]
    text: str
    fix: str = ""


def doctor(
    online: Annotated[
        bool,
        typer.Option(
            "--online",
            help="Also ask the Hugging Face hub. Default: look at local files only.",
        ),
    ] = False,
) -> None:
    """Check this installation, and say how to fix problems.

    The exit code is 1 if the main tasks cannot run, else 0.
    """
    failed = False
    for title, check in (
        ("Versions", _check_versions),
        ("Settings", _check_settings),
        ("Device", _check_device),
        ('Model "demo"', _check_demo),
        (f"Model {MEDSIGLIP}", lambda: _check_medsiglip(online=online)),
        ("Cache", _check_cache),
        ("Extras", _check_extras),
    ):
        say(title, "bold")
        for finding in _run(check):
            mark, style = _MARKS[finding.state]
            console.print(f"  {mark}", style=style, end="  ")
            say(finding.text)
            for line in finding.fix.splitlines():
                say(f"-> {line}", indent=8)
            failed |= finding.state == "problem"
    console.print()
    if failed:
        say("The main tasks cannot run here; fix the lines that say FAIL.", "bold red")
        raise typer.Exit(1)
    say("The main tasks run here. Try them: sk-medsiglip demo", "bold green")


def _run(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Turn an error in a check into a finding, so that the other checks still run."""
    try:
        yield from check()
    except SkMedSiglipError as error:
        yield Finding("problem", str(error))
    except Exception as error:
        yield Finding("problem", f"{type(error).__name__}: {error}")


def _check_versions() -> Iterator[Finding]:
    found = [f"sk-medsiglip {__version__}", f"python {platform.python_version()}"]
    missing = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    yield Finding("ok", f"{', '.join(found)}; {platform.platform(terse=True)}")
    if missing:
        yield Finding(
            "problem",
            f"not installed: {', '.join(missing)}",
            "pip install --upgrade sk-medsiglip",
        )


def _check_settings() -> Iterator[Finding]:
    model = os.environ.get(MODEL_VARIABLE)
    is_set = f"is set, so the default of --model is {model}"
    not_set = "is not set; it would set the default of --model"
    yield Finding("ok", f"{MODEL_VARIABLE} {is_set if model else not_set}")


def _check_device() -> Iterator[Finding]:
    from sk_medsiglip import encoder

    device = encoder.choose_device("auto")
    dtype = encoder.choose_dtype("auto", device)
    yield Finding(
        "ok",
        f"--engine auto is torch, --device auto is {device}, --dtype auto is {dtype}; "
        f"{os.cpu_count()} CPU cores",
    )
    if device != "cpu":
        return
    yield Finding(
        "note",
        "without a GPU MedSigLIP takes seconds per image, once, since rows are cached",
    )
    try:
        pays = encoder.bfloat16_pays()
    except SkMedSiglipError:
        return  # the extra is not installed, as a line below says
    text = (
        f"this CPU is {encoder.bfloat16_gain():.1f} times as fast in bfloat16, which "
        "--engine openvino uses"
    )
    if not pays:
        text = (
            "this CPU is not faster in bfloat16, so float32 is best; --engine openvino "
            "is somewhat faster than torch"
        )
    yield Finding("ok", text)


def _check_demo() -> Iterator[Finding]:
    from sk_medsiglip.encoder import load_encoder

    encoder = load_encoder("demo")
    width = encoder.encode_texts(["a normal chest X-ray"]).shape[1]
    yield Finding(
        "ok",
        f"works: {encoder.image_size} px, {width} values per embedding. It is a "
        "demonstration trained on drawings, not MedSigLIP",
    )


def _check_medsiglip(*, online: bool) -> Iterator[Finding]:
    from sk_medsiglip.encoder import check_hub_access, is_downloaded

    if is_downloaded(MEDSIGLIP):
        yield Finding("ok", "its weights are in the local Hugging Face cache")
    else:
        yield Finding(
            "note",
            f"its weights are not on this machine; only --model {MEDSIGLIP} needs them",
            f"accept the terms at https://huggingface.co/{MEDSIGLIP}, then type: "
            f"hf auth login\nhf download {MEDSIGLIP}",
        )
    if not online:
        yield Finding("ok", "the hub was not asked; doctor --online asks it")
        return
    try:
        check_hub_access(MEDSIGLIP)
    except SkMedSiglipError as error:
        yield Finding("note", "this machine cannot download it now", str(error))
    else:
        yield Finding("ok", "the hub allows you to download it")


def _check_cache() -> Iterator[Finding]:
    from sk_medsiglip.cache import EmbeddingCache

    cache = EmbeddingCache()
    folder = cache.location
    try:
        stats = cache.stats()
    except SkMedSiglipError as error:
        yield Finding("note", str(error), "sk-medsiglip cache verify")
        return
    # The first existing parent is checked, to avoid creating the folder.
    there = next(p for p in (folder, *folder.parents) if p.exists())
    if os.access(there, os.W_OK):
        yield Finding(
            "ok", f"{folder}: {stats['rows']:,} rows, {format_bytes(stats['bytes'])}"
        )
    else:
        yield Finding(
            "note",
            f"{there} is not writable, so every run computes all embeddings again",
            "export SK_MEDSIGLIP_CACHE=/a/folder/that/you/can/write",
        )


def _check_extras() -> Iterator[Finding]:
    try:
        extras = importlib.metadata.metadata("sk-medsiglip").get_all("Provides-Extra")
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            "note", "not known: sk-medsiglip is imported without installation"
        )
        return
    for extra in extras or ():
        if extra == "all":
            continue
        text = f"{extra} ({_PURPOSES[extra]})" if extra in _PURPOSES else extra
        missing = list(_find_missing("sk-medsiglip", extra))
        if not missing:
            yield Finding("ok", text)
            continue
        fix = f'pip install "sk-medsiglip[{extra}]"'
        yield Finding("note", f"{text}: {', '.join(missing)} not installed", fix)


def _find_missing(package: str, extra: str) -> Iterator[str]:
    """Yield the packages that an extra of a package needs and that are missing."""
    for line in importlib.metadata.requires(package) or ():
        if not re.search(rf"extra == ['\"]{extra}['\"]", line):
            continue
        name, inner = re.match(r"([\w.-]+)(?:\[(\w+)\])?", line).groups()  # type: ignore[union-attr]
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name
            continue
        if inner is not None:
            yield from _find_missing(name, inner)
