"""``index="lancedb"``: rows on disk or in an object store, searched where they lie.

A table of LanceDB is a sequence of versions, each written aside and put in place by one
commit. Building, adding, removing and updating are one commit each; so a reader keeps
the version that it opened, and a change that was killed half-way has no effect.
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

#: Below this a search compares every row faster than it would use an index, and finds
#: all of them.
MIN_ROWS_FOR_ANN = 5_000
MIN_ROWS_FOR_AUTO = 250_000

ANN_KINDS = ("flat", "ivf_sq", "ivf_pq", "hnsw")

#: Rows that a filter leaves up to which they are all compared: parts of an approximate
#: index that are looked into hold too few of them (106 of 300,000: 3 of 4 were found).
_FEW_MATCHES = 50_000

#: Small files, one an addition, that a search may have to open.
_MANY_FILES = 16

#: Ids in one filter; LanceDB reads 100,000 a second.
_IDS_AT_ONCE = 200_000

_FEW_IDS = 1_000

_ROWS_AT_ONCE = 8192

#: Key in the metadata of the field of numbers: the next number and id, as JSON.
_NEXT = b"sk_medsiglip.next"


class LanceIndex:
    """Rows in a table of LanceDB."""

    def __init__(self, about: About, settings: LanceSettings) -> None:
        self.about = about
        self.settings = settings
        self._format = RowFormat(about, settings.storage)
        self._opened: Any = None

    @classmethod
    def build(
        cls, about: About, settings: LanceSettings, batches: Iterable[Rows]
    ) -> LanceIndex:
        """Write a table, in the place of one that may be there."""
        index = cls(about, settings)
        database = connect(settings)
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
    def load(cls, settings: LanceSettings) -> LanceIndex:
        """Open a table."""
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
                    "was pickled, of other vectors or columns. Open what is there "
                    f"now: ImageRetriever.load({self.settings.uri!r})."
                )
            self._opened = table
        return self._opened

    def __len__(self) -> int:
        return int(self._table.count_rows())

    @property
    def storage(self) -> str:
        """How vectors are kept."""
        return self.settings.storage

    @property
    def next_free(self) -> NextFree:
        """Number and id of the next row to be added; they are never given twice."""
        return self._after(self._removed(), self._scan_columns(self._counted()))

    def _counted(self) -> list[str]:
        """Return the columns that rows are counted by."""
        return ["number", *(["id"] if self.about.id_kind == "integer" else [])]

    def _removed(self) -> NextFree:
        """Return the next number and id after the removed rows; see :meth:`remove`."""
        known = self._table.schema.field("number").metadata or {}
        return NextFree(**read_json(known[_NEXT])) if _NEXT in known else NextFree()

    def _after(self, free: NextFree, parts: Iterable[Any]) -> NextFree:
        for rows in parts:
            named = dict(zip(rows.schema.names, rows.columns, strict=True))
            free = free.after(named["number"], named.get("id", []))
        return free

    def configure(self, params: Mapping[str, Any]) -> None:
        """Search as a retriever's parameters say now."""
        names = ("nprobes", "ef", "refine_factor")
        self.settings = replace(self.settings, **{n: params[n] for n in names})

    def refresh(self) -> None:
        """Go to the newest version, which another process may have written."""
        self._table.checkout_latest()
        about, storage = read_schema(self._table.schema, self.settings.uri)
        if (about, storage) != (self.about, self.storage):
            self.about = about
            self.settings = replace(self.settings, storage=storage)
            self._format = RowFormat(about, storage)

    def begin_change(self) -> None:
        """Go to the newest rows, from which a change starts."""
        self.refresh()

    def append(self, batches: Iterable[Rows]) -> None:
        """Add rows; all of them or, after an error, none."""
        with Stream(batches, self._format) as stream:
            self._table.add(stream.reader)
        files = self._table.stats()["fragment_stats"]["num_small_fragments"]
        if files > _MANY_FILES:
            self._table.optimize()

    def remove(self, ids: list[Any]) -> None:
        """Take rows out; all of them are there."""
        before = self._removed()
        free = self._after(before, self._rows_of(ids, self._counted()))
        if free != before:
            # Numbers and ids of rows that are gone are not given to others.
            counted = {_NEXT.decode(): json.dumps(free._asdict())}
            self._table.update_field_metadata({"path": "number", "metadata": counted})
        for some in _in_parts(ids):
            self._table.delete(ids_sql(some))

    def replace(self, batches: Iterable[Rows]) -> None:
        """Put rows in the place of those with their ids, which are there."""
        # All of them first, since they are made from rows of this very table, and
        # reading it while LanceDB waits for a batch could wait for ever.
        with Stream(list(batches), self._format) as stream:
            writer = self._table.merge_insert("id").when_matched_update_all()
            writer.execute(stream.reader)

    def known(self, ids: list[Any]) -> NDArray[np.bool_]:
        """Return which of these ids are there."""
        wanted = pd.Index(np.array(ids, dtype=object))
        known = np.zeros(len(ids), bool)
        # A filter of thousands of ids costs memory that LanceDB keeps, half a kB each.
        parts = self._rows_of(ids, ["id"])
        if len(ids) > _FEW_IDS:
            parts = self._scan_columns(["id"])
        for rows in parts:
            here = wanted.get_indexer(np.array(rows["id"].to_pylist(), dtype=object))
            known[here[here >= 0]] = True
        return known

    def get(self, ids: list[Any]) -> Rows:
        """Return rows by id, in this order; all of them are there."""
        parts = self._rows_of(ids, self._format.selected(vectors=True))
        table = import_lance("pyarrow").concat_tables(parts)
        rows = self._format.to_rows(table, vectors=True)
        places = pd.Index(rows.table["id"].to_numpy(object))
        return rows.take(places.get_indexer(np.array(ids, dtype=object)))

    def scan(self, *, vectors: bool = True) -> Iterator[Rows]:
        """Yield all rows in batches, by number within each."""
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
        """Return the ``n`` nearest rows of every query, fewer where there are not n."""
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
                # Parts that were looked into held too few: compare every row.
                hits = self._ask(query, n, sql, columns, False)
            scores = (1 - hits["_distance"].to_numpy()).astype(np.float32)
            # Of equal scores the first row comes first.
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
            # Distances of compressed vectors choose candidates only; the stored ones
            # decide.
            refine = self.settings.refine_factor
            search = search.refine_factor(refine)
            if self.settings.nprobes is not None:
                search = search.nprobes(self.settings.nprobes)
            if self.settings.ef is not None:
                # LanceDB refuses to look at fewer than it is to return.
                search = search.ef(max(self.settings.ef, n * refine))
        else:
            search = search.bypass_vector_index()
        return search.limit(n).select([*columns, "_distance"]).to_arrow()

    def optimize(self, keep_days: float) -> None:
        """Merge small files, bring indexes up to date, erase old versions."""
        last = max(self._table.list_versions(), key=lambda one: one["version"])
        if last["metadata"].get("total_deletion_files", "0") != "0":
            # LanceDB leaves removed rows in a file if they are a small part of it.
            self._table.update(values_sql={"number": "number"})
        with warnings.catch_warnings():
            # Our documentation has the same warning about keeping no old version.
            warnings.filterwarnings("ignore", "optimize.cleanup_older_than=0")
            self._table.optimize(cleanup_older_than=timedelta(days=keep_days))
        self._make_indexes()

    def _make_indexes(self) -> None:
        """Build the indexes that pay for this number of rows and do not exist yet."""
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
            # LanceDB's own choice, a sixteenth of the width, lost half of the ten
            # nearest of 100,000 rows; a quarter lost one in a hundred.
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
        """Return where the rows are, as plain values."""
        return {
            "kind": "lancedb",
            "about": self.about.as_dict(),
            "uri": self.settings.uri,
            "storage": self.settings.storage,
            "ann": self.settings.ann,
        }

    @classmethod
    def of_state(
        cls, state: Mapping[str, Any], options: Mapping[str, str] | None
    ) -> LanceIndex:
        """Return the index that :meth:`state` describes, not opened yet."""
        settings = LanceSettings(
            state["uri"], options, storage=state["storage"], ann=state["ann"]
        )
        return cls(About.from_dict(state["about"]), settings)


def _in_parts(ids: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(ids), _IDS_AT_ONCE):
        yield ids[start : start + _IDS_AT_ONCE]
