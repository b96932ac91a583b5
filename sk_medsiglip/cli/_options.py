"""Options that several commands share, each declared once.

A command may take a dataclass of options as one parameter: see ``with_options``.
"""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

if TYPE_CHECKING:
    from sk_medsiglip.cli._collection import LabelledImages
    from sk_medsiglip.embedding import MedSigLIPEmbedder

MEDSIGLIP = "google/medsiglip-448"
#: Environment variable that holds the default of ``--model``.
MODEL_VARIABLE = "SK_MEDSIGLIP_MODEL"


Unknown = Literal["ignore", "negative", "positive"]

ModelOption = Annotated[
    str,
    typer.Option(
        envvar=MODEL_VARIABLE,
        help='Hub repository, checkpoint folder, or "demo" (the small demonstration '
        "checkpoint in the package).",
    ),
]
RevisionOption = Annotated[
    str | None, typer.Option(help="Commit, branch or tag of a hub repository.")
]
ResizeOption = Annotated[
    Literal["medsiglip", "processor"],
    typer.Option(
        help="medsiglip: bilinear as in MedSigLIP's own evaluations. processor: the "
        "checkpoint's image processor (bicubic)."
    ),
]
PadOption = Annotated[
    bool,
    typer.Option("--pad", help="Pad to a square with black first; keeps proportions."),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
JobsOption = Annotated[
    int | None, typer.Option(help="Threads that read images; -1 takes all cores.")
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the embedding cache. Default: SK_MEDSIGLIP_CACHE, or a "
        "per-user folder."
    ),
]
OnErrorOption = Annotated[
    Literal["raise", "nan"],
    typer.Option(
        help="An unreadable image ends the command (raise), or its row is NaN (nan)."
    ),
]
PathColumnOption = Annotated[
    str | None,
    typer.Option(
        help="Column of the CSV file that holds the paths, which are relative to the "
        "CSV file's folder. Default: the first that names files which exist."
    ),
]
SourceArgument = Annotated[
    Path, typer.Argument(help="Folder of images, or CSV file with a column of paths.")
]
LabelsOption = Annotated[
    Path,
    typer.Option(
        help="CSV file with a column of paths and one or more of labels, or a folder "
        "with a sub-folder a class."
    ),
]
SeedOption = Annotated[
    int, typer.Option(min=0, help="Seed of the random number generator.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that exist.")
]
GridOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Classify by the parts of each image, GRID x GRID of them, for small "
        "findings. It must divide the patches along a side: 2, 4, 8, 16 or 32 for "
        "MedSigLIP; 8 is a good start.",
    ),
]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
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
        help='Text with one {} that every prompt is filled into: "a chest X-ray '
        'showing {}". Repeatable.'
    ),
]

TrustOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TYPE",
        help="Type of another package that a .skops file holds and may be loaded; the "
        "message that refuses it names it. Repeat it.",
    ),
]


@dataclass(frozen=True)
class LabelOptions:
    """Options that name the columns of labelled images, and the meaning of blanks."""

    label_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of classes, or of 0 and 1 for a finding. Repeat it for "
            "several findings. Default: label; of report, the classifier's findings."
        ),
    ] = None
    group_column: Annotated[
        str | None,
        typer.Option(
            help="Column of patients: their images stay together in splits and folds, "
            "and intervals count patients."
        ),
    ] = None
    path_column: PathColumnOption = None
    uncertain: Annotated[Unknown, typer.Option(help="Meaning of -1 in a finding.")] = (
        "ignore"
    )
    blank: Annotated[
        Unknown, typer.Option(help="Meaning of an empty cell of a finding.")
    ] = "ignore"

    def read(self, source: Path) -> LabelledImages:
        """Return the images of a table or folder that have labels."""
        from sk_medsiglip.cli._collection import read_labelled

        return read_labelled(source, **asdict(self))

    def as_typed(self) -> str:
        """Return the options that name columns, to be typed for another command."""
        typed = [("--label-column", name) for name in self.label_column or []]
        typed += [("--group-column", self.group_column)] if self.group_column else []
        return "".join(f" {option} {shlex.quote(name)}" for option, name in typed)


@dataclass(frozen=True)
class RunOptions:
    """Options that say where and how images are embedded, but not by which model."""

    on_error: OnErrorOption = "raise"
    device: DeviceOption = "auto"
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images in one model pass.")
    ] = None
    n_jobs: JobsOption = None
    cache: CacheOption = None
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Keep no embeddings, and read none.")
    ] = False

    def parameters(self) -> dict[str, Any]:
        """Return the options as parameters of an embedder."""
        from sk_medsiglip.cli._console import bar
        from sk_medsiglip.cli._embedding import check_device, choose_cache

        check_device(self.device)
        given = asdict(self)
        without = given.pop("no_cache")
        return given | {
            "batch_size": self.batch_size or "auto",
            "cache": choose_cache(self.cache, without=without),
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
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(help="auto: bfloat16 on a GPU that computes in it, else float32."),
    ] = "auto"
    engine: Annotated[
        Literal["auto", "torch", "openvino"],
        typer.Option(
            help="Library that runs the model. openvino (an extra) is the faster one "
            "on CPUs; it converts the checkpoint once. auto: torch."
        ),
    ] = "auto"

    def embedder(self, run: RunOptions, **further: Any) -> MedSigLIPEmbedder:
        """Return the embedder that the options describe."""
        from sk_medsiglip.cli._embedding import local_model
        from sk_medsiglip.embedding import MedSigLIPEmbedder

        which = asdict(self) | {"model": local_model(self.model)}
        return MedSigLIPEmbedder(**which | run.parameters() | further)


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
        kind: Any = hints[parameter.name]
        types, own = hints, [parameter]
        if is_dataclass(kind):
            groups[parameter.name] = kind
            types = get_type_hints(kind, include_extras=True)
            own = list(inspect.signature(groups[parameter.name]).parameters.values())
        parameters += [
            one.replace(annotation=types[one.name], kind=one.KEYWORD_ONLY)
            for one in own
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
