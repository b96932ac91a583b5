"""``index="exact"``: every row is compared, in memory or from a mapped file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.exceptions import SearchIndexError
from sk_medsiglip.retrieval._index import About, Found, NextFree, Rows, joined
from sk_medsiglip.retrieval._index_folder import (
    arrays_of_table,
    read_folder,
    read_index_file,
    saved_meanwhile,
    table_of_arrays,
    write_folder,
)
from sk_medsiglip.retrieval._top_rows import top_rows
from sk_medsiglip.retrieval._where import Filter

_ROWS_AT_ONCE = 8192


class ExactIndex:
    """Rows in memory, or in a folder from which their vectors are mapped.

    A change reads the vectors of a folder into memory.
    """

    kind = "exact"

    def __init__(self, about: About, storage: str) -> None:
        self.about = about
        self.storage = storage
        self.next_free = NextFree()
        self._device = "cpu"
        # Joined when rows are next needed.
        self._parts: list[Rows] = []
        self._place_of: pd.Index | None = None
        # Where these very rows are stored, if they are: (folder, name of the arrays).
        self._stored: tuple[str, str] | None = None
        # Where they were stored last, changed since or not.
        self._origin: tuple[str, str] | None = None

    @classmethod
    def build(
        cls, about: About, params: Mapping[str, Any], batches: Iterable[Rows]
    ) -> ExactIndex:
        """Return an index of rows, by the parameters of a retriever."""
        index = cls(about, params["storage"])
        index.append(batches)
        return index

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def _rows(self) -> Rows:
        """All rows, in the order in which they were added."""
        if len(self._parts) != 1:
            self._parts = [joined(self._parts, self.about, self.storage)]
        return self._parts[0]

    def append(self, batches: Iterable[Rows]) -> None:
        """Add rows, all of them or, if there is an error, none."""
        new = [
            Rows(one.numbers, one.vectors.astype(self.storage, copy=False), one.table)
            for one in batches
        ]
        self._parts += new
        for one in new:
            self._count(one)
        self._changed()

    def remove(self, ids: list[Any]) -> None:
        """Remove rows by id; all ids are in the index."""
        rows, wanted = self._rows, np.ones(len(self), bool)
        wanted[self._places(ids)] = False
        table = rows.table[wanted].reset_index(drop=True)
        self._parts = [Rows(rows.numbers[wanted], rows.vectors[wanted], table)]
        self._changed()

    def replace(self, batches: Iterable[Rows]) -> None:
        """Replace the rows that have the same ids, all of which are in the index."""
        new = list(batches)  # so that an error comes before anything is removed
        self.remove([one for rows in new for one in rows.table["id"]])
        self.append(new)

    def known(self, ids: list[Any]) -> NDArray[np.bool_]:
        """Return which of these ids are in the index."""
        return self._places(ids) >= 0

    def get(self, ids: list[Any]) -> Rows:
        """Return rows by id, in this order; all ids are in the index."""
        return self._rows.take(self._places(ids))

    def scan(self, *, vectors: bool = True) -> Iterator[Rows]:
        """Yield all rows in batches, by number."""
        order = np.argsort(self._rows.numbers, kind="stable")
        for start in range(0, len(order), _ROWS_AT_ONCE):
            some = order[start : start + _ROWS_AT_ONCE]
            yield self._rows.take(some, vectors=vectors)

    def nearest(
        self,
        queries: NDArray[np.float32],
        n: int,
        *,
        where: Filter | None = None,
        table: bool = False,
        vectors: bool = False,
    ) -> list[Found]:
        """Return the ``n`` nearest rows of every query, fewer if fewer match."""
        rows = self._rows
        allowed = None
        if where is not None:
            allowed = np.flatnonzero(where.rows(rows.table))
        scores, positions = top_rows(
            queries, rows.vectors, n, allowed=allowed, device=self._device
        )
        return [
            Found(
                some,
                rows.numbers[places],
                rows.table.iloc[places].reset_index(drop=True) if table else None,
                np.asarray(rows.vectors[places], np.float32) if vectors else None,
            )
            for some, places in zip(scores, positions, strict=True)
        ]

    def configure(self, params: Mapping[str, Any]) -> None:
        """Take over those parameters of a retriever that change a search."""
        self._device = params["device"]

    def begin_change(self) -> None:
        """Do nothing: no other process changes rows in memory."""

    def optimize(self, keep_days: float) -> None:
        """Do nothing: rows are contiguous at all times."""

    def refresh(self) -> None:
        """Read the changes that other processes stored since the index was opened."""
        if self._origin is None:
            return
        folder, name = self._origin
        if read_index_file(Path(folder))["rows"] == name:
            return
        if self._stored is None:
            raise saved_meanwhile(Path(folder))
        self.__dict__.update(ExactIndex.load(folder).__dict__)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the index into a folder, and replace one that is there already."""
        self._stored = self._origin = write_folder(
            Path(folder), self._arrays(), self._facts(), self._origin
        )

    @classmethod
    def load(cls, folder: str | os.PathLike[str], params: Any = None) -> ExactIndex:
        """Open the index in a folder; vectors stay in their file."""

        def build(facts: dict[str, Any], arrays: dict[str, Any]) -> ExactIndex:
            index = cls._of_arrays(facts, arrays)
            index._stored = index._origin = (os.path.realpath(folder), facts["rows"])
            return index

        return read_folder(Path(folder), build)

    @classmethod
    def _of_arrays(cls, facts: Mapping[str, Any], arrays: dict[str, Any]) -> ExactIndex:
        index = cls(About.from_dict(facts["about"]), facts["storage"])
        vectors, numbers = arrays.pop("vectors"), arrays.pop("numbers")
        table = table_of_arrays(arrays, index.about.columns, len(numbers))
        index._parts = [Rows(numbers, vectors, table)]
        index.next_free = NextFree(**facts.get("next", {}))
        index._count(index._rows)
        return index

    def state(self) -> dict[str, Any]:
        """Return the location of the rows if they are stored, else their arrays."""
        if self._stored is not None:
            folder, name = self._stored
            return {"kind": self.kind, "folder": folder, "rows": name}
        return {"kind": self.kind, **self._facts(), "arrays": self._arrays()}

    @classmethod
    def of_state(cls, state: Mapping[str, Any], params: Any = None) -> ExactIndex:
        """Return the index that :meth:`state` describes."""
        if "arrays" in state:
            return cls._of_arrays(state, dict(state["arrays"]))
        folder = state["folder"]
        if read_index_file(Path(folder))["rows"] != state["rows"]:
            raise SearchIndexError(
                f"the index in {folder!r} was saved anew since this was pickled, with "
                f"other rows. Open the new one: ImageRetriever.load({folder!r})."
            )
        return cls.load(folder)

    def _facts(self) -> dict[str, Any]:
        return {
            "n_rows": len(self),
            "next": self.next_free._asdict(),
            "storage": self.storage,
            "about": self.about.as_dict(),
        }

    def _arrays(self) -> dict[str, NDArray[Any]]:
        rows = self._rows
        arrays = {"vectors": rows.vectors, "numbers": rows.numbers}
        return arrays | dict(arrays_of_table(rows.table, self.about.columns))

    def _places(self, ids: list[Any]) -> NDArray[np.int64]:
        """Return the position of every id, -1 if it is not in the index."""
        dtype = np.int64 if self.about.id_kind == "integer" else object
        if self._place_of is None:
            self._place_of = pd.Index(self._rows.table["id"].to_numpy(dtype))
        return self._place_of.get_indexer(np.array(ids, dtype=dtype))

    def _count(self, rows: Rows) -> None:
        """Note numbers and ids that may not be used again."""
        has_numbers = self.about.id_kind == "integer"
        ids = rows.table["id"].to_numpy(np.int64) if has_numbers else []
        self.next_free = self.next_free.after(rows.numbers, ids)

    def _changed(self) -> None:
        self._place_of = None
        self._stored = None
