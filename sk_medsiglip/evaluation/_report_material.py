"""Data, labels and answers of a report, gathered before it is written."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import check_consistent_length

from sk_medsiglip._shared_groups import written_ids
from sk_medsiglip.encoder import is_demonstration
from sk_medsiglip.evaluation._answers import Question, Truth, read_truth
from sk_medsiglip.evaluation._leaks import AnyEmbedder, Leak


@dataclass(frozen=True, eq=False)
class Part:
    """The test, tuning or training set; data that were not given are None."""

    name: str
    X: Any
    y: Any
    groups: Any
    truth: Truth | None

    @classmethod
    def of(
        cls,
        name: str,
        X: Any,
        y: Any,
        groups: Any,
        estimators: list[Any],
        pos_label: Any = None,
        like: Part | None = None,
    ) -> Part | None:
        """Return the part with labels named as in ``like``, or None without data."""
        given = [one for one in (X, y, groups) if one is not None]
        if not given:
            return None
        check_consistent_length(*given)
        truth = None
        if y is not None:
            truth = read_truth(y, estimators, given[0], pos_label=pos_label)
            if like is not None and like.truth is not None:
                truth = truth.named_like(like.truth)
        return cls(name, X, y, groups, truth)

    @property
    def n_images(self) -> int:
        """Number of images."""
        given = (self.y, self.groups, self.X)
        return len(next(one for one in given if one is not None))

    def n_patients(self, chosen: Any = slice(None)) -> int | None:
        """Return the number of patients among some images, without missing ids."""
        if self.groups is None:
            return None
        return len(set(written_ids(self.groups)[chosen]) - {"nan"})

    @property
    def size(self) -> str:
        """Numbers of images and patients, in words."""
        n_patients = self.n_patients()
        of = "" if n_patients is None else f" of {n_patients:,} patients"
        return f"{self.n_images:,} images{of}"

    def counts(self) -> list[list[Any]]:
        """Return the numbers of images with and without each label, and unknown ones.

        The last column holds the number of patients with the label.
        """
        assert self.truth is not None  # the caller has labels
        rows = []
        for label, column in zip(self.truth.names, self.truth.columns().T, strict=True):
            sides = column == 1, column == 0, np.isnan(column)
            n_patients = self.n_patients(column == 1)
            patients = "not given" if n_patients is None else f"{n_patients:,}"
            rows.append([label, *(f"{side.sum():,}" for side in sides), patients])
        return rows


@dataclass(eq=False)
class Material:
    """Data and results that the sections of a report share.

    Sections are made one after another, and add warnings, remarks and thresholds.
    """

    estimators: dict[str, Any]
    questions: dict[str, list[Question]]
    test: Part
    others: list[Part]
    table: pd.DataFrame
    leaks: list[Leak]
    names: list[str]
    settings: dict[str, Any]
    embedder: AnyEmbedder | None
    warned: list[Warning]
    remarks: list[str]
    is_demo: bool
    n_copies: int | None
    #: Members of each subgroup, as masks.
    members: dict[str, NDArray[np.bool_]]
    thresholds: dict[tuple[str, Any], float] = field(default_factory=dict)
    #: Number of labels whose curves are drawn, to limit the size of the file.
    max_drawn: int = 20

    @property
    def truth(self) -> Truth:
        """The labels of the test set."""
        assert self.test.truth is not None
        return self.test.truth

    def said_of(self, label: Any, without: Sequence[str] = ()) -> dict[str, Question]:
        """Return the question of each estimator for one label, except some of them."""
        place = self.truth.place(label)
        asked = self.questions.items()
        return {name: each[place] for name, each in asked if name not in without}

    @property
    def labels(self) -> list[Any]:
        """Names of the classes or findings."""
        return self.truth.names

    @property
    def overall(self) -> Any:
        """The label that stands for all: "macro", or the only one."""
        return "macro" if len(self.labels) > 1 else self.labels[0]

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics in the table."""
        return list(self.table["metric"].unique())

    @property
    def overall_rows(self) -> pd.DataFrame:
        """Rows of the table for all images, without subgroups."""
        return self.table[self.table["subgroup"] == "all"]

    @property
    def without_probabilities(self) -> list[str]:
        """Names of the estimators that return scores only."""
        return [
            name
            for name, asked in self.questions.items()
            if any(one.probability is None for one in asked)
        ]

    @property
    def sampling(self) -> dict[str, Any]:
        """Patients and the settings of intervals."""
        return {"groups": self.test.groups, **self.settings}

    def part(self, name: str) -> Part | None:
        """Return the tuning or training set, if it was given."""
        return next((one for one in self.others if one.name == name), None)

    @property
    def parts(self) -> list[Part]:
        """All parts of the data."""
        return [self.test, *self.others]

    @property
    def drawn(self) -> list[Any]:
        """The first labels with images of both kinds, whose curves are drawn."""
        (asked, *_) = self.questions.values()
        both = [one.label for one in asked if one.ill.any() and not one.ill.all()]
        return both[: self.max_drawn]

    @property
    def n_not_drawn(self) -> int:
        """Number of labels whose curves are not drawn."""
        return len(self.labels) - len(self.drawn)


def uses_demonstration(estimators: Iterable[Any]) -> bool:
    """Tell whether an estimator names the demonstration checkpoint as its model."""
    models = {
        str(value)
        for one in estimators
        if hasattr(one, "get_params")
        for name, value in one.get_params().items()
        if name.rpartition("__")[2] == "model" and isinstance(value, str | PathLike)
    }
    return any(map(is_demonstration, models))


@contextmanager
def noted(kept: list[Warning]) -> Iterator[None]:
    """Collect the warnings of a block, to be shown in the report and raised later."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    kept += [one.message for one in caught if isinstance(one.message, Warning)]
