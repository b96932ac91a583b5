"""The store on disk: one embedding per row, computed once and read afterwards.

The files, from the public class down to the bytes::

    _embedding_cache.py   EmbeddingCache, the public class
    _store.py             shared by the caches of one location: everything below
    _claims.py            claims: one worker computes a missing row, others wait
    _reader.py, _writer.py    rows in bulk
    _repair.py, _prune.py     checking and rebuilding; freeing space
    _parquet.py           export of rows to another machine, and import
    _live_index.py        the index, kept open, reopened, rebuilt when damaged
    _index.py             SQLite: the place of each row
    _recent_rows.py       its newest rows, until many go into the tree at once
    _segments.py, _segment_layout.py
                          append-only files of checksummed rows
    _files.py             file state -> fingerprint, so that a warm run reads no image
    _bag_packing.py       several vectors of one image as one row
    _models.py            facts about each model, so that a warm run needs no model
    _space.py             model, preprocessing and numeric type of a vector
    _system.py            the operating system: folders, locks, network disks

The room is independent of images, models and scikit-learn. It imports only numpy,
blake3, platformdirs and the standard library, and pyarrow to export and import.
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.cache._bag_packing import STORED_TYPES, BagPacking
from sk_medsiglip.cache._embedding_cache import EmbeddingCache
from sk_medsiglip.cache._files import (
    FileStamp,
    combined_stamp,
    content_stamp,
    file_stamps,
)
from sk_medsiglip.cache._models import model_records
from sk_medsiglip.cache._parquet import EXPORT_COLUMNS, ImportReport, rows_as_table
from sk_medsiglip.cache._repair import VerifyReport
from sk_medsiglip.cache._space import Space
from sk_medsiglip.cache._system import holding, lock_file

__all__ = [
    "EXPORT_COLUMNS",
    "STORED_TYPES",
    "BagPacking",
    "EmbeddingCache",
    "FileStamp",
    "ImportReport",
    "Space",
    "VerifyReport",
    "combined_stamp",
    "content_stamp",
    "file_stamps",
    "holding",
    "lock_file",
    "model_records",
    "rows_as_table",
]

name_by_room(globals())
