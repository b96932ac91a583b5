"""``sk-medsiglip check``: find images of a collection that cannot be read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sk_medsiglip._files import new_file
from sk_medsiglip._optional import import_optional
from sk_medsiglip.cli._console import CommandError, bar, say, show_table
from sk_medsiglip.cli._files import check_out, write_csv
from sk_medsiglip.cli._options import OverwriteOption, PathColumnOption, SourceArgument

if TYPE_CHECKING:
    import pandas as pd


_SHOWN_REASONS = 10
_SHOWN_EXAMPLES = 3
_SHOWN_SUFFIXES = 8

# 3 in "3 x 4" and "-1.5e-03", not in "int16" and "IM0001".
_NUMBER = re.compile(r"(?<![\w.])-?\d+(\.\d+)?(e[+-]?\d+)?(?![\w])")


def check(
    source: SourceArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "--out",
            "-o",
            help="Table to write, one row per image: .csv, .tsv or .parquet.",
        ),
    ] = None,
    path_column: PathColumnOption = None,
    intensity: Annotated[
        str,
        typer.Option(
            help="Conversion of grey values to brightness: auto, ct, ct-wide, lung, "
            "mediastinum, brain, bone."
        ),
    ] = "auto",
    frame: Annotated[
        str | None,
        typer.Option(
            help="Frame of multi-frame files, counted from 0, or middle. Without it "
            "they cannot be read."
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=1, help="Limit of pixels, to refuse larger images."),
    ] = None,
    n_jobs: Annotated[
        int, typer.Option(help="Threads that read images; -1 means all cores.")
    ] = -1,
    exit_zero: Annotated[
        bool,
        typer.Option("--exit-zero", help="Exit with 0 even if images are unreadable."),
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Read all images without the model, and list failures.

    The command prints counts by format and modality, sizes, copies, and failures by
    reason. The table of --output has the columns row, path (as given), readable,
    reason, hint, format, modality, height, width, dtype, low and high (range of the
    stored values, in their unit), and duplicate_of (row of the first image with the
    same pixels). It holds nothing else from DICOM files, and no tags of patients.

    The exit code is 0 if all images can be read, 1 if one cannot, and 2 if the command
    is wrong.

    Example: sk-medsiglip check images/ --output check.csv
    """
    # Imported late, so that --help is fast.
    from sk_medsiglip.cli._collection import read_collection
    from sk_medsiglip.images import MAX_PIXELS, check_images

    settings = _settings(intensity, frame)
    if n_jobs == 0:
        raise CommandError("--n-jobs must be 1 or more, or -1 for all cores; got 0.")
    collection = read_collection(source, path_column)
    check_out(out, overwrite, (".csv", ".tsv", ".parquet"))
    if out is not None and out.suffix == ".parquet":
        import_optional("pyarrow", extra="parquet", purpose="Writing Parquet")
    table = check_images(
        collection.paths,
        max_pixels=max_pixels or MAX_PIXELS,
        n_jobs=n_jobs,
        verbose=bar(),
        **settings,
    )
    table = table.drop(columns="source")
    table.insert(1, "path", collection.names)
    if source.expanduser().is_dir():
        _say_left_out(source.expanduser(), collection.paths)
    _say_what_is_there(table)
    _say_duplicates(table)
    _say_failures(table)
    if out is not None:
        with new_file(out) as draft:
            if out.suffix == ".parquet":
                table.to_parquet(draft, index=False)
            else:
                write_csv(table, draft, sep="\t" if out.suffix == ".tsv" else ",")
        say(f"Wrote {out}: {len(table):,} rows.")
    if not table.readable.all() and not exit_zero:
        raise typer.Exit(1)


def _settings(intensity: str, frame: str | None) -> dict[str, Any]:
    from sk_medsiglip.images import validate_frame, validate_intensity

    index = int(frame) if frame is not None and frame.isdecimal() else frame
    try:
        validate_intensity(intensity)
        validate_frame(index)
    except ValueError as error:
        raise CommandError(str(error)) from None
    return {"intensity": intensity, "frame": index}


def _say_left_out(folder: Path, taken: Sequence[str]) -> None:
    """Count the files of the folder that are not images, by suffix."""
    known = set(taken)
    files = (path for path in folder.rglob("*") if not path.is_dir())
    kinds = Counter(_kind_of_file(p, folder) for p in files if str(p) not in known)
    if not kinds:
        return
    most = [f"{count:,} {kind}" for kind, count in kinds.most_common(_SHOWN_SUFFIXES)]
    more = "" if len(kinds) <= _SHOWN_SUFFIXES else ", and others"
    say(
        f"{kinds.total():,} files in the folder are left out, by their name or kind: "
        f"{', '.join(most)}{more}.",
        "yellow",
    )


def _kind_of_file(path: Path, folder: Path) -> str:
    if any(part.startswith(".") for part in path.relative_to(folder).parts):
        return "hidden"
    if not path.is_file():
        return "broken link" if path.is_symlink() else "pipe or device"
    return path.suffix.lower() or "without suffix"


def _say_what_is_there(table: pd.DataFrame) -> None:
    n_readable = int(table.readable.sum())
    say(f"{_images(len(table))}: {n_readable:,} can be read.")
    known = table[table.format.notna()]
    if known.empty:
        return
    groups = known.groupby(["format", "modality"], dropna=False, sort=False)
    rows = [
        [
            kind,
            modality if isinstance(modality, str) else "",
            f"{len(group):,}",
            _span(group.height),
            _span(group.width),
            f"{group.low.min():g} to {group.high.max():g}"
            if group.low.notna().any()
            else "",
        ]
        for (kind, modality), group in sorted(groups, key=lambda one: -len(one[1]))
    ]
    show_table(["Format", "Modality", "Images", "Height", "Width", "Grey range"], rows)


def _span(sizes: pd.Series) -> str:
    low, high = sizes.min(), sizes.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _say_duplicates(table: pd.DataFrame) -> None:
    copies = table[table.duplicate_of.notna()]
    if copies.empty:
        return
    say(
        f"Copies of others, pixel by pixel: {_images(len(copies))} (column "
        "duplicate_of).",
        "yellow",
    )
    firsts = table.path.iloc[copies.duplicate_of.astype(int)]
    _say_some(copies.path + " = " + firsts.to_numpy(), indent=2)


def _say_failures(table: pd.DataFrame) -> None:
    failed = table[~table.readable]
    if failed.empty:
        say("All images can be read.", "green")
        return
    # Reasons that differ only in numbers are one group.
    groups = list(failed.groupby(failed.reason.str.replace(_NUMBER, "#", regex=True)))
    groups.sort(key=lambda group: -len(group[1]))
    say(f"Not readable: {_images(len(failed))}.", "bold red")
    for _, rows in groups[:_SHOWN_REASONS]:
        first = rows.iloc[0]
        like = "" if rows.reason.nunique() == 1 else ", for one"
        say(f"{len(rows):,} x {first.reason}{like}", "red", indent=2)
        if first.hint:
            say(f"-> {first.hint}", indent=6)
        _say_some(rows.path, indent=6)
    if len(groups) > _SHOWN_REASONS:
        say(f"and {len(groups) - _SHOWN_REASONS:,} other reasons", indent=2)


def _images(count: int) -> str:
    return f"{count:,} image" if count == 1 else f"{count:,} images"


def _say_some(lines: pd.Series, *, indent: int) -> None:
    """Print the first lines, and the number of further ones."""
    for line in lines.head(_SHOWN_EXAMPLES):
        say(line, indent=indent)
    if len(lines) > _SHOWN_EXAMPLES:
        say(f"and {len(lines) - _SHOWN_EXAMPLES:,} more", indent=indent)
