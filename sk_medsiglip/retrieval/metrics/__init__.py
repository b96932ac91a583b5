"""Metrics of a search: recall, hit rate, precision, average precision, NDCG, ranks.

Arguments are those of scikit-learn's ranking metrics: ``(y_true, y_score)``, with a row
for each query and a column for each item. If scores are tied, a metric is its mean over
all orders of the tied items [1]_, as in :func:`sklearn.metrics.ndcg_score`. So it does
not depend on how items happen to be sorted, and a model that gives all items the same
score reaches the chance level.

Papers on CLIP call the share of queries with a match among the first k recall@k. Here
this is :func:`hit_rate_at_k`. It equals :func:`recall_at_k`, the share of the relevant
items that are found, only if each query has one match.

References
----------
.. [1] McSherry and Najork, "Computing Information Retrieval Performance Measures
   Efficiently in the Presence of Tied Scores", ECIR 2008.
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.retrieval.metrics._first_items import (
    hit_rate_at_k,
    precision_at_k,
    recall_at_k,
)
from sk_medsiglip.retrieval.metrics._ranking import chance_level, relevance_of_labels
from sk_medsiglip.retrieval.metrics._whole_order import (
    mean_average_precision,
    mean_reciprocal_rank,
    median_rank,
    ndcg,
)

__all__ = [
    "chance_level",
    "hit_rate_at_k",
    "mean_average_precision",
    "mean_reciprocal_rank",
    "median_rank",
    "ndcg",
    "precision_at_k",
    "recall_at_k",
    "relevance_of_labels",
]

name_by_room(globals())
