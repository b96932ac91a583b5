"""Embedding a collection on a cluster, and searching for heads on one.

The room, from what a caller sees down to the bytes::

    _embed_dataset.py   embed_dataset: arguments, and the report
    _job.py             attempts and commits, until every row is accounted for
    _pipeline.py        the stream, by Ray Data: reading tasks, a pool of encoders
    _reading.py         a piece of the table -> pixels of missing images
    _encoding.py        pixels -> a shard and a report on it: the work of an encoder
    _source.py          what the user points at, cut into pieces
    _tidying.py         the end: small shards together, no row twice, failures
    _import.py          from shards to a cache, or to an array and a table
    _manifest.py        which shards count
    _shards.py          the files of an output: shards, and the user's table
    _storage.py         a folder on a disk or in an object store
    _joblib.py          searches on a cluster, arrays sent once
    _cluster.py         Ray: connecting, starting, how many encoders there is room for

Only this room imports ray.
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.distributed._embed_dataset import EmbeddingReport, embed_dataset
from sk_medsiglip.distributed._import import import_embeddings, load_embeddings
from sk_medsiglip.distributed._joblib import RayTraffic, parallel_on_ray

__all__ = [
    "EmbeddingReport",
    "RayTraffic",
    "embed_dataset",
    "import_embeddings",
    "load_embeddings",
    "parallel_on_ray",
]

name_by_room(globals())
