"""``embed_dataset``: a collection through a model on a cluster, into shards."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sk_medsiglip.distributed._cluster import connected
from sk_medsiglip.distributed._job import Job
from sk_medsiglip.distributed._reading import Settings
from sk_medsiglip.distributed._source import find_collection
from sk_medsiglip.distributed._storage import Storage
from sk_medsiglip.distributed._tidying import FAILURES, tidy
from sk_medsiglip.embedding import (
    MedSigLIPEmbedder,
    ModelFacts,
    find_facts,
    image_space,
)
from sk_medsiglip.images import MAX_PIXELS, CTWindows, Percentiles, Window, recipe_key


@dataclass(frozen=True)
class EmbeddingReport:
    """Summary of a call of :func:`embed_dataset`.

    Parameters
    ----------
    out : str
        Folder or URL of the output.
    n_embedded : int
        Images that went through the model and were written.
    n_skipped : int
        Images that were there already, or are in the table twice.
    n_failed : int
        Images that could not be read; ``failures.parquet`` says why.
    n_rows : int
        Rows in the output after this job and earlier ones.
    n_shards : int
        Number of files that hold these rows.
    seconds : float
        Seconds from the call to the end.
    seconds_to_first : float
        Seconds until the first block was written, in which workers start and load the
        model. NaN if no block was written.
    images_per_second : float
        Speed from the first block to the last one. NaN if there were fewer than two.
    n_restarts : int
        Number of times that the job started again because Ray's own retries did not
        suffice.
    """

    out: str
    n_embedded: int
    n_skipped: int
    n_failed: int
    n_rows: int
    n_shards: int
    seconds: float
    seconds_to_first: float
    images_per_second: float
    n_restarts: int

    def __str__(self) -> str:
        failed = f" ({FAILURES} says why)" if self.n_failed else ""
        return (
            f"{self.n_embedded:,} embedded, {self.n_skipped:,} skipped, "
            f"{self.n_failed:,} failed{failed} in {self.seconds:,.1f} s; {self.out} "
            f"holds {self.n_rows:,} rows in {self.n_shards:,} shards"
        )


def embed_dataset(
    source: Any,
    out: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] = "google/medsiglip-448",
    revision: str | None = None,
    path_column: str | None = None,
    columns: Sequence[str] | None = None,
    resize: str = "medsiglip",
    pad: bool = False,
    intensity: str | Window | CTWindows | Percentiles = "auto",
    frame: int | str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    engine: str = "auto",
    batch_size: int | str = "auto",
    concurrency: int | tuple[int, int] | str = "auto",
    n_jobs: int | None = None,
    max_pixels: int = MAX_PIXELS,
    rows_per_shard: int = 16_384,
    ray_address: str | None = None,
    verbose: int | bool = 0,
) -> EmbeddingReport:
    """Embed a collection on a Ray cluster, or on this machine's cores, into shards.

    Ray Data streams the images: tasks read them on every CPU, and a pool of encoders,
    one for each GPU or for a share of the CPUs, computes vectors and writes Parquet
    files.
    Sources, recipes, weights and fingerprints are those of :class:`MedSigLIPEmbedder`,
    and so are the vectors.

    To resume a job that was stopped, run it again: images whose source is embedded in
    its present state are skipped. Do the same for a collection that grew, or whose
    table was corrected: vectors are reused, and the table of this call alone gives the
    rows and the values of their columns (:func:`load_embeddings`).

    Parameters
    ----------
    source : str, path-like, DataFrame, pyarrow.Table or sequence of str
        A CSV, TSV or Parquet file with a column of paths or URLs; a Parquet file, or a
        folder of them, with a column of encoded images (bytes, or Hugging Face's
        ``{"bytes", "path"}``); a folder of images; or a table or list of paths in
        memory. Files must be visible to all nodes under the same path. Relative paths
        start at the table's folder, in memory at the working directory.
    out : str or path-like
        A folder that all nodes see, or a URL of an object store that pyarrow or fsspec
        knows, such as ``s3://bucket/folder``; it becomes:

        - ``shards/``: Parquet files with a row for each image: its key, source and
          vector, and the other columns of the table when it was embedded
        - ``tables/``: the rows and columns of ``source`` in this call
        - ``failures.parquet``: images that could not be read, and the reasons
        - ``_manifest/``: the list of shards that count
    model : str or path-like, default="google/medsiglip-448"
        Model, as for :class:`MedSigLIPEmbedder`. Every node that encodes needs it: a
        hub repository in reach, or a folder that it sees.
    revision : str or None, default=None
        Revision of a hub repository. It is resolved once, on this machine.
    path_column : str or None, default=None
        Column of paths, URLs or images. By default "path", "file", "filename",
        "filepath", "image" or "image_path" in any case, else the only column of images.
    columns : sequence of str or None, default=None
        Other columns to keep with each vector. By default, all. Values of CSV files
        stay texts.
    resize, pad, intensity, frame, max_pixels
        How a source becomes pixels, as for :class:`MedSigLIPEmbedder`.
    dtype, device, engine, batch_size
        How the model is run, as for :class:`MedSigLIPEmbedder`. ``device="cpu"`` leaves
        GPUs alone.
    concurrency : int, (int, int) or "auto", default="auto"
        Number of encoders, or the smallest and largest number while the cluster grows
        and shrinks. "auto" is one for each GPU; without GPUs, one for each core if the
        model is light, and one for up to 8 cores if it is heavy. Each encoder holds the
        weights (3.5 GB for MedSigLIP in float32).
    n_jobs : int or None, default=None
        Number of reading threads in a task. By default 1, and 16 for URLs.
    rows_per_shard : int, default=16384
        Number of rows of a full shard, which has 76 MB for MedSigLIP. Rows are written
        some dozens at a time, and put together when the job ends.
    ray_address : str or None, default=None
        Address of a cluster. "auto" is the cluster of this machine; "local" starts Ray
        on this machine and stops it at the end. None is the cluster that
        ``RAY_ADDRESS`` names, else "local". If this process is connected already, that
        connection is used.
    verbose : int, default=0
        If positive, show a progress bar with the number of images a second.

    Returns
    -------
    EmbeddingReport
        Numbers of images that were embedded, skipped and failed, and the time taken.

    Raises
    ------
    DatasetError
        If the source does not exist.
    ConnectionError
        If no cluster answers.
    OSError
        If ``out`` cannot be written.
    ValueError
        If ``source`` holds no rows or lacks a column, if ``out`` holds embeddings of
        another model or recipe or is ``source``, or if ``ray_address`` is not an
        address.
    TypeError
        If ``source`` is of another type.
    ModelAccessError, CheckpointError
        If the model cannot be loaded, here or on a node.
    CacheError
        If the manifest is damaged.
    MissingDependencyError
        If Ray is not installed.
    ray.exceptions.RayError
        If workers or nodes died again and again. Rows that were embedded are kept.

    See Also
    --------
    import_embeddings : Put shards into a cache, for pipelines on images.
    load_embeddings : An array and a table of them.

    Notes
    -----
    The driver holds 16 bytes for each image, and the whole table if that is a CSV file
    or in memory; a Parquet table is read by the workers alone. If a worker, an encoder
    or a node is lost, Ray repeats its blocks elsewhere. An image that kills its readers
    is read once more in a separate process, and is a failure if it kills that too.
    Failures are tried again whenever the job is run.

    Two jobs on one output neither lose nor repeat rows, though both may compute the
    same ones; the last to end puts the output in order. See ``docs/scaling.md``.

    Examples
    --------
    Not run here, since it starts a cluster::

        from sk_medsiglip.datasets import make_chest_phantoms, write_phantoms
        from sk_medsiglip.distributed import embed_dataset, load_embeddings

        write_phantoms(make_chest_phantoms(20, random_state=0), "images")
        report = embed_dataset("images/labels.csv", "embeddings", model="demo")
        report.n_embedded, report.n_skipped, report.n_failed   # (20, 0, 0)
        bunch = load_embeddings("embeddings")
        bunch.X.shape, list(bunch.frame.columns[:2])
        # ((20, 192), ['source', 'cardiomegaly'])
    """
    start = time.perf_counter()
    _check_numbers(concurrency, n_jobs, rows_per_shard)
    embedder = MedSigLIPEmbedder(
        model,
        revision=revision,
        resize=resize,
        pad=pad,
        intensity=intensity,
        frame=frame,
        dtype=dtype,
        device=device,
        engine=engine,
        batch_size=batch_size,
        cache=False,
        max_pixels=max_pixels,
    )
    embedder._validate_params()
    facts = find_facts(model, revision)
    storage = Storage(os.fspath(out))
    _check_apart(source, storage)
    settings = Settings(embedder, facts, storage, _recipe(embedder, facts), n_jobs)
    with connected(ray_address):
        job = Job(settings, concurrency, int(verbose))
        collection = find_collection(source, path_column, columns, job.piece_size)
        job.run(collection)
        state = tidy(job.manifest, storage, rows_per_shard)
    done = job.n_embedded + job.n_failed
    return EmbeddingReport(
        out=storage.url,
        n_embedded=job.n_embedded,
        n_skipped=collection.n_rows - done,
        n_failed=job.n_failed,
        n_rows=state.n_rows,
        n_shards=len(state.shards),
        seconds=time.perf_counter() - start,
        seconds_to_first=job.pace.first - start,
        images_per_second=job.pace.images_per_second,
        n_restarts=job.n_restarts,
    )


def _check_numbers(
    concurrency: int | tuple[int, int] | str, n_jobs: int | None, rows_per_shard: int
) -> None:
    pair: Any = concurrency
    if not isinstance(concurrency, tuple):
        pair = (concurrency, concurrency)
    if concurrency != "auto" and not (
        len(pair) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) for n in pair)
        and 1 <= pair[0] <= pair[1]
    ):
        raise ValueError(
            'concurrency must be "auto", a whole number from 1, or the fewest and the '
            f"most encoders, such as (2, 8); got {concurrency!r}."
        )
    if n_jobs is not None and (not isinstance(n_jobs, int) or n_jobs == 0):
        raise ValueError(f"n_jobs must be a whole number other than 0, got {n_jobs!r}.")
    if not isinstance(rows_per_shard, int) or rows_per_shard < 1:
        raise ValueError(
            f"rows_per_shard must be a whole number from 1, got {rows_per_shard!r}."
        )


def _check_apart(source: Any, storage: Storage) -> None:
    """Raise if the output is the source."""
    if not isinstance(source, str | os.PathLike):
        return
    # As in find_collection; an absolute path or a URL.
    if Storage(os.fspath(source)).url.rstrip("/") == storage.url.rstrip("/"):
        raise ValueError(
            f"source and out are both {storage.url}. The next job would take what this "
            "one writes there for its source; give another folder as out."
        )


def _recipe(embedder: MedSigLIPEmbedder, facts: ModelFacts) -> dict[str, Any]:
    """Return the settings that all rows of an output have in common."""
    return {
        "model": image_space(embedder.model, facts, "", "").model,
        "revision": facts.revision,
        "embedding_dim": facts.embedding_dim,
        "image_size": facts.image_size,
        "resize": embedder.resize,
        "pad": bool(embedder.pad),
        "reading": recipe_key(embedder.intensity, embedder.frame),
    }
