"""``sk-medsiglip prompts``: list prompt sets, and test prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sk_medsiglip.cli import _options as options
from sk_medsiglip.cli._console import (
    CommandError,
    bar,
    console,
    make_table,
    model_notice,
    say,
    say_remarks,
    show_code,
    show_table,
)
from sk_medsiglip.cli._files import check_out, write_csv

if TYPE_CHECKING:
    import pandas as pd


prompts_app = typer.Typer(
    help="List prompt sets, and test your own.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

PromptsArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE or SET",
        help="JSON or YAML file of prompts, or the name of a prompt set.",
    ),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="CSV file for the whole table.")
]


@prompts_app.command(name="list")
def list_sets() -> None:
    """List the prompt sets of this package."""
    from sk_medsiglip.prompts import list_prompt_sets

    sets = list_prompt_sets()
    names = ["name", "kind", "n_classes", "n_prompts", "title"]
    head = ["set", "kind", "classes", "prompts", "content"]
    table = make_table(head, sets[names].itertuples(index=False))
    table.columns[-1].justify = "left"
    table.columns[0].no_wrap = True
    console.print(table)
    say("To see texts, source and notes of a set: sk-medsiglip prompts show NAME")


@prompts_app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of a set from `prompts list`.")],
) -> None:
    """Print the file of a set, as a starting point for your own.

    Example: sk-medsiglip prompts show chest_xray_13 > mine.yaml
    """
    from sk_medsiglip.prompts import find_prompt_set

    typer.echo(find_prompt_set(name).read_text("utf-8"), nl=False)


@prompts_app.command()
def lint(
    prompts: PromptsArgument,
    template: options.TemplateOption = None,
    model: options.ModelOption = options.MEDSIGLIP,
    revision: options.RevisionOption = None,
    similarity: Annotated[
        float,
        typer.Option(help="Cosine above which two classes count as the same."),
    ] = 0.98,
    out: OutOption = None,
    overwrite: options.OverwriteOption = False,
    device: options.DeviceOption = "auto",
    cache: options.CacheOption = None,
) -> None:
    """Find prompts that a model cannot read or distinguish.

    No images are needed. The exit code is 1 if there are problems.

    Example: sk-medsiglip prompts lint mine.yaml
    """
    from sk_medsiglip.cli._prompts import read_prompts
    from sk_medsiglip.prompts import lint_prompts

    asked = read_prompts(prompts)
    check_out(out, overwrite)
    report = lint_prompts(
        asked,
        templates=template,
        model=model,
        revision=revision,
        similarity=similarity,
        device=device,
        cache=True if cache is None else str(cache),
        verbose=bar(),
    )
    n_found = _say_problems(report)
    longest = int(report["n_tokens"].max())
    say(
        f"{len(report):,} texts, the longest with {longest} tokens; {n_found} to fix "
        "for this model."
    )
    _write(report, out)
    say(model_notice(model), "yellow")
    if n_found:
        raise typer.Exit(1)


@prompts_app.command()
@options.with_options
def compare(
    prompts: PromptsArgument,
    labels: options.LabelsOption,
    columns: options.LabelOptions,
    template: options.TemplateOption = None,
    search: Annotated[
        bool,
        typer.Option("--search", help="Also choose prompts, and estimate the gain."),
    ] = False,
    chosen: Annotated[
        Path | None, typer.Option(help="JSON file for the chosen prompts.")
    ] = None,
    out: OutOption = None,
    plot: Annotated[
        Path | None, typer.Option(help="Figure to write: .png, .pdf or .svg.")
    ] = None,
    overwrite: options.OverwriteOption = False,
    seed: options.SeedOption = 0,
    *,
    model: options.ModelOptions,
    run: options.LenientRunOptions,
) -> None:
    """Measure the value of each prompt on labelled images.

    A few dozen images are enough. Without --group-column intervals are too narrow if
    patients have several images.

    Example: sk-medsiglip prompts compare mine.yaml --labels labels.csv --label-column
    effusion --group-column patient --plot prompts.png
    """
    if chosen is not None and not search:
        raise CommandError("--chosen needs --search.")
    # Imported late, so that --help is fast.
    from sk_medsiglip.cli._embedding import embed_labelled
    from sk_medsiglip.cli._prompts import prompts_for_task
    from sk_medsiglip.zero_shot import PromptComparisonDisplay, compare_prompts

    data = columns.read(labels)
    for file in (out, plot, chosen):
        check_out(file, overwrite)
    asked, _ = prompts_for_task(data.task, file=prompts)
    embedder = model.embedder(run)
    data, X = embed_labelled(data, embedder, "A comparison")
    say_remarks(data.remarks)
    settings = {
        "templates": template,
        "verbose": bar(),
        **options.text_side(embedder, "device"),
    }
    compared = compare_prompts(asked, X, data.task.y, groups=data.groups, **settings)
    _show_comparison(compared)
    say(
        f"{len(X):,} images. AUC is that of the label with this prompt as the only one "
        "of its side. The loss is that of the AUC of all prompts without this one; * "
        "means that its interval excludes 0, which happens to one prompt in twenty by "
        "chance. 95% intervals "
        + ("over patients." if data.groups is not None else "over images.")
    )
    _say_problems(compared)
    if search:
        from sk_medsiglip.zero_shot import PromptSearchCV

        found = PromptSearchCV(
            asked, n_jobs=run.n_jobs, random_state=seed, **settings
        ).fit(X, data.task.y, groups=data.groups)
        _say_choice(found, chosen)
    _write(compared, out)
    if plot is not None:
        display = PromptComparisonDisplay(compared).plot()
        display.figure_.savefig(plot, dpi=150)
        say(f"Wrote {plot}.")
    say(model_notice(model.model), "yellow")


def _say_choice(found: Any, chosen: Path | None) -> None:
    """Print the result of a search, and write the chosen prompts."""
    rows = [
        [
            row.finding or "the classes",
            f"{row.plain:.3f}",
            f"{row.chosen:.3f}",
            f"{row.gain:+.3f}",
            f"{row.gain_low:+.3f} to {row.gain_high:+.3f}",
            row.n_steps or "all",
        ]
        for row in found.report_.itertuples()
    ]
    show_table(["chosen for", "all", "chosen", "gain", "95%", "steps"], rows)
    say(
        "AUC on folds that were not used for the choice. Prompts are chosen if the "
        "gain is above 0, so the gain of chosen prompts is too high on average."
    )
    if found.report_["within_noise"].all():
        say("All gains are within noise; more labels would help.")
    if chosen is not None:
        import json

        text = json.dumps(found.best_prompts_, indent=2, ensure_ascii=False)
        chosen.write_text(text + "\n", encoding="utf-8")
        say(f"Wrote {chosen}.")
        show_code(f"sk-medsiglip zero-shot images/ --prompts {chosen}")


def _show_comparison(compared: pd.DataFrame) -> None:
    """Print a row for each prompt, and a bold one for all prompts of a label."""
    signs = {"positive": "+ ", "negative": "- "}
    rows = []
    for row in compared.itertuples():
        loss = ""
        if row.text and row.gain == row.gain:
            beyond_noise = row.gain_low > 0 or row.gain_high < 0
            loss = f"{row.gain:+.3f}{' *' if beyond_noise else '  '}"
        name = f"{signs.get(row.side, '  ')}{row.text}"
        interval = f"{row.auc_low:.3f} to {row.auc_high:.3f}"
        whole = f"{row.label}: all prompts"
        rows.append([name if row.text else whole, f"{row.auc:.3f}", interval, loss])
    table = make_table(["prompt", "AUC", "95%", "loss without it"], rows)
    for shown, text in zip(table.rows, compared["text"], strict=True):
        shown.style = None if text else "bold"
    console.print(table)


def _say_problems(report: pd.DataFrame) -> int:
    """Print the problems by label, and return the number of texts with problems."""
    found = report[report["problem"] != ""]
    for (label, side), rows in found.groupby(["label", "side"], sort=False):
        say(f"{label} {side}".strip(), "bold")
        for row in rows.itertuples():
            text = row.text if len(row.text) < 200 else f"{row.text[:197]}..."
            say(f"{text}: {row.problem}", indent=2)
    return len(found)


def _write(table: pd.DataFrame, out: Path | None) -> None:
    if out is not None:
        write_csv(table, out)
        say(f"Wrote {out}.")
