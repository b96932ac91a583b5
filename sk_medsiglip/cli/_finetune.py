"""``sk-medsiglip finetune``: images with texts or labels to a tuned encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sk_medsiglip.cli import _options as options
from sk_medsiglip.cli._console import (
    CommandError,
    bar,
    model_notice,
    say,
    say_remarks,
    show_code,
)


@options.with_options
def finetune(
    images: Annotated[
        Path,
        typer.Option(help="CSV file of images, or a folder with a sub-folder a class."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder to write the tuned encoder into."),
    ],
    columns: options.LabelOptions,
    captions: Annotated[
        str | None,
        typer.Option(
            help="Column of texts: images and texts are brought together. Instead of "
            "--label-column."
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="With labels: train by texts for each of them, a prompt set or file. "
            "Without, a classifier is trained on the image tower."
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            help="Prompts that must not be forgotten, a set or a file. They need no "
            "labels."
        ),
    ] = None,
    train: Annotated[
        Literal["lora", "last_blocks", "head", "full"],
        typer.Option(help="Which weights are trained."),
    ] = "lora",
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one pass.")] = 16,
    learning_rate: Annotated[
        float | None, typer.Option(help="Default: by --train.")
    ] = None,
    validation: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.9,
            help="Share of the images, by whole patients, that is judged and not "
            "trained on; 0 is none.",
        ),
    ] = 0.2,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option("--gradient-checkpointing", help="Less memory, a third slower."),
    ] = False,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of checkpoints, to go on from.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    seed: options.SeedOption = 0,
    model: options.ModelOption = options.MEDSIGLIP,
    revision: options.RevisionOption = None,
    resize: options.ResizeOption = "medsiglip",
    pad: options.PadOption = False,
    device: options.DeviceOption = "auto",
    n_jobs: options.JobsOption = None,
    cache: options.CacheOption = None,
) -> None:
    """Fine-tune the encoder with captions or with labels.

    The result is a small folder that every --model of these commands takes. Try
    "sk-medsiglip train" first: a head on the encoder as it is takes seconds.

    Example: sk-medsiglip finetune --images reports.csv --captions impression
    --group-column patient --out tuned/
    """
    if (captions is None) == (not columns.label_column):
        raise CommandError(
            "Name the texts or the labels of the images: either --captions COLUMN, or "
            "--label-column COLUMN."
        )
    if prompts is not None and captions is not None:
        raise CommandError("--prompts goes with --label-column, not with --captions.")
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise CommandError(f"{out} exists. Give another --out, or empty it.")
    if not out.parent.is_dir():
        raise CommandError(f"The folder {out.parent} does not exist; make it first.")
    # Late, so that --help is quick.
    from sk_medsiglip.cli._collection import read_collection
    from sk_medsiglip.cli._prompts import read_prompts
    from sk_medsiglip.fine_tuning import MedSigLIPFineTuner

    asked = None if prompts is None else read_prompts(Path(prompts))
    kept = None if keep is None else read_prompts(Path(keep), "--keep")
    if captions is not None:
        collection = read_collection(images, columns.path_column)
        groups = collection.patients(columns.group_column)
        column = collection.column(captions, "--captions")
        if n_blank := int(column.isna().sum()):
            raise CommandError(
                f"--captions: {n_blank:,} of {len(column):,} images have no text in "
                f"column {captions!r}. Write it, or leave those images out."
            )
        y: Any = column.astype(str).tolist()
    else:
        data = columns.read(images)
        collection, groups = data.collection, data.groups
        y = data.y if data.task.kind == "findings" else data.task.y
        say_remarks(data.remarks)
    run = options.RunOptions(device=device, n_jobs=n_jobs, cache=cache)
    which = options.ModelOptions(model, revision, resize, pad)
    embedder = which.embedder(run, device=device.partition(":")[0])
    tuner = MedSigLIPFineTuner(
        embedder,
        objective="contrastive" if captions or asked else "classification",
        prompts=asked,
        keep=kept,
        train=train,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate="auto" if learning_rate is None else learning_rate,
        gradient_checkpointing=gradient_checkpointing,
        validation_fraction=validation or None,
        run_dir=run_dir,
        resume=resume,
        random_state=seed,
        verbose=bar(),
    )
    try:
        tuner.fit(collection.paths, y, groups=groups)
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from None
    saved = tuner.save(out)
    history = tuner.history_
    say(
        f"{len(collection):,} images, {tuner.n_steps_:,} steps; loss "
        f"{history['loss'].iloc[0]:.4g} at first, {history['loss'].iloc[-1]:.4g} at "
        f"last; {tuner.n_trained_:,} values trained."
    )
    if "validation_loss" in history:
        judged = history["validation_loss"].dropna()
        say(
            f"Validation loss {judged.min():.4g} at step {tuner.best_step_:,}, whose "
            "weights were kept. It chose them: judge on other images."
        )
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    say(f"Wrote {saved} ({size / 1e6:.1f} MB).")
    show_code(f"sk-medsiglip train --labels labels.csv --model {out}")
    if any(out.glob("NOTICE*")):
        say("Weights tuned from MedSigLIP stay under its terms: see the NOTICE there.")
    say(model_notice(model), "yellow")
