"""``sk-medsiglip finetune``: images with texts or labels to a tuned encoder."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sk_medsiglip.cli._console import bar, model_notice, say, show_code
from sk_medsiglip.cli._errors import CommandError
from sk_medsiglip.cli._options import (
    CacheOption,
    DeviceOption,
    JobsOption,
    ModelOption,
    PadOption,
    PathColumnOption,
    Resize,
    ResizeOption,
    RevisionOption,
)

__all__ = ["finetune"]


class Train(StrEnum):
    """Values of ``--train``."""

    lora = "lora"
    last_blocks = "last_blocks"
    head = "head"
    full = "full"


def finetune(
    images: Annotated[
        Path,
        typer.Option(
            "--images",
            help="CSV file of images, or a folder with a sub-folder a class.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder to write the tuned encoder into."),
    ],
    captions: Annotated[
        str | None,
        typer.Option(
            "--captions", help="Column of texts: images and texts are brought together."
        ),
    ] = None,
    label_column: Annotated[
        list[str] | None,
        typer.Option(
            "--label-column",
            help="Column of classes, or of 0 and 1 for a finding; repeat it. Instead "
            "of --captions.",
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            help="With labels: train by texts for each of them, a prompt set or file. "
            "Without, a classifier is trained on the image tower.",
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            help="Prompts not to be forgotten: a set or a file. They need no labels.",
        ),
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option(
            "--group-column", help="Column of patients, who do not cross the split."
        ),
    ] = None,
    path_column: PathColumnOption = None,
    train: Annotated[
        Train, typer.Option("--train", help="Which weights are trained.")
    ] = Train.lora,
    epochs: Annotated[int, typer.Option("--epochs", min=1)] = 10,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Images in one pass.")
    ] = 16,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Default: by --train.")
    ] = None,
    validation: Annotated[
        float,
        typer.Option(
            "--validation",
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
        Path | None,
        typer.Option("--run-dir", help="Folder of checkpoints, to go on from."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Same number, same run.")] = 0,
    model: ModelOption = "google/medsiglip-448",
    revision: RevisionOption = None,
    resize: ResizeOption = Resize.medsiglip,
    pad: PadOption = False,
    device: DeviceOption = "auto",
    n_jobs: JobsOption = None,
    cache: CacheOption = None,
) -> None:
    """Fine-tune the encoder with captions or with labels.

    What is written is a small folder that every --model of these commands takes. Try
    "sk-medsiglip train" first: a head on the encoder as it is takes seconds.

    Example: sk-medsiglip finetune --images reports.csv --captions impression
    --group-column patient --out tuned/
    """
    if (captions is None) == (not label_column):
        raise CommandError(
            "Say what is known of each image: either --captions COLUMN, or "
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
    from sk_medsiglip.cli._embedding import check_device, choose_cache, local_model
    from sk_medsiglip.cli._prompts import read_prompts
    from sk_medsiglip.embedding import MedSigLIPEmbedder
    from sk_medsiglip.fine_tuning import MedSigLIPFineTuner

    asked = None if prompts is None else read_prompts(Path(prompts))
    kept = None if keep is None else read_prompts(Path(keep), "--keep")
    collection = read_collection(images, path_column)
    if captions is not None:
        column = collection.column(captions, "--captions")
        if n_blank := int(column.isna().sum()):
            raise CommandError(
                f"--captions: {n_blank:,} of {len(column):,} images have no text in "
                f"column {captions!r}. Write it, or leave those images out."
            )
        y: Any = column.astype(str).tolist()
    else:
        y, labelled, remarks = _labels(collection.frame, label_column or [])
        collection = collection.keep(labelled)
        for remark in remarks:
            say(remark, "yellow")
    check_device(device)
    model = local_model(model)
    embedder = MedSigLIPEmbedder(
        model,
        revision=revision,
        resize=resize.value,
        pad=pad,
        n_jobs=n_jobs,
        device=device.partition(":")[0],
        cache=choose_cache(cache),
        verbose=bar(),
    )
    tuner = MedSigLIPFineTuner(
        embedder,
        objective="contrastive" if captions or asked else "classification",
        prompts=asked,
        keep=kept,
        train=train.value,
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
        tuner.fit(collection.paths, y, groups=collection.patients(group_column))
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


def _labels(frame: Any, columns: list[str]) -> tuple[Any, Any, list[str]]:
    """Return labels as the fine-tuner takes them, of the rows that have any."""
    import numpy as np
    import pandas as pd

    from sk_medsiglip.cli._labels import read_labels

    task, kept, remarks = read_labels(frame, columns, complete=False)
    if task.kind == "findings":
        return (
            pd.DataFrame(task.y.astype(float), columns=list(task.names)),
            kept,
            remarks,
        )
    return np.asarray(task.y), kept, remarks
