"""``ImageRetriever``: search of images by text, by image, or by both."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from sk_medsiglip._persistence import VersionedPickle
from sk_medsiglip._validation import Integral, Interval, StrOptions, _fit_context
from sk_medsiglip._warning import warn_user
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.embedding import MedSigLIPEmbedder, MedSigLIPVolumeEmbedder
from sk_medsiglip.retrieval._exact_index import ExactIndex
from sk_medsiglip.retrieval._incoming import (
    Collection,
    Images,
    Incoming,
    at_least_one,
    embedding_rows,
    is_embeddings,
    report_rejected,
    vector_reason,
)
from sk_medsiglip.retrieval._index import About, all_rows
from sk_medsiglip.retrieval._index_folder import INDEX_FILE
from sk_medsiglip.retrieval._lance_index import ANN_KINDS, LanceIndex
from sk_medsiglip.retrieval._lance_table import StorageOptions, is_lance
from sk_medsiglip.retrieval._metadata import (
    check_ids,
    ids_as_list,
    infer_kind,
    refuse_known,
    refuse_unknown,
)
from sk_medsiglip.retrieval._models import (
    ImageEmbedder,
    check_image_embedder,
    check_width,
    embed_images,
    encode_queries,
    model_of,
    recipe_of,
    to_length_one,
)
from sk_medsiglip.retrieval._parquet_shards import ParquetShards
from sk_medsiglip.retrieval._queries import as_queries
from sk_medsiglip.retrieval._selection import (
    check_selection,
    near_duplicates,
    nearest_selected,
    neighbors_of_rows,
    results_table,
)
from sk_medsiglip.retrieval._where import parse_where

_INDEXES: dict[str, type[ExactIndex] | type[LanceIndex]] = {
    one.kind: one for one in (ExactIndex, LanceIndex)
}

#: Models that an index may name without being asked about.
_OURS = ("google/medsiglip-448", "demo")


class ImageRetriever(VersionedPickle, BaseEstimator):
    """Search a collection of images by words, by images, or by both.

    Parameters
    ----------
    model : str or path-like, default="google/medsiglip-448"
        Model whose embeddings are compared. With ``embedder``, its model is used.
    revision : str or None, default=None
        Commit, branch or tag of a repository on the hub.
    embedder : MedSigLIPEmbedder, MedSigLIPVolumeEmbedder or None, default=None
        Embedder of images, or of studies of many slices. By default, a
        ``MedSigLIPEmbedder`` that leaves unreadable images out (``on_error="nan"``).
    index : {"exact", "lancedb"}, default="exact"
        "exact" compares a query with every row, in memory or from a file that
        :meth:`save` wrote. "lancedb" (``pip install "sk-medsiglip[retrieval]"``) keeps
        rows on disk or in an object store, for more than memory holds.
    metric : {"cosine", "euclidean"}, default="cosine"
        Distance that ``kneighbors`` returns: 1 minus the cosine, or the Euclidean
        distance between rows scaled to unit length. The order is the same.
    n_neighbors : int, default=5
        Default number of neighbors of ``kneighbors``.
    storage : {"float32", "float16"}, default="float32"
        Type of the vectors in the index; "float16" takes half the memory, and changes
        cosines in the fourth digit.
    device : str, default="cpu"
        Device on which ``index="exact"`` computes. ``"cuda"`` pays for many queries at
        a time: rows are copied there for every call.
    uri : str, path-like or None, default=None
        Folder or address of the rows of ``index="lancedb"``: a path, or
        ``s3://bucket/name``, ``gs://``, ``az://``.
    storage_options : dict or None, default=None
        Options of an object store, as LanceDB has them: ``{"region": "eu-north-1"}``.
        Keys and other secrets are better set in the environment. If they are given
        here, reprs and pickles leave them out, and a retriever that is unpickled
        elsewhere takes those of the environment.
    ann : {"auto", "flat", "ivf_sq", "ivf_pq", "hnsw"}, default="auto"
        Index that LanceDB builds over the vectors. "flat" compares every row. The
        others compare some rows and may miss others; the rows that they find are
        compared again by their stored vectors. "ivf_sq" is built in seconds; "ivf_pq",
        a quarter of its size, and "hnsw", the fastest to search, take minutes. "auto"
        is "flat" below 250,000 rows and "ivf_sq" from there on. Below 5,000 rows, no
        index is built.
    nprobes, ef : int or None, default=None
        Part of an ``"ivf_..."`` or ``"hnsw"`` index that a search looks at: a larger
        one finds more rows and takes longer. By default, LanceDB chooses. ``ef`` is at
        least ``n * refine_factor``.
    refine_factor : int, default=20
        Number of candidates, as a multiple of ``n``, that are compared by their stored
        vectors.
    cache : bool, str, path-like or EmbeddingCache, default=True
        Store of the embeddings of images and texts. With ``embedder``, its store is
        used.
    verbose : int, default=0
        A value above 0 shows a progress bar.

    Attributes
    ----------
    n_features_in_ : int
        Width of the vectors.
    n_samples_fit_ : int
        Number of rows in the index.
    rejected_ : DataFrame
        Rows of the last ``fit``, ``add`` or ``update`` that were left out, with the
        columns ``row`` (position in ``X``), ``id``, ``source`` and ``reason``.
    embedder_ : MedSigLIPEmbedder or MedSigLIPVolumeEmbedder
        Fitted copy of ``embedder``. Only present after a fit on images.

    See Also
    --------
    Query : A query made of texts and images.
    sk_medsiglip.retrieval.metrics : Metrics of a search.

    Notes
    -----
    An index stores the model, its revision and how images were prepared, and refuses
    queries and rows that differ in one of them. Of embeddings only the model's name is
    known, and the revision if ``revision`` is set.

    ``index="exact"`` in memory takes 4 bytes a value, 460 MB for 100,000 rows of
    MedSigLIP, and so does its pickle. After :meth:`save`, and with a LanceDB index, a
    pickle holds only the location of the rows. An index opened by :meth:`load` reads
    vectors from its file until it is changed. One process at a time may write; any
    number may read meanwhile.

    An index is not encrypted: it holds sources, metadata, and vectors by which an image
    can be recognised. Protect it as you protect the images.

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.retrieval import ImageRetriever, Query
    >>> phantoms = make_chest_phantoms(60, random_state=0)
    >>> patients = pd.DataFrame({"patient": phantoms.groups})
    >>> retriever = ImageRetriever(model="demo")
    >>> retriever = retriever.fit(list(phantoms.images), metadata=patients)
    >>> hits = retriever.search("a large pleural effusion", n=3)
    >>> list(hits.columns)
    ['rank', 'id', 'source', 'score', 'patient']
    >>> effusion = phantoms.target[:, phantoms.target_names.index("effusion")]
    >>> [int(effusion[i]) for i in hits["id"]]
    [1, 1, 1]
    >>> hits = retriever.search(Query("cardiomegaly") - "a pacemaker", n=3)
    >>> distances, rows = retriever.kneighbors(list(phantoms.images[:2]), 3)
    >>> rows[:, 0].tolist()
    [0, 1]
    """

    _parameter_constraints: dict[str, Any] = {
        "model": [str, os.PathLike],
        "revision": [str, None],
        "embedder": [MedSigLIPEmbedder, MedSigLIPVolumeEmbedder, None],
        "index": [StrOptions(set(_INDEXES))],
        "metric": [StrOptions({"cosine", "euclidean"})],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "storage": [StrOptions({"float32", "float16"})],
        "device": [str],
        "uri": [str, os.PathLike, None],
        "storage_options": [Mapping, None],
        "ann": [StrOptions({"auto", *ANN_KINDS})],
        "nprobes": [Interval(Integral, 1, None, closed="left"), None],
        "ef": [Interval(Integral, 1, None, closed="left"), None],
        "refine_factor": [Interval(Integral, 1, None, closed="left")],
        "cache": ["boolean", str, os.PathLike, EmbeddingCache],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        model: str | os.PathLike[str] = "google/medsiglip-448",
        revision: str | None = None,
        embedder: ImageEmbedder | None = None,
        index: str = "exact",
        metric: str = "cosine",
        n_neighbors: int = 5,
        storage: str = "float32",
        device: str = "cpu",
        uri: str | os.PathLike[str] | None = None,
        storage_options: dict[str, str] | None = None,
        ann: str = "auto",
        nprobes: int | None = None,
        ef: int | None = None,
        refine_factor: int = 20,
        cache: bool | str | os.PathLike[str] | EmbeddingCache = True,
        verbose: int | bool = 0,
    ) -> None:
        self.model = model
        self.revision = revision
        self.embedder = embedder
        self.index = index
        self.metric = metric
        self.n_neighbors = n_neighbors
        self.storage = storage
        self.device = device
        self.uri = uri
        self.storage_options = storage_options
        self.ann = ann
        self.nprobes = nprobes
        self.ef = ef
        self.refine_factor = refine_factor
        self.cache = cache
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: ArrayLike,
        y: Any = None,
        *,
        ids: ArrayLike | None = None,
        metadata: pd.DataFrame | Mapping[str, Any] | None = None,
        sources: ArrayLike | None = None,
    ) -> Self:
        """Build the index.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, width)
            Images, or studies with a ``MedSigLIPVolumeEmbedder``; or embeddings, a
            matrix of numbers, for which no model is needed.
        y : ignored
            Not used, present for API consistency by convention.
        ids : array-like of shape (n_samples,), default=None
            Unique whole numbers or texts. By default, the row numbers.
        metadata : DataFrame of n_samples rows, default=None
            Columns that results show and ``where`` may name. A column holds text,
            numbers, booleans or times. If ``X`` has an index, it must be the same.
        sources : array-like of shape (n_samples,), default=None
            Path or URL of each image. By default, those in ``X``, without user names,
            passwords and queries.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If ids are not unique, or metadata cannot be stored. The message names the
            ids or the column.
        ImageReadError
            If an image cannot be read and ``embedder`` has ``on_error="raise"``.
        ModelAccessError, CheckpointError
            If the model cannot be loaded.

        Warns
        -----
        UnreadableImageWarning
            If rows are left out; ``rejected_`` holds them.

        Notes
        -----
        With ``index="lancedb"`` an index at ``uri`` is replaced in one step when the
        new one is complete. Readers keep the old one until they call
        :meth:`~ImageRetriever.refresh`; :meth:`~ImageRetriever.optimize` removes its
        files a week later.
        """
        collection, embedder = self._read(X, None)
        n_rows = len(collection)
        all_ids = check_ids(np.arange(n_rows) if ids is None else ids, n_rows)
        incoming = Incoming(X, collection, all_ids, metadata, sources)
        model, revision = model_of(embedder or self._new_embedder())
        about = About(
            width=collection.shape[1],
            id_kind=infer_kind(all_ids, "ids"),
            kinds=incoming.kinds,
            model=model,
            revision=revision,
            recipe=None if embedder is None else recipe_of(embedder),
        )
        self._build(about, incoming)
        if embedder is None:
            validate_data(self, X, skip_check_array=True)
        else:
            self.embedder_ = embedder
        return self._report(incoming)

    @classmethod
    def from_parquet(
        cls,
        location: Any,
        *,
        ids: str | None = None,
        vectors: str = "vector",
        sources: str = "source",
        filesystem: Any = None,
        **params: Any,
    ) -> Self:
        """Build an index of embeddings stored in Parquet files.

        Files are read batch by batch; with ``index="lancedb"`` only the ids are held in
        memory. The shards written by ``sk_medsiglip.distributed.embed_dataset`` name
        their model and how images were prepared, and the index stores both.

        Parameters
        ----------
        location : str, path-like, or list of these
            A file, a folder of files, or an address that pyarrow reads: ``s3://...``.
            Folders named ``column=value`` become a column.
        ids : str or None, default=None
            Column of the ids. By default, ``id`` or ``ids``; without such a column
            rows are numbered.
        vectors, sources : str, default="vector" and "source"
            Columns of the embeddings (lists of numbers, or float32 as binary values)
            and of paths. All others are metadata, except ``key`` and other columns that
            shards have for their own use. A field of a struct becomes a column, named
            after the field or, if another column has that name, ``struct.field``.
        filesystem : pyarrow or fsspec file system, default=None
            File system for locations that pyarrow cannot read by itself.
        **params
            Parameters of the retriever, such as ``index``, ``uri`` and ``storage``;
            ``model`` if the files do not name it, or name only a folder.

        Returns
        -------
        ImageRetriever

        Raises
        ------
        SearchIndexError
            If there are no Parquet files at ``location``.
        CheckpointError
            If the files hold embeddings by different models.
        ValueError, TypeError
            If ids or metadata cannot be used, as in :meth:`fit`.

        Examples
        --------
        >>> import pyarrow as pa
        >>> import pyarrow.parquet
        >>> import tempfile
        >>> from sk_medsiglip.retrieval import ImageRetriever
        >>> rows = pa.table({"vector": [[1.0, 0.0], [0.0, 1.0]], "age": [61, 34]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pa.parquet.write_table(rows, f"{folder}/part-0.parquet")
        ...     retriever = ImageRetriever.from_parquet(folder, model="demo")
        >>> retriever.to_frame()["age"].tolist()
        [61, 34]
        """
        retriever = cls(**params)
        retriever._validate_params()
        shards = ParquetShards(
            location, filesystem=filesystem, ids=ids, vectors=vectors, sources=sources
        )
        about = shards.about(os.fspath(params["model"]) if "model" in params else None)
        known = {"model": about.model, "revision": about.revision}
        retriever.set_params(**{**known, **params})
        retriever._build(about, shards)
        return retriever._report(shards)

    def kneighbors(
        self,
        X: ArrayLike | None = None,
        n_neighbors: int | None = None,
        return_distance: bool = True,
    ) -> Any:
        """Return the nearest rows of images or embeddings, as scikit-learn does.

        Parameters
        ----------
        X : array-like or None, default=None
            Images or embeddings, as for :meth:`fit`; here a ``str`` is a path. None
            returns the neighbors of every row of the index, the row itself excluded.
        n_neighbors : int or None, default=None
            Number of neighbors. By default, the retriever's ``n_neighbors``.
        return_distance : bool, default=True
            Whether to return distances too.

        Returns
        -------
        distances : ndarray of shape (n_queries, n_neighbors), float32
            Distances in ascending order. Only returned if ``return_distance``.
        rows : ndarray of shape (n_queries, n_neighbors), int64
            Numbers of the rows. A row of ``fit`` has its position in ``X`` as its
            number, also where other rows were left out; rows that are added later
            count on from the highest number.

        Raises
        ------
        ValueError
            If the index has fewer rows, or embeddings have another width.
        ImageReadError
            If a query cannot be read.
        """
        check_is_fitted(self)
        n = self.n_neighbors if n_neighbors is None else n_neighbors
        _check_count(n, "n_neighbors")
        n_rows = len(self._index)
        if n > n_rows - (X is None):
            raise ValueError(
                f"Expected n_neighbors <= n_samples_fit, but n_neighbors = {n}, "
                f"n_samples_fit = {n_rows}, n_samples = "
                f"{n_rows if X is None else len(X)}."  # type: ignore[arg-type]
            )
        self._index.configure(self.get_params(deep=False))
        if X is None:
            scores, rows = neighbors_of_rows(self._index, n)
        else:
            found = self._index.nearest(self._query_vectors(X), n)
            scores = np.stack([one.scores for one in found])
            rows = np.stack([one.numbers for one in found])
        if not return_distance:
            return rows
        distances = np.clip(1 - scores, 0, 2)
        return distances if self.metric == "cosine" else np.sqrt(2 * distances), rows

    def search(
        self,
        query: Any,
        n: int = 10,
        *,
        where: str | None = None,
        deduplicate: float | None = None,
        diversity: float = 0.0,
    ) -> pd.DataFrame:
        """Return the images that are nearest to a query, best first.

        Parameters
        ----------
        query : str, Query, image, embedding, or a list of these
            A text describes a picture: ``"large right pleural effusion"``. A
            :class:`Query` adds and subtracts texts and images. Images are
            ``pathlib.Path``, PIL images, bytes or arrays of pixels; a 1-D array is an
            embedding, a 2-D array of floats holds several. A list holds several
            queries.
        n : int, default=10
            Number of results for each query.
        where : str or None, default=None
            Condition on ``id``, ``source`` and metadata, as after SQL's WHERE:
            ``"modality = 'CT' and (age > 60 or age is null)"``. Text is in single
            quotes, a name with spaces in double ones. Supported are =, <>, <, <=, >,
            >=, in, between, like, ilike, is null, and, or, not. Needs
            ``pip install "sk-medsiglip[retrieval]"``.
        deduplicate : float or None, default=None
            Cosine from which two images count as near copies, for example 0.98; only
            the better one is returned. The 65,536 best rows are considered. The right
            value depends on the model.
        diversity : float, default=0
            Weight from 0 to 1 of the difference between results. Above 0, each result
            is chosen among ten times as many candidates to be near to the query and
            unlike the results before it (maximal marginal relevance), so scores need
            not decrease.

        Returns
        -------
        DataFrame
            Columns ``rank`` (from 1), ``id``, ``source``, ``score`` (the cosine) and
            those of the metadata. For a list of queries, ``query`` (position in the
            list) comes first. Fewer than ``n`` rows if fewer match.

        Raises
        ------
        FilterError
            If ``where`` cannot be parsed, or contains anything else.
        CheckpointError
            If the query would be encoded by another model than the index.
        ImageReadError
            If an image of a query cannot be read.
        """
        check_is_fitted(self)
        _check_count(n, "n")
        check_selection(deduplicate, diversity)
        queries, is_batch = as_queries(query)
        about = self._index.about
        condition = None if where is None else parse_where(where, about.columns)
        vectors = encode_queries(queries, self._any_embedder(), about)
        self._index.configure(self.get_params(deep=False))
        found = nearest_selected(
            self._index,
            vectors,
            int(n),
            where=condition,
            deduplicate=deduplicate,
            diversity=diversity,
        )
        return results_table(found, is_batch=is_batch)

    def find_duplicates(self, threshold: float = 0.98) -> pd.DataFrame:
        """Return the images that are near copies of an earlier one.

        Parameters
        ----------
        threshold : float, default=0.98
            Cosine from which two images count as near copies. The right value depends
            on the model: look at some pairs.

        Returns
        -------
        DataFrame
            One row for each near copy, indexed by row number, with the columns ``id``,
            ``source``, ``duplicate_of`` (the id of the earlier image) and ``score``
            (their cosine). ``retriever.remove(table["id"])`` keeps one of each.

        Notes
        -----
        All vectors are read into memory; 100,000 rows take minutes.
        """
        check_is_fitted(self)
        check_selection(threshold, 0)
        rows = all_rows(self._index)
        groups = near_duplicates(rows.vectors, threshold=threshold)
        copies = np.flatnonzero(groups != np.arange(len(groups)))
        originals = groups[copies]
        found = rows.table[["id", "source"]].iloc[copies].copy()
        found["duplicate_of"] = rows.table["id"].iloc[originals].to_numpy()
        found["score"] = np.vecdot(rows.vectors[copies], rows.vectors[originals])
        return found.set_axis(pd.Index(rows.numbers[copies], name="row"))

    def to_frame(self) -> pd.DataFrame:
        """Return ids, sources and metadata of all rows, indexed by row number.

        Returns
        -------
        DataFrame of ``n_samples_fit_`` rows
        """
        check_is_fitted(self)
        rows = all_rows(self._index, vectors=False)
        return rows.table.set_axis(pd.Index(rows.numbers, name="row"))

    def partial_fit(
        self,
        X: ArrayLike,
        y: Any = None,
        *,
        ids: ArrayLike | None = None,
        metadata: pd.DataFrame | Mapping[str, Any] | None = None,
        sources: ArrayLike | None = None,
    ) -> Self:
        """Add rows; the first call builds the index. See :meth:`fit` and :meth:`add`.

        Parameters
        ----------
        X, y, ids, metadata, sources
            As for :meth:`fit`.

        Returns
        -------
        self
        """
        write = self.add if hasattr(self, "_index") else self.fit
        return write(X, ids=ids, metadata=metadata, sources=sources)

    def add(
        self,
        X: ArrayLike,
        *,
        ids: ArrayLike | None = None,
        metadata: pd.DataFrame | Mapping[str, Any] | None = None,
        sources: ArrayLike | None = None,
    ) -> Self:
        """Add rows to the index, all of them or, if there is an error, none.

        Parameters
        ----------
        X : array-like
            Images or embeddings, as for :meth:`fit`.
        ids : array-like, default=None
            Ids of the rows. If ids are whole numbers, the default counts on from the
            largest that was ever in the index, so the id of a removed row is not used
            again.
        metadata : DataFrame, default=None
            Values of columns that the index has. Columns that are not given are
            missing in the new rows.
        sources : array-like, default=None
            As for :meth:`fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If an id is in the index already or occurs twice, or a value does not have
            the type of its column. The message names it.
        CheckpointError, ValueError
            If the vectors come from another model, or images are prepared differently.
        """
        check_is_fitted(self)
        self._index.begin_change()
        about = self._index.about
        collection, _ = self._read(X, about)
        n_rows, free = len(collection), self._index.next_free
        if ids is None and about.id_kind == "text":
            raise ValueError("the ids of this index are texts; pass ids=.")
        if ids is None:
            ids = np.arange(free.id, free.id + n_rows)
        all_ids = check_ids(ids, n_rows, about.id_kind)
        listed = all_ids.tolist()
        known = self._index.known(listed)
        if known.any():
            raise refuse_known([listed[i] for i in np.flatnonzero(known)])
        incoming = Incoming(X, collection, all_ids, metadata, sources)
        self._index.append(incoming.new_rows(about, free.number))
        return self._report(incoming)

    def remove(self, ids: Any) -> Self:
        """Remove rows from the index.

        Searches no longer find them. They are erased from the disk by ``save``, or with
        ``index="lancedb"`` by ``optimize(keep_days=0)``.

        Parameters
        ----------
        ids : one id, or array-like of ids
            Rows to remove.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If an id is not in the index. Nothing is removed then.
        """
        check_is_fitted(self)
        self._index.begin_change()
        self._index.remove(self._known_ids(ids))
        self.n_samples_fit_ = len(self._index)
        return self

    def update(
        self,
        ids: Any,
        X: ArrayLike | None = None,
        *,
        metadata: pd.DataFrame | Mapping[str, Any] | None = None,
        sources: ArrayLike | None = None,
    ) -> Self:
        """Replace the images, metadata or sources of rows.

        Parameters
        ----------
        ids : one id, or array-like of ids
            Rows to change.
        X : array-like, default=None
            Their new images or embeddings, in the order of ``ids``. By default, vectors
            stay as they are. A row whose new image cannot be read is not changed.
        metadata : DataFrame, default=None
            New values of its columns; other columns stay as they are.
        sources : array-like, default=None
            New sources.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If an id is not in the index. Nothing is changed then.

        Notes
        -----
        All new rows are held in memory before the first is replaced.
        """
        check_is_fitted(self)
        if X is None and metadata is None and sources is None:
            raise ValueError("there is nothing to update. Pass X, metadata or sources.")
        self._index.begin_change()
        listed = self._known_ids(ids)
        collection = None if X is None else self._read(X, self._index.about)[0]
        if collection is not None and len(collection) != len(listed):
            raise ValueError(
                f"there are {len(listed)} ids and {len(collection)} images; they must "
                "be equally many."
            )
        incoming = Incoming(X, collection, pd.Series(listed), metadata, sources)
        self._index.replace(incoming.changed_rows(self._index))
        return self._report(incoming)

    def refresh(self) -> Self:
        """Read the changes that other processes stored since the index was opened.

        Without it, every search uses the rows that were there when it was opened.

        Returns
        -------
        self

        Raises
        ------
        SearchIndexError
            If an exact index was changed here without being saved, and another process
            has saved it meanwhile, so that one of the two changes would be lost.
        """
        check_is_fitted(self)
        self._index.refresh()
        self.n_samples_fit_ = len(self._index)
        return self

    def optimize(self, *, keep_days: float = 7.0) -> Self:
        """Merge small files after many changes, and erase rows that were removed.

        Rows that were added since LanceDB's index was built are compared one by one
        until this is called; many additions call it by themselves. Files are rewritten
        without the rows that were removed or updated. With ``index="exact"`` nothing
        is done: :meth:`save` writes only the rows that are in the index.

        Parameters
        ----------
        keep_days : float, default=7.0
            Age in days from which earlier versions of a LanceDB table are erased.
            Until then they hold the rows that were removed, use disk space for all
            that was rewritten, and serve processes that opened them. 0 erases all of
            them at once; no other process may have the index open then.

        Returns
        -------
        self
        """
        check_is_fitted(self)
        if not isinstance(keep_days, int | float) or not keep_days >= 0:
            raise ValueError(f"keep_days must be 0 or more days, got {keep_days!r}.")
        self._index.begin_change()
        self._index.optimize(keep_days)
        return self

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write an exact index into a folder; :meth:`load` opens it.

        An index that the folder holds already stays intact until the new one is
        complete. A pickle of this retriever then holds the name of the folder instead
        of the rows, until rows are added, removed or updated.

        Parameters
        ----------
        folder : str or path-like
            A new folder, or one with an index, which is replaced.

        Raises
        ------
        ValueError
            If ``index="lancedb"``, which is stored at its ``uri`` already.
        SearchIndexError
            If another process has saved this index since it was opened here.
        OSError
            If the folder cannot be written, or holds other files.
        """
        check_is_fitted(self)
        if not isinstance(self._index, ExactIndex):
            raise ValueError(
                f"this index is stored already: ImageRetriever.load({self.uri!r}) "
                "opens it."
            )
        self._index.save(folder)

    @classmethod
    def load(
        cls,
        location: str | os.PathLike[str],
        *,
        embedder: ImageEmbedder | None = None,
        **params: Any,
    ) -> Self:
        """Open a stored index; its vectors are read from the disk when they are used.

        Parameters
        ----------
        location : str or path-like
            A folder that :meth:`save` wrote, or the ``uri`` of ``index="lancedb"``.
        embedder : MedSigLIPEmbedder, MedSigLIPVolumeEmbedder or None, default=None
            Embedder of images that are added or queried. By default, an embedder of
            the index's model with default settings. Texts do not need it.
        **params
            Other parameters of the retriever, such as ``metric``, ``device``, ``cache``
            and ``storage_options``. ``model`` may name the location of the same weights
            on this machine.

        Returns
        -------
        ImageRetriever

        Raises
        ------
        SearchIndexError
            If there is no index, or it is damaged or was written by a newer version.

        Warns
        -----
        UserWarning
            If the index names a model other than the default and the demonstration,
            and ``model`` is not passed: a search by words would load it.
        """
        name = os.fspath(location)
        in_files = (Path(name) / INDEX_FILE).exists() or is_lance(name) is False
        kind, uri = ("exact", None) if in_files else ("lancedb", location)
        retriever = cls(embedder=embedder, **{"index": kind, "uri": uri, **params})
        retriever._validate_params()
        index = _INDEXES[kind].load(location, retriever.get_params(deep=False))
        about = index.about
        known = {"model": about.model, "revision": about.revision}
        retriever.set_params(storage=index.storage, **{**known, **params})
        if about.model not in _OURS and "model" not in params and embedder is None:
            warn_user(
                f"the index in {name!r} names the model {about.model!r}, which a "
                "search by words would load. If you trust both, pass model=.",
                UserWarning,
            )
        retriever._index = index
        retriever.n_features_in_ = about.width
        retriever.n_samples_fit_ = len(index)
        retriever.rejected_ = report_rejected([], 0)
        return retriever

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        # Such rows are left out and reported.
        tags.input_tags.allow_nan = True
        return tags

    def _any_embedder(self) -> ImageEmbedder:
        """Return the fitted embedder, or one made from the parameters."""
        return getattr(self, "embedder_", None) or self._new_embedder()

    def _new_embedder(self) -> ImageEmbedder:
        """Return the embedder that the parameters describe, not fitted."""
        if self.embedder is not None:
            return self.embedder
        return MedSigLIPEmbedder(
            self.model,
            revision=self.revision,
            cache=self.cache,
            on_error="nan",
            verbose=self.verbose,
        )

    def _read(
        self, X: Any, about: About | None
    ) -> tuple[Collection, ImageEmbedder | None]:
        """Return the images or embeddings in ``X``, checked against an index."""
        if is_embeddings(X):
            rows = embedding_rows(X)
            if about is not None:
                check_width(rows.shape[1], about)
                validate_data(self, X, skip_check_array=True, reset=False)
            return rows, None
        embedder = clone(self._any_embedder() if about else self._new_embedder()).fit(X)
        if about is not None:
            check_image_embedder(embedder, about)
        return Images(X, embedder), embedder

    def _build(self, about: About, incoming: Incoming | ParquetShards) -> None:
        """Make a new index; raise if there are no rows."""
        rows = at_least_one(incoming.new_rows(about), incoming.rejected)
        params = self.get_params(deep=False)
        self._index = _INDEXES[self.index].build(about, params, rows)
        self.n_features_in_ = about.width

    def _report(self, incoming: Incoming | ParquetShards) -> Self:
        """Set the attributes that every change sets, and warn of rows left out."""
        self.n_samples_fit_ = len(self._index)
        self.rejected_ = report_rejected(incoming.rejected, incoming.n_rows)
        return self

    def _known_ids(self, ids: Any) -> list[Any]:
        """Return ids as a list; raise if the index has not all of them."""
        listed = ids_as_list(ids, self._index.about.id_kind)
        known = self._index.known(listed)
        if not known.all():
            raise refuse_unknown([listed[i] for i in np.flatnonzero(~known)])
        return listed

    def _query_vectors(self, X: Any) -> NDArray[np.float32]:
        """Return the vectors of images or embeddings, of unit length."""
        about = self._index.about
        collection, _ = self._read(X, about)
        if isinstance(collection, Images):
            return embed_images(collection.images, self._any_embedder(), about)
        vectors, usable = to_length_one(collection)
        if not usable.all():
            row = int(np.argmin(usable))
            raise ValueError(
                f"Input X contains NaN, infinity or 0 throughout: row {row} of the "
                f"queries has no direction, {vector_reason(collection[row])}."
            )
        return vectors

    def __setattr__(self, name: str, value: Any) -> None:
        # Whether set by __init__ or set_params, it must not show secrets.
        if name == "storage_options":
            value = StorageOptions.around(value)
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the index as plain values and arrays."""
        state = super().__getstate__()
        if "_index" in state:
            state["_index"] = self._index.state()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "_index"):
            known: Any = self._index
            self._index = _INDEXES[known["kind"]].of_state(
                known, self.get_params(deep=False)
            )


def _check_count(n: Any, name: str) -> None:
    if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
        raise ValueError(f"{name} must be an int of 1 or more, got {n!r}.")
