"""What every index can do, and the rows that go in and come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip._json import read_json
from sk_medsiglip.retrieval._condition import Condition
from sk_medsiglip.retrieval._metadata import dtype_of

__all__ = ["About", "Found", "Index", "NextFree", "Rows"]


@dataclass(frozen=True)
class About:
    """What an index remembers of its rows as a whole.

    Parameters
    ----------
    width : int
        Of the vectors.
    id_kind : {"integer", "text"}
        Kind of the ids.
    kinds : dict of str to str
        Kind of every metadata column, in order.
    model : str
        Whose vectors they are.
    revision : str or None
        Of its weights; None where embeddings were given without one.
    recipe : str or None
        How images became its input; None where embeddings were given.
    """

    width: int
    id_kind: str
    kinds: Mapping[str, str]
    model: str
    revision: str | None
    recipe: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {**asdict(self), "kinds": dict(self.kinds)}

    @classmethod
    def from_json(cls, text: bytes | str) -> About:
        """Return what :meth:`as_dict` gave; ValueError if it is anything else."""
        optional = (str, type(None))
        kinds = {"width": int, "id_kind": str, "kinds": dict, "model": str}
        known = read_json(text, kinds | {"revision": optional, "recipe": optional})
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


@dataclass(frozen=True)
class NextFree:
    """What the next row is called; only ever grows, also when rows are removed.

    Parameters
    ----------
    number : int
        Larger than the numbers of all rows so far.
    id : int
        Larger than their ids, where these are whole numbers.
    """

    number: int = 0
    id: int = 0

    def after(self, numbers: ArrayLike, ids: ArrayLike) -> NextFree:
        """Return what follows when rows with these have been there too."""
        largest = [int(np.max(some, initial=-1)) for some in (numbers, ids)]
        return NextFree(max(self.number, largest[0] + 1), max(self.id, largest[1] + 1))


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows on their way into an index, or out of it.

    Parameters
    ----------
    numbers : ndarray of shape (n,), int64
        What ``kneighbors`` calls them.
    vectors : ndarray of shape (n, width), float32
        Of length 1.
    table : DataFrame of n rows
        ``id``, ``source`` and metadata, in the types of their kinds.
    """

    numbers: NDArray[np.int64]
    vectors: NDArray[np.float32]
    table: pd.DataFrame

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True, eq=False)
class Found:
    """The rows nearest to one query, best first.

    Parameters
    ----------
    scores : ndarray of shape (k,), float32
        Cosines, decreasing.
    numbers : ndarray of shape (k,), int64
        Of the rows.
    table : DataFrame of k rows or None
        Where it was asked for.
    vectors : ndarray of shape (k, width), float32, or None
        Where they were asked for.
    """

    scores: NDArray[np.float32]
    numbers: NDArray[np.int64]
    table: pd.DataFrame | None = None
    vectors: NDArray[np.float32] | None = None


class Index(ABC):
    """Abstract: rows that can be searched.

    Parameters
    ----------
    about : About
        Of the rows.
    """

    def __init__(self, about: About) -> None:
        self.about = about

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @property
    @abstractmethod
    def next_free(self) -> NextFree:
        """Number and id of the next row that is added, which no row ever had."""

    @property
    @abstractmethod
    def storage(self) -> str:
        """How vectors are kept: "float32" or "float16"."""

    @abstractmethod
    def configure(self, params: Mapping[str, Any]) -> None:
        """Search as a retriever's parameters say now."""

    @abstractmethod
    def refresh(self) -> None:
        """See what other processes have stored since the index was opened."""

    @abstractmethod
    def begin_change(self) -> None:
        """Go to the rows that a change starts from, whoever wrote them."""

    @abstractmethod
    def optimize(self, keep_days: float) -> None:
        """Tidy up after many changes; erase what was removed so many days ago."""

    @abstractmethod
    def append(self, batches: Iterable[Rows]) -> None:
        """Add rows; all of them or, after an error, none."""

    @abstractmethod
    def remove(self, ids: list[Any]) -> None:
        """Take rows out; all of them are there."""

    @abstractmethod
    def replace(self, batches: Iterable[Rows]) -> None:
        """Put rows in the place of those with their ids, which are there."""

    @abstractmethod
    def known(self, ids: list[Any]) -> NDArray[np.bool_]:
        """Return which of these ids are there."""

    @abstractmethod
    def get(self, ids: list[Any], *, vectors: bool = True) -> Rows:
        """Return rows by id, in this order; all of them are there."""

    @abstractmethod
    def scan(self, *, vectors: bool = True) -> Iterator[Rows]:
        """Yield all rows in batches, by number within each."""

    @abstractmethod
    def nearest(
        self,
        queries: NDArray[np.float32],
        n: int,
        *,
        where: Condition | None = None,
        table: bool = False,
        vectors: bool = False,
    ) -> list[Found]:
        """Return the ``n`` nearest rows of every query, fewer where there are not n."""
