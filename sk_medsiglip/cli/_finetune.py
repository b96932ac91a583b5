"""``sk-medsiglip finetune``: tune the encoder on images with texts or labels."""

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
        typer.Option(
            help="CSV file of images, or a folder with one sub-folder per class."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for the tuned encoder."),
    ],
    columns: options.LabelOptions,
    captions: Annotated[
        str | None,
        typer.Option(
            help="Column of texts to align with the images, instead of --label-column."
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="Prompt set or file with texts for the labels. Without it, a "
            "classifier is trained on the image tower."
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            help="Prompt set or file whose scores should be preserved. No labels are "
            "needed for it."
        ),
    ] = None,
    train: Annotated[
        Literal["lora", "last_blocks", "head", "full"],
        typer.Option(help="The weights to train."),
    ] = "lora",
    epochs: Annotated[
        int, typer.Option(min=1, help="Passes over the training images.")
    ] = 10,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images in one forward pass.")
    ] = 16,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Learning rate. Default: depends on --train."),
    ] = None,
    validation: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.9,
            help="Share of the images to hold out for validation, by whole patients; "
            "0 for none.",
        ),
    ] = 0.2,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing", help="Use less memory; a third slower."
        ),
    ] = False,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints, needed to resume.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint.")
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

    The result is a small folder that can be passed as --model to all commands. Try
    "sk-medsiglip train" first: a head on the pretrained encoder takes seconds.

    Example: sk-medsiglip finetune --images reports.csv --captions impression
    --group-column patient --out tuned/
    """
    if (captions is None) == (not columns.label_column):
        raise CommandError(
            "Name the texts or the labels of the images: either --captions COLUMN, or "
            "--label-column COLUMN."
        )
    if prompts is not None and captions is not None:
        raise CommandError("--prompts needs --label-column instead of --captions.")
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise CommandError(f"{out} exists. Pass another --out, or empty it.")
    if not out.parent.is_dir():
        raise CommandError(f"The folder {out.parent} does not exist; make it first.")
    # Imported late, so that --help is fast.
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
                f"column {captions!r}. Add texts, or leave those images out."
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
        f"{history['loss'].iloc[0]:.4g} in the first step and "
        f"{history['loss'].iloc[-1]:.4g} in the last; {tuner.n_trained_:,} trained "
        "parameters."
    )
    if "validation_loss" in history:
        judged = history["validation_loss"].dropna()
        say(
            f"Validation loss {judged.min():.4g} at step {tuner.best_step_:,}, whose "
            "weights were kept. Evaluate them on other images, since this loss was "
            "used to choose them."
        )
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    say(f"Wrote {saved} ({size / 1e6:.1f} MB).")
    show_code(f"sk-medsiglip train --labels labels.csv --model {out}")
    if any(out.glob("NOTICE*")):
        say("Weights tuned from MedSigLIP stay under its terms: see the NOTICE there.")
    say(model_notice(model), "yellow")
