"""The store on disk: one embedding a row, computed once, read ever after.

The room, from what a caller sees down to the bytes::

    _embedding_cache.py   EmbeddingCache, the public class
    _store.py             what the caches of one location share: all that follows
    _claims.py            who computes a missing row: one worker, the others wait
    _reader.py, _writer.py    rows in bulk
    _repair.py, _prune.py     checking and rebuilding; making room
    _parquet.py           rows to another machine, and from there
    _live_index.py        the index kept open, reopened, rebuilt when damaged
    _index.py             SQLite: where each row lies
    _recent_rows.py       its newest rows, until many go into the tree at once
    _segments.py, _segment_layout.py
                          append-only files of checksummed rows: the rows themselves
    _files.py             file state -> fingerprint, so that a warm run reads no image
    _bag_packing.py       several vectors of one image as one row
    _models.py            what is known of each model, so that a warm run needs none
    _space.py             everything but the content that decides a vector
    _system.py            the operating system's part: folders, locks, network disks

It knows nothing of images, models or scikit-learn and imports numpy, blake3,
platformdirs and the standard library only, and pyarrow to export and import.
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
from sk_medsiglip.cache._system import lock_file

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
    "lock_file",
    "model_records",
    "rows_as_table",
]

name_by_room(globals())
