"""Results as a user reads them: without near copies, unlike each other, as a table."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.retrieval._diversity import (
    maximal_marginal_relevance,
    near_duplicates,
)
from sk_medsiglip.retrieval._exact_index import ExactIndex
from sk_medsiglip.retrieval._index import Found
from sk_medsiglip.retrieval._lance_index import LanceIndex
from sk_medsiglip.retrieval._where import Filter

#: Candidates, for each result, among which diverse results are chosen.
_CANDIDATES, _FEWEST_CANDIDATES = 10, 100

#: How many rows more are looked at when near copies took the places of others, and the
#: most, of which the vectors are 300 MB.
_MORE, _MOST = 4, 2**16


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
    return [
        _diverse(
            _distinct(index, query, wanted, where, deduplicate), n, float(diversity)
        )
        for query in queries[:, np.newaxis]
    ]


def _distinct(
    index: ExactIndex | LanceIndex,
    query: NDArray[np.float32],
    wanted: int,
    where: Filter | None,
    threshold: float | None,
) -> Found:
    """Return the best rows of which none is nearly the same as a better one."""
    asked = wanted
    while True:
        (found,) = index.nearest(query, asked, where=where, table=True, vectors=True)
        if threshold is None or not len(found.scores):
            return found
        assert found.vectors is not None
        groups = near_duplicates(found.vectors, threshold=threshold)
        places = np.flatnonzero(groups == np.arange(len(groups)))
        enough = len(places) >= wanted or asked >= max(_MOST, wanted)
        if enough or len(found.scores) < asked:
            return _taken(found, places[:wanted])
        asked = min(_MORE * asked, max(_MOST, wanted))


def _diverse(found: Found, n: int, diversity: float) -> Found:
    if not diversity or not len(found.scores):
        return _taken(found, np.arange(min(n, len(found.scores))))
    assert found.vectors is not None
    return _taken(
        found,
        maximal_marginal_relevance(found.scores, found.vectors, n, diversity=diversity),
    )


def _taken(found: Found, places: NDArray[np.intp]) -> Found:
    assert found.table is not None
    assert found.vectors is not None
    return Found(
        found.scores[places],
        found.numbers[places],
        found.table.iloc[places].reset_index(drop=True),
        found.vectors[places],
    )


def results_table(found: list[Found], *, is_batch: bool) -> pd.DataFrame:
    """Return results as one table; in a batch, ``query`` is the first column."""
    tables = []
    for row, one in enumerate(found):
        assert one.table is not None
        table = one.table.reset_index(drop=True)
        table.insert(2, "score", one.scores)
        table.insert(0, "rank", np.arange(1, len(table) + 1))
        if is_batch:
            table.insert(0, "query", row)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
