"""``train`` and ``split``: labelled images to a saved classifier, or to two tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sk_medsiglip.cli import _options as options
from sk_medsiglip.cli._console import (
    complain,
    console,
    make_table,
    model_notice,
    say,
    show_code,
)
from sk_medsiglip.cli._errors import CommandError
from sk_medsiglip.cli._written_files import check_out, typed_command

Head = Literal["linear-probe", "prompt-probe", "ss-text", "tip-adapter", "prototypes"]


@options.with_options
def train(
    context: typer.Context,
    labels: options.LabelsOption,
    label_column: options.LabelColumnOption = None,
    group_column: options.GroupColumnOption = None,
    hold_out: Annotated[
        float | None,
        typer.Option(
            "--hold-out",
            metavar="SHARE",
            help="Keep this share of the patients for sk-medsiglip report: they are "
            "not learned from, and written to a table beside the classifier.",
        ),
    ] = None,
    head: Annotated[
        Head,
        typer.Option(
            "--head",
            help="linear-probe: logistic regression. The others start from prompts and "
            "are better with few labels; try prompt-probe first.",
        ),
    ] = "linear-probe",
    search: options.SearchOption = False,
    n_trials: options.TrialsOption = 50,
    timeout: options.TimeoutOption = None,
    storage: options.StorageOption = None,
    nested: options.NestedOption = False,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="File to write: .skops, or .joblib (loading runs code)."
        ),
    ] = Path("model.skops"),
    uncertain: options.UncertainOption = "ignore",
    blank: options.BlankOption = "ignore",
    prompts: options.PromptsOption = None,
    classes: options.ClassOption = None,
    template: options.TemplateOption = None,
    path_column: options.PathColumnOption = None,
    seed: options.SeedOption = 0,
    overwrite: options.OverwriteOption = False,
    *,
    model: options.ModelOptions,
    run: options.RunOptions,
) -> None:
    """Train a classifier on labelled images; save and report it.

    The report (a Markdown file beside it) holds figures of cross-validation, on images
    that the classifier did not learn from. CheXpert's labels are understood: 1 and 0,
    -1 for uncertain, blank for not mentioned; several findings are trained together,
    each on the images where it is known.

    With --hold-out 0.25 a quarter of the patients is kept apart for sk-medsiglip
    report. Use the result with: sk-medsiglip predict model.skops images/

    Example: sk-medsiglip train --labels labels.csv --label-column effusion
    --group-column patient --hold-out 0.25

    With --search the best of many heads is taken, and the report holds the best of
    them; with --out model.joblib, neural networks and boosted trees are tried too.
    """
    # Late, so that --help is quick.
    from sk_medsiglip.cli import _splits as splits
    from sk_medsiglip.cli._embedding import embed_labelled
    from sk_medsiglip.cli._labels import read_labelled
    from sk_medsiglip.cli._model_files import (
        RUNS_CODE,
        check_model_file,
        foreign_types,
        save_pipeline,
        trust_options,
    )
    from sk_medsiglip.cli._prompts import prompts_for_task
    from sk_medsiglip.cli._training import (
        judge_search,
        make_head,
        search_head,
        train_head,
    )

    meanings: Any = {"uncertain": uncertain, "blank": blank}
    data = read_labelled(labels, label_column, group_column, path_column, **meanings)
    report_file = out.with_suffix(".report.md")
    parts = [out.with_suffix(f".{part}.csv") for part in ("train", "test")]
    check_model_file(out, overwrite)
    for file in [report_file, *(parts if hold_out is not None else [])]:
        check_out(file, overwrite)
    if hold_out is not None:
        sides = splits.hold_out(data, hold_out, seed)
        both = [data.keep(rows) for rows in sides]
        data = both[0]
    splits.check_enough(data.task, data.groups, "Training")
    asked: dict[str, Any] | None = None
    if search and head != "linear-probe":
        raise CommandError("--search chooses the head: leave out --head.")
    if search and (prompts is not None or classes):
        asked, _ = prompts_for_task(data.task, file=prompts, classes=classes or [])
    elif head != "linear-probe":
        asked, made_up = prompts_for_task(
            data.task, file=prompts, classes=classes or []
        )
        if made_up:
            data.remarks.append(
                "The prompts are made from the names of the labels; good ones of your "
                "own (--prompts FILE) are worth more than many labels."
            )
    elif prompts is not None or classes:
        raise CommandError("--head linear-probe takes no prompts; try prompt-probe.")
    embedder = model.embedder(run).fit(data.collection.paths)
    data, X = embed_labelled(data, embedder, "Training")
    for remark in data.remarks:
        say(remark, "yellow")
    settings = {**options.text_side(embedder), "templates": template}
    if search:
        settings |= {"n_trials": n_trials, "timeout": timeout, "storage": storage}
        settings["random_state"] = seed
        for_skops = out.suffix == ".skops"
        found, trained = search_head(data, X, asked, settings, for_skops=for_skops)
    else:
        unfitted = make_head(head, data.task, asked, settings)
        trained = train_head(unfitted, data, X, seed)
    n_bytes = save_pipeline(embedder, trained.head, out)
    title = f"{'Heads tried' if search else head} on {labels.name}"
    remarks = [*data.remarks, f"Command: {typed_command(context)}"]
    trained.write_report(report_file, title, len(X), model.model, remarks)
    if search and nested:  # last, since it takes long and may fail
        trained.notes.append(judge_search(found, data, X))
        trained.write_report(report_file, title, len(X), model.model, remarks)
    elif search:
        trained.notes.append("For an estimate for new patients add --nested.")

    console.print(trained.table())
    for note in trained.notes:
        say(note)
    say(f"Wrote {out} ({n_bytes / 1000:,.0f} kB) and {report_file}.")
    command = f"sk-medsiglip predict {out} images/ --out predictions.csv"
    if hold_out is not None:
        for part, file in zip(both, parts, strict=True):
            part.collection.write(file)
        say(
            f"Wrote {parts[1]}: {len(both[1].task.y):,} images that were held out, and "
            f"{parts[0]}, the others. The report on them:"
        )
        columns = options.column_options(label_column, group_column)
        command = f"sk-medsiglip report {out} {parts[1]} --train {parts[0]}{columns}"
    show_code(f"{command} {trust_options(foreign_types(out))}".strip())
    if out.suffix != ".skops":
        say(RUNS_CODE, "yellow")
    say(model_notice(model.model), "yellow")


def tune(context: typer.Context) -> None:
    """Choose a classifier: the former name of sk-medsiglip train --search.

    It takes the options of train, and will be removed in the next version.
    """
    complain(
        "sk-medsiglip tune is now sk-medsiglip train --search; the old name will be "
        "removed in the next version.",
        "yellow",
    )
    parent = context.parent
    assert parent is not None
    commands: Any = parent.command
    train = commands.get_command(parent, "train")
    with train.make_context(
        "train", ["--search", *context.args], parent=parent
    ) as asked:
        train.invoke(asked)


def split(
    source: options.SourceArgument,
    label_column: options.LabelColumnOption = None,
    group_column: options.GroupColumnOption = None,
    test_size: Annotated[
        float, typer.Option("--test-size", help="Share of the images to hold out.")
    ] = 0.25,
    seed: options.SeedOption = 0,
    train: Annotated[
        Path | None,
        typer.Option("--train", help="Table to learn from. Default: SOURCE.train.csv."),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option("--test", help="Table to test by. Default: SOURCE.test.csv."),
    ] = None,
    uncertain: options.UncertainOption = "ignore",
    blank: options.BlankOption = "ignore",
    path_column: options.PathColumnOption = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Split images by patient into a training and a test table.

    Every label has nearly its share on both sides, and no patient is on both. Images
    without a label are in neither table.

    Example: sk-medsiglip split labels.csv --label-column effusion --group-column
    patient
    """
    # Late, so that --help is quick.
    from sk_medsiglip.cli._labels import read_labelled
    from sk_medsiglip.cli._splits import hold_out

    meanings: Any = {"uncertain": uncertain, "blank": blank}
    data = read_labelled(source, label_column, group_column, path_column, **meanings)
    beside = source.expanduser().absolute()
    files = [
        file or beside.with_name(f"{beside.stem}.{part}.csv")
        for part, file in (("train", train), ("test", test))
    ]
    for file in files:
        check_out(file, overwrite)
    for remark in data.remarks:
        say(remark, "yellow")
    if data.groups is None:
        say(
            "No --group-column: every image counts as a patient of its own. If "
            "patients have several images, figures of the test table are too good.",
            "yellow",
        )
    parts = [data.keep(rows) for rows in hold_out(data, test_size, seed)]
    table = make_table("table", "images", "patients", *data.task.names)
    for part, file in zip(parts, files, strict=True):
        part.collection.write(file)
        n_patients = len(part.task.y) if part.groups is None else len(set(part.groups))
        counts = [f"{n:,}" for n in (part.task.truth() == 1).sum(axis=0)]
        table.add_row(file.name, f"{len(part.task.y):,}", f"{n_patients:,}", *counts)
    console.print(table)
    say(f"Wrote {files[0]} and {files[1]}.")
    columns = options.column_options(label_column, group_column)
    show_code(
        f"sk-medsiglip train --labels {files[0]}{columns}",
        f"sk-medsiglip report model.skops {files[1]} --train {files[0]}{columns}",
    )
