"""``sk-medsiglip audit``: find faults in labelled images before training."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sk_medsiglip.cli import _options as options
from sk_medsiglip.cli._console import (
    CommandError,
    bar,
    in_shell,
    model_notice,
    say,
    say_remarks,
)
from sk_medsiglip.cli._files import check_out, say_page

#: Exit status if a check of --fail-on found something.
_FOUND = 3


class Check(StrEnum):
    """Checks for --fail-on."""

    ANY = "any"
    LABELS = "labels"
    DISAGREEMENTS = "disagreements"
    COPIES = "copies"
    UNUSUAL = "unusual"
    SHORTCUTS = "shortcuts"
    SLICES = "slices"


@options.with_options
def audit(
    source: Annotated[
        Path,
        typer.Argument(
            help="CSV file with a column of paths and one or more columns of labels, "
            "or a folder with one sub-folder per class."
        ),
    ],
    columns: options.LabelOptions,
    metadata_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of scanner, site, view, age or sex, searched for shortcuts "
            "and subgroups. Repeatable."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="HTML file to write.")
    ] = Path("audit.html"),
    fail_on: Annotated[
        list[Check] | None,
        typer.Option(
            help="Exit with status 3 if this check, or any of them, finds something. "
            "Repeatable. Without it the status does not depend on the findings."
        ),
    ] = None,
    show_images: Annotated[
        bool,
        typer.Option(
            "--show-images",
            help="Show the listed images. The file then holds images of patients.",
        ),
    ] = False,
    seed: options.SeedOption = 0,
    overwrite: options.OverwriteOption = False,
    *,
    model: options.ModelOptions,
    run: options.LenientRunOptions,
) -> None:
    """List wrong labels, copies and shortcuts in labelled images.

    The audit also finds subgroups on which a classifier does worse, and unusual images.
    The HTML page gives row numbers of the file instead of paths and names of patients,
    and shows images only with --show-images.

    Example: sk-medsiglip audit labels.csv --label-column effusion --group-column
    patient --metadata-column scanner --metadata-column site --fail-on labels
    """
    check_out(out, overwrite, (".html", ".htm"))
    # Imported late, so that --help is fast.
    import pandas as pd

    from sk_medsiglip.audit import audit as audit_images
    from sk_medsiglip.cli._embedding import embed_labelled

    data = columns.read(source)
    for name in metadata_column or ():  # raises before embedding
        data.collection.column(name, "--metadata-column")
    embedder = model.embedder(run).fit(data.collection.paths)
    data, X = embed_labelled(data, embedder, "An audit")
    say_remarks(data.remarks)
    y: Any = data.task.y
    if data.task.kind != "classes":
        y = pd.DataFrame(data.task.truth(), columns=list(data.task.names))
    metadata = None
    if metadata_column:
        metadata = data.collection.frame[list(dict.fromkeys(metadata_column))]
    try:
        found = audit_images(
            X,
            y,
            groups=data.groups,
            metadata=metadata,
            random_state=seed,
            verbose=bar(),
        )
    except ValueError as error:  # unsuitable labels or columns
        raise CommandError(in_shell(str(error))) from error
    for sentence in found.sentences():
        say(sentence)
    found.to_html(
        out,
        show_images=show_images,
        images=data.collection.paths,
        names=[f"row {row}" for row in data.rows],
        title=f"Audit of {source.name}",
    )
    say_page(out, shows_images=show_images)
    say(model_notice(model.model), "yellow")
    wanted = fail_on or []
    failed = [
        name
        for name, n in found.found.items()
        if n and (name in wanted or Check.ANY in wanted)
    ]
    if failed:
        say(f"Exit status is {_FOUND}: {', '.join(failed)}.", "red")
        raise typer.Exit(_FOUND)
