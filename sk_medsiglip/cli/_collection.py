"""Image files of a folder or a CSV file, with the columns of the file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.cli._errors import CommandError, in_shell
from sk_medsiglip.datasets import (
    IMAGE_SUFFIXES,
    class_name,
    list_images,
    locate,
    parse_names,
    parse_numbers,
    read_table,
)
from sk_medsiglip.datasets import check_columns as _check_columns

#: Column of sub-folder names, for a collection that is a folder.
FOLDER_LABEL = "label"


@dataclass(frozen=True)
class Collection:
    """Image files in order, and the table they come from.

    ``frame`` holds the path as the user has it and the other columns; ``cells`` is the
    same table, every cell as it is written.
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

    def keep(self, rows: NDArray[Any]) -> Collection:
        """Return some of the rows, by a mask or by places."""
        return Collection(
            np.array(self.paths, dtype=object)[rows].tolist(),
            self.frame.iloc[rows].reset_index(drop=True),
            self.path_column,
            self.cells.iloc[rows].reset_index(drop=True),
        )

    def column(self, name: str, option: str) -> pd.Series:
        """Return a column, or say which there are."""
        check_columns(self.frame, [name], option)
        return self.frame[name]

    def patients(self, name: str | None) -> NDArray[Any] | None:
        """Return the patient of each image, from a column without blanks."""
        if name is None:
            return None
        check_columns(self.frame, [name], "--group-column")
        column = parse_names(self.cells[name]).map(class_name, na_action="ignore")
        if n_blank := int(column.isna().sum()):
            raise CommandError(
                f"--group-column: {n_blank:,} of {len(column):,} images have no "
                f"patient in column {name!r}. Fill them in, or leave those images out."
            )
        return column.astype(str).to_numpy()

    def write(self, file: Path) -> None:
        """Write the table so that it can be read from where it is written."""
        same_folder = all(
            os.path.abspath(path) == os.path.abspath(locate(name, file.parent))
            for path, name in zip(self.paths, self.names, strict=True)
        )
        paths = self.names if same_folder else [absolute(path) for path in self.paths]
        self.cells.assign(**{self.path_column: paths}).to_csv(file, index=False)


def read_collection(source: Path, path_column: str | None = None) -> Collection:
    """Read a folder, whose sub-folders are the column ``label``, or a CSV file."""
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
    try:
        cells, path_column = read_table(source, path_column)
    except ValueError as error:
        raise CommandError(in_shell(str(error))) from None
    paths = [locate(name, source.parent) for name in cells[path_column]]
    typed = {
        name: cells[name] if name == path_column else parse_numbers(cells[name])
        for name in cells.columns
    }
    return Collection(paths, pd.DataFrame(typed), path_column, cells)


def check_columns(frame: pd.DataFrame, names: Sequence[str], option: str) -> None:
    """Raise if a column is missing."""
    try:
        _check_columns(frame, names, option)
    except ValueError as error:
        raise CommandError(str(error)) from None


def _read_folder(folder: Path) -> Collection:
    files = list_images(folder)
    if not files:
        raise CommandError(
            f"{folder} holds no image: no PNG, JPEG, TIFF, WebP, BMP or DICOM file, "
            "here or in a sub-folder."
        )
    inside = [path.relative_to(folder) for path in files]
    labels = [path.parts[0] if len(path.parts) > 1 else None for path in inside]
    frame = pd.DataFrame({"path": [str(path) for path in inside]})
    if any(labels):
        frame[FOLDER_LABEL] = pd.Series(labels, dtype=object)
    return Collection([str(path) for path in files], frame, "path", frame)


def absolute(path: str) -> str:
    """Return the absolute path of a file, or a URL as it is."""
    return path if "://" in path else os.path.abspath(path)
