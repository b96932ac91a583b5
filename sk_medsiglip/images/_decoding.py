"""Errors and warnings of the libraries that decode and fetch images.

Errors become :class:`ImageReadError`; warnings and log lines are dropped, since
pydicom's quote the values of tags, which may identify a patient.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from PIL.Image import DecompressionBombWarning

from sk_medsiglip.exceptions import ImageReadError, MissingDependencyError


@contextmanager
def decoding(reason: str, hint: str) -> Iterator[None]:
    """Turn errors of a codec library into ``ImageReadError``; silence its messages."""
    _install_filters()
    _here.depth = getattr(_here, "depth", 0) + 1
    try:
        yield
    except (ImageReadError, MissingDependencyError, MemoryError, Warning):
        raise
    except Exception as error:
        # Codec libraries raise errors of many types on damaged files.
        raise ImageReadError(f"{reason} ({type(error).__name__})", hint) from error
    except BaseException as error:
        # The panic of a codec written in Rust is a BaseException in pyo3. Others, such
        # as KeyboardInterrupt, pass.
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise ImageReadError(f"{reason} ({type(error).__name__})", hint) from error
    finally:
        _here.depth -= 1


# Several threads read at once, and ``warnings.catch_warnings`` is not thread-safe: it
# swaps the filters of the whole process and restores stale ones. These filters stay in
# place instead, and match only in a thread that is inside ``decoding``. Other code that
# uses pydicom directly, even at the same moment, still gets its warnings.
_here = threading.local()
_installing = threading.Lock()


def _is_decoding() -> bool:
    return getattr(_here, "depth", 0) > 0


class _WhileDecoding:
    """Take the place of the compiled pattern in a warning filter."""

    # scikit-learn and others copy filters into their workers by this attribute of a
    # compiled pattern. A copy matches any text while the task of the worker runs.
    pattern = ""

    def match(self, text: str) -> bool:
        return _is_decoding()


_FILTERS: list[Any] = [
    ("ignore", _WhileDecoding(), Warning, re.compile(r"pydicom\b"), 0),
    # ``max_pixels`` is the limit here, and it is checked.
    ("ignore", _WhileDecoding(), DecompressionBombWarning, None, 0),
]


#: A filter on a parent logger does not see the records of its children.
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


# ------------------------------------------------------------- file systems behind URLs


def guarded(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, and turn the errors of file systems into ``ImageReadError``.

    The original errors are not chained: their messages quote the URL, which may hold a
    password or a signed token.
    """
    try:
        return work(*arguments)
    except (ImageReadError, MissingDependencyError, MemoryError):
        raise
    except Exception as error:
        ours = _explain(error)
    # Raised outside of the handler, so that the original error is not its context.
    raise ours


def _explain(error: Exception) -> ImageReadError:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    for link in chain:
        if isinstance(link, ImageReadError):
            return ImageReadError(link.reason, link.hint)
    names = {kind.__name__ for link in chain for kind in type(link).__mro__}
    status = next(filter(None, map(_http_status, chain)), None)
    return ImageReadError(*_reason_and_hint(error, names, status))


def _reason_and_hint(
    error: Exception, names: set[str], status: int | None
) -> tuple[str, str]:
    answer = f" (HTTP {status})" if status else ""
    text = str(error) if isinstance(error, ValueError) else ""
    if names & {"NoCredentialsError", "DefaultCredentialsError"}:
        reason = "no credentials for it were found"
        hint = (
            "Set them as the tools of the provider expect, in the environment or in a "
            "profile; for public data, see the option anon in fsspec's configuration."
        )
    elif status in (401, 403, 407) or (not status and "PermissionError" in names):
        reason = f"the server refuses access{answer}"
        hint = "Check the credentials; a signed URL may have expired."
    elif any("Timeout" in name for name in names):
        reason = "the server did not answer in time"
        hint = "Try again; download large files first."
    elif names & {"ClientConnectorError", "EndpointConnectionError"}:
        reason = "there is no connection to the server"
        hint = "Check the network, the proxy (HTTPS_PROXY) and the host name."
    elif names & {"ClientPayloadError", "ClientConnectionError", "IncompleteRead"}:
        reason, hint = "the connection was interrupted", "Try again."
    elif status and status not in (404, 410):
        reason = f"the server cannot deliver it{answer}"
        hint = "Try again, or ask its owner."
    elif names & {"FileNotFoundError", "KeyError"}:
        reason = "there is no such file"
        hint = "Check the spelling, and that the bucket, archive or folder exists."
    elif "IsADirectoryError" in names:
        reason = "it is a directory"
        hint = "Pass the files in it: fsspec's glob lists them."
    elif "Protocol not known" in text:
        reason = "URLs of this protocol are not supported"
        hint = "fsspec.available_protocols() lists the known ones."
    elif "range requests" in text:
        reason = "the server sends only whole files, but an archive is read in parts"
        hint = "Download the archive, or put simplecache:: before its URL."
    else:
        reason = f"it cannot be fetched ({type(error).__name__})"
        hint = "Check the URL, and that fsspec.open reads it."
    return reason, hint


def _http_status(error: BaseException) -> int | None:
    status = getattr(error, "status", None)
    return status if isinstance(status, int) and status >= 400 else None
