"""``train`` and ``split``: train a classifier, or split a table, by patient."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sk_medsiglip.cli import _files as files
from sk_medsiglip.cli import _options as options
from sk_medsiglip.cli._console import (
    CommandError,
    complain,
    model_notice,
    say,
    say_remarks,
    show_code,
    show_table,
)

Head = Literal["linear-probe", "prompt-probe", "ss-text", "tip-adapter", "prototypes"]


@options.with_options
def train(
    context: typer.Context,
    labels: options.LabelsOption,
    columns: options.LabelOptions,
    hold_out: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Hold out this share of the patients for sk-medsiglip report, and "
            "write their table beside the classifier.",
        ),
    ] = None,
    head: Annotated[
        Head | None,
        typer.Option(
            help="linear-probe (the default) is logistic regression. The others start "
            "from prompts and are better with few labels; try prompt-probe first."
        ),
    ] = None,
    grid: options.GridOption = None,
    search: Annotated[
        bool,
        typer.Option(
            "--search",
            help="Choose the head and its settings by cross-validation; with prompts, "
            "heads that use prompts are tried too. Another head replaces the linear "
            "probe only if it is better by more than chance.",
        ),
    ] = False,
    n_trials: Annotated[
        int, typer.Option(min=1, help="Total number of trials of --search.")
    ] = 50,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds after which --search starts no further trial."),
    ] = None,
    storage: Annotated[
        Path | None,
        typer.Option(
            help="SQLite file (.db) or journal (.journal) for the trials of --search. "
            "The same command continues them. Simultaneous commands can share a "
            "journal."
        ),
    ] = None,
    nested: Annotated[
        bool,
        typer.Option(
            "--nested",
            help="Cross-validate the search itself, for an estimate for new patients. "
            "This takes five more searches.",
        ),
    ] = False,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="File to write: .skops, or .joblib (loading runs code)."
        ),
    ] = Path("model.skops"),
    prompts: options.PromptsOption = None,
    classes: options.ClassOption = None,
    template: options.TemplateOption = None,
    seed: options.SeedOption = 0,
    overwrite: options.OverwriteOption = False,
    *,
    model: options.ModelOptions,
    run: options.RunOptions,
) -> None:
    """Train a classifier on labelled images; save and report it.

    The report, a Markdown file beside the classifier, holds cross-validated metrics.
    Labels can be those of CheXpert: 1 and 0, -1 for uncertain, blank for not mentioned.
    Several findings are trained together, each on the images in which it is known.

    With --hold-out 0.25 a quarter of the patients is held out for sk-medsiglip report.
    Use the result with: sk-medsiglip predict model.skops images/

    Example: sk-medsiglip train --labels labels.csv --label-column effusion
    --group-column patient --hold-out 0.25

    With --grid 8 the classifier is a BagProbe, which learns to weight the parts of an
    image and misses fewer small findings.

    With --search the best of many heads is chosen, and the report lists the best ones.
    With --out model.joblib, neural networks and boosted trees are tried too.
    """
    # Imported late, so that --help is fast.
    from sk_medsiglip.cli import _splits as splits
    from sk_medsiglip.cli._embedding import cut_into_parts, embed_labelled
    from sk_medsiglip.cli._prompts import prompts_for_task
    from sk_medsiglip.cli._training import (
        judge_search,
        make_head,
        search_head,
        train_head,
    )

    data = columns.read(labels)
    report_file = out.with_suffix(".report.md")
    parts = [out.with_suffix(f".{part}.csv") for part in ("train", "test")]
    files.check_model_file(out, overwrite)
    for file in [report_file, *(parts if hold_out is not None else [])]:
        files.check_out(file, overwrite)
    if hold_out is not None:
        sides = splits.hold_out(data, hold_out, seed)
        both = [data.keep(rows) for rows in sides]
        data = both[0]
    splits.check_enough(data, "Training")
    given = prompts is not None or bool(classes)
    name = _choose_head(head, grid, search=search, with_prompts=given)
    asked: dict[str, Any] | None = None
    if given or name not in ("linear-probe", "bag-probe"):
        asked, made_up = prompts_for_task(
            data.task, file=prompts, classes=classes or []
        )
        if made_up:
            data.remarks.append(
                "The prompts are made from the names of the labels; good prompts "
                "(--prompts FILE) are worth more than many labels."
            )
    embedder = model.embedder(run).fit(data.collection.paths)
    maker: Any = embedder
    if grid is not None:
        paths = data.collection.paths
        maker = cut_into_parts(embedder, grid, paths, pooled_row=True)
    data, X = embed_labelled(data, maker, "Training")
    say_remarks(data.remarks)
    settings = {**options.text_side(embedder), "templates": template}
    if search:
        settings |= {"n_trials": n_trials, "timeout": timeout, "storage": storage}
        settings["random_state"] = seed
        for_skops = out.suffix == ".skops"
        found, trained = search_head(data, X, asked, settings, for_skops=for_skops)
    else:
        unfitted = make_head(name, data.task, asked, settings)
        trained = train_head(unfitted, data, X, seed)
    n_bytes = files.save_pipeline(maker, trained.head, out)
    title = f"{'Heads tried' if search else name} on {labels.name}"
    remarks = [*data.remarks, f"Command: {files.typed_command(context)}"]
    trained.write_report(report_file, title, len(X), model.model, remarks)
    if search and nested:  # last, since it takes long and can fail
        trained.notes.append(judge_search(found, data, X))
        trained.write_report(report_file, title, len(X), model.model, remarks)
    elif search:
        trained.notes.append("For an estimate for new patients add --nested.")

    show_table(trained.columns, trained.rows)
    for note in trained.notes:
        say(note)
    say(f"Wrote {out} ({n_bytes / 1000:,.0f} kB) and {report_file}.")
    command = f"sk-medsiglip predict {out} images/ --out predictions.csv"
    if hold_out is not None:
        for part, file in zip(both, parts, strict=True):
            part.collection.write(file)
        say(
            f"Wrote {parts[1]} with the {len(both[1].rows):,} images that were held "
            f"out, and {parts[0]} with the others. For a report on the former:"
        )
        typed = columns.as_typed()
        command = f"sk-medsiglip report {out} {parts[1]} --train {parts[0]}{typed}"
    trust = files.trust_options(files.foreign_types(out))
    show_code(f"{command} {trust}".strip())
    if out.suffix != ".skops":
        say(files.RUNS_CODE, "yellow")
    say(model_notice(model.model), "yellow")


def _choose_head(
    head: str | None, grid: int | None, *, search: bool, with_prompts: bool
) -> str:
    """Return the name of the head to train, or raise on contradicting options."""
    if grid is not None:
        if head is not None or search or with_prompts:
            raise CommandError(
                "--grid trains a BagProbe, which does not use prompts: leave out "
                "--head, --search, --prompts and --class. For prompts on parts of "
                "images use sk-medsiglip zero-shot --grid."
            )
        return "bag-probe"
    name = head or "linear-probe"
    if search and name != "linear-probe":
        raise CommandError("--search chooses the head: leave out --head.")
    if with_prompts and name == "linear-probe" and not search:
        raise CommandError(
            "--head linear-probe does not use prompts; try prompt-probe."
        )
    return name


def tune(context: typer.Context) -> None:
    """Choose a classifier (the former name of sk-medsiglip train --search).

    It takes the options of train, and will be removed in the next version.
    """
    complain(
        "sk-medsiglip tune is now sk-medsiglip train --search; the old name will be "
        "removed in the next version.",
        "yellow",
    )
    parent: Any = context.parent
    train = parent.command.get_command(parent, "train")
    words = ["--search", *context.args]
    with train.make_context("train", words, parent=parent) as asked:
        train.invoke(asked)


@options.with_options
def split(
    source: options.SourceArgument,
    columns: options.LabelOptions,
    test_size: Annotated[
        float, typer.Option(help="Share of the images to hold out.")
    ] = 0.25,
    seed: options.SeedOption = 0,
    train: Annotated[
        Path | None,
        typer.Option(help="Training table to write. Default: SOURCE.train.csv."),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Test table to write. Default: SOURCE.test.csv.")
    ] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Split images by patient into a training and a test table.

    Every label has about the same share in both tables, and no patient is in both.
    Images without a label are left out.

    Example: sk-medsiglip split labels.csv --label-column effusion --group-column
    patient
    """
    from sk_medsiglip.cli._splits import WITHOUT_PATIENTS, hold_out  # late

    data = columns.read(source)
    beside = source.expanduser().absolute()
    tables = [
        file or beside.with_name(f"{beside.stem}.{part}.csv")
        for part, file in (("train", train), ("test", test))
    ]
    for file in tables:
        files.check_out(file, overwrite)
    say_remarks(data.remarks + ([WITHOUT_PATIENTS] if data.groups is None else []))
    rows = []
    for chosen, file in zip(hold_out(data, test_size, seed), tables, strict=True):
        part = data.keep(chosen)
        part.collection.write(file)
        n_patients = len(part.rows) if part.groups is None else len(set(part.groups))
        counts = [len(part.rows), n_patients, *(part.task.truth() == 1).sum(axis=0)]
        rows.append([file.name, *(f"{n:,}" for n in counts)])
    show_table(["table", "images", "patients", *data.task.names], rows)
    say(f"Wrote {tables[0]} and {tables[1]}.")
    typed = columns.as_typed()
    show_code(
        f"sk-medsiglip train --labels {tables[0]}{typed}",
        f"sk-medsiglip report model.skops {tables[1]} --train {tables[0]}{typed}",
    )
