"""Turn a user's images or embeddings into rows of an index, in batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils.validation import check_array

from sk_medsiglip._warning import warn_user
from sk_medsiglip.embedding import MedSigLIPVolumeEmbedder, plain_rows
from sk_medsiglip.exceptions import ImageReadError, UnreadableImageWarning
from sk_medsiglip.images import image_rows, source_name, study_rows
from sk_medsiglip.retrieval._exact_index import ExactIndex
from sk_medsiglip.retrieval._index import About, Rows
from sk_medsiglip.retrieval._lance_index import LanceIndex
from sk_medsiglip.retrieval._metadata import (
    check_metadata,
    check_sources,
    conform,
    infer_kind,
)
from sk_medsiglip.retrieval._models import ImageEmbedder, strict_copy, to_length_one

#: Number of rows at a time: 38 MB of vectors of width 1152.
ROWS_AT_ONCE = 8192

_NAMED_IN_WARNING = 5


def is_embeddings(X: Any) -> bool:
    """Tell whether ``X`` is a matrix of numbers rather than a collection of images."""
    if isinstance(X, pd.DataFrame):
        return len(X.columns) > 1 and all(
            pd.api.types.is_numeric_dtype(dtype) for dtype in X.dtypes
        )
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


def embedding_rows(X: Any) -> NDArray[Any]:
    """Return embeddings as a matrix; a mapped one stays mapped."""
    if hasattr(X, "cpu"):
        X = X.detach().cpu().numpy()  # a torch tensor
    # Rows that are not finite are left out and reported later.
    rows: NDArray[Any] = check_array(
        X,
        dtype="numeric",
        ensure_all_finite=False,
        estimator="ImageRetriever",
        input_name="X",
    )
    return rows


class Images:
    """Images or studies; a slice returns their embeddings, NaN for unreadable ones."""

    def __init__(self, X: Any, embedder: ImageEmbedder) -> None:
        is_volume = isinstance(embedder, MedSigLIPVolumeEmbedder)
        if is_volume and embedder.pooling is None:
            raise ValueError(
                "ImageRetriever holds one vector for each study, and the embedder has "
                'pooling=None, which makes bags. Set pooling="mean" or "max".'
            )
        self.images: Sequence[Any] = study_rows(X) if is_volume else image_rows(X)
        self.shape = (len(self.images), len(embedder.get_feature_names_out()))
        self._embedder = embedder

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> NDArray[np.floating]:
        places = range(len(self))[rows]
        try:
            with warnings.catch_warnings():
                # They are reported together, at the end.
                warnings.simplefilter("ignore", UnreadableImageWarning)
                return plain_rows(self._embedder, [self.images[row] for row in places])
        except ImageReadError as error:
            if error.row is None or not places[0]:
                raise
            raise error.at_row(places[0] + error.row) from None

    def reason(self, row: int) -> str:
        """Return why an image cannot be read, from the error of reading it again."""
        try:
            strict_copy(self._embedder).transform([self.images[row]])
        except ImageReadError as error:
            return error.reason
        return "it could not be read at first"

    def sources(self) -> list[str | None]:
        """Return paths and URLs, without the secret parts of a URL."""
        return [source_name(self.images[row]) for row in range(len(self))]


Collection = NDArray[Any] | Images


class Rejected(NamedTuple):
    """A row that was left out, and the reason."""

    row: int
    id: Any
    source: Any
    reason: str

    def __str__(self) -> str:
        source = "" if pd.isna(self.source) else f"{self.source}: "
        return f"row {self.row}: {source}{self.reason}"


class Incoming:
    """New rows of an index; those without a direction are listed in ``rejected``."""

    def __init__(
        self,
        X: Any,
        collection: Collection | None,
        ids: pd.Series,
        metadata: Any,
        sources: Any,
    ) -> None:
        self.n_rows = len(ids)
        self.rejected: list[Rejected] = []
        self._collection = collection
        self._table = check_metadata(metadata, X, self.n_rows)
        self._table["id"] = ids
        if sources is None and isinstance(collection, Images):
            sources = collection.sources()
        if sources is not None:
            self._table["source"] = check_sources(sources, self.n_rows)

    @property
    def kinds(self) -> dict[str, str]:
        """Kinds of the columns of metadata."""
        names = [n for n in self._table.columns if n not in ("id", "source")]
        return {name: infer_kind(self._table[name], name) for name in names}

    def new_rows(self, about: About, first_number: int = 0) -> Iterator[Rows]:
        """Yield rows for an index, numbered from ``first_number`` on."""
        assert self._collection is not None
        for some in self._parts():
            table = conform(self._table.iloc[some], about.columns, some.start)
            numbers = first_number + some.start + np.arange(len(table))
            yield from self._usable(some, numbers, self._collection[some], table)

    def changed_rows(self, index: ExactIndex | LanceIndex) -> Iterator[Rows]:
        """Yield changed rows of an index; values that are not given do not change.

        A row whose new vector has no direction is not changed.
        """
        for some in self._parts():
            given = self._table.iloc[some]
            old = index.get(given["id"].tolist())
            table, names = old.table.copy(), list(given.columns)
            table[names] = conform(given, index.about.columns, some.start)[names]
            vectors: NDArray[Any] = old.vectors
            if self._collection is not None:
                vectors = self._collection[some]
            yield from self._usable(some, old.numbers, vectors, table)

    def _parts(self) -> Iterator[slice]:
        for start in range(0, self.n_rows, ROWS_AT_ONCE):
            yield slice(start, start + ROWS_AT_ONCE)

    def _usable(
        self, some: slice, numbers: Any, vectors: Any, table: pd.DataFrame
    ) -> Iterator[Rows]:
        reason = getattr(self._collection, "reason", None)
        rows = Rows(numbers, vectors, table)
        return usable_rows(rows, some.start, self.rejected, reason)


def usable_rows(
    rows: Rows,
    first_row: int,
    rejected: list[Rejected],
    reason_of: Callable[[int], str] | None = None,
) -> Iterator[Rows]:
    """Yield rows that have a direction, scaled to unit length; reject the others."""
    unit, usable = to_length_one(rows.vectors)
    for place in np.flatnonzero(~usable).tolist():
        row, record = first_row + place, rows.table.iloc[place]
        reason = reason_of(row) if reason_of else vector_reason(rows.vectors[place])
        rejected.append(Rejected(row, record["id"], record["source"], reason))
    if usable.any():
        scaled = Rows(rows.numbers, unit, rows.table)
        yield scaled if usable.all() else scaled.take(np.flatnonzero(usable))


def at_least_one(rows: Iterator[Rows], rejected: list[Rejected]) -> Iterator[Rows]:
    """Yield the same rows; raise if there are none."""
    empty = True
    for some in rows:
        empty = False
        yield some
    if empty:
        first = f"; {rejected[0]}" if rejected else ""
        raise ValueError(f"none of the {len(rejected)} rows can be used{first}.")


def vector_reason(vector: Any) -> str:
    """Return the reason why a vector has no direction."""
    values = np.asarray(vector, np.float64)
    if np.isnan(values).any():
        return "the embedding holds NaN"
    if np.isinf(values).any():
        return "the embedding holds infinity"
    return "the embedding is 0 throughout"


def report_rejected(rejected: list[Rejected], n_rows: int) -> pd.DataFrame:
    """Return the rows that were left out as a table; warn if there are any."""
    if rejected:
        shown = [str(one) for one in rejected[:_NAMED_IN_WARNING]]
        if len(rejected) > len(shown):
            shown.append(f"and {len(rejected) - len(shown)} more")
        listed = "\n  ".join(shown)
        warn_user(
            f"{len(rejected)} of {n_rows} rows are left out of the index:\n  {listed}\n"
            "rejected_ lists all of them.",
            UnreadableImageWarning,
        )
    return pd.DataFrame(rejected, columns=list(Rejected._fields))
