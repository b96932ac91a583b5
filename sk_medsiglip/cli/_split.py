"""``sk-medsiglip split``: a table of images to one to learn from and one to test by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sk_medsiglip.cli import _options as options
from sk_medsiglip.cli._console import console, make_table, say, show_code
from sk_medsiglip.cli._written_files import check_out


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
