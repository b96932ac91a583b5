"""The folders of runs and of tuned weights, which lie beside the store."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from sk_medsiglip._files import make_scratch_folder
from sk_medsiglip.embedding import open_cache
from sk_medsiglip.exceptions import RunFolderError


def adapters_folder(cache: Any) -> Path:
    """Return the folder of adapters beside a store, or one of this process alone."""
    store = open_cache(cache)
    return (_folder_of_this_process() if store is None else store.location) / "adapters"


def runs_folder(cache: Any) -> Path | None:
    """Return the folder of runs beside a store, or None without a store."""
    store = open_cache(cache)
    return None if store is None else store.location / "runs"


@lru_cache(maxsize=1)
def _folder_of_this_process() -> Path:
    folder = make_private_folder(None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def make_private_folder(parent: Path | None) -> Path:
    """Make a folder for unfinished work, in another one or that of temporary files."""
    return make_scratch_folder(parent or Path(tempfile.gettempdir()), mode=0o700)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files by their names."""
    for name, content in files.items():
        (folder / name).write_bytes(content)


def check_space(folder: Path, n_bytes: int, purpose: str, advice: str = "") -> None:
    """Raise if the disk of a folder cannot hold a number of bytes."""
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise RunFolderError(
            f"{purpose} take {n_bytes / 1e9:.1f} GB, and the disk of {str(folder)!r} "
            f"has {free / 1e9:.1f} GB left. Free some space, or choose another disk "
            f"with run_dir={advice}."
        )
