"""Download a data file once, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from http.client import HTTPException
from os import PathLike
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from platformdirs import user_data_path

from sk_medsiglip._progress import progress_bar
from sk_medsiglip.exceptions import DatasetError

_TIMEOUT_S = 30
_CHUNK = 1 << 16


def data_folder(data_home: str | PathLike[str] | None) -> Path:
    """Return the folder of downloads, which may not exist."""
    chosen = data_home or os.environ.get("SK_MEDSIGLIP_DATA")
    if chosen:
        return Path(chosen).expanduser()
    return user_data_path("sk_medsiglip", appauthor=False)


def md5_of(path: Path) -> str:
    """Return the checksum of a file, by which its authors name it."""
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.md5(usedforsecurity=False)
        ).hexdigest()


def download(
    name: str,
    url: str,
    path: Path,
    md5: str,
    n_retries: int,
    delay: float,
    verbose: int,
) -> None:
    """Fetch a file and put it in place if its checksum is right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    reason = ""
    for attempt in range(n_retries + 1):
        if attempt:
            time.sleep(delay)
        # Beside its final place, so that the last step is one rename: a broken
        # download never looks like the file.
        partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        partial.touch(exist_ok=False)  # not by tempfile: others may read the result
        try:
            digest = _save(name, url, partial, verbose)
            if digest == md5:
                os.replace(partial, path)
                return
            reason = f"the file has checksum {digest} instead of {md5}"
        except HTTPError as error:
            reason = f"the server answered {error.code} {error.reason}"
        except URLError as error:
            reason = f"no connection ({error.reason})"
        except (OSError, ValueError, HTTPException) as error:
            said = " ".join(str(error).split())  # of a server: anything
            reason = f"the transfer broke off ({said or type(error).__name__})"
        finally:
            partial.unlink(missing_ok=True)
    raise DatasetError(
        f"{name} could not be downloaded from {url}: {reason}; tried "
        f"{n_retries + 1} times. Try again later, or download the file elsewhere and "
        f"put it at {path}"
    )


def _save(name: str, url: str, path: Path, verbose: int) -> str:
    request = Request(url, headers={"User-Agent": "sk_medsiglip"})
    digest = hashlib.md5(usedforsecurity=False)
    with urlopen(request, timeout=_TIMEOUT_S) as reply, path.open("wb") as file:
        total = int(reply.headers.get("Content-Length") or 0)
        with progress_bar(total, desc=name, unit="B", verbose=verbose) as bar:
            while chunk := reply.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
    return digest.hexdigest()
