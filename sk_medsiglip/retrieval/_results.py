"""From what an index found to the table that a user reads."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sk_medsiglip.retrieval._index import Found

__all__ = ["results_table"]


def results_table(found: list[Found], *, is_batch: bool) -> pd.DataFrame:
    """Return results as one table, best first.

    Parameters
    ----------
    found : list of Found
        One a query, with tables.
    is_batch : bool
        Whether a first column says which query a row belongs to.

    Returns
    -------
    DataFrame
        ``query`` in a batch, ``rank`` from 1 on, ``id``, ``source``, ``score``, and
        metadata.
    """
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
