"""Labelled images, and the task that the columns of labels pose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.cli._collection import (
    FOLDER_LABEL,
    Collection,
    check_columns,
    read_collection,
)
from sk_medsiglip.cli._errors import CommandError
from sk_medsiglip.datasets import Meaning, class_name, read_binary, some_values

_MAX_CLASSES = 100


@dataclass(frozen=True)
class Task:
    """A classification task.

    ``y`` holds 0, 1 and NaN for one finding or several, and names for classes.
    """

    kind: Literal["finding", "classes", "findings"]
    names: tuple[str, ...]
    y: NDArray[Any]

    def rows(self, rows: NDArray[Any]) -> Task:
        """Return the task of some of the images."""
        return replace(self, y=self.y[rows])

    def truth(self) -> NDArray[np.float64]:
        """Return 1, 0 and NaN for each image and name."""
        if self.kind == "classes":
            return (self.y[:, None] == np.asarray(self.names)).astype(float)
        return self.y.reshape(len(self.y), -1).astype(float)

    def labels_of(self, row: int) -> str:
        """Return the labels of an image, in words."""
        true = [n for n, yes in zip(self.names, self.truth()[row], strict=True) if yes]
        nothing = absent(self.names[0]) if self.kind == "finding" else "no finding"
        return ", ".join(true) or nothing


@dataclass(frozen=True)
class LabelledImages:
    """Images with their labels, patients and places in the file they come from.

    ``remarks`` are sentences on images that were left out.
    """

    collection: Collection
    task: Task
    groups: NDArray[Any] | None
    rows: NDArray[np.intp]
    remarks: list[str]

    def keep(self, rows: NDArray[Any]) -> LabelledImages:
        """Return some of the rows, by a mask or by places."""
        groups = None if self.groups is None else self.groups[rows]
        kept = self.collection.keep(rows), self.task.rows(rows), groups, self.rows[rows]
        return LabelledImages(*kept, list(self.remarks))


def read_labelled(
    source: Path,
    label_columns: Sequence[str] | None,
    group_column: str | None,
    path_column: str | None = None,
    *,
    uncertain: Meaning = "ignore",
    blank: Meaning = "ignore",
) -> LabelledImages:
    """Read the images of a table or folder that have labels."""
    collection = read_collection(source, path_column)
    task, labelled, remarks = read_labels(
        collection.frame,
        label_columns or [FOLDER_LABEL],
        uncertain=uncertain,
        blank=blank,
    )
    collection = collection.keep(labelled)
    groups = collection.patients(group_column)
    return LabelledImages(collection, task, groups, np.flatnonzero(labelled), remarks)


def read_labels(
    frame: pd.DataFrame,
    columns: Sequence[str],
    *,
    uncertain: Meaning = "ignore",
    blank: Meaning = "ignore",
) -> tuple[Task, NDArray[np.bool_], list[str]]:
    """Return the task of the rows that have labels, which these are, and remarks.

    One column of 0 and 1 is a finding, one of anything else holds classes; several
    columns must be of 0 and 1, and a row needs one of them.
    """
    check_columns(frame, columns, "--label-column")
    binary = {name: read_binary(frame[name], uncertain, blank) for name in columns}
    known = [values for values in binary.values() if values is not None]
    if len(columns) > 1 and len(known) < len(columns):
        name = next(name for name, values in binary.items() if values is None)
        raise CommandError(
            "--label-column: with several label columns each must hold 0 and 1, and "
            f"{name!r} holds {some_values(frame[name])}."
        )
    if known:
        table = np.column_stack(known)
        labelled = np.asarray(np.isfinite(table).any(axis=1))
        y = table[labelled]
        if np.isfinite(y).all():
            y = y.astype(np.int64)
        task = (
            Task("finding", tuple(columns), y[:, 0])
            if len(columns) == 1
            else Task("findings", tuple(columns), y)
        )
    else:
        labelled = frame[columns[0]].notna().to_numpy()
        task = _read_classes(frame[columns[0]][labelled])
    if not labelled.any():
        raise CommandError(
            f"No image has a label in the columns {', '.join(columns)}. Fill in the "
            "blanks, or name other columns."
        )
    n_lost = int((~labelled).sum())
    left_out = (
        f"{n_lost:,} of {len(frame):,} images are left out: a label is blank or "
        "uncertain (-1)."
    )
    return task, labelled, [left_out] if n_lost else []


def named_labels(task: Task) -> Any:
    """Return labels that name themselves in the saved classifier."""
    if task.kind == "findings":
        return pd.DataFrame(task.y.astype(float), columns=list(task.names))
    if task.kind == "finding":
        (name,) = task.names
        return np.where(task.y == 1, name, absent(name))
    return task.y


def named_prompts(task: Task, prompts: dict[str, Any]) -> dict[str, Any]:
    """Return prompts of the same names."""
    if task.kind != "finding":
        return prompts
    (name,) = task.names
    pair = prompts[name]
    return {name: pair["positive"], absent(name): pair["negative"]}


def absent(finding: str) -> str:
    """Return the name of the class of images without a finding."""
    return f"no {finding}"


def _read_classes(labels: pd.Series) -> Task:
    y = np.array([class_name(value).strip() for value in labels])
    names = tuple(np.unique(y).tolist())
    if len(names) == 1:
        raise CommandError(
            f"--label-column: {labels.name!r} holds one class only, {names[0]!r}; a "
            "classifier needs two."
        )
    if len(names) > _MAX_CLASSES:
        raise CommandError(
            f"--label-column: {labels.name!r} holds {len(names)} different values. "
            "That looks like measurements or names, not classes."
        )
    return Task("classes", names, y)
