"""Turn a user's images or embeddings into rows of an index, in batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils.validation import check_array

from sk_medsiglip._warning import warn_user
from sk_medsiglip.embedding import MedSigLIPVolumeEmbedder, plain_rows
from sk_medsiglip.exceptions import ImageReadError, UnreadableImageWarning
from sk_medsiglip.images import image_rows, source_name, study_rows
from sk_medsiglip.retrieval._exact_index import ExactIndex
from sk_medsiglip.retrieval._index import Rows
from sk_medsiglip.retrieval._lance_index import LanceIndex
from sk_medsiglip.retrieval._metadata import conform, conform_column
from sk_medsiglip.retrieval._models import ImageEmbedder, strict_copy, to_length_one

#: Rows on their way at a time: 38 MB of vectors of width 1152.
ROWS_AT_ONCE = 8192

_NAMED_IN_WARNING = 5


def is_embeddings(X: Any) -> bool:
    """Tell whether ``X`` is a matrix of numbers rather than a collection of images."""
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


class Embeddings:
    """Rows of a matrix; a mapped one is read as it is used."""

    def __init__(self, X: Any) -> None:
        if hasattr(X, "cpu"):
            X = X.detach().cpu().numpy()  # a torch tensor
        # Rows that are not finite are kept out later, and named.
        self.X = check_array(
            X,
            dtype="numeric",
            ensure_all_finite=False,
            ensure_min_features=1,
            estimator="ImageRetriever",
            input_name="X",
        )
        self.width = int(self.X.shape[1])

    def __len__(self) -> int:
        return len(self.X)

    def vectors(self, start: int, stop: int) -> NDArray[np.floating]:
        """Return some rows."""
        return np.asarray(self.X[start:stop])

    def reason(self, row: int) -> str:
        """Say why a row has no direction."""
        return reason_of_vector(self.X[row])

    def sources(self, start: int, stop: int) -> Iterable[str | None]:
        """Return nothing: a vector comes from nowhere."""
        return [None] * (stop - start)


class Images:
    """Images or studies, embedded as they are used."""

    def __init__(self, X: Any, embedder: ImageEmbedder) -> None:
        is_volume = isinstance(embedder, MedSigLIPVolumeEmbedder)
        if is_volume and embedder.pooling is None:
            raise ValueError(
                "ImageRetriever holds one vector for each study, and the embedder has "
                'pooling=None, which makes bags. Set pooling="mean" or "max".'
            )
        self.images: Sequence[Any] = study_rows(X) if is_volume else image_rows(X)
        self.width = len(embedder.get_feature_names_out())
        self._embedder = embedder

    def __len__(self) -> int:
        return len(self.images)

    def vectors(self, start: int, stop: int) -> NDArray[np.floating]:
        """Return some rows; those of unreadable images are NaN."""
        some = [self.images[row] for row in range(start, min(stop, len(self)))]
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
        """Return why an image cannot be read, from the error of reading it again."""
        try:
            strict_copy(self._embedder).transform([self.images[row]])
        except ImageReadError as error:
            return error.reason
        return "it could not be read at first"

    def sources(self, start: int, stop: int) -> Iterable[str | None]:
        """Return paths and URLs, without the secret parts of a URL."""
        return [source_name(self.images[row]) for row in range(start, stop)]


Collection = Embeddings | Images


def reason_of_vector(vector: Any) -> str:
    """Say why a vector has no direction."""
    values = np.asarray(vector, np.float64)
    if np.isnan(values).any():
        return "the embedding holds NaN"
    if np.isinf(values).any():
        return "the embedding holds infinity"
    return "the embedding is 0 throughout"


def batches(
    collection: Collection,
    ids: pd.Series,
    metadata: pd.DataFrame | None,
    sources: pd.Series | None,
    kinds: Mapping[str, str],
    rejected: list[Rejected],
    *,
    first_number: int = 0,
) -> Iterator[Rows]:
    """Yield the rows of a collection; ``rejected`` gets those without a vector."""
    for start in range(0, len(collection), ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, len(collection))
        given = None if metadata is None else metadata.iloc[start:stop]
        table = conform(given, kinds, stop - start, first_row=start)
        table.insert(0, "id", ids.iloc[start:stop].reset_index(drop=True))
        table.insert(1, "source", _sources(collection, sources, start, stop))
        vectors = collection.vectors(start, stop)
        numbers = first_number + np.arange(start, stop)
        yield from with_vectors(
            vectors, table, numbers, start, collection.reason, rejected
        )


def replacements(
    index: ExactIndex | LanceIndex,
    ids: list[Any],
    collection: Collection | None,
    metadata: pd.DataFrame | None,
    sources: pd.Series | None,
    rejected: list[Rejected],
) -> Iterator[Rows]:
    """Yield changed rows of an index; values that are not given stay as they are.

    Rows whose new vector has no direction are not changed; ``rejected`` gets them.
    """
    for start in range(0, len(ids), ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, len(ids))
        old = index.get(ids[start:stop])
        vectors: NDArray[np.floating] = old.vectors
        table = old.table.copy()
        if metadata is not None:
            given = metadata.iloc[start:stop]
            new = conform(given, index.about.kinds, stop - start, first_row=start)
            table[list(given.columns)] = new[list(given.columns)]
        if collection is not None:
            vectors = collection.vectors(start, stop)
        if sources is not None or isinstance(collection, Images):
            table["source"] = _sources(collection, sources, start, stop)
        reason = collection.reason if collection else str
        yield from with_vectors(vectors, table, old.numbers, start, reason, rejected)


def with_vectors(
    vectors: NDArray[np.floating],
    table: pd.DataFrame,
    numbers: NDArray[np.int64],
    first_row: int,
    reason: Callable[[int], str],
    rejected: list[Rejected],
) -> Iterator[Rows]:
    """Yield the rows that have a vector, if there are any; report the others."""
    unit, usable = to_length_one(vectors)
    for place in np.flatnonzero(~usable).tolist():
        record, row = table.iloc[place], first_row + place
        rejected.append(Rejected(row, record["id"], record["source"], reason(row)))
    if usable.all():
        yield Rows(numbers, unit, table)
    elif usable.any():
        yield Rows(numbers[usable], unit[usable], table[usable].reset_index(drop=True))


def _sources(
    collection: Collection | None, given: pd.Series | None, start: int, stop: int
) -> pd.Series:
    if given is not None:
        return given.iloc[start:stop].reset_index(drop=True)
    assert collection is not None
    column = pd.Series(collection.sources(start, stop), dtype=object)
    return conform_column(column, "text", "source", start)


@dataclass(frozen=True)
class Rejected:
    """One row that was kept out, and why."""

    row: int
    id: Any
    source: Any
    reason: str

    def __str__(self) -> str:
        has_source = self.source is not None and not pd.isna(self.source)
        source = f"{self.source}: " if has_source else ""
        return f"row {self.row}: {source}{self.reason}"


def rejected_table(rejected: list[Rejected]) -> pd.DataFrame:
    """Return them as a table, for ``rejected_``."""
    columns = ["row", "id", "source", "reason"]
    return pd.DataFrame([asdict(one) for one in rejected], columns=columns)


def warn_about_rejected(rejected: list[Rejected], n_rows: int) -> None:
    """Warn once, if there are any."""
    if not rejected:
        return
    shown = [str(one) for one in rejected[:_NAMED_IN_WARNING]]
    if len(rejected) > len(shown):
        shown.append(f"and {len(rejected) - len(shown)} more")
    warn_user(
        f"{len(rejected)} of {n_rows} rows are kept out of the index:\n  "
        + "\n  ".join(shown)
        + "\nrejected_ holds them all.",
        UnreadableImageWarning,
    )
