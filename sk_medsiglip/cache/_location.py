"""Where the store lies, and who may look into it."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

import platformdirs

from sk_medsiglip.exceptions import CacheError

CONVERTED = "converted"
ENVIRONMENT_VARIABLE = "SK_MEDSIGLIP_CACHE"
FOLDER_MODE = 0o700
FILE_MODE = 0o600


def resolve_location(given: str | None) -> Path:
    """Return the folder: as given, from the environment, or the user's own."""
    chosen = given or os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    try:
        return platformdirs.user_cache_path("sk_medsiglip") / "embeddings"
    except RuntimeError as error:
        raise CacheError(
            "this user has no home directory, so that there is no place for the "
            f"embedding cache. Set {ENVIRONMENT_VARIABLE} to a folder, or pass cache=."
        ) from error


def make_folder(folder: Path, *, inside: bool = False) -> None:
    """Make a folder that only its owner can enter, its parents as usual.

    A folder that exists keeps its permissions: it may be shared on purpose. A folder
    ``inside`` the store is then shared as well.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    if inside:
        share(folder)


def open_file(path: Path, flags: int) -> int:
    """Open a file of the store; one that is made is shared as its folder is."""
    # os.open and not open(): a forgotten handle is closed, not complained about.
    fd = os.open(path, flags, FILE_MODE)
    if flags & os.O_CREAT:
        share(path)
    return fd


def share(path: Path) -> None:
    """Share what was just made with those who may write into its folder."""
    folder = path.parent.stat()
    group, everybody = folder.st_mode & stat.S_IWGRP, folder.st_mode & stat.S_IWOTH
    if not (group or everybody) or sys.platform == "win32":
        return
    mode = FILE_MODE | (0o060 if group else 0) | (0o006 if everybody else 0)
    # An error: it is another user's, who has shared it, or there is no such file.
    with suppress(OSError):
        if path.is_dir():
            mode = folder.st_mode & 0o3777
        if not everybody:
            os.chown(path, -1, folder.st_gid)
        os.chmod(path, mode)
