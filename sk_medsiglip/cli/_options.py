"""Options that several commands have, declared once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "BatchSizeOption",
    "CacheOption",
    "ClassOption",
    "DeviceOption",
    "DtypeOption",
    "JobsOption",
    "ModelOption",
    "NoCacheOption",
    "OnError",
    "OnErrorOption",
    "PadOption",
    "PathColumnOption",
    "PromptsOption",
    "Resize",
    "ResizeOption",
    "RevisionOption",
    "TemplateOption",
    "TrustOption",
]


class Resize(StrEnum):
    """Values of ``--resize``."""

    medsiglip = "medsiglip"
    processor = "processor"


class OnError(StrEnum):
    """Values of ``--on-error``."""

    raise_ = "raise"
    nan = "nan"


class Dtype(StrEnum):
    """Values of ``--dtype``."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class Engine(StrEnum):
    """Values of ``--engine``."""

    auto = "auto"
    torch = "torch"
    openvino = "openvino"


ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help='Hub repository, checkpoint folder, or "demo" (the small demonstration '
        "checkpoint in the package).",
    ),
]
RevisionOption = Annotated[
    str | None,
    typer.Option("--revision", help="Commit, branch or tag of a hub repository."),
]
ResizeOption = Annotated[
    Resize,
    typer.Option(
        "--resize",
        help="medsiglip: bilinear as in MedSigLIP's own evaluations. processor: the "
        "checkpoint's image processor (bicubic).",
    ),
]
PadOption = Annotated[
    bool,
    typer.Option("--pad", help="Pad to a square with black first; keeps proportions."),
]
DeviceOption = Annotated[
    str,
    typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps."),
]
DtypeOption = Annotated[
    Dtype,
    typer.Option(
        "--dtype", help="auto: bfloat16 on a GPU that computes in it, else float32."
    ),
]
EngineOption = Annotated[
    Engine,
    typer.Option(
        "--engine",
        help="What runs the model. openvino (an extra) is the faster one on CPUs; it "
        "converts the checkpoint once. auto: torch.",
    ),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, help="Images in one model pass."),
]
JobsOption = Annotated[
    int | None,
    typer.Option("--n-jobs", help="Threads that read images; -1 takes all cores."),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Folder of the embedding cache. Default: SK_MEDSIGLIP_CACHE, or a "
        "per-user folder.",
    ),
]
NoCacheOption = Annotated[
    bool, typer.Option("--no-cache", help="Keep no embeddings, and read none.")
]
OnErrorOption = Annotated[
    OnError,
    typer.Option(
        "--on-error",
        help="An unreadable image ends the command (raise), or its row is NaN (nan).",
    ),
]
PathColumnOption = Annotated[
    str | None,
    typer.Option(
        "--path-column",
        help="Column of the CSV file that holds the paths, which are relative to the "
        "CSV file's folder. Default: the first named path, file, filename, filepath, "
        "image or image_path.",
    ),
]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FILE or SET",
        help='JSON or YAML file: {"class": ["prompt", ...], ...} for one of several '
        'classes, {"finding": {"positive": [...], "negative": [...]}, ...} for '
        "findings that are present or absent. Or the name of a set that ships: "
        "sk-medsiglip prompts list.",
    ),
]
ClassOption = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        metavar="NAME=PROMPT",
        help="A class and a prompt for it. Repeat it for every class; the same name "
        "again adds a prompt.",
    ),
]
TemplateOption = Annotated[
    list[str] | None,
    typer.Option(
        "--template",
        help='Text with one {} that every prompt is filled into: "a chest X-ray '
        'showing {}". Repeatable.',
    ),
]

TrustOption = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="TYPE",
        help="Type of another package that a .skops file holds and may be loaded; the "
        "message that refuses it names it. Repeat it.",
    ),
]

SearchOption = Annotated[
    bool,
    typer.Option(
        "--search",
        help="Choose the head and its settings by cross-validation; with prompts, "
        "among those that know them too. Another head replaces the linear probe only "
        "where it is better by more than chance.",
    ),
]
TrialsOption = Annotated[
    int, typer.Option("--n-trials", min=1, help="Trials of --search in all.")
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout", help="Seconds after which --search begins no further trial."
    ),
]
StorageOption = Annotated[
    Path | None,
    typer.Option(
        "--storage",
        help="SQLite file (.db) or journal (.journal) that keeps the trials of "
        "--search: the same command again goes on where it was, and several at once "
        "share them.",
    ),
]
NestedOption = Annotated[
    bool,
    typer.Option(
        "--nested",
        help="Cross-validate the search itself: an estimate for new patients, at the "
        "price of five more searches.",
    ),
]
