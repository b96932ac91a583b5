"""The files of a folder: all of them, and what each of them is by its content."""

from __future__ import annotations

import os
import re
from typing import Any, BinaryIO

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._dicom import is_dicom
from sk_medsiglip.images._nifti import packed_kind_of
from sk_medsiglip.images._pillow import format_of
from sk_medsiglip.images._sources import source_path

__all__ = ["folder_path", "kind_of", "list_files"]

_HEAD_BYTES = 132


def folder_path(item: Any) -> str | None:
    """Return the absolute path of an item that is a folder, else None."""
    path = source_path(item)
    return path if path is not None and os.path.isdir(path) else None


def list_files(folder: str) -> list[str]:
    """Return the files in a folder and its sub-folders, in the order of their names.

    Numbers in names count as numbers. Links are followed, hidden files left out.

    Raises
    ------
    ImageReadError
        If a folder cannot be listed.
    """
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        try:
            status = os.stat(path)
            # A link may lead back to a folder above it.
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        waiting.append(entry.path)
                    elif entry.is_file():
                        found.append(entry.path)
        except OSError as error:
            raise ImageReadError(
                f"a folder in it cannot be listed ({error.strerror})",
                "Change its permissions, or ask its owner.",
            ) from error
    return sorted(found, key=_natural)


def kind_of(stream: BinaryIO) -> str | None:
    """Return "dicom", "nifti", "packed dicom", a picture format, or None; rewinds."""
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    if head[128:132] == b"DICM":
        return "dicom"
    format = format_of(head)
    if format is not None:
        return format
    return packed_kind_of(stream) or ("dicom" if is_dicom(head) else None)


def _natural(path: str) -> tuple[list[str | int], str]:
    # Text and digits take turns, so text is compared with text, numbers with numbers.
    parts: list[str | int] = list(re.split(r"([0-9]+)", path))
    parts[1::2] = [int(digits) for digits in parts[1::2]]
    return parts, path
