"""Errors of file systems behind URLs, in the words of this package.

Their messages quote the URL, which may hold a password or a signed token. So they are
not chained to ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sk_medsiglip.exceptions import ImageReadError, MissingDependencyError


def guarded(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, and turn the errors of file systems into ``ImageReadError``."""
    try:
        return work(*arguments)
    except (ImageReadError, MissingDependencyError, MemoryError):
        raise
    except Exception as error:
        ours = _explain(error)
    # Out here, so that the other, which quotes the URL, is not even its context.
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
            "Set them as the provider's own tools expect, in the environment or a "
            "profile; for public data see fsspec's configuration (anon)."
        )
    elif status in (401, 403, 407) or (not status and "PermissionError" in names):
        reason = f"the server refuses access{answer}"
        hint = "Check the credentials; a signed URL may have expired."
    elif any("Timeout" in name for name in names):
        reason = "the server did not answer in time"
        hint = "Try again; download large files first."
    elif names & {"ClientConnectorError", "EndpointConnectionError"}:
        reason = "there is no connection to the server"
        hint = "Check the network, the proxy (HTTPS_PROXY) and the host's name."
    elif names & {"ClientPayloadError", "ClientConnectionError", "IncompleteRead"}:
        reason, hint = "the connection broke off before its end", "Try again."
    elif status and status not in (404, 410):
        reason = f"the server cannot give it{answer}"
        hint = "Try again, or ask its owner."
    elif names & {"FileNotFoundError", "KeyError"}:
        reason = "there is no such file"
        hint = "Check the spelling, and that the bucket, archive or folder is there."
    elif "IsADirectoryError" in names:
        reason = "it is a directory"
        hint = "Pass the files in it: fsspec's glob lists them."
    elif "Protocol not known" in text:
        reason = "no package reads URLs of this protocol"
        hint = "fsspec.available_protocols() lists the known ones."
    elif "range requests" in text:
        reason = "the server sends only whole files, and an archive is read in parts"
        hint = "Download the archive, or put simplecache:: before its URL."
    else:
        reason = f"it cannot be fetched ({type(error).__name__})"
        hint = "Check the URL, and that fsspec.open reads it."
    return reason, hint


def _http_status(error: BaseException) -> int | None:
    status = getattr(error, "status", None)
    return status if isinstance(status, int) and status >= 400 else None
