"""Finding images in a collection: by words, by images, by both.

::

    _retriever.py        ImageRetriever; _changes.py adds and removes, _storing.py saves
    _queries.py          Query: texts, images and their differences as one direction
    _encoding.py         queries to vectors, by the model whose vectors an index holds
    _results.py          the table that a user reads
    _selection.py        results without copies, unlike each other; _diversity.py, how
    _hits_plot.py        RetrievalDisplay
    metrics.py           how good a search is; _ranking.py, items in order
    _relevance.py        what is relevant to what, by labels

    _index.py            what every index can do: the protocol
    _exact_index.py      index="exact"; _row_blocks.py, rows that grow and shrink
    _top_rows.py         the highest products, in blocks; _products.py, on any device
    _column_files.py     columns as plain arrays in a folder
    _lance_index.py      index="lancedb"; _lance_table.py, its table
    _storage_options.py  options of an object store without their secrets

    _incoming.py         from what a user adds to rows of an index
    _row_facts.py        ids, sources, metadata; _metadata.py, what these may hold
    _parquet_shards.py   rows that were embedded elsewhere
    _identity.py         whose vectors an index holds
    _rejected.py         rows without a vector, told once
    _errors.py           FilterError, SearchIndexError

    _where.py            a filter in SQL, read; _condition.py, all it may say
    _where_mask.py       ... on a DataFrame
    _where_sql.py        ... as SQL made anew, for LanceDB
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.retrieval import metrics
from sk_medsiglip.retrieval._errors import FilterError, SearchIndexError
from sk_medsiglip.retrieval._hits_plot import RetrievalDisplay
from sk_medsiglip.retrieval._queries import Query
from sk_medsiglip.retrieval._retriever import ImageRetriever

__all__ = [
    "FilterError",
    "ImageRetriever",
    "Query",
    "RetrievalDisplay",
    "SearchIndexError",
    "metrics",
]

name_by_room(globals())
