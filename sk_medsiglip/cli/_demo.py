"""``sk-medsiglip demo``: the main job on drawn phantoms or on the user's files."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sk_medsiglip.cli._console import model_notice, say
from sk_medsiglip.cli._errors import CommandError
from sk_medsiglip.cli._options import (
    ClassOption,
    DeviceOption,
    ModelOption,
    PadOption,
    PathColumnOption,
    PromptsOption,
    Resize,
    ResizeOption,
)

if TYPE_CHECKING:
    from sk_medsiglip.cli._collection import Collection

__all__ = ["demo"]

_DEFAULT_OUT = "sk-medsiglip-demo"
_GROUP_COLUMN = "patient"
# Only a folder that this command made is ever emptied by it.
_MARKER = ".made-by-sk-medsiglip-demo"
_SENTENCE = "fluid has collected in the right pleural space"


def demo(
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            help="Your own images: a folder whose sub-folder names are the labels, or "
            "a CSV file with a column of paths. Default: phantoms are drawn.",
        ),
    ] = None,
    label_column: Annotated[
        list[str] | None,
        typer.Option(
            "--label-column",
            help="Column of labels: 0 and 1, or class names. Repeat it for several "
            "findings, each 0 and 1.",
        ),
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option(
            "--group-column",
            help="Column that says which images belong together: the patient.",
        ),
    ] = None,
    path_column: PathColumnOption = None,
    model: ModelOption = "demo",
    prompts: PromptsOption = None,
    classes: ClassOption = None,
    positive: Annotated[
        list[str] | None,
        typer.Option(
            "--positive", help="Prompt for 1 of a label column of 0 and 1. Repeatable."
        ),
    ] = None,
    negative: Annotated[
        list[str] | None,
        typer.Option("--negative", help="Prompt for 0 of that column. Repeatable."),
    ] = None,
    sentence: Annotated[
        str | None, typer.Option("--sentence", help="What to search images by.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help=f"Folder to write. Default: {_DEFAULT_OUT}, with a number if taken.",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace what an earlier demo wrote to --out."
        ),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            help="Folder of an embedding cache to use. Default: a fresh one in --out, "
            "so that the first time really is the first.",
        ),
    ] = None,
    n_samples: Annotated[
        int, typer.Option("--n-samples", min=60, help="Phantoms to draw.")
    ] = 600,
    seed: Annotated[
        # The demonstration checkpoint was trained on phantoms of larger seeds.
        int,
        typer.Option("--seed", min=0, max=999_999, help="Of all chance."),
    ] = 0,
    resize: ResizeOption = Resize.medsiglip,
    pad: PadOption = False,
    device: DeviceOption = "auto",
    n_jobs: Annotated[
        int,
        typer.Option("--n-jobs", help="Reading threads, and workers of GridSearchCV."),
    ] = 2,
) -> None:
    """Do the main job on real files, and show every step.

    Embeds images once; classifies them by prompts; searches a logistic head by
    cross-validation; compares few labels with none; searches images by a sentence;
    saves the pipeline and loads it in a new process. Ends with a table and a picture.

    Without --images, a few hundred chest phantoms (drawings) are written as PNG and
    16-bit DICOM files. With --images, the very same runs on your own files:

    sk-medsiglip demo --images my.csv --label-column effusion --group-column patient
    --model google/medsiglip-448
    """
    if images is None and any((label_column, group_column, path_column)):
        raise CommandError(
            "--label-column, --group-column and --path-column describe your own files; "
            "add --images."
        )
    # Late, so that --help is quick.
    from sk_medsiglip.cache import EmbeddingCache
    from sk_medsiglip.cli._collection import read_collection
    from sk_medsiglip.cli._embedding import check_device, local_model
    from sk_medsiglip.cli._labels import read_labels
    from sk_medsiglip.cli._main_job import MainJob
    from sk_medsiglip.cli._prompts import prompts_for_task
    from sk_medsiglip.prompts import check_prompts

    start = time.perf_counter()
    check_device(device)
    # What the user got wrong is said before anything is written.
    collection = None if images is None else read_collection(images, path_column)
    if collection is not None:
        label_column = _choose_labels(collection, label_column)
        read_labels(collection.frame, label_column)
    folder = _prepare_folder(out, overwrite)
    if model == "demo":
        say(model_notice(model), "yellow")
    if collection is None:
        from sk_medsiglip.cli._phantoms import PHANTOM_PROMPTS, draw_phantom_files

        table = draw_phantom_files(folder / "images", n_samples, seed)
        collection = read_collection(table)
        label_column, group_column = list(PHANTOM_PROMPTS), _GROUP_COLUMN
        if prompts is None:
            prompts = folder / "prompts.json"
            prompts.write_text(json.dumps(PHANTOM_PROMPTS, indent=2) + "\n", "utf-8")
        sentence = sentence or _SENTENCE

    task, labelled, remarks = read_labels(collection.frame, label_column or [])
    collection = collection.keep(labelled)
    groups = None
    if group_column is not None:
        groups = _read_groups(collection, group_column)
    asked, made_up = prompts_for_task(
        task,
        file=prompts,
        classes=classes or [],
        positive=positive or [],
        negative=negative or [],
    )
    question = check_prompts(asked)
    for remark in remarks:
        say(remark, "yellow")
    if images is not None:
        say(f"{len(collection):,} labelled images; labels: {', '.join(task.names)}.")
    if made_up:
        say(
            "The prompts are made from the names of the labels, such as "
            f'"{question.texts[-1][0]}". Better ones, in your own words: --prompts.',
            "yellow",
        )
    job = MainJob(
        collection=collection,
        task=task,
        groups=groups,
        prompts=asked,
        sentence=sentence or question.texts[-1][0],
        out=folder,
        cache=EmbeddingCache(cache or folder / "cache"),
        model=local_model(model),
        resize=resize.value,
        pad=pad,
        device=device,
        n_jobs=n_jobs,
        seed=seed,
    )
    results = job.run()
    say(f"Everything took {time.perf_counter() - start:.0f} s. It is in {folder}:")
    for name, what in _written(folder, results):
        say(f"{name:<16} {what}", indent=2)
    say(model_notice(model), "yellow")
    if images is None:
        say("Your own images: sk-medsiglip demo --images DIR_OR_CSV; see --help.")


def _choose_labels(collection: Collection, columns: Sequence[str] | None) -> list[str]:
    from sk_medsiglip.cli._collection import FOLDER_LABEL

    if columns:
        return list(columns)
    if FOLDER_LABEL in collection.frame.columns:
        return [FOLDER_LABEL]
    others = [c for c in collection.frame.columns if c != collection.path_column]
    if not others:
        raise CommandError(
            "These images have no labels. Put each class into a sub-folder of its own, "
            "or give a CSV file with a column of labels."
        )
    raise CommandError(
        "Which column holds the labels? Say --label-column with one of: "
        f"{', '.join(map(str, others))}."
    )


def _read_groups(collection: Collection, name: str) -> Any:
    groups = collection.patient_column(name)
    # A blank says nothing of the others: each is a patient of its own.
    blank = groups.isna()
    return (
        groups.astype(str).mask(blank, "row " + groups.index.astype(str)).to_numpy(str)
    )


def _prepare_folder(out: Path | None, overwrite: bool) -> Path:
    """Return an empty folder; never remove what this command did not write."""
    folder = _free_folder() if out is None and not overwrite else out
    folder = (folder or Path(_DEFAULT_OUT)).expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"--out: {folder} is a file; give a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / _MARKER).is_file():
            raise CommandError(
                f"--out: {folder} is not empty, and not from an earlier demo. Give a "
                "new folder."
            )
        if not overwrite:
            raise CommandError(
                f"--out: {folder} holds an earlier demo. Add --overwrite to replace "
                "it, or give a new folder."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).touch()
    return folder


def _free_folder() -> Path:
    number = 1
    folder = Path(_DEFAULT_OUT)
    while folder.exists():
        number += 1
        folder = Path(f"{_DEFAULT_OUT}-{number}")
    return folder


def _written(folder: Path, results: dict[str, Any]) -> list[tuple[str, str]]:
    files = [
        ("overview.png", "the picture of all results"),
        ("results.json", "the figures above"),
        ("pipeline.joblib", "embedder and head; open only pickles that you trust"),
        ("prompts.json", "the prompts, in the form that --prompts takes"),
        ("images", "the phantoms: PNG and 16-bit DICOM files, and labels.csv"),
        ("cache", "the embeddings; remove it to pay again"),
    ]
    return [(name, what) for name, what in files if (folder / name).exists()]
