"""Results as a user reads them: without near copies, unlike each other, as a table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.retrieval._exact_index import ExactIndex
from sk_medsiglip.retrieval._index import Found
from sk_medsiglip.retrieval._lance_index import LanceIndex
from sk_medsiglip.retrieval._top_rows import first_copies
from sk_medsiglip.retrieval._where import Filter

#: Candidates, for each result, among which diverse results are chosen.
_CANDIDATES, _FEWEST_CANDIDATES = 10, 100

#: How many rows more are looked at when near copies took the places of others, and the
#: most, of which the vectors are 300 MB.
_MORE, _MOST = 4, 2**16

#: Vectors that are compared at a time with as many: 4 MB of cosines.
_BLOCK = 1024
#: Pairs that are multiplied again at a time, in float64.
_PAIRS = 64
Labels = NDArray[np.int64]


def check_selection(deduplicate: float | None, diversity: float) -> None:
    """Raise if an option is out of its range."""
    if deduplicate is not None and not (_is_real(deduplicate) and 0 < deduplicate <= 1):
        raise ValueError(
            "deduplicate must be None or a cosine above 0 and at most 1, as 0.98, got "
            f"{deduplicate!r}."
        )
    if not (_is_real(diversity) and 0 <= diversity <= 1):
        raise ValueError(f"diversity must be from 0 to 1, got {diversity!r}.")


def _is_real(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def nearest_selected(
    index: ExactIndex | LanceIndex,
    queries: NDArray[np.float32],
    n: int,
    *,
    where: Filter | None,
    deduplicate: float | None,
    diversity: float,
) -> list[Found]:
    """Return the rows nearest to every query, with their tables."""
    if deduplicate is None and not diversity:
        return index.nearest(queries, n, where=where, table=True)
    wanted = max(_CANDIDATES * n, _FEWEST_CANDIDATES) if diversity else n
    results = []
    for query in queries[:, np.newaxis]:
        found = _distinct(index, query, wanted, where, deduplicate)
        places = np.arange(min(n, len(found.scores)))
        if diversity and len(places):
            places = maximal_marginal_relevance(
                found.scores, found.vectors, n, diversity=float(diversity)
            )
        results.append(found.take(places))
    return results


def _distinct(
    index: ExactIndex | LanceIndex,
    query: NDArray[np.float32],
    wanted: int,
    where: Filter | None,
    threshold: float | None,
) -> Found:
    """Return the best rows, without those nearly the same as a better one."""
    asked = wanted
    while True:
        (found,) = index.nearest(query, asked, where=where, table=True, vectors=True)
        if threshold is None or not len(found.scores):
            return found
        groups = near_duplicates(found.vectors, threshold=threshold)
        places = np.flatnonzero(groups == np.arange(len(groups)))
        enough = len(places) >= wanted or asked >= max(_MOST, wanted)
        if enough or len(found.scores) < asked:
            return found.take(places[:wanted])
        asked = min(_MORE * asked, max(_MOST, wanted))


def results_table(found: list[Found], *, is_batch: bool) -> pd.DataFrame:
    """Return results as one table; in a batch, ``query`` is the first column."""
    tables = []
    for row, one in enumerate(found):
        table = one.table.reset_index(drop=True)
        table.insert(2, "score", one.scores)
        table.insert(0, "rank", np.arange(1, len(table) + 1))
        if is_batch:
            table.insert(0, "query", row)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def near_duplicates(vectors: NDArray[np.floating], *, threshold: float) -> Labels:
    """Return for each vector the position of the kept one that it is near to.

    Vectors are taken in order, and one that is near to none kept so far is kept. So no
    two kept ones are near, and nothing is dropped for being like something dropped.
    Cosines that rounding could put on either side of the threshold are computed again
    in float64, so that exact copies are near at any threshold. A zero vector is near to
    nothing.

    >>> angles = np.deg2rad([0, 8, 90, 16])
    >>> vectors = np.column_stack([np.cos(angles), np.sin(angles)])
    >>> near_duplicates(vectors, threshold=0.98)
    array([0, 0, 2, 3])
    """
    first_copy = first_copies(vectors)
    different = np.flatnonzero(first_copy == np.arange(len(vectors)))
    cosines = _Cosines(vectors, different, threshold)
    groups = np.full(len(different), -1, np.int64)
    kept = np.empty(0, np.int64)
    for some in _slices(len(different)):
        rows = np.arange(some.start, some.stop)
        for before in _slices(len(kept)):
            left = rows[groups[rows] < 0]
            near = cosines.near(left, kept[before])
            like_one = near.any(axis=1)
            groups[left[like_one]] = kept[before][near[like_one].argmax(axis=1)]
        rows = rows[groups[rows] < 0]
        near = cosines.near(rows, rows)
        for at, row in enumerate(rows):
            if groups[row] < 0:
                groups[row] = row
                like_it = rows[at + 1 :][near[at, at + 1 :]]
                groups[like_it[groups[like_it] < 0]] = row
        kept = np.concatenate([kept, rows[groups[rows] == rows]])
    found = np.empty(len(vectors), np.int64)
    found[different] = different[groups]
    return found[first_copy]


def maximal_marginal_relevance(
    scores: NDArray[np.floating],
    vectors: NDArray[np.floating],
    n: int,
    *,
    diversity: float,
) -> Labels:
    """Return ``n`` candidates that are relevant and differ from each other.

    One after the other, always that of the highest ``(1 - diversity) * score -
    diversity * highest cosine with one chosen before``; the lowest of equal ones.

    >>> vectors = np.array([[1, 0.1], [1, 0.11], [1, -0.5]])
    >>> maximal_marginal_relevance([0.9, 0.89, 0.7], vectors, 2, diversity=0.7)
    array([0, 2])
    """
    scores = np.asarray(scores, np.float64)
    unit = vectors / _lengths(vectors)[:, np.newaxis]
    chosen = np.empty(min(n, len(unit)), np.int64)
    nearest = np.full(len(unit), -np.inf)
    worth = scores
    for turn in range(len(chosen)):
        if turn:
            # Row by row: a BLAS product may give equal rows unequal last bits.
            cosines = np.vecdot(unit, unit[chosen[turn - 1]])
            np.maximum(nearest, cosines, out=nearest)
            worth = (1 - diversity) * scores - diversity * nearest
            worth[chosen[:turn]] = -np.inf
        chosen[turn] = np.argmax(worth)
    return chosen


class _Cosines:
    """Which members of some vectors are near, whatever the blocks they are in."""

    def __init__(
        self, vectors: NDArray[np.floating], members: Labels, threshold: float
    ) -> None:
        self._vectors, self._members = vectors, members
        self._lengths = np.empty(len(members))
        for some in _slices(len(members)):
            self._lengths[some] = _lengths(vectors[members[some]])
        self._threshold = np.float32(threshold)
        # Largest error of rounding to float32, of each vector and in the product.
        self._doubt = np.float32((vectors.shape[1] + 4) * 2.0**-23)

    def near(self, rows: Labels, others: Labels) -> NDArray[np.bool_]:
        """Return whether each of the rows is near to each of the others."""
        cosines = self._unit(rows) @ self._unit(others).T
        near = cosines >= self._threshold + self._doubt
        i, j = np.nonzero((cosines >= self._threshold - self._doubt) & ~near)
        for start in range(0, len(i), _PAIRS):
            some = i[start : start + _PAIRS], j[start : start + _PAIRS]
            near[some] = self._near_one_by_one(rows[some[0]], others[some[1]])
        return near

    def _unit(self, rows: Labels) -> NDArray[np.float32]:
        lengths = self._lengths[rows, np.newaxis]
        return (self._vectors[self._members[rows]] / lengths).astype(np.float32)

    def _near_one_by_one(self, rows: Labels, others: Labels) -> NDArray[np.bool_]:
        left, right = (
            self._vectors[self._members[at]].astype(np.float64) for at in (rows, others)
        )
        lengths = self._lengths[rows] * self._lengths[others]
        return (np.vecdot(left, right) / lengths).astype(np.float32) >= self._threshold


def _slices(n: int) -> Iterator[slice]:
    for start in range(0, n, _BLOCK):
        yield slice(start, min(start + _BLOCK, n))


def _lengths(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return lengths, and 1 for zero vectors, which stay zero when divided."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return np.where(lengths > 0, lengths, 1.0)
