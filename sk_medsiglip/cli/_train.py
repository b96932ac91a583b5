"""``sk-medsiglip train``: images and labels to a saved classifier and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sk_medsiglip.cli import _options as options
from sk_medsiglip.cli._console import console, model_notice, say, show_code
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

    The report (a Markdown file beside it) holds what cross-validation says, on images
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
    from sk_medsiglip.cli._training import make_head, train_head
    from sk_medsiglip.cli._tune import judge_search, search_head

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
