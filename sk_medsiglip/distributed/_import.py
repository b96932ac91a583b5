"""From shards to work without the cluster: rows of a cache, or an array and a table."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from sk_medsiglip._progress import progress_bar
from sk_medsiglip.cache import EmbeddingCache, ImportReport, Space
from sk_medsiglip.distributed._manifest import Manifest, State
from sk_medsiglip.distributed._shards import (
    OWN_COLUMNS,
    SHARDS,
    own_name,
    read_table,
    recipe_of,
)
from sk_medsiglip.distributed._storage import Storage
from sk_medsiglip.exceptions import DatasetError


def import_embeddings(
    out: str | os.PathLike[str],
    cache: str | os.PathLike[str] | EmbeddingCache | None = None,
    *,
    verbose: int | bool = 0,
) -> ImportReport:
    """Put the rows of an output into a cache, for pipelines that start from images.

    A pipeline with ``MedSigLIPEmbedder`` then finds every one of these images in its
    cache, on a machine that has neither the weights nor a GPU. The images are read
    there once, to find their rows.

    Parameters
    ----------
    out : str or path-like
        Output of :func:`embed_dataset`: a folder, or a URL such as
        ``s3://bucket/folder``.
    cache : str, path-like, EmbeddingCache or None, default=None
        Cache to fill. By default, the cache of this user.
    verbose : int, default=0
        If positive, show a progress bar.

    Returns
    -------
    ImportReport
        Numbers of rows, of rows that are new, and of models whose facts came with them.

    Raises
    ------
    DatasetError
        If there are no embeddings.
    CacheError
        If a shard is damaged, or the cache cannot be written.

    Notes
    -----
    Shards are imported one at a time, by :meth:`EmbeddingCache.import_parquet`; the
    call may be repeated. Rows are not checked against images: import only from sources
    that you trust with your results.

    Examples
    --------
    >>> from sk_medsiglip.distributed import import_embeddings
    >>> import_embeddings("s3://hospital/embeddings", "cache")  # doctest: +SKIP
    ImportReport(rows=120000, new=120000, models=2)
    """
    storage = Storage(os.fspath(out))
    state = _find_shards(storage)
    store = cache if isinstance(cache, EmbeddingCache) else EmbeddingCache(cache)
    n_rows = n_new = n_models = 0
    with progress_bar(
        state.n_rows, desc="import", unit="row", verbose=int(verbose)
    ) as bar:
        for name in state.shards:
            with _as_file(storage, f"{SHARDS}/{name}") as path:
                report = store.import_parquet(path)
            n_rows += report.rows
            n_new += report.new
            # Every shard brings the same ones.
            n_models = max(n_models, report.models)
            bar.update(report.rows)
    return ImportReport(n_rows, n_new, n_models)


def load_embeddings(out: str | os.PathLike[str]) -> Bunch:
    """Load all embeddings of an output, for heads that start from an array.

    Parameters
    ----------
    out : str or path-like
        Output of :func:`embed_dataset`.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        X : ndarray of shape (n_images, embedding_dim), float32
            Vectors as the model gives them, not scaled to unit length.
        frame : DataFrame
            One row for each image, as in the table of the last call of
            :func:`embed_dataset`: ``source``, unless the table has a column of that
            name, and the table's other columns.
        sources : list of str
            Path, URL or name of each image.
        recipe : dict
            Model, revision, and the settings by which sources became pixels.

    Raises
    ------
    DatasetError
        If there are no embeddings.

    Notes
    -----
    Images that an earlier call embedded, and that are no longer in the table, are left
    out; their vectors stay in ``shards/`` for a later call.

    A million images of MedSigLIP take 4.6 GB of memory. For more, read ``shards/``
    piece by piece: these are Parquet files, described in the module ``_shards``, with
    the columns of the table when an image was embedded.
    """
    storage = Storage(os.fspath(out))
    state = _find_shards(storage)
    import pyarrow as pa

    tables, parts = [], []
    for name in state.shards:
        table = storage.read_table(f"{SHARDS}/{name}")
        width = Space.from_line(table["space"][0].as_py()).width
        flat = b"".join(table["vector"].to_pylist())
        parts.append(np.frombuffer(flat, "<f4").reshape(-1, width))
        mine = [n for n in table.column_names if n not in OWN_COLUMNS]
        tables.append(table.select(["key", "source", *mine]))
    recipe = recipe_of(tables[0].schema)
    X = np.concatenate(parts)
    if state.table:
        embedded = [key for table in tables for key in table["key"].to_pylist()]
        whole = read_table(storage, state.table)
        rows, places = _join(whole["key"].to_pylist(), embedded)
        whole, X = whole.take(rows), X[places]
    else:
        whole = pa.concat_tables(tables, promote_options="permissive")
    own = {
        own_name(name): whole[name]
        for name in whole.column_names
        if name not in ("key", "source")
    }
    frame = pa.table({"source": whole["source"]} | own).to_pandas()
    sources = whole["source"].to_pylist()
    return Bunch(X=X, frame=frame, sources=sources, recipe=recipe)


def _join(
    told: list[bytes], embedded: list[bytes]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows of a table that have a vector, each source once, and its place."""
    place_of = {key: place for place, key in enumerate(embedded)}
    row_of: dict[bytes, int] = {}
    for row, key in enumerate(told):
        if key in place_of:
            row_of.setdefault(key, row)
    return (
        np.array(list(row_of.values()), np.intp),
        np.array([place_of[key] for key in row_of], np.intp),
    )


def _find_shards(storage: Storage) -> State:
    state = Manifest(storage, None).load()
    if not state.shards:
        raise DatasetError(
            f"{storage.url} holds no embeddings. Make some with "
            "sk_medsiglip.distributed.embed_dataset(source, out), and give its out."
        )
    return state


@contextmanager
def _as_file(storage: Storage, name: str) -> Iterator[Path]:
    """Give a file of the output as a file on this machine."""
    if "://" not in storage.url:
        yield Path(storage.url, name)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "shard.parquet")
        copy.write_bytes(storage.get(name))
        yield copy
