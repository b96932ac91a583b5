"""The download of a data file, put in place only when it is complete."""

from __future__ import annotations

import hashlib
import os
import time
from http.client import HTTPException
from os import PathLike
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from platformdirs import user_data_path

from sk_medsiglip._files import new_file
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
    """Return the MD5 checksum of a file, which its authors publish."""
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
    """Download a file, and put it in place if its checksum is right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    reason = ""
    for attempt in range(n_retries + 1):
        if attempt:
            time.sleep(delay)
        try:
            # An incomplete download must not be mistaken for the file.
            with new_file(path) as draft:
                digest = _save(name, url, draft, verbose)
                if digest != md5:
                    raise DatasetError(
                        f"the file has checksum {digest} instead of {md5}"
                    )
            return
        except DatasetError as error:
            reason = str(error)
        except HTTPError as error:
            reason = f"the server answered {error.code} {error.reason}"
        except URLError as error:
            reason = f"no connection ({error.reason})"
        except (OSError, ValueError, HTTPException) as error:
            text = " ".join(str(error).split())  # it may come from the server
            reason = f"the transfer was interrupted ({text or type(error).__name__})"
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
