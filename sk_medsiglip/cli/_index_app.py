"""``sk-medsiglip index``: a searchable index of images, built and asked."""

from __future__ import annotations

import os
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sk_medsiglip.cli._console import (
    bar,
    console,
    model_notice,
    preview,
    say,
    show_code,
)
from sk_medsiglip.cli._errors import CommandError
from sk_medsiglip.cli._options import (
    BatchSizeOption,
    CacheOption,
    DeviceOption,
    JobsOption,
    ModelOption,
    OnError,
    OnErrorOption,
    PadOption,
    PathColumnOption,
    Resize,
    ResizeOption,
    RevisionOption,
)
from sk_medsiglip.cli._written_files import check_out, write_csv
from sk_medsiglip.exceptions import UnreadableImageWarning

__all__ = ["index_app"]

index_app = typer.Typer(
    help="Make images searchable by words and by example.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Backend(StrEnum):
    """Values of ``--backend``."""

    exact = "exact"
    lancedb = "lancedb"


@index_app.command()
def build(
    source: Annotated[
        Path,
        typer.Argument(help="Folder of images, or CSV file with a column of paths."),
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write the index into.")],
    path_column: PathColumnOption = None,
    id_column: Annotated[
        str | None,
        typer.Option("--id-column", help="Names of the images. Default: row numbers."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            "--columns",
            help="Column to keep beside each image and to search by; repeat it. "
            "Default: all of them. '' keeps none.",
        ),
    ] = None,
    backend: Annotated[
        Backend,
        typer.Option(
            "--backend",
            help="exact: every image is compared, from memory. lancedb (an extra): on "
            "disk, for hundreds of thousands.",
        ),
    ] = Backend.exact,
    model: ModelOption = "google/medsiglip-448",
    revision: RevisionOption = None,
    resize: ResizeOption = Resize.medsiglip,
    pad: PadOption = False,
    on_error: OnErrorOption = OnError.nan,
    device: DeviceOption = "auto",
    batch_size: BatchSizeOption = None,
    n_jobs: JobsOption = None,
    cache: CacheOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an index that is there.")
    ] = False,
) -> None:
    """Build an index of a folder or a CSV file of images.

    It holds vectors, paths and the columns of the CSV file; pictures stay where they
    are. An image that was embedded before is read from the cache, one that cannot be
    read is left out and named.

    Example: sk-medsiglip index build labels.csv chest_index --model demo
    """
    check_out(out, overwrite)
    # Late, so that --help is quick.
    from sk_medsiglip.cli._collection import check_columns, read_collection
    from sk_medsiglip.cli._embedding import check_device, choose_cache, local_model
    from sk_medsiglip.embedding import MedSigLIPEmbedder
    from sk_medsiglip.retrieval import ImageRetriever

    collection = read_collection(source, path_column)
    others = [name for name in collection.frame if name != collection.path_column]
    kept = [name for name in others if name != id_column]
    if column is not None:
        kept = [name for name in column if name]
    check_columns(collection.frame, kept, "--column")
    taken = [name for name in kept if name in ("id", "source", "rank", "score")]
    if taken:
        raise CommandError(
            f"--column: {taken[0]!r} is the name of a column of every result. Rename "
            "it, or name the columns to keep by --column."
        )
    ids = None
    if id_column is not None:
        ids = collection.column(id_column, "--id-column")
    check_device(device)
    model = local_model(model)
    embedder = MedSigLIPEmbedder(
        model,
        revision=revision,
        resize=resize.value,
        pad=pad,
        on_error=on_error.value,
        device=device,
        batch_size=batch_size or "auto",
        n_jobs=n_jobs,
        cache=choose_cache(cache),
        verbose=bar(),
    )
    retriever = ImageRetriever(
        model=model,
        revision=revision,
        embedder=embedder,
        index=backend.value,
        uri=os.path.abspath(out) if backend is Backend.lancedb else None,
    )
    metadata = collection.frame[kept]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreadableImageWarning)  # said below
        try:
            retriever.fit(
                collection.paths,
                ids=ids,
                metadata=metadata if kept else None,
                sources=[_absolute(path) for path in collection.paths],
            )
        except ValueError as error:
            raise CommandError(str(error)) from None
    if backend is Backend.exact:
        retriever.save(out)
    say(f"Wrote {out}: {retriever.n_samples_fit_:,} of {len(collection):,} images.")
    for row in retriever.rejected_.head(5).itertuples():
        say(f"left out: {row.source}: {row.reason}", "yellow", indent=2)
    show_code(f'sk-medsiglip index search {out} "large pleural effusion"')
    say(model_notice(model), "yellow")


@index_app.command()
def search(
    index: Annotated[Path, typer.Argument(help="Folder that index build wrote.")],
    query: Annotated[
        list[str] | None,
        typer.Argument(help="What to see. Several say the same in other words."),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", help="Image to find others like; repeat it."),
    ] = None,
    minus: Annotated[
        list[str] | None,
        typer.Option("--minus", help="What to turn away from; repeat it."),
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many.")] = 10,
    where: Annotated[
        str | None,
        typer.Option(
            "--where", help="Which images, as in SQL: \"modality = 'CT' and age > 60\"."
        ),
    ] = None,
    deduplicate: Annotated[
        float | None,
        typer.Option("--deduplicate", help="Show one of images this alike: 0.98."),
    ] = None,
    diversity: Annotated[
        float,
        typer.Option("--diversity", min=0, max=1, help="Above 0: unlike each other."),
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="CSV file to write.")
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet",
            help="Picture to write, .png, .pdf or .jpg, with what was found. It then "
            "holds patients' images.",
        ),
    ] = None,
    label_column: Annotated[
        str | None, typer.Option("--label-column", help="To print on the sheet.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Folder of the same weights on this machine."),
    ] = None,
    cache: CacheOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that exist.")
    ] = False,
) -> None:
    """Find images by words, by example, or by both.

    Scores are cosines: they rank, and are no probabilities.

    Example: sk-medsiglip index search chest_index "pleural effusion" --minus
    "pacemaker" --where "age > 60" --sheet found.png
    """
    for file in (out, sheet):
        check_out(file, overwrite)
    if sheet is not None and sheet.suffix.lower() not in (".png", ".pdf", ".jpg"):
        raise CommandError(f"--sheet: {sheet} must end in .png, .pdf or .jpg.")
    if not query and not image:
        raise CommandError(
            'Say what to look for: words, "large pleural effusion", or --image FILE.'
        )
    # Late, so that --help is quick.
    from sk_medsiglip.cli._embedding import choose_cache
    from sk_medsiglip.retrieval import ImageRetriever, RetrievalDisplay

    if not index.exists():
        raise CommandError(
            f"There is no index {index}. Make one with: sk-medsiglip index build"
        )
    params: dict[str, Any] = {"cache": choose_cache(cache)}
    if model is not None:
        params["model"] = model
    retriever = ImageRetriever.load(index, **params)
    asked = _joined(query or [], image or [], minus or [])
    if label_column is not None and label_column not in retriever.to_frame():
        raise CommandError(f"--label-column: there is no column {label_column!r}.")
    try:
        hits = retriever.search(
            asked, n, where=where, deduplicate=deduplicate, diversity=diversity
        )
    except ValueError as error:
        raise CommandError(str(error)) from None
    if not len(hits):
        say("Nothing is like that, or --where leaves nothing.", "yellow")
    else:
        console.print(preview(hits, in_file=out is not None))
    if out is not None:
        write_csv(hits, out, float_format="%.6g")
        say(f"Wrote {out}: {len(hits):,} rows.")
    if sheet is not None:
        display = RetrievalDisplay.from_hits(
            hits, query=" ".join(query or []) or None, label=label_column,
            ax=_sheet_axes(len(hits)),
        )  # fmt: skip
        display.figure_.savefig(sheet, dpi=150)
        say(f"Wrote {sheet}. It holds images of patients.", "yellow")
    say(model_notice(str(retriever.model)), "yellow")


def _joined(texts: list[str], images: list[Path], minus: list[str]) -> Any:
    """Return texts (averaged), images and what to turn away from, as one query."""
    from sk_medsiglip.retrieval import Query

    for path in images:
        if not path.is_file():
            raise CommandError(f"--image: there is no file {path}.")
    parts = [Query(texts)] if texts else []
    parts += [Query(image=path) for path in images]
    asked = parts[0]
    for part in parts[1:]:
        asked = asked + part
    for text in minus:
        asked = asked - text
    return asked


def _sheet_axes(n_hits: int) -> Any:
    """Return axes to draw on that no window is opened for."""
    from sk_medsiglip._optional import import_optional

    figure = import_optional("matplotlib.figure", extra="plot", purpose="--sheet")
    n_columns = max(1, min(5, n_hits))
    size = (max(4.2, 2.0 * n_columns), 0.4 + 2.5 * max(1, -(-n_hits // n_columns)))
    return figure.Figure(figsize=size, layout="constrained").subplots()


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)
