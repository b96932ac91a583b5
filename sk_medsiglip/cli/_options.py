"""Options that several commands share, each declared once.

A command may take a dataclass of options as one parameter: see ``with_options``.
"""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

if TYPE_CHECKING:
    from sk_medsiglip.embedding import MedSigLIPEmbedder

MEDSIGLIP = "google/medsiglip-448"
#: Environment variable that holds the default of ``--model``.
MODEL_VARIABLE = "SK_MEDSIGLIP_MODEL"


Unknown = Literal["ignore", "negative", "positive"]
Resize = Literal["medsiglip", "processor"]
OnError = Literal["raise", "nan"]
Dtype = Literal["auto", "float32", "bfloat16"]
Engine = Literal["auto", "torch", "openvino"]

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        envvar=MODEL_VARIABLE,
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
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")
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
        help="Library that runs the model. openvino (an extra) is the faster one on "
        "CPUs; it converts the checkpoint once. auto: torch.",
    ),
]
BatchSizeOption = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Images in one model pass.")
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
        "CSV file's folder. Default: the first that names files which exist.",
    ),
]
SourceArgument = Annotated[
    Path, typer.Argument(help="Folder of images, or CSV file with a column of paths.")
]
LabelsOption = Annotated[
    Path,
    typer.Option(
        "--labels",
        help="CSV file with a column of paths and one or more of labels, or a folder "
        "with a sub-folder a class.",
    ),
]
LabelColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label-column",
        help="Column of classes, or of 0 and 1 for a finding. Repeat it for several "
        "findings. Default: label.",
    ),
]
GroupColumnOption = Annotated[
    str | None,
    typer.Option(
        "--group-column",
        help="Column of patients, whose images stay together in splits and folds.",
    ),
]
UncertainOption = Annotated[
    Unknown, typer.Option("--uncertain", help="Meaning of -1 in a finding.")
]
BlankOption = Annotated[
    Unknown, typer.Option("--blank", help="Meaning of an empty cell of a finding.")
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Seed of the random number generator.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that exist.")
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


@dataclass(frozen=True)
class RunOptions:
    """Options that say where and how images are embedded, but not by which model."""

    on_error: OnErrorOption = "raise"
    device: DeviceOption = "auto"
    batch_size: BatchSizeOption = None
    n_jobs: JobsOption = None
    cache: CacheOption = None
    no_cache: NoCacheOption = False

    def parameters(self) -> dict[str, Any]:
        """Return the options as parameters of an embedder."""
        from sk_medsiglip.cli._console import bar
        from sk_medsiglip.cli._embedding import check_device, choose_cache

        check_device(self.device)
        return {
            "on_error": self.on_error,
            "device": self.device,
            "batch_size": self.batch_size or "auto",
            "n_jobs": self.n_jobs,
            "cache": choose_cache(self.cache, without=self.no_cache),
            "verbose": bar(),
        }


@dataclass(frozen=True)
class LenientRunOptions(RunOptions):
    """The same, for commands that go on without unreadable images."""

    on_error: OnErrorOption = "nan"


@dataclass(frozen=True)
class ModelOptions:
    """Options that decide the embedding of an image."""

    model: ModelOption = MEDSIGLIP
    revision: RevisionOption = None
    resize: ResizeOption = "medsiglip"
    pad: PadOption = False
    dtype: DtypeOption = "auto"
    engine: EngineOption = "auto"

    def embedder(self, run: RunOptions, **further: Any) -> MedSigLIPEmbedder:
        """Return the embedder that the options describe."""
        from sk_medsiglip.cli._embedding import local_model
        from sk_medsiglip.embedding import MedSigLIPEmbedder

        return MedSigLIPEmbedder(
            local_model(self.model),
            revision=self.revision,
            resize=self.resize,
            pad=self.pad,
            dtype=self.dtype,
            engine=self.engine,
            **run.parameters() | further,
        )


def text_side(embedder: MedSigLIPEmbedder, *names: str) -> dict[str, Any]:
    """Return those parameters of an embedder that prompts are embedded with, too."""
    params = embedder.get_params(deep=False)
    return {name: params[name] for name in ("model", "revision", "cache", *names)}


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of each parameter that is a dataclass of options."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if not is_dataclass(kind):
            parameters.append(
                parameter.replace(annotation=kind, kind=parameter.KEYWORD_ONLY)
            )
            continue
        groups[parameter.name] = kind
        options = get_type_hints(kind, include_extras=True)
        parameters += [
            inspect.Parameter(
                option.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=option.default,
                annotation=options[option.name],
            )
            for option in fields(kind)
        ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, kind in groups.items():
            own = {option.name: given.pop(option.name) for option in fields(kind)}
            given[name] = kind(**own)
        command(**given)

    # Typer reads both: the signature for the options, the annotations for their types.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def column_options(labels: list[str] | None, group: str | None) -> str:
    """Return the options that name columns, to be typed again for another command."""
    given = [("--label-column", name) for name in labels or []]
    given += [("--group-column", group)] if group else []
    return "".join(f" {option} {shlex.quote(name)}" for option, name in given)
