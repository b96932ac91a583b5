"""What a user says of rows beside the images: ids, sources, metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sk_medsiglip.retrieval._metadata import conform_column, infer_kind

_NAMED_IN_ERROR = 5


def check_ids(ids: Any, n_rows: int, kind: str | None = None) -> pd.Series:
    """Return ids in the type of their kind, which ``kind`` may prescribe."""
    column = _as_column(ids, "ids")
    if len(column) != n_rows:
        raise ValueError(
            f"there are {n_rows} rows and {len(column)} ids; each row needs one."
        )
    missing = np.flatnonzero(column.isna())
    if missing.size:
        raise ValueError(f"the id of row {missing[0]} is missing; each row needs one.")
    found = infer_kind(column, "ids")
    if found not in ("integer", "text"):
        raise TypeError(
            f"ids must be whole numbers or text, got {column.iloc[0]!r} first. Convert "
            "them: ids.astype(str)."
        )
    if kind is not None and found != kind:
        raise TypeError(
            f"the ids of this index are {_NAME_OF[kind]}, which {column.iloc[0]!r} is "
            "not. Convert them, or fit again."
        )
    column = conform_column(column, found, "ids")
    twice = column[column.duplicated()].unique()
    if len(twice):
        raise ValueError(f"ids must be unique; twice or more: {_named(twice)}.")
    return column


_NAME_OF = {"integer": "whole numbers", "text": "text"}


def ids_as_list(ids: Any, kind: str) -> list[Any]:
    """Return one or several ids, each once, as values that an index looks up."""
    if isinstance(ids, str | int | np.integer):
        ids = [ids]
    column = _as_column(ids, "ids")
    return check_ids(column, len(column), kind).tolist() if len(column) else []


def check_metadata(metadata: Any, X: Any, n_rows: int) -> pd.DataFrame | None:
    """Return metadata as a DataFrame with a row for every row of ``X``."""
    if metadata is None:
        return None
    if hasattr(metadata, "to_pandas"):
        metadata = metadata.to_pandas()
    if isinstance(metadata, Mapping):
        metadata = pd.DataFrame(metadata)
    if not isinstance(metadata, pd.DataFrame):
        raise TypeError(
            f"metadata must be a DataFrame, got {type(metadata).__name__}. Write "
            'pandas.DataFrame({"age": ages}).'
        )
    if len(metadata) != n_rows:
        raise ValueError(
            f"there are {n_rows} rows and metadata of {len(metadata)}; each row needs "
            "one."
        )
    given = getattr(X, "index", None)
    if isinstance(given, pd.Index) and not given.equals(metadata.index):
        raise ValueError(
            "X and metadata have different indexes, so their rows may not belong "
            "together. Put them in one order, metadata.loc[X.index], or, if they are, "
            "say so: metadata.set_index(X.index)."
        )
    return metadata


def check_sources(sources: Any, n_rows: int) -> pd.Series | None:
    """Return sources, a text a row, or None."""
    if sources is None:
        return None
    column = _as_column(sources, "sources")
    if len(column) != n_rows:
        raise ValueError(
            f"there are {n_rows} rows and {len(column)} sources; each row needs one, "
            "or None."
        )
    return conform_column(column, "text", "sources")


def _as_column(values: Any, name: str) -> pd.Series:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise TypeError(f"{name} must be a list or a column, got {values!r}.")
    if isinstance(values, pd.Series):
        return values.reset_index(drop=True)
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise ValueError(f"{name} must be one column, got shape {values.shape}.")
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        return pd.Series(values)
    return pd.Series(list(values), dtype=object)


def _named(ids: Any) -> str:
    # numpy's own repr of a number is "np.int64(3)".
    shown = ", ".join(
        str(one) if isinstance(one, np.integer) else repr(one)
        for one in list(ids[:_NAMED_IN_ERROR])
    )
    more = len(ids) - _NAMED_IN_ERROR
    return f"{shown} and {more} more" if more > 0 else shown


def refuse_known(ids: list[Any]) -> ValueError:
    """Return the error for ids that an index has already."""
    return ValueError(
        f"ids must be unique; the index has already: {_named(ids)}. "
        "retriever.update(ids, X) puts images in their place."
    )


def refuse_unknown(ids: list[Any]) -> ValueError:
    """Return the error for ids that an index does not have."""
    return ValueError(f"the index has no such ids: {_named(ids)}.")
