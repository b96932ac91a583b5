"""``sk-medsiglip prompts``: sets that ship, and what prompts are worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    CacheOption,
    DeviceOption,
    JobsOption,
    ModelOption,
    PadOption,
    PathColumnOption,
    Resize,
    ResizeOption,
    RevisionOption,
    TemplateOption,
)
from sk_medsiglip.cli._written_files import check_out, write_csv

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["prompts_app"]

prompts_app = typer.Typer(
    help="List prompt sets, and find out whether prompts work.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

PromptsArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE or SET",
        help="JSON or YAML file of prompts, or the name of a set that ships.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="CSV file for the whole table."),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that exist.")
]


@prompts_app.command(name="list")
def list_sets() -> None:
    """List the prompt sets that ship."""
    from sk_medsiglip.prompts import list_prompt_sets

    table = make_table("set", "kind", "classes", "prompts", "what")
    table.columns[-1].justify = "left"
    table.columns[0].no_wrap = True
    for row in list_prompt_sets().itertuples():
        table.add_row(
            row.name, row.kind, f"{row.n_classes}", f"{row.n_prompts}", row.title
        )
    console.print(table)
    say("Texts, source and notes of one: sk-medsiglip prompts show NAME")


@prompts_app.command()
def show(name: Annotated[str, typer.Argument(help="A set of `prompts list`.")]) -> None:
    """Print the file of a set: a start for one of your own.

    Example: sk-medsiglip prompts show chest_xray_13 > mine.yaml
    """
    from sk_medsiglip.prompts import find_prompt_set

    typer.echo(find_prompt_set(name).read_text("utf-8"), nl=False)


@prompts_app.command()
def lint(
    prompts: PromptsArgument,
    template: TemplateOption = None,
    model: ModelOption = "google/medsiglip-448",
    revision: RevisionOption = None,
    similarity: Annotated[
        float,
        typer.Option(
            "--similarity", help="Cosine over which two classes count as the same."
        ),
    ] = 0.98,
    out: OutOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
    cache: CacheOption = None,
) -> None:
    """Say what a model cannot read, or cannot tell apart, in prompts. No images needed.

    Exits with 1 if there is anything, for scripts.

    Example: sk-medsiglip prompts lint mine.yaml
    """
    from sk_medsiglip.cli._prompts import read_prompts
    from sk_medsiglip.prompts import lint_prompts

    check_out(out, overwrite)
    report = lint_prompts(
        read_prompts(prompts),
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
        f"{len(report):,} texts, the longest of {longest} tokens; {n_found} to mend "
        "for this model."
    )
    _write(report, out)
    say(model_notice(model), "yellow")
    if n_found:
        raise typer.Exit(1)


@prompts_app.command()
def compare(
    prompts: PromptsArgument,
    labels: Annotated[
        Path,
        typer.Option(
            "--labels",
            help="CSV file with a column of paths and one or more of labels, or a "
            "folder with a sub-folder a class. A few tens of images will do.",
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
            help="Column of patients. Without it intervals are too narrow where "
            "patients have several images.",
        ),
    ] = None,
    template: TemplateOption = None,
    search: Annotated[
        bool,
        typer.Option(
            "--search", help="Also choose prompts, and say what that would gain."
        ),
    ] = False,
    chosen: Annotated[
        Path | None,
        typer.Option("--chosen", help="JSON file for the prompts that were chosen."),
    ] = None,
    out: OutOption = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Picture to write: .png, .pdf, .svg.")
    ] = None,
    overwrite: OverwriteOption = False,
    path_column: PathColumnOption = None,
    model: ModelOption = "google/medsiglip-448",
    revision: RevisionOption = None,
    resize: ResizeOption = Resize.medsiglip,
    pad: PadOption = False,
    device: DeviceOption = "auto",
    n_jobs: JobsOption = None,
    cache: CacheOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of --search.")] = 0,
) -> None:
    """Say what each prompt is worth, on a few labelled images.

    Example: sk-medsiglip prompts compare mine.yaml --labels labels.csv --label-column
    effusion --group-column patient --plot prompts.png
    """
    if chosen is not None and not search:
        raise CommandError("--chosen needs --search.")
    for file in (out, plot, chosen):
        check_out(file, overwrite)
    # Late, so that --help is quick.
    from sk_medsiglip.cli._collection import FOLDER_LABEL, read_collection
    from sk_medsiglip.cli._embedding import check_device, embed_images, local_model
    from sk_medsiglip.cli._labels import read_labels
    from sk_medsiglip.cli._prompts import prompts_for_task
    from sk_medsiglip.embedding import MedSigLIPEmbedder
    from sk_medsiglip.zero_shot import PromptComparisonDisplay, compare_prompts

    collection = read_collection(labels, path_column)
    task, labelled, remarks = read_labels(
        collection.frame, label_column or [FOLDER_LABEL], complete=False
    )
    collection = collection.keep(labelled)
    groups = collection.patients(group_column)
    asked, _ = prompts_for_task(
        task, file=prompts, classes=[], positive=[], negative=[]
    )
    check_device(device)
    text_side: dict[str, Any] = {
        "model": local_model(model),
        "revision": revision,
        "device": device,
        "cache": True if cache is None else str(cache),
    }
    embedder = MedSigLIPEmbedder(
        **text_side,
        resize=resize.value,
        pad=pad,
        n_jobs=n_jobs,
        on_error="nan",
        verbose=bar(),
    )
    embedded = embed_images(collection.paths, embedder)
    readable = embedded.readable
    remarks += embedded.remarks()
    for remark in remarks:
        say(remark, "yellow")
    X, y = embedded.X[readable], task.rows(readable).y
    groups = None if groups is None else groups[readable]
    compared = compare_prompts(
        asked,
        X,
        y,
        groups=groups,
        templates=template,
        verbose=bar(),
        **text_side,
    )
    console.print(_as_table(compared))
    say(
        f"{len(X):,} images. AUC: of the label, this prompt alone standing for its "
        "side. Loss: of all prompts' AUC without it, * where its interval leaves out "
        "0, as one in twenty does by chance. 95% intervals "
        + ("over patients." if groups is not None else "over images.")
    )
    _say_problems(compared)
    if search:
        _search(asked, template, X, y, groups, n_jobs, text_side, chosen, seed)
    _write(compared, out)
    if plot is not None:
        display = PromptComparisonDisplay(compared).plot()
        display.figure_.savefig(plot, dpi=150)
        say(f"Wrote {plot}.")
    say(model_notice(model), "yellow")


def _search(
    asked: dict[str, Any],
    template: list[str] | None,
    X: Any,
    y: Any,
    groups: Any,
    n_jobs: int | None,
    text_side: dict[str, Any],
    chosen: Path | None,
    seed: int,
) -> None:
    import json

    from sk_medsiglip.zero_shot import PromptSearchCV

    found = PromptSearchCV(
        asked,
        templates=template,
        n_jobs=n_jobs,
        random_state=seed,
        verbose=bar(),
        **text_side,
    ).fit(X, y, groups=groups)
    table = make_table("chosen for", "all", "chosen", "gain", "95%", "steps")
    for row in found.report_.itertuples():
        table.add_row(
            row.finding or "the classes",
            f"{row.plain:.3f}",
            f"{row.chosen:.3f}",
            f"{row.gain:+.3f}",
            f"{row.gain_low:+.3f} to {row.gain_high:+.3f}",
            f"{row.n_steps or 'all'}",
        )
    console.print(table)
    noise = found.report_["within_noise"]
    say(
        "AUC on folds that had no say in the choice. Prompts are taken where the gain "
        "is above 0, so in the mean a gain that is taken is too high."
        + (
            " Every gain is within noise: more labels would tell."
            if noise.all()
            else ""
        )
    )
    if chosen is not None:
        text = json.dumps(found.best_prompts_, indent=2, ensure_ascii=False)
        chosen.write_text(text + "\n", encoding="utf-8")
        say(f"Wrote {chosen}.")
        show_code(f"sk-medsiglip zero-shot images/ --prompts {chosen}")


def _as_table(compared: pd.DataFrame) -> Any:
    table = make_table("prompt", "AUC", "95%", "loss without it")
    for row in compared.itertuples():
        sign = {"positive": "+ ", "negative": "- "}.get(row.side, "  ")
        loss = ""
        if row.text and row.gain == row.gain:
            beyond_noise = row.gain_low > 0 or row.gain_high < 0
            loss = f"{row.gain:+.3f}{' *' if beyond_noise else '  '}"
        table.add_row(
            f"{sign}{row.text}" if row.text else f"{row.label}: all prompts",
            f"{row.auc:.3f}",
            f"{row.auc_low:.3f} to {row.auc_high:.3f}",
            loss,
            style=None if row.text else "bold",
        )
    return table


def _say_problems(report: pd.DataFrame) -> int:
    """Print what lint found, label by label; return how many texts that are."""
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
