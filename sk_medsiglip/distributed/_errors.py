"""Errors that no retry helps against, from a worker to whoever called.

What a worker raises, Ray tries again, wraps, and tells of at length. So errors that are
the user's to mend travel as results, and are raised once, as on one machine.
"""

from __future__ import annotations

import pickle
import traceback

from sk_medsiglip.exceptions import SkMedSiglipError


def may_pass(error: BaseException) -> bool:
    """Whether the same work may succeed when it is tried again.

    Storage that does not answer, memory that was short: yes. Weights that are not
    there, a table that cannot be parsed, a mistake in this code: no.
    """
    own = isinstance(error, SkMedSiglipError)
    return isinstance(error, OSError | MemoryError) and not own


def pack_error(error: Exception) -> bytes:
    """Return an error as bytes, with where it happened."""
    where = "".join(traceback.format_exception(error))
    error.add_note(f"It happened on a worker:\n{where}")
    try:
        return pickle.dumps(error)
    except Exception as unfit:  # an error of another library may hold anything
        return pickle.dumps(RuntimeError(f"{where}\n(not sent as it is: {unfit})"))


def unpack_error(text: bytes) -> Exception:
    """Return what a worker of this job packed."""
    error = pickle.loads(text)
    return error if isinstance(error, Exception) else RuntimeError(repr(error))
