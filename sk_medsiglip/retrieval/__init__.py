"""Search of a collection of images by words, by images, or by both.

::

    _retriever.py        ImageRetriever
    _queries.py          Query: texts, images and their differences as one direction
    _selection.py        results as a table, without near copies, unlike each other
    _hits_plot.py        RetrievalDisplay
    metrics/             how good a search is

    _index.py            rows of an index, and facts about it
    _exact_index.py      index="exact"
    _top_rows.py         the rows of the highest products, in blocks, on any device
    _index_folder.py     an exact index on disk; _column_files.py, its table as arrays
    _lance_index.py      index="lancedb"; _lance_table.py, its table
    _storage_options.py  options of an object store without their secrets

    _incoming.py         from a user's collection to rows of an index
    _row_facts.py        ids, sources, metadata; _metadata.py, their types
    _parquet_shards.py   rows that were embedded elsewhere
    _models.py           the model whose vectors an index holds
    _where.py            filters in SQL, on a table and for LanceDB
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.exceptions import FilterError, SearchIndexError
from sk_medsiglip.retrieval import metrics
from sk_medsiglip.retrieval._hits_plot import RetrievalDisplay
from sk_medsiglip.retrieval._queries import Query
from sk_medsiglip.retrieval._retriever import ImageRetriever
from sk_medsiglip.retrieval._storage_options import StorageOptions as StorageOptions

__all__ = [
    "FilterError",
    "ImageRetriever",
    "Query",
    "RetrievalDisplay",
    "SearchIndexError",
    "metrics",
]

name_by_room(globals())
