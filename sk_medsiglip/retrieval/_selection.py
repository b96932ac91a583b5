"""Results of a search as a table, without near copies and unlike each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.retrieval._exact_index import ExactIndex
from sk_medsiglip.retrieval._index import Found
from sk_medsiglip.retrieval._lance_index import LanceIndex
from sk_medsiglip.retrieval._top_rows import first_copies
from sk_medsiglip.retrieval._where import Filter

#: Number of candidates for each result among which diverse results are chosen.
_CANDIDATES, _FEWEST_CANDIDATES = 10, 100

#: Factor by which more rows are searched where near copies left too few results, and
#: the most rows, whose vectors take 300 MB.
_MORE, _MOST = 4, 2**16

#: Number of vectors compared at a time with as many others: 4 MB of cosines.
_BLOCK = 1024
#: Number of pairs that are multiplied again at a time, in float64.
_PAIRS = 64
Labels = NDArray[np.int64]


def check_selection(deduplicate: float | None, diversity: float) -> None:
    """Raise if an option is out of its range."""
    if deduplicate is not None and not (_is_real(deduplicate) and 0 < deduplicate <= 1):
        raise ValueError(
            "deduplicate must be None or a cosine above 0 and at most 1, such as 0.98, "
            f"got {deduplicate!r}."
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
        found, places = _distinct(index, query, wanted, where, deduplicate)
        if diversity and len(places):
            places = places[
                maximal_marginal_relevance(
                    found.scores[places], found.vectors[places], n, diversity=diversity
                )
            ]
        places = places[:n]
        results.append(
            Found(found.scores[places], found.numbers[places], found.table.iloc[places])
        )
    return results


def _distinct(
    index: ExactIndex | LanceIndex,
    query: NDArray[np.float32],
    wanted: int,
    where: Filter | None,
    threshold: float | None,
) -> tuple[Found, Labels]:
    """Return the best rows, and the positions of those that are not near copies."""
    most, asked = max(_MOST, wanted), wanted
    while True:
        (found,) = index.nearest(query, asked, where=where, table=True, vectors=True)
        places = np.arange(len(found.scores))
        if threshold is not None:
            groups = near_duplicates(found.vectors, threshold=threshold)
            places = np.flatnonzero(groups == places)
        if len(places) >= wanted or asked >= most or len(found.scores) < asked:
            return found, places[:wanted]
        asked = min(_MORE * asked, most)


def neighbors_of_rows(
    index: ExactIndex | LanceIndex, n: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the neighbors of every row, itself excluded, in the order of numbers."""
    numbers, scores, rows = [], [], []
    for some in index.scan():
        found = index.nearest(some.vectors, n + 1)
        for number, one in zip(some.numbers, found, strict=True):
            # A row with more copies than neighbors may not find itself.
            others = np.flatnonzero(one.numbers != number)[:n]
            numbers.append(number)
            scores.append(one.scores[others])
            rows.append(one.numbers[others])
    order = np.argsort(numbers)
    return np.stack(scores)[order], np.stack(rows)[order]


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
    """Return for each vector the position of the kept vector that it is near to.

    Vectors are taken in order, and a vector that is not near to a kept one is kept. So
    no two kept vectors are near, and none is dropped for being near to a dropped one. A
    zero vector is not near to any.

    >>> angles = np.deg2rad([0, 8, 90, 16])
    >>> vectors = np.column_stack([np.cos(angles), np.sin(angles)])
    >>> near_duplicates(vectors, threshold=0.98)
    array([0, 0, 2, 3])
    """
    near = _nearness(vectors, np.float32(threshold))
    groups = first_copies(vectors)
    different = np.flatnonzero(groups == np.arange(len(groups)))
    kept = np.empty(0, np.int64)
    for rows in _blocks(different):
        for before in _blocks(kept):
            is_near = near(rows, before)
            like_one = is_near.any(axis=1)
            groups[rows[like_one]] = before[is_near[like_one].argmax(axis=1)]
            rows = rows[~like_one]
        is_near = near(rows, rows)
        for at, row in enumerate(rows):
            if groups[row] == row:
                like_it = rows[at + 1 :][is_near[at, at + 1 :]]
                groups[like_it[groups[like_it] == like_it]] = row
        kept = np.concatenate([kept, rows[groups[rows] == rows]])
    # Exact copies belong to the group of the first of them.
    return groups[groups]


def _blocks(rows: Labels) -> Iterator[Labels]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]


def _nearness(
    vectors: NDArray[np.floating], threshold: np.float32
) -> Callable[[Labels, Labels], NDArray[np.bool_]]:
    """Return a function that tells which rows are near to which others.

    Cosines that rounding could put on either side of the threshold are computed again
    in float64, so that the result does not depend on blocks.
    """
    # einsum converts to float64 piece by piece, without a copy of all vectors.
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    lengths = np.where(squares > 0, np.sqrt(squares), 1)
    # Bound of the rounding errors of two float32 vectors and of their product.
    doubt = np.float32((vectors.shape[1] + 4) * 2.0**-23)

    def unit(rows: Labels) -> NDArray[np.float32]:
        return (vectors[rows] / lengths[rows, np.newaxis]).astype(np.float32)

    def near(rows: Labels, others: Labels) -> NDArray[np.bool_]:
        cosines = unit(rows) @ unit(others).T
        is_near = cosines >= threshold + doubt
        i, j = np.nonzero((cosines >= threshold - doubt) & ~is_near)
        for start in range(0, len(i), _PAIRS):
            some = i[start : start + _PAIRS], j[start : start + _PAIRS]
            left, right = rows[some[0]], others[some[1]]
            products = np.vecdot(
                vectors[left].astype(np.float64), vectors[right].astype(np.float64)
            )
            exact = products / (lengths[left] * lengths[right])
            is_near[some] = exact.astype(np.float32) >= threshold
        return is_near

    return near


def maximal_marginal_relevance(
    scores: NDArray[np.floating],
    vectors: NDArray[np.floating],
    n: int,
    *,
    diversity: float,
) -> Labels:
    """Return ``n`` candidates that are relevant and differ from each other.

    Each time, the candidate with the highest ``(1 - diversity) * score - diversity *
    (highest cosine with a chosen one)`` is chosen; the first of equal candidates.

    >>> vectors = np.array([[1, 0.1], [1, 0.11], [1, -0.5]])
    >>> maximal_marginal_relevance([0.9, 0.89, 0.7], vectors, 2, diversity=0.7)
    array([0, 2])
    """
    scores = np.asarray(scores, np.float64)
    unit = np.asarray(vectors, np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    chosen = np.empty(min(n, len(unit)), np.int64)
    nearest = np.full(len(unit), -np.inf)
    worth = scores
    for turn in range(len(chosen)):
        if turn:
            # Row by row, since BLAS may give equal rows unequal last bits.
            cosines = np.vecdot(unit, unit[chosen[turn - 1]])
            np.maximum(nearest, cosines, out=nearest)
            worth = (1 - diversity) * scores - diversity * nearest
            worth[chosen[:turn]] = -np.inf
        chosen[turn] = np.argmax(worth)
    return chosen
