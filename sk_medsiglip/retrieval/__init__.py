"""Finding images in a collection: by words, by images, by both."""

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
