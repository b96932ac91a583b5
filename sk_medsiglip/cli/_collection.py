"""A folder or a CSV file -> image files, and what else is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.cli._errors import CommandError

__all__ = ["FOLDER_LABEL", "Collection", "read_collection"]

#: Column of sub-folder names, for a collection that is a folder.
FOLDER_LABEL = "label"

_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom")
)
_USUAL_PATH_COLUMNS = ("path", "file", "filename", "filepath", "image", "image_path")


@dataclass(frozen=True)
class Collection:
    """Image files in order, and the table they come from.

    Parameters
    ----------
    paths : list of str
        What to open.
    frame : pandas.DataFrame
        One row an image: the path as the user has it, and the other columns.
    path_column : str
        Which column of ``frame`` that is.
    """

    paths: list[str]
    frame: pd.DataFrame
    path_column: str

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def names(self) -> list[str]:
        """Paths as the user has them."""
        return self.frame[self.path_column].astype(str).tolist()

    def keep(self, mask: NDArray[np.bool_]) -> Collection:
        """Return the rows where ``mask`` is true."""
        paths = [path for path, kept in zip(self.paths, mask, strict=True) if kept]
        return Collection(
            paths, self.frame[mask].reset_index(drop=True), self.path_column
        )

    def column(self, name: str, option: str) -> pd.Series:
        """Return a column, or say which there are."""
        check_columns(self.frame, [name], option)
        return self.frame[name]


def read_collection(source: Path, path_column: str | None = None) -> Collection:
    """Read what ``--images`` or SOURCE names.

    Parameters
    ----------
    source : pathlib.Path
        A folder, whose images are taken with those of its sub-folders and whose
        sub-folder names become the column ``label``; or a CSV or TSV file.
    path_column : str or None, default=None
        Column of paths of a CSV file; None looks for a usual name.

    Returns
    -------
    Collection

    Raises
    ------
    CommandError
        If there is nothing there, no image, or no such column.
    """
    source = source.expanduser()
    if source.is_dir():
        return _read_folder(source)
    if not source.exists():
        raise CommandError(
            f"{source} does not exist. Give a folder of images, or a CSV file with a "
            "column of paths."
        )
    if source.suffix.lower() in _SUFFIXES:
        raise CommandError(
            f"{source} is one image. Give its folder, or a CSV file with a column of "
            "paths."
        )
    return _read_table(source, path_column)


def check_columns(frame: pd.DataFrame, names: Sequence[str], option: str) -> None:
    """Raise if a column is missing."""
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise CommandError(
            f"{option}: there is no column {missing[0]!r}. The columns are: "
            f"{', '.join(map(str, frame.columns))}."
        )


def _read_folder(folder: Path) -> Collection:
    files = sorted(path for path in folder.rglob("*") if _is_image(path, folder))
    if not files:
        raise CommandError(
            f"{folder} holds no image: no PNG, JPEG, TIFF, WebP, BMP or DICOM file, "
            "here or in a sub-folder."
        )
    inside = [path.relative_to(folder) for path in files]
    labels = [path.parts[0] if len(path.parts) > 1 else "" for path in inside]
    frame = pd.DataFrame({"path": [str(path) for path in inside]})
    if any(labels):
        frame[FOLDER_LABEL] = pd.Series(labels, dtype=object).replace("", None)
    return Collection([str(path) for path in files], frame, "path")


def _is_image(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    if hidden or not path.is_file():
        return False
    if path.suffix.lower() in _SUFFIXES:
        return True
    # Scanners and archives export DICOM files as "IM0001" or "1.2.840.113.5".
    if path.suffix and not path.suffix[1:].isdigit():
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return True  # whoever reads it says why that fails, and goes on


def _read_table(source: Path, path_column: str | None) -> Collection:
    separator = "\t" if source.suffix.lower() == ".tsv" else ","
    try:
        frame = pd.read_csv(source, sep=separator, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise CommandError(f"{source} cannot be read as a CSV file: {error}") from None
    if frame.empty:
        raise CommandError(f"{source} holds no rows.")
    if path_column is None:
        usual = [c for c in frame.columns if str(c).lower() in _USUAL_PATH_COLUMNS]
        if not usual:
            raise CommandError(
                f"Which column of {source} holds the paths? Say --path-column with "
                f"one of: {', '.join(frame.columns)}."
            )
        path_column = str(usual[0])
    check_columns(frame, [path_column], "--path-column")
    empty = np.flatnonzero(frame[path_column].str.strip() == "")
    if empty.size:
        raise CommandError(
            f"{source}: row {empty[0] + 1} has no path in column {path_column!r}."
        )
    paths = [
        str(source.parent / Path(name).expanduser()) for name in frame[path_column]
    ]
    typed = {
        name: frame[name] if name == path_column else _to_numbers(frame[name])
        for name in frame.columns
    }
    return Collection(paths, pd.DataFrame(typed), path_column)


def _to_numbers(column: pd.Series) -> Any:
    """Turn a column of numbers into numbers; ``007`` names something, and stays."""
    blank = column.str.strip() == ""
    filled = column.mask(blank)
    numbers = pd.to_numeric(filled, errors="coerce")
    is_name = column.str.match(r"\s*[+-]?0\d").any()
    if blank.all() or is_name or numbers[~blank].isna().any():
        return filled
    return numbers
