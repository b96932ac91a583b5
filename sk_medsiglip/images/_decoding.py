"""What surrounds every call into a codec library.

Its errors become :class:`ImageReadError`, and its chatter is dropped: pydicom's
warnings and log lines quote the values of tags, which may be a patient's.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL.Image import DecompressionBombWarning

from sk_medsiglip.exceptions import ImageReadError, MissingDependencyError


@contextmanager
def decoding(reason: str, hint: str) -> Iterator[None]:
    """Turn whatever a codec library raises into one error, and keep it quiet."""
    _install_filters()
    _here.depth = getattr(_here, "depth", 0) + 1
    try:
        yield
    except (ImageReadError, MissingDependencyError, MemoryError, Warning):
        raise
    except Exception as error:
        # Codec libraries raise whatever their parsing stumbles over.
        raise ImageReadError(f"{reason} ({type(error).__name__})", hint) from error
    except BaseException as error:
        # A codec written in Rust panics, and pyo3 makes that no Exception. Whatever
        # else is none, a KeyboardInterrupt, passes.
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise ImageReadError(f"{reason} ({type(error).__name__})", hint) from error
    finally:
        _here.depth -= 1


# Several threads read at once, so ``warnings.catch_warnings`` will not do: it swaps
# the filters of the whole process and puts stale ones back. These filters stay in
# place instead, and match only in a thread that is inside ``decoding``: pydicom used
# directly by somebody else, at the same moment too, warns as it always does.
_here = threading.local()
_installing = threading.Lock()


def _is_decoding() -> bool:
    return getattr(_here, "depth", 0) > 0


class _WhileDecoding:
    """Stands where a filter has the pattern for a warning's text."""

    # scikit-learn and others copy filters into their workers by this attribute of a
    # compiled pattern. A copy matches any text, for as long as the worker's task runs.
    pattern = ""

    def match(self, text: str) -> bool:
        return _is_decoding()


_FILTERS: list[Any] = [
    ("ignore", _WhileDecoding(), Warning, re.compile(r"pydicom\b"), 0),
    # ``max_pixels`` is the limit here, and it is checked.
    ("ignore", _WhileDecoding(), DecompressionBombWarning, None, 0),
]


#: A filter of pydicom's first logger does not see the records of the others.
_LOGGERS = (
    "pydicom",
    "pydicom.pixels.decoders.base",
    "pydicom.pixels.utils",
    "tifffile",
)


def _is_for_others(record: logging.LogRecord) -> bool:
    return not _is_decoding()


def _install_filters() -> None:
    active: list[Any] = warnings.filters  # type: ignore[assignment]
    if active[: len(_FILTERS)] == _FILTERS:
        return
    with _installing:
        for item in _FILTERS:
            if item in active:
                active.remove(item)
        active[:0] = _FILTERS
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_is_for_others)
