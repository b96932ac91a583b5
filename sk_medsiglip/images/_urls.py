"""Images behind URLs, fetched by fsspec; only URLs passed by the user are fetched.

A URL may hold a password or a signed token, so messages quote only redacted URLs.
"""

from __future__ import annotations

import functools
import io
import ipaddress
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, urlencode, urlsplit

from blake3 import blake3

from sk_medsiglip._optional import import_optional
from sk_medsiglip.exceptions import ImageReadError, MissingDependencyError
from sk_medsiglip.images._decoding import guarded
from sk_medsiglip.images._kinds import HEAD_BYTES

#: Larger files are refused before they are downloaded: the image would not fit.
MAX_FILE_BYTES = 4 * 2**30

#: Time limits in seconds: to connect, without a byte, and for one file in total.
CONNECT_SECONDS, SILENCE_SECONDS, TOTAL_SECONDS = 30.0, 60.0, 3600.0

#: Protocols that may be followed by another link, separated by "::".
_CONTAINER = re.compile(
    "(zip|tar|libarchive|dir|(simple|file|block)cache|cached|fs)(::|://)"
)

#: Bytes requested at once if only parts of a file are needed.
_PART_BYTES = 2**18

#: The package for a protocol, if its name is different.
_PACKAGES = {
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "gcs": "gcsfs",
    "gs": "gcsfs",
    "http": "sk-medsiglip[remote]",
    "https": "sk-medsiglip[remote]",
    "s3": "s3fs",
    "s3a": "s3fs",
    "sftp": "paramiko",
    "smb": "smbprotocol",
    "ssh": "paramiko",
}

#: Entries in the record of a file system that change with the content.
_VERSIONS = (
    *("ETag", "etag", "e_tag", "VersionId", "version_id", "generation"),
    *("Content-MD5", "content_md5", "md5Hash", "crc32c", "Digest", "CRC", "checksum"),
    *("Last-Modified", "LastModified", "last_modified", "updated"),
    *("mtime", "modified", "created", "oid", "blob_id"),
)

#: Parameters that hold the signature of a URL, and those that belong to it, for example
#: its time. Those of S3 and Google are told by their prefix.
_SIGNATURES = {"x-amz-signature", "x-goog-signature", "signature", "sig"}
_SIGNING = _SIGNATURES.union(
    ("awsaccesskeyid", "expires", "googleaccessid", "key-pair-id", "policy"),  # older
    ("se", "sip", "skoid", "sks", "skt", "ske", "sktid", "skv"),  # Azure
    ("sp", "spr", "sr", "st", "sv"),
)


def is_url(text: str) -> bool:
    """Whether a string is opened by fsspec rather than as a path."""
    return "://" in text


def file_url_path(url: str) -> str | None:
    """Return the path of ``file:///...``, else None."""
    if not url.startswith("file://"):
        return None
    from urllib.request import url2pathname

    return url2pathname(urlsplit(url).path)


def redact(url: str) -> str:
    """Return a URL without user, password, query and fragment.

    >>> redact("https://user:secret@host/a.png?X-Amz-Signature=1f")
    'https://host/a.png?...'
    """
    return "::".join(_redact_one(link) for link in _links(url))


def without_signature(url: str) -> str:
    """Return a URL without the parameters of a signature, which change every time.

    >>> without_signature("https://host/a.png?v=2&X-Amz-Date=1&X-Amz-Signature=1f")
    'https://host/a.png?v=2'
    """
    address, _, query = url.partition("?")
    given = parse_qsl(query, keep_blank_values=True)
    names = {name.lower() for name, _ in given}
    if len(_links(url)) > 1 or not names & _SIGNATURES:
        return url
    kept = [
        (name, value)
        for name, value in given
        if name.lower() not in _SIGNING
        and not name.lower().startswith(("x-amz-", "x-goog-"))
    ]
    return f"{address}?{urlencode(kept)}" if kept else address


def _links(url: str) -> list[str]:
    """Split a chain such as ``zip://a.png::https://host/b.zip``.

    The last link is the one with a host: any "::" in it belongs to an IPv6 address, a
    path, a password or a query.
    """
    links: list[str] = []
    while _CONTAINER.match(url) and "::" in url:
        link, _, url = url.partition("::")
        links.append(link)
    return [*links, url]


def _redact_one(link: str) -> str:
    # Path turns two slashes into one.
    found = re.match(r"([^/]{2,}?:/+)(.*)", link, re.DOTALL)
    if found is None or _CONTAINER.match(link):
        return link
    protocol, rest = found.groups()
    host, path = re.match(r"([^/?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    port = re.sub(r"^(\[[^]]*\]|[^:]*)", "", host)
    if "@" in host:
        rest = host.rpartition("@")[2] + path
    elif port and not (re.fullmatch(r":\d*", port) and "@" not in path):
        # A password with an unescaped slash or mark ends up after the host.
        rest = rest.partition("@")[2] if rest.count("@") == 1 else "..."
    shown = re.split(r"[?#]", rest, maxsplit=1)
    return f"{protocol}{shown[0]}" + ("?..." if len(shown) > 1 else "")


def local_archive(url: str) -> tuple[str, str] | None:
    """Return path and member of a local archive, ``zip://member::archive.zip``."""
    links = _links(url)
    protocol, _, name = links[0].partition("://")
    if protocol not in ("zip", "tar") or len(links) != 2 or not links[1]:
        return None
    container = links[1]
    if is_url(container):
        path = file_url_path(container)
        return None if path is None else (path, f"{protocol}:{name}")
    return container, f"{protocol}:{name}"


def fetch(
    url: str,
    max_bytes: int | None = None,
    check_head: Callable[[bytes], None] | None = None,
) -> bytes:
    """Return the content of a URL."""

    def check(head: bytes) -> None:
        if re.match(rb"\s*<(!doctype html|html)", head, re.IGNORECASE):
            raise ImageReadError(
                "the server sent a web page, not an image",
                "It may require a login: open the URL in a browser.",
            )
        if check_head is not None and head:
            check_head(head)

    most = MAX_FILE_BYTES if max_bytes is None else min(max_bytes, MAX_FILE_BYTES)
    return guarded(_fetch, url, most, check)


@contextmanager
def open_in_parts(url: str) -> Iterator[BinaryIO]:
    """Yield a stream that fetches only the parts that are read, if possible."""
    remote = guarded(_open, url)
    if remote is None:
        yield io.BytesIO(fetch(url))
        return
    with remote:
        yield io.BufferedReader(_Guarded(remote))


def url_state(url: str) -> bytes | None:
    """Return a digest of the state of a file as reported by its server, or None."""
    try:
        record = guarded(_record, url)
    except ImageReadError:
        return None
    versions = [(name, str(record[name])) for name in _VERSIONS if record.get(name)]
    if not versions:
        return None
    known = (without_signature(url), record.get("size"), versions)
    return blake3(repr(known).encode()).digest()


def _fetch(url: str, max_bytes: int, check: Callable[[bytes], None]) -> bytes:
    file_system, path = _file_system(url)
    if "http" in file_system.protocol:  # one name, or several
        return _download(file_system, path, max_bytes, check)
    record = file_system.info(path)
    if record.get("type") == "directory":
        raise IsADirectoryError
    _refuse_too_long(record.get("size"), max_bytes)
    content = file_system.cat_file(path)
    check(content[:HEAD_BYTES])
    return content


def _open(url: str) -> Any:
    """Return a remote file, or None if it cannot be read in parts."""
    file_system, path = _file_system(url)
    remote = file_system.open(
        path, "rb", block_size=_PART_BYTES, cache_type="blockcache"
    )
    try:
        remote.seek(-1, io.SEEK_END)
        remote.read(1)
        remote.seek(0)
    except (ValueError, TypeError):  # the server supports no ranges, or no length
        remote.close()
        return None
    return remote


def _record(url: str) -> dict[str, Any]:
    file_system, path = _file_system(url)
    # A cached listing may describe a file that has been replaced since.
    file_system.invalidate_cache(path)
    return file_system.info(path)


def _file_system(url: str) -> tuple[Any, str]:
    core = import_optional("fsspec.core", extra="remote", purpose="Reading URLs")
    options = {}
    for protocol in re.findall(r"(https?)(?=://)", url):
        options[protocol] = {"client_kwargs": _http_client(protocol)}
    try:
        return core.url_to_fs(_for_fsspec(url), **options)
    except ImportError as error:
        missing = error
    # fsspec names the package in prose; we give the command.
    protocol = url.partition("://")[0]
    package = _PACKAGES.get(protocol)
    hint = f'Install it with: pip install "{package}"' if package else str(missing)
    raise MissingDependencyError(
        f"URLs of the protocol {protocol} need a package that is not installed. {hint}"
    )


def _for_fsspec(url: str) -> str:
    """Escape the "::" of an http URL, at which fsspec would split a chain."""
    *containers, last = _links(url)
    if re.match("https?://", last):
        start, host, rest = re.match(  # type: ignore[union-attr]
            r"(\w+://(?:[^/?#]*@)?)(\[[^]]*\])?(.*)", last, re.DOTALL
        ).groups()
        with suppress(ValueError):
            host = f"[{ipaddress.IPv6Address((host or '')[1:-1]).exploded}]"
        # The server receives the same characters.
        start, rest = (part.replace("::", ":%3A") for part in (start, rest))
        last = f"{start}{host or ''}{rest}"
    return "::".join([*containers, last])


def _http_client(protocol: str) -> dict[str, Any]:
    aiohttp = import_optional("aiohttp", extra="remote", purpose="Reading http URLs")
    conf = import_optional("fsspec.config", extra="remote", purpose="Reading URLs").conf
    own = {
        "timeout": aiohttp.ClientTimeout(
            total=TOTAL_SECONDS,
            sock_connect=CONNECT_SECONDS,
            sock_read=SILENCE_SECONDS,
        ),
        "trace_configs": [_redirects()],
        "trust_env": True,  # use the proxy of the environment, as other tools do
    }
    return own | conf.get(protocol, {}).get("client_kwargs", {})


@functools.cache
def _redirects() -> Any:
    """Return a hook that refuses redirects to another host, or to plain http."""
    aiohttp = import_optional("aiohttp", extra="remote", purpose="Reading http URLs")

    async def refuse(session: Any, context: Any, given: Any) -> None:
        target = given.response.headers.get("Location", "")
        there = given.response.url.join(type(given.response.url)(target))
        here = given.response.url
        if there.host != here.host or (here.scheme, there.scheme) == ("https", "http"):
            raise ImageReadError(
                f"the server redirects to {there.scheme}://{there.host}, but only the "
                "host that you pass is contacted",
                "Pass that URL if you trust it, or download the file yourself.",
            )

    config = aiohttp.TraceConfig()
    config.on_request_redirect.append(refuse)
    return config


def _download(
    file_system: Any, path: str, max_bytes: int, check: Callable[[bytes], None]
) -> bytes:
    """Fetch with one request, and stop if the server sends more than the limit."""
    callbacks = import_optional("fsspec.callbacks", extra="remote", purpose="URLs")

    class Announced(callbacks.Callback):  # type: ignore[name-defined]
        def set_size(self, size: int | None) -> None:
            _refuse_too_long(size, max_bytes)

    class Bounded(io.BytesIO):
        checked = False

        def write(self, data: Any) -> int:
            _refuse_too_long(self.tell() + len(data), max_bytes)
            written = super().write(data)
            # The last call, at the end of the body, passes no bytes.
            if not self.checked and (self.tell() >= HEAD_BYTES or not len(data)):
                self.checked = True
                check(self.getbuffer()[:HEAD_BYTES].tobytes())
            return written

    sink = Bounded()
    file_system.get_file(path, sink, callback=Announced())
    return sink.getvalue()


def _refuse_too_long(size: int | None, max_bytes: int) -> None:
    if size is not None and size > max_bytes:
        raise ImageReadError(
            f"it is larger than {max_bytes} bytes, and is not downloaded",
            "Download it yourself and pass the file; for a slide, pass Regions, which "
            "fetch only the tiles they need.",
        )


class _Guarded(io.RawIOBase):
    """A remote file whose errors are turned into ``ImageReadError``."""

    def __init__(self, remote: Any) -> None:
        self._remote = remote

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._remote.seek(offset, whence)

    def tell(self) -> int:
        return self._remote.tell()

    def readinto(self, buffer: Any) -> int:
        data = guarded(self._remote.read, len(buffer))
        buffer[: len(data)] = data
        return len(data)
