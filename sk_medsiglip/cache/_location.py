"""Where the store lies, and that only its owner may look into it."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["CONVERTED", "FILE_MODE", "make_private_folder", "resolve_location"]

CONVERTED = "converted"
ENVIRONMENT_VARIABLE = "SK_MEDSIGLIP_CACHE"
FOLDER_MODE = 0o700
FILE_MODE = 0o600


def resolve_location(given: str | None) -> Path:
    """Return the folder: as given, from the environment, or the user's own."""
    chosen = given or os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    return platformdirs.user_cache_path("sk_medsiglip") / "embeddings"


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner can enter, its parents as usual.

    A folder that exists keeps its permissions: it may be shared on purpose.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
