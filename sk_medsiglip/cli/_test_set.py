"""Saved classifiers and test sets for ``report``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip._json import read_json
from sk_medsiglip._labels import finding_names
from sk_medsiglip.cli._collection import FOLDER_LABEL, Task, absent
from sk_medsiglip.cli._console import CommandError
from sk_medsiglip.cli._embedding import (
    embed_labelled,
    image_embedder,
    set_embedding,
)
from sk_medsiglip.cli._files import load_pipeline
from sk_medsiglip.cli._options import LabelOptions
from sk_medsiglip.datasets import class_name
from sk_medsiglip.encoder import is_demonstration

_MAX_LEVELS = 20  # the limit of evaluate


@dataclass(frozen=True, eq=False)
class Judged:
    """Saved pipelines by name, and the finding of the first if it has a single one."""

    estimators: dict[str, Any]
    finding: str | None

    @classmethod
    def load(
        cls, files: Sequence[Path], embedding: Mapping[str, Any], trusted: Sequence[str]
    ) -> Judged:
        """Read pipelines, and set parameters of their embedders."""
        estimators: dict[str, Any] = {}
        for file in files:
            pipeline = load_pipeline(file, trusted)
            set_embedding(pipeline[0], **embedding)
            name = f"{file.stem} ({type(pipeline[-1]).__name__})"
            if name in estimators:
                raise CommandError(
                    f"Two classifiers are named {name!r}: rename a file."
                )
            estimators[name] = pipeline
        (first, *_) = estimators.values()
        for name, one in list(estimators.items())[1:]:
            if _known(one) != _known(first):
                raise CommandError(
                    f"{name} predicts {_known(one)}, and the first classifier predicts "
                    f"{_known(first)}: they cannot be compared."
                )
        return cls(estimators, _finding_of(first))

    @property
    def first(self) -> Any:
        """The pipeline whose mistakes are reported."""
        return next(iter(self.estimators.values()))

    @property
    def is_demo(self) -> bool:
        """Whether a pipeline uses the demonstration checkpoint."""
        embedders = [image_embedder(one[0]) for one in self.estimators.values()]
        return any(is_demonstration(one.model) for one in embedders)

    def columns(self) -> list[str]:
        """Return the default columns of labels."""
        if self.finding is not None:
            return [self.finding]
        if np.ndim(self.first.classes_) == 2:
            return [str(name) for name in _findings(self.first)]
        return [FOLDER_LABEL]

    def positive(self, named: str | None) -> Any:
        """Return the positive class: the named one, or the finding."""
        if named is None:
            return self.finding
        classes = self.first.classes_
        known = (
            {} if np.ndim(classes) == 2 else {class_name(one): one for one in classes}
        )
        if len(known) != 2 or named not in known:
            raise CommandError(
                f"--pos-label: {named!r} is not one of two classes; the classifier "
                f"predicts {_known(self.first)}."
            )
        return known[named]

    def labels(self, task: Task) -> Any:
        """Return the labels as the classifiers know them."""
        classes, names = self.first.classes_, ", ".join(task.names)
        if np.ndim(classes) == 2:
            wanted = [str(name) for name in _findings(self.first)]
            if set(wanted) != set(task.names):
                raise CommandError(
                    f"--label-column: the classifier's findings are "
                    f"{', '.join(wanted)}, and the columns are {names}. Leave it out "
                    "to use the columns with the names of the findings."
                )
            return pd.DataFrame(task.truth(), columns=list(task.names))[wanted]
        if task.kind == "findings":
            raise CommandError(
                f"--label-column: the classifier predicts {_known(self.first)}, so "
                "name one column."
            )
        if task.kind == "finding" and self.finding is not None:
            return replace(task, names=(self.finding,)).named_labels()
        known = {class_name(one): one for one in classes.tolist()}
        given = [class_name(one) for one in task.y.tolist()]
        if strange := sorted(set(given) - set(known)):
            raise CommandError(
                f"--label-column: {names}: there are images of class {strange[0]!r}, "
                "which is unknown to the classifier; it predicts "
                f"{', '.join(known)}."
            )
        return np.array([known[one] for one in given])


@dataclass(frozen=True, eq=False)
class TestSet:
    """Labelled images that can be read; ``rows`` are their rows in the file."""

    paths: list[str]
    y: Any
    groups: NDArray[Any] | None
    subgroups: pd.DataFrame | None
    rows: NDArray[np.intp]
    remarks: list[str]


def read_test_set(
    source: Path,
    judged: Judged,
    columns: LabelOptions,
    subgroup_columns: Sequence[str] = (),
) -> TestSet:
    """Read images with their labels, and embed them."""
    names = columns.label_column or judged.columns()
    data = replace(columns, label_column=names).read(source)
    judged.labels(data.task)  # raises before images are embedded
    bands = {
        name: _bands(data.collection.column(name, "--subgroup-column"))
        for name in subgroup_columns
    }
    purpose = f"Evaluation on {source.name}"
    kept, _ = embed_labelled(data, judged.first[0], purpose)
    of_kept = np.isin(data.rows, kept.rows)
    return TestSet(
        kept.collection.paths,
        judged.labels(kept.task),
        kept.groups,
        pd.DataFrame(bands)[of_kept].reset_index(drop=True) if bands else None,
        kept.rows,
        [f"{source.name}: {remark}" for remark in kept.remarks],
    )


def read_notes(file: Path | None) -> dict[str, str]:
    """Read statements about the classifier from a JSON file."""
    if file is None:
        return {}
    try:
        notes = read_json(file)
    except ValueError as error:
        raise CommandError(
            f'--notes: {file} must hold {{"name": "text", ...}} as JSON: {error}'
        ) from None
    return {name: str(text) for name, text in notes.items()}


def _bands(values: pd.Series) -> pd.Series:
    """Return subgroups, which are quarters of the images for many numeric values."""
    if values.nunique() <= _MAX_LEVELS:
        return values
    if not pd.api.types.is_numeric_dtype(values):
        raise CommandError(
            f"--subgroup-column: {values.name!r} holds {values.nunique()} different "
            f"values; at most {_MAX_LEVELS} make subgroups."
        )
    quarters = pd.qcut(values, 4, labels=False, duplicates="drop")
    ends = values.groupby(quarters).agg(["min", "max"])
    for digits in (1, 3, 17):  # the fewest that distinguish the quarters
        said = ends.map(lambda end, n=digits: f"{end:.{n}f}".rstrip("0").rstrip("."))
        if set(said["max"].iloc[:-1]).isdisjoint(said["min"].iloc[1:]):
            break
    names = [f"{low} to {high}" for low, high in said.to_numpy()]
    codes = quarters.fillna(-1).astype(int)
    return pd.Series(pd.Categorical.from_codes(codes, names, ordered=True))


def _finding_of(pipeline: Any) -> str | None:
    """Return the finding of a classifier that ``train`` fitted to a single one."""
    classes = np.asarray(pipeline.classes_)
    if classes.ndim != 1 or len(classes) != 2:
        return None
    names = [str(one) for one in classes]
    return next((one for one in names if absent(one) in names), None)


def _findings(pipeline: Any) -> Sequence[Any]:
    names = finding_names(pipeline.steps[-1][1])
    if names is None:
        raise CommandError(
            "The classifier has no names of findings. Train it with a DataFrame of "
            "labels, or with: sk-medsiglip train"
        )
    return names


def _known(pipeline: Any) -> str:
    """Return the classes or findings of a classifier, in words."""
    several = np.ndim(pipeline.classes_) == 2
    names = _findings(pipeline) if several else pipeline.classes_.tolist()
    return ", ".join(map(str, names))
