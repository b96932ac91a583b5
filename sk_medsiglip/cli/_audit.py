"""``sk-medsiglip audit``: what is wrong with labelled images, before training."""

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
from sk_medsiglip.cli._files import check_out

#: Exit status where something was found that --fail-on names.
_FOUND = 3


class Check(StrEnum):
    """Checks that --fail-on names."""

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
            help="CSV file with a column of paths and one or more of labels, or a "
            "folder with a sub-folder a class."
        ),
    ],
    columns: options.LabelOptions,
    metadata_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of scanner, site, view, age, sex; repeat it. Shortcuts and "
            "subgroups are looked for among them."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="HTML file to write.")
    ] = Path("audit.html"),
    fail_on: Annotated[
        list[Check] | None,
        typer.Option(
            help="End with status 3 if this check finds something; any: if one of them "
            "does. Repeat it. Without it, what is found does not change the status."
        ),
    ] = None,
    show_images: Annotated[
        bool,
        typer.Option(
            "--show-images",
            help="Show the images that are listed. The file then holds patients' "
            "images.",
        ),
    ] = False,
    seed: options.SeedOption = 0,
    overwrite: options.OverwriteOption = False,
    *,
    model: options.ModelOptions,
    run: options.LenientRunOptions,
) -> None:
    """List wrong labels, copies and shortcuts in labelled images.

    It looks for wrong labels, copies, columns that could stand in for a finding,
    subgroups that are ranked worse, and images unlike the others. The page names rows
    of the file, and holds neither paths nor patients' names; pictures only on request.

    Example: sk-medsiglip audit labels.csv --label-column effusion --group-column
    patient --metadata-column scanner --metadata-column site --fail-on labels
    """
    check_out(out, overwrite, (".html", ".htm"))
    # Late, so that --help is quick.
    import pandas as pd

    from sk_medsiglip.audit import audit as audit_images
    from sk_medsiglip.cli._embedding import embed_labelled

    data = columns.read(source)
    for name in metadata_column or ():  # raises before images are embedded
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
    except ValueError as error:  # labels or columns that cannot be judged
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
    say(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB): open it in a browser.")
    if show_images:
        say("It holds pictures of patients: keep it where these may be kept.", "yellow")
    say(model_notice(model.model), "yellow")
    wanted = fail_on or []
    failed = [
        name
        for name, n in found.found.items()
        if n and (name in wanted or Check.ANY in wanted)
    ]
    if failed:
        say(f"Found, so the status is {_FOUND}: {', '.join(failed)}.", "red")
        raise typer.Exit(_FOUND)
