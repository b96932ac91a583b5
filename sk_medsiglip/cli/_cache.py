"""``sk-medsiglip cache``: inspect, check, shrink and empty the embedding cache."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from sk_medsiglip.cli import _options as options
from sk_medsiglip.cli._console import CommandError, bar, say, show_code, show_table
from sk_medsiglip.cli._files import check_out

if TYPE_CHECKING:
    from sk_medsiglip.cache import EmbeddingCache


cache_app = typer.Typer(
    help="Inspect, check and shrink the embedding cache.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

#: Messages for the damage in a report of verify, by attribute.
_DAMAGE = {
    "dropped": "rows were damaged or missing; they are computed again when needed.",
    "recovered": "rows that were missing from the index are restored.",
    "dropped_files": "records of files were damaged; these files are read again when "
    "needed.",
    "unreadable_segments": "segments cannot be read at all; sk-medsiglip cache clear "
    "removes them.",
}

LocationOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the cache. Default: SK_MEDSIGLIP_CACHE, or a per-user folder."
    ),
]


@cache_app.command()
def info(location: LocationOption = None) -> None:
    """Show the location, size and models of the cache."""
    cache = _open(location)
    stats = cache.stats()
    say(f"Location  {stats['location']}")
    if stats["network"]:
        say(
            f"Network   {stats['network']}: safe, but slower than a local disk. Copy "
            "the rows to one with: sk-medsiglip cache export, import",
            "yellow",
        )
    say(f"On disk   {format_bytes(stats['bytes'])} in {stats['segments']:,} segments")
    if stats["converted_bytes"]:
        say(
            f"Converted {format_bytes(stats['converted_bytes'])} of models for OpenVINO"
        )
    say(f"Rows      {stats['rows']:,}, each for an image, its cells, or a text")
    say(f"Files     {stats['files']:,} image files whose state on disk is recorded")
    if not stats["spaces"]:
        say("Nothing is stored yet.")
        return
    rows = [
        [
            space["model"],
            space["kind"],
            space["revision"][:19],
            space["recipe"],
            space["dtype"],
            f"{space['width']:,}",
            f"{space['rows']:,}",
        ]
        for space in sorted(stats["spaces"], key=lambda s: -s["rows"])
    ]
    show_table(["Model", "Kind", "Revision", "Recipe", "Type", "Width", "Rows"], rows)


@cache_app.command()
def verify(
    location: LocationOption = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Also read the images of this folder or CSV file again, to find files "
            "that changed without a new size or time. The options below must be those "
            "with which they were embedded."
        ),
    ] = None,
    path_column: options.PathColumnOption = None,
    model: options.ModelOption = options.MEDSIGLIP,
    resize: options.ResizeOption = "medsiglip",
    pad: options.PadOption = False,
) -> None:
    """Check the checksums of all rows, and repair damage."""
    report = _open(location).verify()
    say(f"{report.rows:,} rows are intact, in {report.segments:,} segments.")
    for name, words in _DAMAGE.items():
        if count := getattr(report, name):
            say(f"{count:,} {words}", "yellow")
    if report.index_rebuilt:
        say("The index was damaged and was rebuilt.", "yellow")
    if report.ok:
        say("Nothing is damaged.", "green")
    if images is None:
        return
    from sk_medsiglip.cli._collection import read_collection
    from sk_medsiglip.embedding import MedSigLIPEmbedder

    paths = read_collection(images, path_column).paths
    how: Any = {"resize": resize, "pad": pad, "n_jobs": -1, "verbose": bar()}
    embedder = MedSigLIPEmbedder(model, cache=_open(location), **how)
    outdated = [paths[i] for i in np.flatnonzero(~embedder.verify_files(paths))]
    if not outdated:
        say(f"The {len(paths):,} images are unchanged, or new.", "green")
        return
    say(
        f"{len(outdated):,} of {len(paths):,} files changed without a new size or "
        "time; they are read again when needed:",
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
            help="Only rows of this model, or of a revision that begins with this."
        ),
    ] = None,
    overwrite: options.OverwriteOption = False,
    location: LocationOption = None,
) -> None:
    """Write the rows to a file, for machines without the model."""
    check_out(out, overwrite)
    n_rows = _open(location).export_parquet(out, model=model, verbose=bar())
    size = format_bytes(out.stat().st_size)
    say(f"Wrote {n_rows:,} rows to {out}, {size}. On the other machine:")
    show_code(f"sk-medsiglip cache import {out.name}")


@cache_app.command(name="import")
def import_rows(
    source: Annotated[Path, typer.Argument(help="File that cache export wrote.")],
    location: LocationOption = None,
) -> None:
    """Add the rows of a file, keeping those in the cache.

    The folder of the cache is created if needed.
    """
    from sk_medsiglip.cache import EmbeddingCache

    cache = EmbeddingCache(location)
    report = cache.import_parquet(source, verbose=bar())
    say(
        f"Imported {report.new:,} new rows of {report.rows:,}, and records of "
        f"{report.models:,} models, into {cache.location}."
    )


@cache_app.command()
def prune(
    max_size: Annotated[
        str,
        typer.Option(
            help="Maximum size of the rows, such as 5GB, 500MB or 1.5GiB, without the "
            "index (about 20 bytes per row). Rows are deleted in blocks of 256."
        ),
    ],
    location: LocationOption = None,
) -> None:
    """Delete the rows that were not used recently, down to a size."""
    limit = parse_bytes(max_size)
    cache = _open(location)
    before = cache.stats()
    freed = cache.prune(limit)
    after = cache.stats()
    say(
        f"Freed {format_bytes(freed)}: {before['rows'] - after['rows']:,} of "
        f"{before['rows']:,} rows were deleted, {after['rows']:,} remain."
    )


@cache_app.command()
def clear(
    location: LocationOption = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")
    ] = False,
) -> None:
    """Delete all rows; they are computed again when needed."""
    cache = _open(location)
    stats = cache.stats()
    if not stats["rows"] and not stats["segments"]:
        say(f"{cache.location} is empty; there is nothing to delete.")
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
    """Return the number of bytes of ``5GB``, ``1.5 GiB`` or ``1000``."""
    number = r"(?P<number>\d+(\.\d+)?)"
    unit = r"((?P<power>[KMGT])(?P<binary>i?))?B?"
    match = re.fullmatch(rf"\s*{number}\s*{unit}\s*", text, re.IGNORECASE)
    if match is None:
        raise CommandError(
            f"--max-size: {text!r} is not a size. Write 5GB, 500MB or 1.5GiB."
        )
    power = "KMGT".index(match["power"].upper()) + 1 if match["power"] else 0
    return int(float(match["number"]) * (1024 if match["binary"] else 1000) ** power)


def format_bytes(n_bytes: float) -> str:
    """Return a size in units that are powers of 1000."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while n_bytes >= 1000 and len(units) > 1:
        n_bytes, units = n_bytes / 1000, units[1:]
    return f"{n_bytes:.{0 if units[0] == 'bytes' else 1}f} {units[0]}"


def _open(location: Path | None) -> EmbeddingCache:
    from sk_medsiglip.cache import EmbeddingCache

    if location is not None and not location.expanduser().is_dir():
        raise CommandError(f"--location: there is no folder {location}.")
    return EmbeddingCache(location)
