"""``sk-medsiglip demo``: the main job on drawn phantoms or on the user's files."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from sk_medsiglip.cli import _options as options
from sk_medsiglip.cli._console import (
    CommandError,
    heading,
    model_notice,
    say,
    say_remarks,
    show_code,
)

_DEFAULT_OUT = "sk-medsiglip-demo"
# Only a folder that this command made is ever emptied by it.
_MARKER = ".made-by-sk-medsiglip-demo"
_SENTENCE = "a large pleural effusion"
_NO_COLUMNS = options.LabelOptions()
_WRITTEN = {
    "overview.png": "labels against prompts, and the images nearest to the sentence",
    "report.html": "the report on held-out patients: open it in a browser",
    "results.json": "the figures above",
    "pipeline.joblib": "embedder and head; open only pickles that you trust",
    "train.csv": "the table of images that were learned from",
    "test.csv": "the table of held-out images",
    "predictions.csv": "the classifier's probabilities for them",
    "prompts.json": "the prompts, in the form that --prompts takes",
    "images": "the phantoms: PNG and 16-bit DICOM files, and labels.csv",
    "cache": "the embeddings; remove it to pay again",
}


@options.with_options
def demo(
    images: Annotated[
        Path | None,
        typer.Option(
            help="Your own images: a folder whose sub-folder names are the labels, or "
            "a CSV file with a column of paths. Default: phantoms are drawn."
        ),
    ] = None,
    columns: options.LabelOptions = _NO_COLUMNS,
    model: options.ModelOption = "demo",
    prompts: options.PromptsOption = None,
    classes: options.ClassOption = None,
    positive: Annotated[
        list[str] | None,
        typer.Option(help="Prompt for 1 of a label column of 0 and 1. Repeatable."),
    ] = None,
    negative: Annotated[
        list[str] | None, typer.Option(help="Prompt for 0 of that column. Repeatable.")
    ] = None,
    sentence: Annotated[
        str | None, typer.Option(help="Words to search the images by.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help=f"Folder to write. Default: {_DEFAULT_OUT}, with a number if taken."
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace the files of an earlier demo in --out."
        ),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an embedding cache to use. Default: a fresh one in --out, "
            "so that the first time really is the first."
        ),
    ] = None,
    n_samples: Annotated[int, typer.Option(min=60, help="Phantoms to draw.")] = 600,
    seed: Annotated[
        # The demonstration checkpoint was trained on phantoms of larger seeds.
        int,
        typer.Option(min=0, max=999_999, help="Seed of the random number generator."),
    ] = 0,
    resize: options.ResizeOption = "medsiglip",
    pad: options.PadOption = False,
    device: options.DeviceOption = "auto",
    n_jobs: Annotated[int, typer.Option(help="Threads that read images.")] = 2,
) -> None:
    """Do the main job on drawings, and show every step.

    Embeds images once; classifies them by prompts; trains a head on labels; compares
    few labels with none; searches images by a sentence; saves the pipeline and loads it
    in a new process. Ends with a report, a table and a picture.

    Without --images, a few hundred chest phantoms (drawings) are written as PNG and
    16-bit DICOM files. With --images, the very same runs on your own files:

    sk-medsiglip demo --images my.csv --label-column effusion --group-column patient
    --model google/medsiglip-448
    """
    if images is None and columns != _NO_COLUMNS:
        raise CommandError(
            "--label-column, --group-column and --path-column describe your own files; "
            "add --images."
        )
    # Late, so that --help is quick.
    from sk_medsiglip.cli._demo_steps import DemoSteps
    from sk_medsiglip.cli._embedding import check_device
    from sk_medsiglip.cli._prompts import prompts_for_task
    from sk_medsiglip.prompts import check_prompts

    start = time.perf_counter()
    # Mistakes of the user are named before anything is written.
    which = options.ModelOptions(model, resize=resize, pad=pad)
    check_device(device)
    data = None if images is None else columns.read(images)
    folder = _prepare_folder(out, overwrite)
    if model == "demo":
        say(model_notice(model), "yellow")
    drawn = data is None
    if data is None:
        images, labels = _draw_phantoms(folder / "images", n_samples, seed)
        data = options.LabelOptions(labels, "patient").read(images)
        sentence = sentence or _SENTENCE
        if prompts is None:
            prompts = folder / "prompts.json"
            shutil.copyfile(Path(__file__).with_name("phantom_prompts.json"), prompts)
    asked, made_up = prompts_for_task(
        data.task,
        file=prompts,
        classes=classes or [],
        positive=positive or [],
        negative=negative or [],
    )
    question = check_prompts(asked)
    say_remarks(data.remarks)
    n_images, names = len(data.collection), ", ".join(data.task.names)
    say(f"{n_images:,} labelled images; labels: {names}.")
    if made_up:
        say(
            "The prompts are made from the names of the labels, such as "
            f'"{question.texts[-1][0]}". Better ones, in your own words: --prompts.',
            "yellow",
        )
    run = options.LenientRunOptions(
        device=device, n_jobs=n_jobs, cache=cache or folder / "cache"
    )
    embedder = which.embedder(run)
    steps = DemoSteps(
        data, asked, sentence or question.texts[-1][0], folder, embedder, seed
    )
    steps.run()
    say(f"Everything took {time.perf_counter() - start:.0f} s. It is in {folder}:")
    for name, what in _WRITTEN.items():
        if (folder / name).exists():
            say(f"{name:<16} {what}", indent=2)
    say(model_notice(model), "yellow")
    if drawn:
        say("Your own images: sk-medsiglip demo --images DIR_OR_CSV; see --help.")


def _draw_phantoms(folder: Path, n_samples: int, seed: int) -> tuple[Path, list[str]]:
    """Write phantoms as a hospital might hand out images; return table and labels."""
    from sk_medsiglip.datasets import make_chest_phantoms, write_phantoms

    heading("Files: chest phantoms, drawn, with labels")
    show_code(
        f"phantoms = make_chest_phantoms({n_samples}, dtype='uint16', "
        f"random_state={seed})",
        f"labels = write_phantoms(phantoms, {folder.name!r})",
    )
    start = time.perf_counter()
    phantoms = make_chest_phantoms(n_samples, dtype="uint16", random_state=seed)
    labels = write_phantoms(phantoms, folder)
    n_dicom = int(labels["path"].str.endswith(".dcm").sum())
    say(
        f"{n_samples - n_dicom:,} PNG and {n_dicom:,} 16-bit DICOM files of "
        f"{labels['patient'].nunique():,} invented patients, and labels.csv, in "
        f"{time.perf_counter() - start:.1f} s."
    )
    return folder / "labels.csv", phantoms.target_names


def _prepare_folder(out: Path | None, overwrite: bool) -> Path:
    """Return an empty folder; only folders made by this command are emptied."""
    folder, number = out or Path(_DEFAULT_OUT), 1
    while out is None and not overwrite and folder.exists():
        number += 1
        folder = Path(f"{_DEFAULT_OUT}-{number}")
    folder = folder.expanduser().resolve()
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
