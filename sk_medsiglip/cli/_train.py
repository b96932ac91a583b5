"""``sk-medsiglip train``: images and labels to a saved classifier and a report."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sk_medsiglip.cli._console import (
    bar,
    console,
    make_table,
    model_notice,
    say,
    show_code,
)
from sk_medsiglip.cli._errors import CommandError
from sk_medsiglip.cli._options import (
    BatchSizeOption,
    CacheOption,
    ClassOption,
    DeviceOption,
    Dtype,
    DtypeOption,
    Engine,
    EngineOption,
    JobsOption,
    ModelOption,
    NestedOption,
    OnError,
    OnErrorOption,
    PadOption,
    PathColumnOption,
    PromptsOption,
    Resize,
    ResizeOption,
    RevisionOption,
    SearchOption,
    StorageOption,
    TemplateOption,
    TimeoutOption,
    TrialsOption,
)
from sk_medsiglip.cli._written_files import check_out

__all__ = ["Head", "train"]


class Head(StrEnum):
    """Values of ``--head``."""

    linear_probe = "linear-probe"
    prompt_probe = "prompt-probe"
    ss_text = "ss-text"
    tip_adapter = "tip-adapter"
    prototypes = "prototypes"


class Unknown(StrEnum):
    """Values of ``--uncertain`` and ``--blank``."""

    ignore = "ignore"
    negative = "negative"
    positive = "positive"


def train(
    labels: Annotated[
        Path,
        typer.Option(
            "--labels",
            help="CSV file with a column of paths and one or more of labels, or a "
            "folder with a sub-folder a class.",
        ),
    ],
    label_column: Annotated[
        list[str] | None,
        typer.Option(
            "--label-column",
            help="Column of classes, or of 0 and 1 for a finding. Repeat it for "
            "several findings. Default: label.",
        ),
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option(
            "--group-column",
            help="Column of patients: their images are never torn apart by folds.",
        ),
    ] = None,
    head: Annotated[
        Head,
        typer.Option(
            "--head",
            help="linear-probe: logistic regression. The others start from prompts and "
            "are better with few labels; try prompt-probe first.",
        ),
    ] = Head.linear_probe,
    search: SearchOption = False,
    n_trials: TrialsOption = 50,
    timeout: TimeoutOption = None,
    storage: StorageOption = None,
    nested: NestedOption = False,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="File to write: .skops, or .joblib (loading runs code)."
        ),
    ] = Path("model.skops"),
    uncertain: Annotated[
        Unknown, typer.Option("--uncertain", help="What -1 in a finding means.")
    ] = Unknown.ignore,
    blank: Annotated[
        Unknown, typer.Option("--blank", help="What an empty cell of a finding means.")
    ] = Unknown.ignore,
    prompts: PromptsOption = None,
    classes: ClassOption = None,
    template: TemplateOption = None,
    path_column: PathColumnOption = None,
    model: ModelOption = "google/medsiglip-448",
    revision: RevisionOption = None,
    resize: ResizeOption = Resize.medsiglip,
    pad: PadOption = False,
    on_error: OnErrorOption = OnError.raise_,
    device: DeviceOption = "auto",
    dtype: DtypeOption = Dtype.auto,
    engine: EngineOption = Engine.auto,
    batch_size: BatchSizeOption = None,
    n_jobs: JobsOption = None,
    cache: CacheOption = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Of the folds and of the search.")
    ] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files if they exist.")
    ] = False,
) -> None:
    """Train a classifier on labelled images: a saved pipeline and a report.

    The report (a Markdown file beside it) holds what cross-validation says, on images
    that the classifier did not learn from. CheXpert's labels are understood: 1 and 0,
    -1 for uncertain, blank for not mentioned; several findings are trained together,
    each on the images where it is known.

    Use the result with: sk-medsiglip predict model.skops images/

    Example: sk-medsiglip train --labels labels.csv --label-column effusion
    --group-column patient

    With --search the best of many heads is taken, and the report holds the best of
    them; with --out model.joblib, neural networks and boosted trees are tried too.
    """
    # Late, so that --help is quick.
    from sk_medsiglip.cli._model_files import RUNS_CODE, check_model_file, save_model

    report_file = out.with_suffix(".report.md")
    check_model_file(out, overwrite)
    check_out(report_file, overwrite)
    from sklearn.pipeline import make_pipeline

    from sk_medsiglip.cli._collection import FOLDER_LABEL, read_collection
    from sk_medsiglip.cli._embedding import check_device, embed_images, local_model
    from sk_medsiglip.cli._labels import read_labels
    from sk_medsiglip.cli._prompts import prompts_for_task
    from sk_medsiglip.cli._splits import check_enough
    from sk_medsiglip.cli._training import Training
    from sk_medsiglip.embedding import MedSigLIPEmbedder

    collection = read_collection(labels, path_column)
    task, labelled, remarks = read_labels(
        collection.frame,
        label_column or [FOLDER_LABEL],
        uncertain=uncertain.value,
        blank=blank.value,
        complete=False,
    )
    collection = collection.keep(labelled)
    groups = collection.patients(group_column)
    check_enough(task, groups, "Training")
    check_device(device)
    asked: dict[str, Any] | None = None
    if search and head is not Head.linear_probe:
        raise CommandError("--search chooses the head: leave out --head.")
    if search and (prompts is not None or classes):
        asked, _ = prompts_for_task(
            task, file=prompts, classes=classes or [], positive=[], negative=[]
        )
    elif head is not Head.linear_probe:
        asked, made_up = prompts_for_task(
            task, file=prompts, classes=classes or [], positive=[], negative=[]
        )
        if made_up:
            remarks.append(
                "The prompts are made from the names of the labels; good ones of your "
                "own (--prompts FILE) are worth more than many labels."
            )
    elif prompts is not None or classes:
        raise CommandError("--head linear-probe takes no prompts; try prompt-probe.")
    where: dict[str, Any] = {"model": local_model(model), "revision": revision}
    embedder = MedSigLIPEmbedder(
        **where,
        resize=resize.value,
        pad=pad,
        device=device,
        dtype=dtype.value,
        engine=engine.value,
        batch_size=batch_size or "auto",
        n_jobs=n_jobs,
        cache=True if cache is None else str(cache),
        on_error=on_error.value,
        verbose=bar(),
    ).fit(collection.paths)
    embedded = embed_images(collection.paths, embedder)
    readable = embedded.readable
    remarks += embedded.remarks()
    groups = None if groups is None else groups[readable]
    check_enough(task.rows(readable), groups, "Training")
    if search:
        from sk_medsiglip.cli._tune import Search

        Search(
            task.rows(readable),
            embedded.X[readable],
            groups,
            embedder,
            asked,
            {**where, "templates": template},
            {"n_trials": n_trials, "timeout": timeout, "storage": storage},
            seed,
        ).save(labels, out, remarks, model, nested=nested)
        return
    training = Training(
        task.rows(readable),
        embedded.X[readable],
        groups,
        head.value,
        asked,
        {**where, "templates": template, "cache": embedder.cache},
        seed,
    )
    for remark in remarks:
        say(remark, "yellow")
    fitted = training.fit()
    estimates = training.cross_validate()
    # The file travels: nothing in it may speak of this machine.
    embedder.set_params(verbose=0, device="auto", n_jobs=None, cache=True)
    if asked is not None:
        fitted.set_params(cache=True)
    pipeline = make_pipeline(embedder, fitted)
    n_bytes = save_model(pipeline, out)
    report_file.write_text(
        training.report(estimates, labels, remarks, model), encoding="utf-8"
    )

    table = make_table("label", "images with it", "without", "not known", "AUC")
    for row in estimates:
        table.add_row(*row.cells())
    console.print(table)
    say(training.how_estimated())
    say(f"Wrote {out} ({n_bytes / 1000:,.0f} kB) and {report_file}.")
    if out.suffix == ".skops":
        show_code(f"sk-medsiglip predict {out} images/ --out predictions.csv")
    else:
        say(RUNS_CODE, "yellow")
    say(model_notice(model), "yellow")
