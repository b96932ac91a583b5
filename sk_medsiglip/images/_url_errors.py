"""What goes wrong with a URL, in the words of this package.

Each file system raises what its client library does, and its messages quote the URL,
with the password or signed token that it may hold. Such errors are not chained to ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sk_medsiglip.exceptions import ImageReadError, MissingDependencyError

__all__ = ["guarded"]


def guarded(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call, and raise ``ImageReadError`` for whatever a file system raises."""
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
    if (
        ours := next((x for x in chain if isinstance(x, ImageReadError)), None)
    ) is not None:
        return ImageReadError(ours.reason, ours.hint)
    names = {kind.__name__ for link in chain for kind in type(link).__mro__}
    status = next((s for link in chain if (s := _http_status(link))), None)
    answer = f" (HTTP {status})" if status else ""
    if "NoCredentialsError" in names or "DefaultCredentialsError" in names:
        return ImageReadError(
            "no credentials for it were found",
            "Set them as the provider's own tools expect, in the environment or a "
            "profile; for public data see fsspec's configuration (anon).",
        )
    if status in (401, 403, 407) or (not status and "PermissionError" in names):
        return ImageReadError(
            f"the server refuses access{answer}",
            "Check the credentials; a signed URL may have expired.",
        )
    if any("Timeout" in name for name in names):
        return ImageReadError(
            "the server did not answer in time",
            "Try again; download large files first.",
        )
    if "ClientConnectorError" in names or "EndpointConnectionError" in names:
        return ImageReadError(
            "there is no connection to the server",
            "Check the network, the proxy (HTTPS_PROXY) and the host's name.",
        )
    if {"ClientPayloadError", "ClientConnectionError", "IncompleteRead"} & names:
        return ImageReadError("the connection broke off before its end", "Try again.")
    if status and status not in (404, 410):
        return ImageReadError(
            f"the server cannot give it{answer}", "Try again, or ask its owner."
        )
    if "FileNotFoundError" in names or "KeyError" in names:
        return ImageReadError(
            "there is no such file",
            "Check the spelling, and that the bucket, archive or folder is there.",
        )
    if "IsADirectoryError" in names:
        return ImageReadError(
            "it is a directory", "Pass the files in it: fsspec's glob lists them."
        )
    if isinstance(error, ValueError) and "Protocol not known" in str(error):
        return ImageReadError(
            "no package reads URLs of this protocol",
            "fsspec.available_protocols() lists those that are read.",
        )
    if isinstance(error, ValueError) and "range requests" in str(error):
        return ImageReadError(
            "the server gives no parts of files, and an archive is read in parts",
            "Download the archive, or put simplecache:: before its URL.",
        )
    return ImageReadError(
        f"it cannot be fetched ({type(error).__name__})",
        "Check the URL, and that fsspec.open reads it.",
    )


def _http_status(error: BaseException) -> int | None:
    status = getattr(error, "status", None)
    return status if isinstance(status, int) and status >= 400 else None
