"""Search of a collection of images by words, by images, or by both.

::

    _retriever.py        ImageRetriever
    _queries.py          Query: sums and differences of texts and images
    _selection.py        results as a table, without near copies, diverse
    _hits_plot.py        RetrievalDisplay
    metrics/             metrics of a search

    _index.py            rows of an index, and facts about it
    _exact_index.py      index="exact"; _index_folder.py, its folder on disk
    _top_rows.py         the rows of the highest products, in blocks, on any device
    _lance_index.py      index="lancedb"; _lance_table.py, its table and its options

    _incoming.py         images or embeddings as rows of an index
    _metadata.py         ids, sources and metadata, and their types
    _parquet_shards.py   embeddings in Parquet files as rows of an index
    _models.py           the model whose vectors an index holds
    _where.py            filters in SQL, on a table and for LanceDB
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.exceptions import FilterError, SearchIndexError
from sk_medsiglip.retrieval import metrics
from sk_medsiglip.retrieval._hits_plot import RetrievalDisplay
from sk_medsiglip.retrieval._lance_table import StorageOptions as StorageOptions
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
