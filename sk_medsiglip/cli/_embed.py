"""``sk-medsiglip embed``: write the embeddings of images to a file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from sk_medsiglip._files import new_file
from sk_medsiglip._optional import import_optional
from sk_medsiglip.cli import _options as options
from sk_medsiglip.cli._console import (
    CommandError,
    bar,
    complain,
    in_shell,
    model_notice,
    say,
    show_code,
)
from sk_medsiglip.cli._files import check_out
from sk_medsiglip.exceptions import SkMedSiglipError


@options.with_options
def embed(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of images, or CSV file with a column of paths; with --ray "
            "also a Parquet file, and URLs."
        ),
    ],
    out: Annotated[
        str,
        typer.Argument(
            help="File to write, .npz or .parquet. With --ray a folder, or a URL such "
            "as s3://bucket/folder."
        ),
    ],
    path_column: options.PathColumnOption = None,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Scale every row to unit length.")
    ] = False,
    overwrite: options.OverwriteOption = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help='Embed on a Ray cluster: its address; "auto" for the one of this '
            'machine; or "local" to start one here. OUT becomes Parquet shards. The '
            "same command continues a job that was stopped.",
        ),
    ] = None,
    encoders: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of models with --ray. Default: one per GPU, or for a share of "
            "the CPUs.",
        ),
    ] = None,
    *,
    model: options.ModelOptions,
    run: options.RunOptions,
) -> None:
    """Embed images into a .npz or .parquet file.

    A .npz file holds the arrays "embeddings" (one row per image), "paths", "model" and
    "revision". A .parquet file holds the columns of the CSV file and a column
    "embedding" with lists of float32.

    Images that were embedded before are read from the cache.

    With --ray, OUT holds shards/, with one row per image (its source, the other columns
    and the vector), and failures.parquet, with a row for each unreadable image. Images
    that are already in OUT are skipped.
    """
    if ray is not None:
        _refuse_beside_ray(
            normalize=normalize,
            cache=run.cache,
            no_cache=run.no_cache,
            overwrite=overwrite,
        )
        _embed_on_ray(source, out, ray, encoders, path_column, model, run)
        return
    if encoders is not None:
        raise CommandError("--encoders needs --ray.")
    # Imported late, so that --help is fast.
    from sk_medsiglip.cli._collection import read_collection
    from sk_medsiglip.cli._embedding import embed_images

    file = Path(out)
    collection = read_collection(Path(source), path_column)
    check_out(file, overwrite, (".npz", ".parquet"))
    if file.suffix == ".parquet":
        import_optional("pyarrow", extra="parquet", purpose="Writing Parquet")
        if "embedding" in collection.frame:
            raise CommandError(
                f"{source} already has a column 'embedding'. Rename it, or write a "
                ".npz file."
            )
    embedder = model.embedder(run, normalize=normalize).fit(collection.paths)
    embedded = embed_images(collection.paths, embedder)
    say(embedded.summary())
    facts = {"model": model.model, "revision": embedder.revision_}
    with new_file(file) as draft:
        if file.suffix == ".npz":
            names = np.array(collection.names)
            with draft.open("wb") as opened:
                np.savez(opened, embeddings=embedded.X, paths=names, **facts)
        else:
            _write_parquet(draft, collection.frame, embedded.X, facts)
    n_rows, width = embedded.X.shape
    say(f"Wrote {out}: {n_rows:,} rows of {width:,} float32.")
    if file.suffix == ".npz":
        show_code(f'X = np.load("{file.name}")["embeddings"]')
    else:
        show_code(f'X = np.stack(pd.read_parquet("{file.name}")["embedding"])')
    say(model_notice(model.model), "yellow")


def _embed_on_ray(
    source: str,
    out: str,
    address: str,
    encoders: int | None,
    path_column: str | None,
    model: options.ModelOptions,
    run: options.RunOptions,
) -> None:
    """Embed images on a cluster into shards."""
    if Path(out).suffix in (".npz", ".parquet") and "://" not in out:
        raise CommandError(
            f"With --ray, OUT is a folder or a URL, and {out} names a file. Pass a "
            "folder, which will hold many files."
        )
    from sk_medsiglip.distributed import embed_dataset

    try:
        report = embed_dataset(
            source,
            out,
            concurrency=encoders or "auto",
            ray_address=address,
            path_column=path_column,
            **asdict(model),
            device=run.device,
            batch_size=run.batch_size or "auto",
            n_jobs=run.n_jobs,
            verbose=bar(),
        )
    except Exception as error:
        by_ray = type(error).__module__.partition(".")[0] == "ray"
        if isinstance(error, SkMedSiglipError) or not (
            by_ray or isinstance(error, ValueError | OSError)
        ):
            raise
        # Notes of one line say what to do; longer ones are tracebacks of workers.
        notes = getattr(error, "__notes__", ())
        short = [note for note in notes if "\n" not in note]
        raise CommandError(" ".join([in_shell(str(error)), *short])) from error
    say(f"{report}.")
    if not report.n_embedded and not report.n_failed:
        say("Nothing to do: all images are embedded already.")
    if report.n_failed:
        complain(
            f"Warning: {report.n_failed:,} images cannot be read. "
            f"{out}/failures.parquet gives the reasons. Running the same command tries "
            "them again.",
            "yellow",
        )
    show_code(
        "from sk_medsiglip.distributed import import_embeddings, load_embeddings",
        f'bunch = load_embeddings("{out}")  # bunch.X, bunch.frame',
        f'import_embeddings("{out}")  # into the cache, for pipelines on images',
    )
    say(model_notice(model.model), "yellow")


def _refuse_beside_ray(**given: Any) -> None:
    for name, value in given.items():
        if value:
            raise CommandError(
                f"--{name.replace('_', '-')} cannot be used with --ray: shards hold "
                "vectors without scaling, are never replaced, and are read into the "
                "cache with import_embeddings."
            )


def _write_parquet(
    file: Path, frame: Any, X: NDArray[np.float32], facts: dict[str, str]
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pandas(frame, preserve_index=False)
    values = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), X.shape[1])
    table = table.append_column("embedding", values)
    about = {b"sk_medsiglip": json.dumps(facts).encode()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **about})
    parquet.write_table(table, file)
