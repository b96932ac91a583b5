"""``sk-medsiglip cache``: look at the embedding cache, check, shrink and empty it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from sk_medsiglip.cli._console import bar, console, make_table, say
from sk_medsiglip.cli._errors import CommandError
from sk_medsiglip.cli._options import (
    ModelOption,
    PadOption,
    PathColumnOption,
    Resize,
    ResizeOption,
)

if TYPE_CHECKING:
    from sk_medsiglip.cache import EmbeddingCache

__all__ = ["cache_app", "format_bytes", "parse_bytes"]

cache_app = typer.Typer(
    help="Look at the embedding cache, check it, shrink it, empty it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_UNITS = {
    "": 1,
    "B": 1,
    **{f"{letter}B": 1000**i for i, letter in enumerate("KMGT", start=1)},
    **{f"{letter}IB": 1024**i for i, letter in enumerate("KMGT", start=1)},
    **{letter: 1000**i for i, letter in enumerate("KMGT", start=1)},
}

LocationOption = Annotated[
    Path | None,
    typer.Option(
        "--location",
        help="Folder of the cache. Default: SK_MEDSIGLIP_CACHE, or a per-user folder.",
    ),
]


@cache_app.command()
def info(location: LocationOption = None) -> None:
    """Show where the cache lies, how large it is, and of which models."""
    cache = _open(location)
    stats = cache.stats()
    say(f"Location  {stats['location']}")
    if stats["network"]:
        say(
            f"Network   {stats['network']}: safe, and slower than a local disk; copy "
            "rows to one with: sk-medsiglip cache export, import",
            "yellow",
        )
    say(f"On disk   {format_bytes(stats['bytes'])} in {stats['segments']:,} segments")
    if stats["converted_bytes"]:
        say(
            f"Converted {format_bytes(stats['converted_bytes'])} of models for OpenVINO"
        )
    say(f"Rows      {stats['rows']:,}, each one image or text through one model")
    say(f"Files     {stats['files']:,} image files known by their state on disk")
    if not stats["spaces"]:
        say("Nothing is stored yet.")
        return
    table = make_table("Model", "Kind", "Revision", "Recipe", "Type", "Width", "Rows")
    for space in sorted(stats["spaces"], key=lambda s: -s["rows"]):
        table.add_row(
            space["model"],
            space["kind"],
            space["revision"][:19],
            space["recipe"],
            space["dtype"],
            f"{space['width']:,}",
            f"{space['rows']:,}",
        )
    console.print(table)


@cache_app.command()
def verify(
    location: LocationOption = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            help="Also read the images of this folder or CSV file again, to find files "
            "that changed without showing it. The options below say how they were "
            "embedded.",
        ),
    ] = None,
    path_column: PathColumnOption = None,
    model: ModelOption = "google/medsiglip-448",
    resize: ResizeOption = Resize.medsiglip,
    pad: PadOption = False,
) -> None:
    """Read every row against its checksum, and mend what is damaged."""
    report = _open(location).verify()
    say(f"{report.rows:,} rows are intact, in {report.segments:,} segments.")
    if report.dropped:
        say(
            f"{report.dropped:,} rows were damaged or gone; they are computed again "
            "when needed.",
            "yellow",
        )
    if report.recovered:
        say(f"{report.recovered:,} rows that the index had lost are back.", "yellow")
    if report.dropped_files:
        say(
            f"{report.dropped_files:,} notes on files were damaged; these files are "
            "read again when needed.",
            "yellow",
        )
    if report.index_rebuilt:
        say("The index was damaged and is built anew.", "yellow")
    if report.unreadable_segments:
        say(
            f"{report.unreadable_segments:,} segments cannot be read at all; "
            "sk-medsiglip cache clear removes them.",
            "yellow",
        )
    if report.ok:
        say("Nothing is wrong.", "green")
    if images is not None:
        _verify_images(images, path_column, _open(location), model, resize, pad)


def _verify_images(
    source: Path,
    path_column: str | None,
    cache: EmbeddingCache,
    model: str,
    resize: Resize,
    pad: bool,
) -> None:
    from sk_medsiglip.cli._collection import read_collection
    from sk_medsiglip.embedding import MedSigLIPEmbedder

    paths = read_collection(source, path_column).paths
    embedder = MedSigLIPEmbedder(
        model, resize=resize.value, pad=pad, cache=cache, n_jobs=-1, verbose=bar()
    )
    outdated = [paths[i] for i in np.flatnonzero(~embedder.verify_files(paths))]
    if not outdated:
        say(f"The {len(paths):,} images are as they are remembered, or new.", "green")
        return
    say(
        f"{len(outdated):,} of {len(paths):,} files changed without showing it; they "
        "are read again when needed:",
        "yellow",
    )
    for path in outdated:
        say(str(path), indent=4)


@cache_app.command(name="export")
def export_rows(
    out: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Only rows of this model, or of the revision that begins so.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that exists.")
    ] = False,
    location: LocationOption = None,
) -> None:
    """Write the rows to one file, to train where there is no model."""
    if out.exists() and not overwrite:
        raise CommandError(f"{out} exists. Add --overwrite to replace it.")
    if not out.absolute().parent.is_dir():
        raise CommandError(f"{out}: there is no folder {out.absolute().parent}.")
    n_rows = _open(location).export_parquet(out, model=model, verbose=bar())
    size = format_bytes(out.stat().st_size)
    say(f"Wrote {n_rows:,} rows to {out}, {size}. On the other machine:")
    say(f"sk-medsiglip cache import {out.name}", "cyan", indent=4)


@cache_app.command(name="import")
def import_rows(
    source: Annotated[Path, typer.Argument(help="File that cache export wrote.")],
    location: Annotated[
        Path | None,
        typer.Option(
            "--location",
            help="Folder of the cache, made if missing. Default: SK_MEDSIGLIP_CACHE, "
            "or a per-user folder.",
        ),
    ] = None,
) -> None:
    """Add the rows of a file; those that are there already stay as they are."""
    from sk_medsiglip.cache import EmbeddingCache

    cache = EmbeddingCache(location)
    report = cache.import_parquet(source, verbose=bar())
    say(
        f"Imported {report.new:,} new rows of {report.rows:,}, and what is known of "
        f"{report.models:,} models, into {cache.location}."
    )


@cache_app.command()
def prune(
    max_size: Annotated[
        str,
        typer.Option(
            "--max-size",
            help="What the rows may take: 5GB, 500MB, 1.5GiB. The index comes on top, "
            "about 20 bytes a row; neighbours go in blocks of 256.",
        ),
    ],
    location: LocationOption = None,
) -> None:
    """Delete the least recently used rows until the rest fits a size."""
    limit = parse_bytes(max_size)
    cache = _open(location)
    before = cache.stats()
    freed = cache.prune(limit)
    after = cache.stats()
    say(
        f"Freed {format_bytes(freed)}: {before['rows'] - after['rows']:,} of "
        f"{before['rows']:,} rows are gone, {after['rows']:,} remain."
    )


@cache_app.command()
def clear(
    location: LocationOption = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")
    ] = False,
) -> None:
    """Delete everything in the cache; rows are computed again when needed."""
    cache = _open(location)
    stats = cache.stats()
    if not stats["rows"] and not stats["segments"]:
        say(f"{cache.location} holds no rows; there is nothing to delete.")
        return
    if not yes:
        typer.confirm(
            f"Delete {stats['rows']:,} rows ({format_bytes(stats['bytes'])}) in "
            f"{cache.location}?",
            abort=True,
        )
    cache.clear()
    say(f"Deleted {stats['rows']:,} rows in {cache.location}.")


def parse_bytes(text: str) -> int:
    """Return the bytes that ``5GB``, ``1.5 GiB`` or ``1000`` mean."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _UNITS:
        raise CommandError(
            f"--max-size: {text!r} is not a size. Write 5GB, 500MB or 1.5GiB."
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])


def format_bytes(n_bytes: float) -> str:
    """Return a size for people, in powers of 1000."""
    if n_bytes < 1000:
        return f"{n_bytes:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        n_bytes /= 1000
        if n_bytes < 1000:
            return f"{n_bytes:.1f} {unit}"
    return f"{n_bytes / 1000:.1f} TB"


def _open(location: Path | None) -> EmbeddingCache:
    from sk_medsiglip.cache import EmbeddingCache

    if location is not None and not location.expanduser().is_dir():
        raise CommandError(f"--location: there is no folder {location}.")
    return EmbeddingCache(location)
