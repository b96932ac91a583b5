"""Images of a folder or a CSV file, with their columns, labels and patients."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.cli._console import CommandError, in_shell
from sk_medsiglip.datasets import (
    IMAGE_SUFFIXES,
    Meaning,
    class_name,
    list_images,
    locate,
    parse_names,
    parse_numbers,
    read_binary,
    read_table,
    some_values,
)
from sk_medsiglip.datasets import check_columns as _check_columns

#: Column of sub-folder names, for a collection that is a folder.
FOLDER_LABEL = "label"
_MAX_CLASSES = 100


@dataclass(frozen=True)
class Collection:
    """Image files in order, and the table they come from.

    ``frame`` holds the paths as given and the other columns; ``cells`` is the same
    table with the text of every cell.
    """

    paths: list[str]
    frame: pd.DataFrame
    path_column: str
    cells: pd.DataFrame

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def names(self) -> list[str]:
        """Paths as given by the user."""
        return self.frame[self.path_column].astype(str).tolist()

    def keep(self, rows: NDArray[Any]) -> Collection:
        """Return some of the rows, given a mask or indices."""
        return Collection(
            np.array(self.paths, dtype=object)[rows].tolist(),
            self.frame.iloc[rows].reset_index(drop=True),
            self.path_column,
            self.cells.iloc[rows].reset_index(drop=True),
        )

    def column(self, name: str, option: str) -> pd.Series:
        """Return a column, or raise with the names of the existing ones."""
        check_columns(self.frame, [name], option)
        return self.frame[name]

    def patients(self, name: str | None) -> NDArray[Any] | None:
        """Return the patient of each image, or raise if one is blank."""
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
        """Write the table with paths that are valid in the folder of the file."""
        same_folder = all(
            os.path.abspath(path) == os.path.abspath(locate(name, file.parent))
            for path, name in zip(self.paths, self.names, strict=True)
        )
        paths = self.names if same_folder else [absolute(path) for path in self.paths]
        self.cells.assign(**{self.path_column: paths}).to_csv(file, index=False)


@dataclass(frozen=True)
class Task:
    """A classification task.

    ``y`` holds 0, 1 and NaN for one or several findings, and names for classes.
    """

    kind: Literal["finding", "classes", "findings"]
    names: tuple[str, ...]
    y: NDArray[Any]

    def truth(self) -> NDArray[np.float64]:
        """Return 1, 0 and NaN for each image and name."""
        if self.kind == "classes":
            return (self.y[:, None] == np.asarray(self.names)).astype(float)
        return self.y.reshape(len(self.y), -1).astype(float)

    def named_labels(self) -> Any:
        """Return labels that give a saved classifier the names of its classes."""
        if self.kind == "findings":
            return pd.DataFrame(self.y.astype(float), columns=list(self.names))
        if self.kind == "finding":
            return np.where(self.y == 1, self.names[0], absent(self.names[0]))
        return self.y

    def named_prompts(self, prompts: dict[str, Any]) -> dict[str, Any]:
        """Return prompts under the names of these labels."""
        if self.kind != "finding":
            return prompts
        (name,) = self.names
        return {
            name: prompts[name]["positive"],
            absent(name): prompts[name]["negative"],
        }

    def labels_of(self, row: int) -> str:
        """Return the labels of an image, in words."""
        true = [n for n, yes in zip(self.names, self.truth()[row], strict=True) if yes]
        nothing = absent(self.names[0]) if self.kind == "finding" else "no finding"
        return ", ".join(true) or nothing


@dataclass(frozen=True)
class LabelledImages:
    """Images with their labels, patients and row numbers in the source file.

    ``remarks`` are sentences on images that were left out.
    """

    collection: Collection
    task: Task
    groups: NDArray[Any] | None
    rows: NDArray[np.intp]
    remarks: list[str]

    def keep(self, rows: NDArray[Any]) -> LabelledImages:
        """Return some of the rows, given a mask or indices."""
        return LabelledImages(
            self.collection.keep(rows),
            replace(self.task, y=self.task.y[rows]),
            None if self.groups is None else self.groups[rows],
            self.rows[rows],
            list(self.remarks),
        )

    @property
    def y(self) -> Any:
        """Labels that give a saved classifier the names of its classes."""
        return self.task.named_labels()


def read_collection(source: Path, path_column: str | None = None) -> Collection:
    """Read a CSV file, or a folder whose sub-folders become the column ``label``."""
    source = source.expanduser()
    if source.is_dir():
        return _read_folder(source)
    if not source.exists():
        raise CommandError(
            f"{source} does not exist. Pass a folder of images, or a CSV file with a "
            "column of paths."
        )
    if source.suffix.lower() in IMAGE_SUFFIXES:
        raise CommandError(
            f"{source} is a single image. Pass its folder, or a CSV file with a column "
            "of paths."
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


def read_labelled(
    source: Path,
    *,
    label_column: Sequence[str] | None = None,
    group_column: str | None = None,
    path_column: str | None = None,
    uncertain: Meaning = "ignore",
    blank: Meaning = "ignore",
) -> LabelledImages:
    """Read the images of a table or folder that have labels."""
    collection = read_collection(source, path_column)
    columns = label_column or [FOLDER_LABEL]
    task, labelled = read_labels(collection.frame, columns, uncertain, blank)
    remarks = []
    if n_lost := int((~labelled).sum()):
        remarks.append(
            f"{n_lost:,} of {len(labelled):,} images are left out: a label is blank or "
            "uncertain (-1)."
        )
    collection = collection.keep(labelled)
    groups = collection.patients(group_column)
    return LabelledImages(collection, task, groups, np.flatnonzero(labelled), remarks)


def read_labels(
    frame: pd.DataFrame,
    columns: Sequence[str],
    uncertain: Meaning = "ignore",
    blank: Meaning = "ignore",
) -> tuple[Task, NDArray[np.bool_]]:
    """Return the task of the labelled rows, and a mask of these rows.

    A single column of 0 and 1 is a finding, and any other column holds classes. Several
    columns must each hold 0 and 1, and a row needs a label in one of them.
    """
    check_columns(frame, columns, "--label-column")
    findings = [read_binary(frame[name], uncertain, blank) for name in columns]
    if len(columns) == 1 and findings[0] is None:
        labels = frame[columns[0]]
        labelled = labels.notna().to_numpy()
        target = None
    else:
        for name, values in zip(columns, findings, strict=True):
            if values is None:
                raise CommandError(
                    "--label-column: several label columns must hold 0 and 1, and "
                    f"{name!r} holds {some_values(frame[name])}."
                )
        target = np.column_stack(findings)  # type: ignore[arg-type]
        labelled = np.isfinite(target).any(axis=1)
    if not labelled.any():
        raise CommandError(
            f"No image has a label in the columns {', '.join(columns)}. Fill in the "
            "blanks, or name other columns."
        )
    if target is None:
        return _read_classes(labels[labelled]), labelled
    y = target[labelled]
    if np.isfinite(y).all():
        y = y.astype(np.int64)
    if len(columns) == 1:
        return Task("finding", tuple(columns), y[:, 0]), labelled
    return Task("findings", tuple(columns), y), labelled


def absent(finding: str) -> str:
    """Return the name of the class of images without a finding."""
    return f"no {finding}"


def check_columns(frame: pd.DataFrame, names: Sequence[str], option: str) -> None:
    """Raise if a column is missing."""
    try:
        _check_columns(frame, names, option)
    except ValueError as error:
        raise CommandError(str(error)) from None


def absolute(path: str) -> str:
    """Return the absolute path of a file, or a URL as it is."""
    return path if "://" in path else os.path.abspath(path)


def _read_folder(folder: Path) -> Collection:
    files = list_images(folder)
    if not files:
        raise CommandError(
            f"{folder} and its sub-folders hold no image (PNG, JPEG, TIFF, WebP, BMP "
            "or DICOM file)."
        )
    inside = [path.relative_to(folder) for path in files]
    labels = [path.parts[0] if len(path.parts) > 1 else None for path in inside]
    frame = pd.DataFrame({"path": [str(path) for path in inside]})
    if any(labels):
        frame[FOLDER_LABEL] = pd.Series(labels, dtype=object)
    return Collection([str(path) for path in files], frame, "path", frame)


def _read_classes(labels: pd.Series) -> Task:
    y = np.array([class_name(value).strip() for value in labels])
    names = tuple(np.unique(y).tolist())
    if len(names) == 1:
        raise CommandError(
            f"--label-column: {labels.name!r} holds only one class, {names[0]!r}; a "
            "classifier needs two."
        )
    if len(names) > _MAX_CLASSES:
        raise CommandError(
            f"--label-column: {labels.name!r} holds {len(names)} different values. "
            "These look like measurements or names rather than classes."
        )
    return Task("classes", names, y)
