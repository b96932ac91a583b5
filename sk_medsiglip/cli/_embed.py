"""``sk-medsiglip embed``: images to a file of embeddings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from sk_medsiglip._optional import import_optional
from sk_medsiglip.cli._console import bar, complain, model_notice, say, show_code
from sk_medsiglip.cli._errors import CommandError
from sk_medsiglip.cli._options import (
    BatchSizeOption,
    CacheOption,
    DeviceOption,
    Dtype,
    DtypeOption,
    Engine,
    EngineOption,
    JobsOption,
    ModelOption,
    NoCacheOption,
    OnError,
    OnErrorOption,
    PadOption,
    PathColumnOption,
    Resize,
    ResizeOption,
    RevisionOption,
)
from sk_medsiglip.cli._written_files import check_out
from sk_medsiglip.exceptions import SkMedSiglipError

__all__ = ["embed"]


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
            help="File to write; .npz or .parquet decides the format. With --ray a "
            "folder, or a URL such as s3://bucket/folder."
        ),
    ],
    path_column: PathColumnOption = None,
    model: ModelOption = "google/medsiglip-448",
    revision: RevisionOption = None,
    resize: ResizeOption = Resize.medsiglip,
    pad: PadOption = False,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Scale every row to length 1.")
    ] = False,
    on_error: OnErrorOption = OnError.raise_,
    device: DeviceOption = "auto",
    dtype: DtypeOption = Dtype.auto,
    engine: EngineOption = Engine.auto,
    batch_size: BatchSizeOption = None,
    n_jobs: JobsOption = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it exists.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help='Embed on a Ray cluster: its address; "auto", the one of this '
            'machine; or "local", one that is started here. OUT becomes Parquet '
            "shards. A job that was stopped goes on with the same command.",
        ),
    ] = None,
    encoders: Annotated[
        int | None,
        typer.Option(
            "--encoders",
            min=1,
            help="With --ray: models at work. Default: one a GPU, or a share of the "
            "CPUs.",
        ),
    ] = None,
) -> None:
    """Embed a folder or a CSV file of images into a .npz or .parquet file.

    A .npz file holds the arrays "embeddings" (one row an image), "paths", "model" and
    "revision". A .parquet file holds the columns of the CSV file and the column
    "embedding", a list of float32.

    An image that was embedded before is read from the cache.

    With --ray, OUT holds shards/ (a row an image: its source, the other columns, the
    vector) and failures.parquet. An unreadable image is a row in the latter. Images
    that OUT holds already are skipped.
    """
    if ray is not None:
        _refuse_beside_ray(
            {
                "--normalize": normalize,
                "--cache": cache,
                "--no-cache": no_cache,
                "--overwrite": overwrite,
            }
        )
        _embed_on_ray(
            source,
            out,
            ray,
            encoders=encoders,
            path_column=path_column,
            model=model,
            revision=revision,
            resize=resize.value,
            pad=pad,
            device=device,
            dtype=dtype.value,
            engine=engine.value,
            batch_size=batch_size or "auto",
            n_jobs=n_jobs,
        )
        return
    if encoders is not None:
        raise CommandError("--encoders goes with --ray.")
    _embed_here(
        Path(source),
        Path(out),
        path_column=path_column,
        model=model,
        revision=revision,
        resize=resize,
        pad=pad,
        normalize=normalize,
        on_error=on_error,
        device=device,
        dtype=dtype,
        engine=engine,
        batch_size=batch_size,
        n_jobs=n_jobs,
        cache=cache,
        no_cache=no_cache,
        overwrite=overwrite,
    )


def _embed_here(
    source: Path,
    out: Path,
    *,
    path_column: str | None,
    model: str,
    revision: str | None,
    resize: Resize,
    pad: bool,
    normalize: bool,
    on_error: OnError,
    device: str,
    dtype: Dtype,
    engine: Engine,
    batch_size: int | None,
    n_jobs: int | None,
    cache: Path | None,
    no_cache: bool,
    overwrite: bool,
) -> None:
    """Embed on this machine, into one file."""
    _check_out(out, overwrite)
    # Late, so that --help is quick.
    from sk_medsiglip.cli._collection import read_collection
    from sk_medsiglip.cli._embedding import check_device, choose_cache, embed_images
    from sk_medsiglip.embedding import MedSigLIPEmbedder

    collection = read_collection(source, path_column)
    if out.suffix == ".parquet" and "embedding" in collection.frame:
        raise CommandError(
            f"{source} has a column 'embedding' already. Rename it, or write a .npz "
            "file."
        )
    check_device(device)
    embedder = MedSigLIPEmbedder(
        model,
        revision=revision,
        resize=resize.value,
        pad=pad,
        normalize=normalize,
        on_error=on_error.value,
        device=device,
        dtype=dtype.value,
        engine=engine.value,
        batch_size=batch_size or "auto",
        n_jobs=n_jobs,
        cache=choose_cache(cache, without=no_cache),
        verbose=bar(),
    ).fit(collection.paths)
    embedded = embed_images(collection.paths, embedder)
    say(
        f"{len(collection):,} images in {embedded.seconds:.1f} s: "
        f"{embedded.passes:,} model passes, {embedded.from_cache:,} rows from the "
        "cache."
    )
    facts = {"model": model, "revision": embedder.revision_}
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        if out.suffix == ".npz":
            with temporary.open("wb") as file:
                np.savez(
                    file,
                    embeddings=embedded.X,
                    paths=np.array(collection.names),
                    **facts,
                )
        else:
            _write_parquet(temporary, collection.frame, embedded.X, facts)
        # In one step: a reader finds the old file or the whole new one.
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    say(
        f"Wrote {out}: {embedded.X.shape[0]:,} rows of {embedded.X.shape[1]:,} float32."
    )
    if out.suffix == ".npz":
        show_code(f'X = np.load("{out.name}")["embeddings"]')
    else:
        show_code(f'X = np.stack(pd.read_parquet("{out.name}")["embedding"])')
    say(model_notice(model), "yellow")


def _embed_on_ray(
    source: str, out: str, address: str, *, encoders: int | None, **settings: Any
) -> None:
    """Embed on a cluster, into shards."""
    if Path(out).suffix in (".npz", ".parquet") and "://" not in out:
        raise CommandError(
            f"With --ray, OUT is a folder or a URL, and {out} names a file. Give a "
            "folder: what it holds is many files."
        )
    from sk_medsiglip.distributed import embed_dataset

    try:
        report = embed_dataset(
            source,
            out,
            concurrency=encoders or "auto",
            ray_address=address,
            verbose=bar(),
            **settings,
        )
    except Exception as error:
        by_ray = type(error).__module__.partition(".")[0] == "ray"
        if isinstance(error, SkMedSiglipError) or not (
            by_ray or isinstance(error, ValueError | OSError)
        ):
            raise
        raise CommandError(_say_of(error)) from error
    say(f"{report}.")
    if not report.n_embedded and not report.n_failed:
        say("Nothing to do: all of them are embedded as they are now.")
    if report.n_failed:
        complain(
            f"Warning: {report.n_failed:,} images cannot be read. "
            f"{out}/failures.parquet says why. They are tried again when the same "
            "command is run.",
            "yellow",
        )
    show_code(
        "from sk_medsiglip.distributed import import_embeddings, load_embeddings",
        f'bunch = load_embeddings("{out}")  # bunch.X, bunch.frame',
        f'import_embeddings("{out}")  # into the cache, for pipelines on images',
    )
    say(model_notice(settings["model"]), "yellow")


def _say_of(error: Exception) -> str:
    """Return an error of a job in the words of the command, with what is left of it."""
    said = str(error).replace("path_column", "--path-column")
    kept = [n for n in getattr(error, "__notes__", ()) if n.startswith("What is emb")]
    return " ".join([said, *kept])


def _refuse_beside_ray(given: dict[str, Any]) -> None:
    for option, value in given.items():
        if value:
            raise CommandError(
                f"{option} does not go with --ray: shards hold vectors as the model "
                "gives them, are added to, and are read on with import_embeddings."
            )


def _check_out(out: Path, overwrite: bool) -> None:
    """Raise before hours of work, not after."""
    if out.suffix not in (".npz", ".parquet"):
        raise CommandError(
            f"{out} ends in {out.suffix or 'no suffix'!r}; name it .npz or .parquet."
        )
    check_out(out, overwrite)
    if out.suffix == ".parquet":
        import_optional("pyarrow", extra="parquet", purpose="Writing Parquet")


def _write_parquet(
    file: Path, frame: Any, X: NDArray[np.float32], facts: dict[str, str]
) -> None:
    pa = import_optional("pyarrow", extra="parquet", purpose="Writing Parquet")
    parquet = import_optional(
        "pyarrow.parquet", extra="parquet", purpose="Writing Parquet"
    )
    table = pa.Table.from_pandas(frame, preserve_index=False)
    values = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), X.shape[1])
    table = table.append_column("embedding", values)
    about = {b"sk_medsiglip": json.dumps(facts).encode()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **about})
    parquet.write_table(table, file)
