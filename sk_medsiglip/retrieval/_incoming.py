"""From what a user adds to rows of an index, some thousand at a time."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_array

from sk_medsiglip.embedding import MedSigLIPVolumeEmbedder, plain_rows
from sk_medsiglip.exceptions import ImageReadError, UnreadableImageWarning
from sk_medsiglip.images import image_rows, study_rows
from sk_medsiglip.images._lazy import LazyImage
from sk_medsiglip.images._sources import describe
from sk_medsiglip.retrieval._identity import ImageEmbedder, image_part
from sk_medsiglip.retrieval._index import Index, Rows
from sk_medsiglip.retrieval._metadata import conform, conform_column
from sk_medsiglip.retrieval._rejected import Rejected

__all__ = [
    "Collection",
    "Embeddings",
    "Images",
    "batches",
    "is_embeddings",
    "reason_of_vector",
    "replacements",
    "to_length_one",
    "with_vectors",
]

#: Rows on their way at a time: 38 MB of vectors of width 1152.
ROWS_AT_ONCE = 8192


def is_embeddings(X: Any) -> bool:
    """Whether ``X`` is a matrix of numbers rather than a collection of images."""
    if isinstance(X, pd.DataFrame):
        return len(X.columns) > 1 and all(
            pd.api.types.is_numeric_dtype(dtype) for dtype in X.dtypes
        )
    if hasattr(X, "toarray"):
        return True  # sparse; refused with scikit-learn's own words
    if isinstance(X, list | tuple):
        first = X[0] if X else None
        if isinstance(first, np.ndarray):
            return first.ndim == 1 and first.dtype.kind in "fiu"
        return isinstance(first, list | tuple) and all(
            isinstance(v, int | float | np.number) for v in first
        )
    is_matrix = getattr(X, "ndim", None) == 2 and hasattr(X, "dtype")
    return is_matrix and not (
        isinstance(X, np.ndarray) and X.dtype.kind in "OUT" and X.shape[1] == 1
    )


class Collection(ABC):
    """Abstract: what ``X`` holds, in order."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def vectors(self, start: int, stop: int) -> NDArray[np.floating]:
        """Return rows; what cannot be had is NaN."""

    @abstractmethod
    def reason(self, row: int) -> str:
        """Say why a row cannot be had."""

    @abstractmethod
    def source(self, row: int) -> str | None:
        """Return the path or URL of a row, where it has one."""


class Embeddings(Collection):
    """Rows of a matrix; a mapped one is read as it is used."""

    def __init__(self, X: Any) -> None:
        if hasattr(X, "cpu"):
            X = X.detach().cpu().numpy()  # a torch tensor
        # What is not finite is kept out later, and named.
        self.X = check_array(
            X,
            dtype="numeric",
            ensure_all_finite=False,
            ensure_min_features=1,
            estimator="ImageRetriever",
            input_name="X",
        )

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self.X.shape[1])

    def __len__(self) -> int:
        return len(self.X)

    def vectors(self, start: int, stop: int) -> NDArray[np.floating]:  # noqa: D102
        return np.asarray(self.X[start:stop])

    def reason(self, row: int) -> str:  # noqa: D102
        return reason_of_vector(self.X[row])

    def source(self, row: int) -> str | None:  # noqa: D102
        return None


class Images(Collection):
    """Images or studies, embedded as they are used."""

    def __init__(self, X: Any, embedder: ImageEmbedder) -> None:
        is_volume = isinstance(embedder, MedSigLIPVolumeEmbedder)
        self.sources: Sequence[Any] = study_rows(X) if is_volume else image_rows(X)
        self._embedder = embedder

    def __len__(self) -> int:
        return len(self.sources)

    def vectors(self, start: int, stop: int) -> NDArray[np.floating]:  # noqa: D102
        stop = min(stop, len(self))
        some = [self.sources[row] for row in range(start, stop)]
        try:
            with warnings.catch_warnings():
                # All of them are reported together, at the end.
                warnings.simplefilter("ignore", UnreadableImageWarning)
                return plain_rows(self._embedder, some)
        except ImageReadError as error:
            if error.row is None or start == 0:
                raise
            raise error.at_row(start + error.row) from None

    def reason(self, row: int) -> str:
        """Read it once more, for the error that says what is wrong with it."""
        strict = clone(self._embedder)
        image_part(strict).set_params(on_error="raise")
        try:
            strict.transform([self.sources[row]])
        except ImageReadError as error:
            return error.reason
        return "it could not be read at first"

    def source(self, row: int) -> str | None:  # noqa: D102
        return source_name(self.sources[row])


def reason_of_vector(vector: Any) -> str:
    """Say why a vector has no direction."""
    values = np.asarray(vector, np.float64)
    if np.isnan(values).any():
        return "the embedding holds NaN"
    if np.isinf(values).any():
        return "the embedding holds infinity"
    return "the embedding is 0 throughout"


def source_name(source: Any) -> str | None:
    """Return the path or URL of an image, without what is secret in a URL."""
    named = isinstance(source, str | LazyImage) or hasattr(source, "__fspath__")
    return describe(source) if named else None


def batches(
    collection: Collection,
    *,
    ids: pd.Series,
    metadata: pd.DataFrame | None,
    sources: pd.Series | None,
    kinds: Mapping[str, str],
    first_number: int,
    rejected: list[Rejected],
) -> Iterator[Rows]:
    """Yield the rows of a collection, without those that have no vector.

    Parameters
    ----------
    collection : Collection
        What is added.
    ids : Series of len(collection) ids
        In the type of their kind.
    metadata : DataFrame or None
        As the user gave it, checked for length.
    sources : Series or None
        In the place of those of the collection.
    kinds : dict of str to str
        Of the metadata columns of the index.
    first_number : int
        Of the first row.
    rejected : list
        Gets every row that is left out.

    Yields
    ------
    Rows
    """
    for start in range(0, len(collection), ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, len(collection))
        some = slice(start, stop)
        table = conform(
            None if metadata is None else metadata.iloc[some],
            kinds,
            stop - start,
            first_row=start,
        )
        table.insert(0, "id", ids.iloc[some].reset_index(drop=True))
        table.insert(
            1,
            "source",
            _sources_of(collection, start, stop)
            if sources is None
            else sources.iloc[some].reset_index(drop=True),
        )
        yield from with_vectors(
            collection.vectors(start, stop),
            table,
            np.arange(first_number + start, first_number + stop),
            first_row=start,
            reason=collection.reason,
            rejected=rejected,
        )


def replacements(
    index: Index,
    ids: list[Any],
    collection: Collection | None,
    *,
    metadata: pd.DataFrame | None,
    sources: pd.Series | None,
    rejected: list[Rejected],
) -> Iterator[Rows]:
    """Yield rows of an index as they will be; what is not given stays as it is.

    Parameters
    ----------
    index : Index
        Holds all of ``ids``.
    ids : list
        Of the rows.
    collection : Collection or None
        New images or embeddings, in the order of ``ids``.
    metadata : DataFrame or None
        New values of the columns it has.
    sources : Series or None
        New sources; those of new images are taken otherwise.
    rejected : list
        As for :func:`batches`; these rows stay as they are.

    Yields
    ------
    Rows
    """
    kinds = index.about.kinds
    for start in range(0, len(ids), ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, len(ids))
        old = index.get(ids[start:stop])
        vectors: NDArray[np.floating] = old.vectors
        table = old.table.copy()
        if metadata is not None:
            new = conform(
                metadata.iloc[start:stop], kinds, stop - start, first_row=start
            )
            for name in metadata.columns:
                table[name] = new[name]
        if collection is not None:
            vectors = collection.vectors(start, stop)
            if isinstance(collection, Images):
                table["source"] = _sources_of(collection, start, stop)
        if sources is not None:
            table["source"] = sources.iloc[start:stop].reset_index(drop=True)
        yield from with_vectors(
            vectors,
            table,
            old.numbers,
            first_row=start,
            reason=collection.reason if collection else str,
            rejected=rejected,
        )


def with_vectors(
    vectors: NDArray[np.floating],
    table: pd.DataFrame,
    numbers: NDArray[np.int64],
    *,
    first_row: int,
    reason: Callable[[int], str],
    rejected: list[Rejected],
) -> Iterator[Rows]:
    """Yield the rows that have a vector, if there are any; report the others.

    Parameters
    ----------
    vectors : ndarray of shape (n, width)
        Of any length.
    table : DataFrame of n rows
        ``id``, ``source`` and metadata.
    numbers : ndarray of shape (n,)
        Of the rows.
    first_row : int
        Where these rows begin in what the user gave.
    reason : callable
        Says of a row, counted from there, why it has no vector.
    rejected : list
        Gets every row that is left out.

    Yields
    ------
    Rows
    """
    unit, usable = to_length_one(vectors)
    for place in np.flatnonzero(~usable).tolist():
        ids, sources = table["id"], table["source"]
        row = first_row + place
        rejected.append(
            Rejected(row, ids.iloc[place], sources.iloc[place], reason(row))
        )
    if usable.all():
        yield Rows(numbers, unit, table)
    elif usable.any():
        yield Rows(numbers[usable], unit[usable], table[usable].reset_index(drop=True))


def _sources_of(collection: Collection, start: int, stop: int) -> pd.Series:
    named = [collection.source(row) for row in range(start, stop)]
    return conform_column(pd.Series(named, dtype=object), "text", "source", start)


def to_length_one(
    vectors: NDArray[np.floating],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return rows of length 1, and which of them have a length at all."""
    # In float64: the square of a large float32 is infinite.
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    usable = np.isfinite(lengths) & (lengths > 0)
    lengths[~usable] = np.nan
    return (vectors / lengths[:, None]).astype(np.float32), usable
