"""``sk-medsiglip demo``: the main tasks on drawn phantoms or on the user's files."""

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
# Marks folders made by this command, since only these may be emptied.
_MARKER = ".made-by-sk-medsiglip-demo"
_SENTENCE = "a large pleural effusion"
_NO_COLUMNS = options.LabelOptions()
_WRITTEN = {
    "overview.png": "labels against prompts, and the images nearest to the sentence",
    "report.html": "the report on held-out patients: open it in a browser",
    "results.json": "the numbers above",
    "pipeline.joblib": "embedder and head; open only pickles that you trust",
    "train.csv": "the table of training images",
    "test.csv": "the table of held-out images",
    "predictions.csv": "the classifier's probabilities for them",
    "prompts.json": "the prompts, in the format of --prompts",
    "images": "the phantoms: PNG and 16-bit DICOM files, and labels.csv",
    "cache": "the embeddings, which are computed again if it is deleted",
}


@options.with_options
def demo(
    images: Annotated[
        Path | None,
        typer.Option(
            help="Your own images: a folder whose sub-folders are named by label, or "
            "a CSV file with a column of paths. Default: drawn phantoms."
        ),
    ] = None,
    columns: options.LabelOptions = _NO_COLUMNS,
    model: options.ModelOption = "demo",
    prompts: options.PromptsOption = None,
    classes: options.ClassOption = None,
    positive: Annotated[
        list[str] | None,
        typer.Option(
            help="Prompt for 1 in a single label column of 0 and 1. Repeatable."
        ),
    ] = None,
    negative: Annotated[
        list[str] | None, typer.Option(help="Prompt for 0 in that column. Repeatable.")
    ] = None,
    sentence: Annotated[
        str | None, typer.Option(help="Words to search the images with.")
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
            help="Folder of an embedding cache to use. Default: a new one in --out, so "
            "that nothing has been computed before."
        ),
    ] = None,
    n_samples: Annotated[
        int, typer.Option(min=60, help="Number of phantoms to draw.")
    ] = 600,
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
    """Run the main tasks on drawings, and show every step.

    The demo embeds images once, classifies them by prompts, trains a head on labels,
    compares few labels with none, searches images by a sentence, and saves the pipeline
    and loads it in a new process. It ends with a report, a table and a figure.

    Without --images, a few hundred chest phantoms (drawings) are written as PNG and
    16-bit DICOM files. With --images, the demo runs on your own files:

    sk-medsiglip demo --images my.csv --label-column effusion --group-column patient
    --model google/medsiglip-448
    """
    if images is None and columns != _NO_COLUMNS:
        raise CommandError(
            "--label-column, --group-column and --path-column describe your own files, "
            "so they need --images."
        )
    # Imported late, so that --help is fast.
    from sk_medsiglip.cli._demo_steps import DemoSteps
    from sk_medsiglip.cli._embedding import check_device
    from sk_medsiglip.cli._prompts import prompts_for_task
    from sk_medsiglip.prompts import check_prompts

    start = time.perf_counter()
    # Options are checked before anything is written.
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
            f'"{question.texts[-1][0]}". Pass better ones with --prompts.',
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
    say(f"Done in {time.perf_counter() - start:.0f} s. The results are in {folder}:")
    for name, what in _WRITTEN.items():
        if (folder / name).exists():
            say(f"{name:<16} {what}", indent=2)
    say(model_notice(model), "yellow")
    if drawn:
        say("On your own images: sk-medsiglip demo --images DIR_OR_CSV; see --help.")


def _draw_phantoms(folder: Path, n_samples: int, seed: int) -> tuple[Path, list[str]]:
    """Write phantoms as PNG and DICOM files, and return their table and labels."""
    from sk_medsiglip.datasets import make_chest_phantoms, write_phantoms

    heading("Files: drawn chest phantoms with labels")
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
        f"{labels['patient'].nunique():,} fictitious patients, and labels.csv, in "
        f"{time.perf_counter() - start:.1f} s."
    )
    return folder / "labels.csv", phantoms.target_names


def _prepare_folder(out: Path | None, overwrite: bool) -> Path:
    """Return an empty folder; only folders of earlier demos are emptied."""
    folder, number = out or Path(_DEFAULT_OUT), 1
    while out is None and not overwrite and folder.exists():
        number += 1
        folder = Path(f"{_DEFAULT_OUT}-{number}")
    folder = folder.expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"--out: {folder} is a file; pass a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / _MARKER).is_file():
            raise CommandError(
                f"--out: {folder} is not empty, and not from an earlier demo. Pass a "
                "new folder."
            )
        if not overwrite:
            raise CommandError(
                f"--out: {folder} holds an earlier demo. Add --overwrite to replace "
                "it, or pass a new folder."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).touch()
    return folder
