"""``sk-medsiglip index``: build and search an index of images."""

from __future__ import annotations

import functools
import operator
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sk_medsiglip.cli import _options as options
from sk_medsiglip.cli._console import (
    CommandError,
    model_notice,
    preview,
    say,
    show_code,
)
from sk_medsiglip.cli._files import check_out, write_csv
from sk_medsiglip.exceptions import UnreadableImageWarning

index_app = typer.Typer(
    help="Make images searchable by words and by example.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@index_app.command()
@options.with_options
def build(
    source: options.SourceArgument,
    out: Annotated[Path, typer.Argument(help="Folder for the index.")],
    path_column: options.PathColumnOption = None,
    id_column: Annotated[
        str | None,
        typer.Option(help="Column of names of the images. Default: row numbers."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            "--columns",
            help="Column to store with each image, for --where. Repeatable. Default: "
            "all of them. '' stores none.",
        ),
    ] = None,
    backend: Annotated[
        Literal["exact", "lancedb"],
        typer.Option(
            help="exact: compare every image, in memory. lancedb (an extra): search on "
            "disk, for hundreds of thousands of images."
        ),
    ] = "exact",
    overwrite: options.OverwriteOption = False,
    *,
    model: options.ModelOptions,
    run: options.LenientRunOptions,
) -> None:
    """Build an index of images.

    The index holds vectors, paths and columns of the CSV file, but no images. Images
    that were embedded before are read from the cache. Unreadable images are left out
    and listed.

    Example: sk-medsiglip index build labels.csv chest_index --model demo
    """
    # Imported late, so that --help is fast.
    from sk_medsiglip.cli._collection import absolute, check_columns, read_collection
    from sk_medsiglip.retrieval import ImageRetriever

    collection = read_collection(source, path_column)
    check_out(out, overwrite)
    others = [name for name in collection.frame if name != collection.path_column]
    kept = [name for name in others if name != id_column]
    if column is not None:
        kept = [name for name in column if name]
    check_columns(collection.frame, kept, "--column")
    taken = [name for name in kept if name in ("id", "source", "rank", "score")]
    if taken:
        raise CommandError(
            f"--column: {taken[0]!r} is a column of every search result. Rename it, or "
            "name the columns to store with --column."
        )
    ids = None if id_column is None else collection.column(id_column, "--id-column")
    embedder = model.embedder(run)
    retriever = ImageRetriever(
        model=embedder.model,
        revision=model.revision,
        embedder=embedder,
        index=backend,
        uri=absolute(str(out)) if backend == "lancedb" else None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreadableImageWarning)  # printed below
        try:
            retriever.fit(
                collection.paths,
                ids=ids,
                metadata=collection.frame[kept] if kept else None,
                sources=[absolute(path) for path in collection.paths],
            )
        except ValueError as error:
            raise CommandError(str(error)) from None
    if backend == "exact":
        retriever.save(out)
    say(f"Wrote {out}: {retriever.n_samples_fit_:,} of {len(collection):,} images.")
    for row in retriever.rejected_.head(5).itertuples():
        say(f"left out: {row.source}: {row.reason}", "yellow", indent=2)
    show_code(f'sk-medsiglip index search {out} "large pleural effusion"')
    say(model_notice(model.model), "yellow")


@index_app.command()
def search(
    index: Annotated[Path, typer.Argument(help="Folder that index build wrote.")],
    query: Annotated[
        list[str] | None,
        typer.Argument(help="Texts to search for; several are averaged."),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="Image to find similar images for. Repeatable."),
    ] = None,
    minus: Annotated[
        list[str] | None, typer.Option(help="Text to avoid. Repeatable.")
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Number of images.")] = 10,
    where: Annotated[
        str | None,
        typer.Option(
            help="Condition on the columns, as in SQL: \"modality = 'CT' and age > "
            '60".'
        ),
    ] = None,
    deduplicate: Annotated[
        float | None,
        typer.Option(
            help="Cosine above which only one of two images is shown, such as 0.98."
        ),
    ] = None,
    diversity: Annotated[
        float,
        typer.Option(min=0, max=1, help="Above 0, prefer images that differ."),
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="CSV file to write.")
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="Figure of the images that were found: .png, .pdf or .jpg. It holds "
            "images of patients."
        ),
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column to print on the sheet.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder with the same weights on this machine.")
    ] = None,
    cache: options.CacheOption = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Find images by words, by example, or by both.

    Scores are cosines, which rank images and are not probabilities.

    Example: sk-medsiglip index search chest_index "pleural effusion" --minus
    "pacemaker" --where "age > 60" --sheet found.png
    """
    check_out(out, overwrite)
    check_out(sheet, overwrite, (".png", ".pdf", ".jpg"))
    if not query and not image:
        raise CommandError(
            'Pass words, such as "large pleural effusion", or --image FILE.'
        )
    # Imported late, so that --help is fast.
    from sk_medsiglip.cli._embedding import choose_cache
    from sk_medsiglip.retrieval import ImageRetriever, RetrievalDisplay

    if not index.exists():
        raise CommandError(
            f"There is no index {index}. Build one with: sk-medsiglip index build"
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
        say("No image was found.", "yellow")
    else:
        preview(hits, in_file=out is not None)
    if out is not None:
        write_csv(hits, out, float_format="%.6g")
        say(f"Wrote {out}: {len(hits):,} rows.")
    if sheet is not None:
        words = " ".join(query or []) or None
        display = RetrievalDisplay.from_hits(hits, query=words, label=label_column)
        display.figure_.savefig(sheet, dpi=150)
        say(f"Wrote {sheet}. It holds images of patients.", "yellow")
    say(model_notice(str(retriever.model)), "yellow")


def _joined(texts: list[str], images: list[Path], minus: list[str]) -> Any:
    """Return texts, images and texts to avoid as one query."""
    from sk_medsiglip.retrieval import Query

    for path in images:
        if not path.is_file():
            raise CommandError(f"--image: there is no file {path}.")
    parts = [Query(texts)] if texts else []
    parts += [Query(image=path) for path in images]
    wanted = functools.reduce(operator.add, parts)
    return functools.reduce(operator.sub, minus, wanted)
