"""``index="lancedb"``: rows on disk or in an object store, searched there.

A table of LanceDB is a sequence of versions, each written aside and put in place by one
commit. Building, adding, removing and updating are one commit each, so a reader keeps
the version that it opened, and a change that is killed half-way has no effect.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip._json import read_json
from sk_medsiglip.exceptions import SearchIndexError
from sk_medsiglip.retrieval._index import About, Found, NextFree, Rows
from sk_medsiglip.retrieval._lance_table import (
    TABLE,
    LanceSettings,
    RowFormat,
    Stream,
    connect,
    import_lance,
    matrix,
    open_table,
    read_schema,
)
from sk_medsiglip.retrieval._where import Filter, ids_sql

#: Number of rows up to which comparing every row is faster than using an index.
MIN_ROWS_FOR_ANN = 5_000
MIN_ROWS_FOR_AUTO = 250_000

ANN_KINDS = ("flat", "ivf_sq", "ivf_pq", "hnsw")

#: Number of matches of a filter up to which all of them are compared. The parts of an
#: approximate index that a search looks at hold too few of them: with 106 matches in
#: 300,000 rows, one in four was missed.
_FEW_MATCHES = 50_000

#: Number of small files, one for each addition, that a search may have to open.
_MANY_FILES = 16

#: Number of ids in one filter; LanceDB parses 100,000 a second.
_IDS_AT_ONCE = 200_000

_FEW_IDS = 1_000

_ROWS_AT_ONCE = 8192

#: Settings that belong to a table; others are those of the retriever.
_SAVED_SETTINGS = ("uri", "storage", "ann")

#: Key of the next number and id, as JSON, in the metadata of the field of numbers.
_NEXT = b"sk_medsiglip.next"


class LanceIndex:
    """Rows in a table of LanceDB."""

    kind = "lancedb"

    def __init__(self, about: About, settings: LanceSettings) -> None:
        self.about = about
        self.settings = settings
        self._format = RowFormat(about, settings.storage)
        self._opened: Any = None

    @classmethod
    def build(
        cls, about: About, params: Mapping[str, Any], batches: Iterable[Rows]
    ) -> LanceIndex:
        """Write a table, and replace one that is there already."""
        index = cls(about, LanceSettings.of(params))
        database = connect(index.settings)
        with Stream(batches, index._format) as stream:
            index._opened = database.create_table(
                TABLE,
                data=stream.reader,
                schema=index._format.schema,
                mode="overwrite",
            )
        index._make_indexes()
        return index

    @classmethod
    def load(cls, uri: Any, params: Mapping[str, Any]) -> LanceIndex:
        """Open a table."""
        settings = LanceSettings.of({**params, "uri": uri})
        table = open_table(settings)
        about, storage = read_schema(table.schema, settings.uri)
        index = cls(about, replace(settings, storage=storage))
        index._opened = table
        return index

    @property
    def _table(self) -> Any:
        """The table at the version that was opened."""
        if self._opened is None:
            table = open_table(self.settings)
            about, _ = read_schema(table.schema, self.settings.uri)
            if about != self.about:
                raise SearchIndexError(
                    f"the index at {self.settings.uri!r} was built anew since this "
                    "was pickled, with other vectors or columns. Open the new one: "
                    f"ImageRetriever.load({self.settings.uri!r})."
                )
            self._opened = table
        return self._opened

    def __len__(self) -> int:
        return int(self._table.count_rows())

    @property
    def storage(self) -> str:
        """Type of the stored vectors."""
        return self.settings.storage

    @property
    def next_free(self) -> NextFree:
        """Number and id of the next row to be added; none is ever used twice."""
        return self._after_rows(self._scan_columns(self._counted()))

    def _counted(self) -> list[str]:
        """Return the columns whose values may not be used again."""
        return ["number", *(["id"] if self.about.id_kind == "integer" else [])]

    def _after_rows(self, parts: Iterable[Any]) -> NextFree:
        """Return the next number and id after these rows and all removed ones."""
        known = self._table.schema.field("number").metadata or {}
        free = NextFree(**read_json(known[_NEXT])) if _NEXT in known else NextFree()
        for rows in parts:
            named = dict(zip(rows.schema.names, rows.columns, strict=True))
            free = free.after(named["number"], named.get("id", []))
        return free

    def configure(self, params: Mapping[str, Any]) -> None:
        """Take over those parameters of a retriever that change a search."""
        names = ("nprobes", "ef", "refine_factor")
        self.settings = replace(self.settings, **{n: params[n] for n in names})

    def refresh(self) -> None:
        """Go to the newest version, which another process may have written."""
        self._table.checkout_latest()
        self.about, storage = read_schema(self._table.schema, self.settings.uri)
        self.settings = replace(self.settings, storage=storage)
        self._format = RowFormat(self.about, storage)

    def begin_change(self) -> None:
        """Go to the newest version, which a change has to start from."""
        self.refresh()

    def append(self, batches: Iterable[Rows]) -> None:
        """Add rows, all of them or, if there is an error, none."""
        with Stream(batches, self._format) as stream:
            self._table.add(stream.reader)
        files = self._table.stats()["fragment_stats"]["num_small_fragments"]
        if files > _MANY_FILES:
            self._table.optimize()

    def remove(self, ids: list[Any]) -> None:
        """Remove rows by id; all ids are in the index."""
        free = self._after_rows(self._rows_of(ids, self._counted()))
        if free != self._after_rows([]):
            # Numbers and ids of removed rows are not used again.
            counted = {_NEXT.decode(): json.dumps(free._asdict())}
            self._table.update_field_metadata({"path": "number", "metadata": counted})
        for some in _in_parts(ids):
            self._table.delete(ids_sql(some))

    def replace(self, batches: Iterable[Rows]) -> None:
        """Replace the rows that have the same ids, all of which are in the index."""
        # As a list, since the rows are made from rows of the same table: reading it
        # while LanceDB waits for a batch could be a deadlock.
        with Stream(list(batches), self._format) as stream:
            writer = self._table.merge_insert("id").when_matched_update_all()
            writer.execute(stream.reader)

    def known(self, ids: list[Any]) -> NDArray[np.bool_]:
        """Return which of these ids are in the index."""
        wanted = pd.Index(np.array(ids, dtype=object))
        known = np.zeros(len(ids), bool)
        # LanceDB keeps half a kilobyte of memory for each id of a filter.
        parts = self._rows_of(ids, ["id"])
        if len(ids) > _FEW_IDS:
            parts = self._scan_columns(["id"])
        for rows in parts:
            here = wanted.get_indexer(np.array(rows["id"].to_pylist(), dtype=object))
            known[here[here >= 0]] = True
        return known

    def get(self, ids: list[Any]) -> Rows:
        """Return rows by id, in this order; all ids are in the index."""
        parts = self._rows_of(ids, self._format.selected(vectors=True))
        table = import_lance("pyarrow").concat_tables(parts)
        rows = self._format.to_rows(table, vectors=True)
        places = pd.Index(rows.table["id"].to_numpy(object))
        return rows.take(places.get_indexer(np.array(ids, dtype=object)))

    def scan(self, *, vectors: bool = True) -> Iterator[Rows]:
        """Yield all rows in batches, each sorted by number."""
        pyarrow = import_lance("pyarrow")
        for batch in self._scan_columns(self._format.selected(vectors=vectors)):
            table = pyarrow.Table.from_batches([batch])
            rows = self._format.to_rows(table, vectors=vectors)
            yield rows.take(np.argsort(rows.numbers, kind="stable"), vectors=vectors)

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
        columns = ["number", *(["vector"] if vectors else [])]
        if table:
            columns = self._format.selected(vectors=vectors)
        sql = None if where is None else where.sql(self._format.names)
        has_ann = self._has_ann() and (
            sql is None or self._table.count_rows(sql) > _FEW_MATCHES
        )
        found = []
        for query in queries:
            hits = self._ask(query, n, sql, columns, has_ann)
            if has_ann and len(hits) < n:
                # The parts that were searched hold too few: compare every row.
                hits = self._ask(query, n, sql, columns, False)
            scores = (1 - hits["_distance"].to_numpy()).astype(np.float32)
            # Among equal scores, the lowest number comes first.
            order = np.lexsort((hits["number"].to_numpy(), -scores))
            hits = hits.take(order)
            found.append(
                Found(
                    scores[order],
                    hits["number"].to_numpy(),
                    self._format.to_rows(hits, vectors=False).table if table else None,
                    matrix(hits["vector"], self.about.width) if vectors else None,
                )
            )
        return found

    def _ask(
        self,
        query: NDArray[np.float32],
        n: int,
        sql: str | None,
        columns: list[str],
        use_ann: bool,
    ) -> Any:
        search = self._table.search(
            query, vector_column_name="vector", query_type="vector"
        ).distance_type("cosine")
        if sql is not None:
            search = search.where(sql, prefilter=True)
        if use_ann:
            # Compressed vectors only choose candidates; the stored vectors decide.
            refine = self.settings.refine_factor
            search = search.refine_factor(refine)
            if self.settings.nprobes is not None:
                search = search.nprobes(self.settings.nprobes)
            if self.settings.ef is not None:
                # LanceDB refuses a value below the number of results.
                search = search.ef(max(self.settings.ef, n * refine))
        else:
            search = search.bypass_vector_index()
        return search.limit(n).select([*columns, "_distance"]).to_arrow()

    def optimize(self, keep_days: float) -> None:
        """Merge small files, bring indexes up to date, erase old versions."""
        last = max(self._table.list_versions(), key=lambda one: one["version"])
        if last["metadata"].get("total_deletion_files", "0") != "0":
            # Otherwise LanceDB keeps removed rows that are a small part of a file.
            self._table.update(values_sql={"number": "number"})
        with warnings.catch_warnings():
            # The documentation of keep_days has the same warning.
            warnings.filterwarnings("ignore", "optimize.cleanup_older_than=0")
            self._table.optimize(cleanup_older_than=timedelta(days=keep_days))
        self._make_indexes()

    def _make_indexes(self) -> None:
        """Build missing indexes that pay off for this number of rows."""
        n_rows = len(self)
        if n_rows < MIN_ROWS_FOR_ANN:
            return
        ann = self.settings.ann
        if ann == "auto":
            ann = "ivf_sq" if n_rows >= MIN_ROWS_FOR_AUTO else "flat"
        config = import_lance("lancedb.index")
        if not self._is_indexed("id"):
            self._table.create_index("id", config=config.BTree())
        if ann != "flat" and not self._has_ann():
            self._table.create_index("vector", config=self._ann_config(config, ann))

    def _ann_config(self, config: Any, ann: str) -> Any:
        if ann == "ivf_pq":
            # LanceDB's default, a sixteenth of the width, missed half of the ten
            # nearest of 100,000 rows; a quarter of the width missed one in a hundred.
            width = self.about.width
            parts = width // 4 if width % 4 == 0 else None
            return config.IvfPq(distance_type="cosine", num_sub_vectors=parts)
        kind = {"ivf_sq": config.IvfSq, "hnsw": config.HnswSq}[ann]
        return kind(distance_type="cosine")

    def _has_ann(self) -> bool:
        return self._is_indexed("vector")

    def _is_indexed(self, column: str) -> bool:
        return any(column in one.columns for one in self._table.list_indices())

    def _rows_of(self, ids: list[Any], columns: list[str]) -> Iterator[Any]:
        """Yield the rows with these ids, in any order, as Arrow tables."""
        for some in _in_parts(ids):
            rows = self._table.search().where(ids_sql(some))
            yield rows.select(columns).to_arrow()

    def _scan_columns(self, columns: list[str]) -> Iterator[Any]:
        yield from self._table.search().select(columns).to_batches(_ROWS_AT_ONCE)

    def state(self) -> dict[str, Any]:
        """Return the location of the rows, as plain values."""
        known = {name: getattr(self.settings, name) for name in _SAVED_SETTINGS}
        return {"kind": self.kind, "about": self.about.as_dict(), **known}

    @classmethod
    def of_state(
        cls, state: Mapping[str, Any], params: Mapping[str, Any]
    ) -> LanceIndex:
        """Return the index that :meth:`state` describes, not opened yet."""
        known = {name: state[name] for name in _SAVED_SETTINGS}
        return cls(
            About.from_dict(state["about"]), LanceSettings.of({**params, **known})
        )


def _in_parts(ids: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(ids), _IDS_AT_ONCE):
        yield ids[start : start + _IDS_AT_ONCE]
