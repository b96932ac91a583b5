"""Rows of an index and results of a search, and facts about an index."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip._json import read_json
from sk_medsiglip.retrieval._metadata import conform, dtype_of


@dataclass(frozen=True)
class About:
    """Facts about the rows of an index as a whole."""

    width: int
    id_kind: str  # "integer" or "text"
    kinds: Mapping[str, str]  # kinds of the columns of metadata, in order
    model: str
    revision: str | None  # None for embeddings that were given without one
    recipe: str | None  # how images were prepared; None for embeddings

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as values that JSON can hold."""
        return {**asdict(self), "kinds": dict(self.kinds)}

    @classmethod
    def from_dict(cls, facts: Any) -> About:
        """Return the facts of :meth:`as_dict`; raise ValueError for anything else."""
        optional = (str, type(None))
        kinds = {"width": int, "id_kind": str, "kinds": dict, "model": str}
        known = read_json(
            json.dumps(facts), kinds | {"revision": optional, "recipe": optional}
        )
        about = cls(**{field.name: known[field.name] for field in fields(cls)})
        if about.width < 1 or about.id_kind not in ("integer", "text"):
            raise ValueError("width or id_kind is out of its range")
        for kind in about.kinds.values():
            dtype_of(kind)
        return about

    @property
    def columns(self) -> dict[str, str]:
        """Kinds of all columns of the table: id, source, and metadata."""
        return {"id": self.id_kind, "source": "text", **self.kinds}


class NextFree(NamedTuple):
    """Number and id of the next row; both only grow, also when rows are removed."""

    number: int = 0
    id: int = 0

    def after(self, numbers: ArrayLike, ids: ArrayLike) -> NextFree:
        """Return the next number and id after rows that have these."""
        number, largest_id = (int(np.max(some, initial=-1)) for some in (numbers, ids))
        return NextFree(max(self.number, number + 1), max(self.id, largest_id + 1))


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of an index: a number, a vector and a record each.

    Vectors are of unit length. The table has ``id``, ``source`` and metadata, in the
    types of their kinds.
    """

    numbers: NDArray[np.int64]
    vectors: NDArray[np.floating]
    table: pd.DataFrame

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, places: NDArray[np.int64], *, vectors: bool = True) -> Rows:
        """Return the rows at some places, in this order."""
        taken = self.vectors[places] if vectors else self.vectors[:0]
        return Rows(
            self.numbers[places],
            np.asarray(taken, np.float32),
            self.table.iloc[places].reset_index(drop=True),
        )


class Found(NamedTuple):
    """The rows nearest to one query, best first; table and vectors on request."""

    scores: NDArray[np.float32]
    numbers: NDArray[np.int64]
    table: Any = None  # a DataFrame
    vectors: Any = None  # an ndarray with one vector a row


def joined(parts: list[Rows], about: About, storage: str = "float32") -> Rows:
    """Return rows as one set; each part is let go of once it is copied."""
    n_vectors = sum(len(part.vectors) for part in parts)
    vectors = np.empty((n_vectors, about.width), storage)
    numbers = [np.empty(0, np.int64), *(part.numbers for part in parts)]
    tables = [part.table for part in parts if len(part)]
    stop = 0
    while parts:
        part = parts.pop(0)
        start, stop = stop, stop + len(part.vectors)
        vectors[start:stop] = part.vectors
    table = pd.concat(tables or [conform(pd.DataFrame(), about.columns)])
    return Rows(np.concatenate(numbers), vectors, table.reset_index(drop=True))


def all_rows(index: Any, *, vectors: bool = True) -> Rows:
    """Return all rows of an index by number, with or without their vectors."""
    rows = joined(list(index.scan(vectors=vectors)), index.about)
    return rows.take(np.argsort(rows.numbers), vectors=vectors)
