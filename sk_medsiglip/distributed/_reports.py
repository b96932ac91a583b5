"""A worker's report to its caller: the result of a block, or the error that ended it.

Ray retries, wraps and reports at length what a worker raises. Errors that the user has
to mend therefore travel as results, and are raised once, as on one machine.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sk_medsiglip.distributed._manifest import Failure
from sk_medsiglip.distributed._shards import ShardEntry
from sk_medsiglip.exceptions import SkMedSiglipError


@dataclass(frozen=True)
class BlockReport:
    """The result of a block of images."""

    shard: ShardEntry | None = None
    failures: tuple[Failure, ...] = ()
    n_skipped: int = 0
    error: bytes | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows of the user's table."""
        n_new = 0 if self.shard is None else self.shard.n_rows
        return n_new + len(self.failures) + self.n_skipped

    def to_table(self) -> Any:
        """Return the report as a table of one row, which is what Ray Data passes on."""
        import pyarrow as pa

        return pa.table({"report": [pickle.dumps(self)]})

    @staticmethod
    def from_row(row: Mapping[str, Any]) -> BlockReport:
        """Return the report that a worker of this job put into a row."""
        report = pickle.loads(row["report"])
        assert isinstance(report, BlockReport)
        return report


def may_pass(error: BaseException) -> bool:
    """Tell whether the same work may succeed when it is tried again.

    It may if a storage did not answer or memory was short; not if weights are missing,
    a table cannot be parsed, or this code has a bug.
    """
    own = isinstance(error, SkMedSiglipError)
    return isinstance(error, OSError | MemoryError) and not own


def pack_error(error: Exception) -> bytes:
    """Return an error as bytes, with its traceback as a note."""
    where = "".join(traceback.format_exception(error))
    error.add_note(f"It happened on a worker:\n{where}")
    try:
        return pickle.dumps(error)
    except Exception as unfit:  # an error of another library may hold anything
        return pickle.dumps(RuntimeError(f"{where}\n(not sent as it is: {unfit})"))


def unpack_error(text: bytes) -> Exception:
    """Return the error that a worker of this job packed."""
    error = pickle.loads(text)
    return error if isinstance(error, Exception) else RuntimeError(repr(error))
