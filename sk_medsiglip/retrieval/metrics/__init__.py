"""How good a search is: recall, hit rate, precision, average precision, NDCG, ranks.

Arguments are those of scikit-learn's ranking metrics: ``(y_true, y_score)``, a row a
query and a column an item. Equal scores are taken in no order: a figure is then its
mean over all orders of the tied items [1]_, as that of
:func:`sklearn.metrics.ndcg_score` is. It does not depend on how items happen to be
sorted, and a model that gives all items one score gets the chance level.

CLIP's papers write recall@k for the share of queries with a mate among the first k.
That is :func:`hit_rate_at_k` here, and equals :func:`recall_at_k`, the share of the
relevant items that are found, only where each query has one mate.

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
