"""Columns of a table -> what is to be told apart, and how well it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from sk_medsiglip.cli._collection import check_columns
from sk_medsiglip.cli._errors import CommandError
from sk_medsiglip.datasets import Meaning, class_name, read_binary

__all__ = ["Meaning", "Task", "read_labels"]

_MAX_CLASSES = 100


@dataclass(frozen=True)
class Task:
    """A classification task.

    Parameters
    ----------
    kind : {"finding", "classes", "findings"}
        One finding that is present or absent; one of several classes; several
        findings at once.
    names : tuple of str
        The finding; the classes, sorted; the findings.
    y : ndarray
        0 and 1 for findings, ``(n,)`` or ``(n, n_findings)``, NaN where one of several
        is not known; class names for classes.
    """

    kind: Literal["finding", "classes", "findings"]
    names: tuple[str, ...]
    y: NDArray[Any]

    def rows(self, rows: NDArray[Any]) -> Task:
        """Return the task of some of the images."""
        return replace(self, y=self.y[rows])

    def questions(self) -> list[NDArray[Any]]:
        """Return what one labelled image answers: a 1-D y for each question."""
        return list(self.y.T) if self.kind == "findings" else [self.y]

    def indicators(self) -> NDArray[np.bool_]:
        """Return whether each name is true of each image, ``(n, n_names)``."""
        if self.kind == "classes":
            return self.y[:, None] == np.asarray(self.names)
        return self.y.reshape(len(self.y), -1) == 1

    def scores(self, estimator: Any, X: Any) -> NDArray[np.floating]:
        """Return one column of probabilities a name."""
        probabilities = np.asarray(estimator.predict_proba(X))
        if self.kind == "findings":
            return probabilities
        if self.kind == "finding":
            return probabilities[:, 1:]
        # A fold or a draw may lack a class, prompts may have one more.
        known = {str(name): i for i, name in enumerate(estimator.classes_)}
        columns = [
            probabilities[:, known[name]] if name in known else np.zeros(len(X))
            for name in self.names
        ]
        return np.column_stack(columns)

    def aucs(self, scores: NDArray[np.floating]) -> dict[str, float]:
        """Return the AUC of every name of which there are examples and others."""
        truth = self.indicators()
        return {
            name: float(roc_auc_score(truth[:, i], scores[:, i]))
            for i, name in enumerate(self.names)
            if 0 < truth[:, i].sum() < len(truth)
        }

    def macro_auc(self, estimator: Any, X: Any, y: NDArray[Any]) -> float:
        """Score an estimator as ``GridSearchCV(scoring=...)`` wants it."""
        aucs = replace(self, y=y).aucs(self.scores(estimator, X))
        return float(np.mean(list(aucs.values()))) if aucs else float("nan")

    def labels_of(self, row: int) -> str:
        """Return what is true of an image, in words."""
        truth = self.indicators()[row]
        true = [name for name, yes in zip(self.names, truth, strict=True) if yes]
        nothing = f"no {self.names[0]}" if self.kind == "finding" else "no finding"
        return ", ".join(true) or nothing


def read_labels(
    frame: pd.DataFrame,
    columns: Sequence[str],
    *,
    uncertain: Meaning = "ignore",
    blank: Meaning = "ignore",
    complete: bool = True,
) -> tuple[Task, NDArray[np.bool_], list[str]]:
    """Read label columns.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row an image.
    columns : sequence of str
        One column of 0 and 1 is a finding, one of anything else holds classes, without
        the spaces around them; several must be of 0 and 1. Beside 0 and 1 words such as
        "NA" are blanks.
    uncertain, blank : {"ignore", "negative", "positive"}, default="ignore"
        What -1 and an empty cell of a finding mean.
    complete : bool, default=True
        Leave out images of which one of several findings is not known. False leaves
        out those of which none is, and holds NaN for the others.

    Returns
    -------
    task : Task
        Of the rows that have labels.
    labelled : ndarray of bool
        Which rows those are.
    remarks : list of str
        What was left out, as sentences.

    Raises
    ------
    CommandError
        If the columns cannot be labels.
    """
    check_columns(frame, columns, "--label-column")
    binary = {name: read_binary(frame[name], uncertain, blank) for name in columns}
    if len(columns) > 1:
        for name, values in binary.items():
            if values is None:
                raise CommandError(
                    f"--label-column: with several label columns each must hold 0 and "
                    f"1, and {name!r} holds {_some_values(frame[name])}."
                )
    if all(values is not None for values in binary.values()):
        table = np.column_stack(list(binary.values()))  # type: ignore[arg-type]
        known = np.isfinite(table)
        labelled = np.asarray(known.all(axis=1) if complete else known.any(axis=1))
        y = table[labelled]
        if known[labelled].all():
            y = y.astype(np.int64)
        kind: Literal["finding", "findings"] = (
            "finding" if len(columns) == 1 else "findings"
        )
        task = Task(kind, tuple(columns), y[:, 0] if kind == "finding" else y)
    else:
        labels = frame[columns[0]]
        labelled = labels.notna().to_numpy()
        y = np.array([class_name(value).strip() for value in labels[labelled]])
        task = Task("classes", tuple(np.unique(y).tolist()), y)
        _check_classes(task, columns[0])
    remarks = []
    if not labelled.all():
        remarks.append(
            f"{(~labelled).sum():,} of {len(frame):,} images are left out: a label is "
            "blank or uncertain (-1)."
        )
    if not labelled.any():
        raise CommandError(
            f"No image has a label in every one of the columns {', '.join(columns)}. "
            "Fill in the blanks, or name fewer columns."
        )
    return task, labelled, remarks


def _check_classes(task: Task, column: str) -> None:
    if len(task.names) < 2:
        raise CommandError(
            f"--label-column: {column!r} holds one class only, {task.names}; a "
            "classifier needs two."
        )
    if len(task.names) > _MAX_CLASSES:
        raise CommandError(
            f"--label-column: {column!r} holds {len(task.names)} different values. "
            "That looks like measurements or names, not classes."
        )


def _some_values(column: pd.Series) -> str:
    values = [repr(class_name(value)) for value in column.dropna().unique()[:4]]
    return ", ".join(values) + (", ..." if column.nunique() > 4 else "")
