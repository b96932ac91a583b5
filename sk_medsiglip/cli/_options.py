"""Options that several commands share.

A command can take a dataclass of options as a parameter (see ``with_options``).
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
        help="medsiglip: bilinear, as in the evaluations of MedSigLIP. processor: the "
        "image processor of the checkpoint (bicubic)."
    ),
]
PadOption = Annotated[
    bool,
    typer.Option("--pad", help="Pad to a square with black, to keep proportions."),
]
DeviceOption = Annotated[
    str, typer.Option(help="Device: auto, cpu, cuda, cuda:1 or mps.")
]
JobsOption = Annotated[
    int | None, typer.Option(help="Threads that read images; -1 means all cores.")
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
        help="Unreadable images: raise ends the command, nan leaves NaN or skips them."
    ),
]
PathColumnOption = Annotated[
    str | None,
    typer.Option(
        help="Column of paths in the CSV file, relative to its folder. Default: the "
        "first column with names of existing files."
    ),
]
SourceArgument = Annotated[
    Path, typer.Argument(help="Folder of images, or CSV file with a column of paths.")
]
LabelsOption = Annotated[
    Path,
    typer.Option(
        help="CSV file with a column of paths and one or more columns of labels, or a "
        "folder with one sub-folder per class."
    ),
]
SeedOption = Annotated[
    int, typer.Option(min=0, help="Seed of the random number generator.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace existing files.")
]
GridOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Classify by GRID x GRID parts of each image, for small findings. It must "
        "divide the number of patches along a side: 2, 4, 8, 16 or 32 for MedSigLIP. "
        "Start with 8.",
    ),
]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE or SET",
        help='JSON or YAML file: {"class": ["prompt", ...], ...} for exclusive '
        'classes, {"finding": {"positive": [...], "negative": [...]}, ...} for '
        "findings. Or the name of a prompt set: see sk-medsiglip prompts list.",
    ),
]
ClassOption = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        metavar="NAME=PROMPT",
        help="Class and a prompt for it. Repeat it for every class; repeat a name to "
        "add a prompt.",
    ),
]
TemplateOption = Annotated[
    list[str] | None,
    typer.Option(
        help='Text with one {} to fill with each prompt, such as "a chest X-ray '
        'showing {}". Repeatable.'
    ),
]

TrustOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TYPE",
        help="Type of another package in a .skops file that may be loaded, as named by "
        "the error message. Repeatable.",
    ),
]


@dataclass(frozen=True)
class LabelOptions:
    """Options that name the columns of labelled images, and the meaning of blanks."""

    label_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of classes, or of 0 and 1 for a finding. Repeat it for "
            "several findings. Default: label; for report, the classifier's findings."
        ),
    ] = None
    group_column: Annotated[
        str | None,
        typer.Option(
            help="Column of patients. Images of a patient stay together in splits and "
            "folds, and intervals count patients."
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
        """Return the labelled images of a table or folder."""
        from sk_medsiglip.cli._collection import read_labelled

        return read_labelled(source, **asdict(self))

    def as_typed(self) -> str:
        """Return the options that name columns, as they are typed."""
        typed = [("--label-column", name) for name in self.label_column or []]
        typed += [("--group-column", self.group_column)] if self.group_column else []
        return "".join(f" {option} {shlex.quote(name)}" for option, name in typed)


@dataclass(frozen=True)
class RunOptions:
    """Options for a run of an embedder, without those of its model."""

    on_error: OnErrorOption = "raise"
    device: DeviceOption = "auto"
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images in one model pass.")
    ] = None
    n_jobs: JobsOption = None
    cache: CacheOption = None
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Do not read or store embeddings.")
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
    """The same options, for commands that leave out unreadable images by default."""

    on_error: OnErrorOption = "nan"


@dataclass(frozen=True)
class ModelOptions:
    """Options that determine the embedding of an image."""

    model: ModelOption = MEDSIGLIP
    revision: RevisionOption = None
    resize: ResizeOption = "medsiglip"
    pad: PadOption = False
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(help="auto: bfloat16 on GPUs that support it, else float32."),
    ] = "auto"
    engine: Annotated[
        Literal["auto", "torch", "openvino"],
        typer.Option(
            help="Library that runs the model. openvino (an extra) is faster on CPUs "
            "and converts the checkpoint once. auto: torch."
        ),
    ] = "auto"

    def embedder(self, run: RunOptions, **further: Any) -> MedSigLIPEmbedder:
        """Return the embedder that the options describe."""
        from sk_medsiglip.cli._embedding import local_model
        from sk_medsiglip.embedding import MedSigLIPEmbedder

        which = asdict(self) | {"model": local_model(self.model)}
        return MedSigLIPEmbedder(**which | run.parameters() | further)


def text_side(embedder: MedSigLIPEmbedder, *names: str) -> dict[str, Any]:
    """Return the parameters of an embedder that also apply to prompts."""
    params = embedder.get_params(deep=False)
    return {name: params[name] for name in ("model", "revision", "cache", *names)}


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace parameters of a command that are dataclasses by their options."""
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

    # Typer reads the options from the signature, and their types from the annotations.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
