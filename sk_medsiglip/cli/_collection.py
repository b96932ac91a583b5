"""A folder or a CSV file -> image files, and what else is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.cli._errors import CommandError
from sk_medsiglip.datasets import (
    IMAGE_SUFFIXES,
    class_name,
    list_images,
    locate,
    parse_names,
    parse_numbers,
    read_strings,
    usual_path_column,
)

__all__ = ["FOLDER_LABEL", "Collection", "read_collection"]

#: Column of sub-folder names, for a collection that is a folder.
FOLDER_LABEL = "label"


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
    cells : pandas.DataFrame
        The same table, every cell as it is written.
    """

    paths: list[str]
    frame: pd.DataFrame
    path_column: str
    cells: pd.DataFrame

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
            paths,
            self.frame[mask].reset_index(drop=True),
            self.path_column,
            self.cells[mask].reset_index(drop=True),
        )

    def column(self, name: str, option: str) -> pd.Series:
        """Return a column, or say which there are."""
        check_columns(self.frame, [name], option)
        return self.frame[name]

    def patient_column(self, name: str) -> pd.Series:
        """Return who each image is of; missing where the cell is blank.

        As numbers are written, ``1.0`` as ``1``; what a number would change, as it is.
        """
        check_columns(self.frame, [name], "--group-column")
        return parse_names(self.cells[name]).map(class_name, na_action="ignore")

    def patients(self, name: str | None) -> np.ndarray | None:
        """Return who each image is of, from a column that leaves nobody out."""
        if name is None:
            return None
        column = self.patient_column(name)
        if n_blank := int(column.isna().sum()):
            raise CommandError(
                f"--group-column: {n_blank:,} of {len(column):,} images have no "
                f"patient in column {name!r}. Fill them in, or leave those images out."
            )
        return column.astype(str).to_numpy()


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
    if source.suffix.lower() in IMAGE_SUFFIXES:
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
    files = list_images(folder)
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
    return Collection([str(path) for path in files], frame, "path", frame)


def _read_table(source: Path, path_column: str | None) -> Collection:
    try:
        frame = read_strings(source)
    except ValueError as error:
        raise CommandError(f"{source} cannot be read as a CSV file: {error}") from None
    if frame.empty:
        raise CommandError(f"{source} holds no rows.")
    if path_column is None:
        path_column = usual_path_column(frame.columns)
        if path_column is None:
            raise CommandError(
                f"Which column of {source} holds the paths? Say --path-column with "
                f"one of: {', '.join(frame.columns)}."
            )
    check_columns(frame, [path_column], "--path-column")
    empty = np.flatnonzero(frame[path_column].str.strip() == "")
    if empty.size:
        raise CommandError(
            f"{source}: row {empty[0] + 1} has no path in column {path_column!r}."
        )
    paths = [locate(name, source.parent) for name in frame[path_column]]
    typed = {
        name: frame[name] if name == path_column else parse_numbers(frame[name])
        for name in frame.columns
    }
    return Collection(paths, pd.DataFrame(typed), path_column, frame)
