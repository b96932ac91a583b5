"""What a report speaks of, gathered before a word of it is written."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import check_consistent_length

from sk_medsiglip.embedding import MedSigLIPEmbedder
from sk_medsiglip.encoder import is_demonstration
from sk_medsiglip.evaluation._answers import Truth, ask, read_truth
from sk_medsiglip.evaluation._figures import Question
from sk_medsiglip.exceptions import LeakageWarning
from sk_medsiglip.images import image_rows
from sk_medsiglip.model_selection import check_leakage

__all__ = [
    "Leak",
    "Material",
    "Part",
    "Remembering",
    "find_embedder",
    "is_matrix",
    "look_for_leaks",
    "noted",
    "uses_demonstration",
]


#: Kinds of check_leakage, and what they are called here.
_PICTURES = {
    "same picture": "same pictures",
    "nearly the same": "nearly the same pictures",
}


@dataclass(frozen=True, eq=False)
class Part:
    """One of the parts that data were split into.

    Parameters
    ----------
    name : str
        "test", "tuning" or "training".
    X, y, groups
        Images or embeddings, labels, patients; None where not given.
    truth : Truth or None
        The labels, checked.
    """

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
    ) -> Part | None:
        """Return the part, or None if nothing of it was given."""
        given = [one for one in (X, y, groups) if one is not None]
        if not given:
            return None
        check_consistent_length(*given)
        truth = None
        if y is not None:
            truth = read_truth(y, estimators, given[0], label=pos_label)
        return cls(name, X, y, groups, truth)

    @property
    def n_images(self) -> int:
        """How many images it holds."""
        given = (self.y, self.groups, self.X)
        return len(next(one for one in given if one is not None))

    def counts(self, name: Any) -> tuple[int, int, int, int | None]:
        """Return images with a label, without, not known; and patients with it."""
        assert self.truth is not None  # who asks has labels
        place = self.truth.names.index(name)
        if self.truth.kind == "findings":
            column = self.truth.target[:, place]
        else:
            of_class = place + (self.truth.kind == "binary")
            column = (self.truth.target == of_class).astype(float)
        patients = None
        if self.groups is not None:
            patients = len(pd.unique(np.asarray(self.groups)[column == 1]))
        with_it, without, unknown = column == 1, column == 0, np.isnan(column)
        return int(with_it.sum()), int(without.sum()), int(unknown.sum()), patients


@dataclass(frozen=True)
class Leak:
    """What was looked for on both sides of a split, and how much of it was found.

    Parameters
    ----------
    part : str
        The other side: "training" or "tuning".
    kind : str
        "patients", "same pictures" or "nearly the same pictures".
    n_found : int or None
        None where it could not be looked for.
    """

    part: str
    kind: str
    n_found: int | None


@dataclass(eq=False)
class Material:
    """Everything that the sections of a report need.

    Parameters
    ----------
    estimators : dict
        By name; those of classifiers remember what they said.
    test : Part
        What they are judged on.
    others : list of Part
        Tuning and training.
    table : DataFrame
        What :func:`evaluate` gave.
    leaks : list of Leak
        What was looked for.
    names : list of str
        What each image of the test set is called.
    settings : dict
        n_bootstrap, level and random_state.
    embedder : MedSigLIPEmbedder or None
        What makes embeddings of the images.
    warned : list of Warning
        What was warned of so far; grows.
    remarks : list of str
        Sentences for the summary; grows.
    is_demo : bool
        Whether a classifier uses the demonstration checkpoint.
    """

    estimators: dict[str, Any]
    test: Part
    others: list[Part]
    table: pd.DataFrame
    leaks: list[Leak]
    names: list[str]
    settings: dict[str, Any]
    embedder: MedSigLIPEmbedder | None
    warned: list[Warning]
    remarks: list[str]
    is_demo: bool

    @property
    def truth(self) -> Truth:
        """The labels of the test set."""
        assert self.test.truth is not None
        return self.test.truth

    @cached_property
    def questions(self) -> dict[str, list[Question]]:
        """What each estimator says of each label."""
        return {
            name: ask(name, one, self.test.X, self.truth)
            for name, one in self.estimators.items()
        }

    @property
    def labels(self) -> list[Any]:
        """The classes or findings."""
        return self.truth.names

    @property
    def overall(self) -> Any:
        """The label of one figure for everything."""
        return "macro" if len(self.labels) > 1 else self.labels[0]

    @property
    def metrics(self) -> list[str]:
        """The figures of the table."""
        return list(self.table["metric"].unique())

    @property
    def sampling(self) -> dict[str, Any]:
        """What intervals are drawn by."""
        return {"groups": self.test.groups, **self.settings}

    def part(self, name: str) -> Part | None:
        """Return one of the other parts, if it was given."""
        return next((one for one in self.others if one.name == name), None)

    def drawable(self, label: Any) -> bool:
        """Return whether there are images with a label and without."""
        (first, *_) = self.questions.values()
        question = first[self.labels.index(label)]
        return bool(question.ill.any() and not question.ill.all())


class Remembering:
    """An estimator that is asked once what it says of a test set.

    Figures and pictures all need the same answers, and images may be slow to embed.

    Parameters
    ----------
    estimator : classifier
        Fitted. Always asked of the same ``X``.
    """

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator
        self._answers: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._estimator, name)
        if name not in ("predict", "predict_proba", "decision_function"):
            return found

        def answer(X: Any) -> Any:
            if name not in self._answers:
                self._answers[name] = found(X)
            return self._answers[name]

        return answer

    @property
    def itself(self) -> Any:
        """The estimator."""
        return self._estimator

    def ask_anew(self, name: str, X: Any, truth: Truth) -> list[Question]:
        """Ask the estimator itself, of other images."""
        return ask(name, self._estimator, X, truth)


def find_embedder(estimators: Mapping[str, Any]) -> MedSigLIPEmbedder | None:
    """Return the first embedder in pipelines."""
    for one in estimators.values():
        for _, step in getattr(one, "steps", ()):
            if isinstance(step, MedSigLIPEmbedder):
                return step
    return None


def uses_demonstration(estimators: Iterable[Any]) -> bool:
    """Return whether one of the estimators uses the demonstration checkpoint.

    Parameters
    ----------
    estimators : iterable
        Estimators and pipelines. Scores, and heads that were fitted to embeddings, do
        not know their model.

    Returns
    -------
    bool
    """
    models = {
        str(value)
        for one in estimators
        if hasattr(one, "get_params")
        for name, value in one.get_params().items()
        if name.rpartition("__")[2] == "model" and isinstance(value, str | PathLike)
    }
    return any(map(is_demonstration, models))


def look_for_leaks(
    test: Part, others: Sequence[Part], embedder: MedSigLIPEmbedder | None
) -> list[Leak]:
    """Look for patients and pictures of the test set in other parts.

    Parameters
    ----------
    test, others
        The parts.
    embedder : MedSigLIPEmbedder or None
        Images are compared by its embeddings, which are in its cache.

    Returns
    -------
    list of Leak

    Warns
    -----
    LeakageWarning
        If there are any.
    """
    found = []
    for part in others:
        n_patients = None
        if test.groups is not None and part.groups is not None:
            n_patients = len(set(_plain(test.groups)) & set(_plain(part.groups)))
        found.append(Leak(part.name, "patients", n_patients))
        pairs = None if part.X is None else _compare(test.X, part.X, embedder)
        for kind, name in _PICTURES.items():
            n = None if pairs is None else pairs.get(kind, 0)
            found.append(Leak(part.name, name, n))
    for leak in found:
        if leak.n_found:
            warnings.warn(
                f"the {leak.part} set and the test set share {leak.kind} "
                f"({leak.n_found:,} of the test set's): figures flatter. Split by "
                "patient, and leave copies out; model_selection.check_leakage lists "
                "them.",
                LeakageWarning,
                stacklevel=3,
            )
    return found


def _compare(X: Any, other: Any, embedder: MedSigLIPEmbedder | None) -> dict[str, int]:
    """Return how many pictures of the test set are among the others, by kind."""
    if is_matrix(X) != is_matrix(other):
        raise ValueError(
            "X and X_train, X_tune must be of one kind to be compared: all embeddings, "
            "or all images."
        )
    if not is_matrix(X) and embedder is not None:
        X, other = embedder.transform(X), embedder.transform(other)
    if is_matrix(X):
        both: Any = np.vstack([np.asarray(other), np.asarray(X)])
    else:
        both = [*image_rows(other), *image_rows(X)]
    split = (np.arange(len(other)), np.arange(len(other), len(both)))
    pairs = check_leakage(both, splits=[split], max_rows=None)
    return dict(pairs.groupby("kind")["test_row"].nunique())


def is_matrix(X: Any) -> bool:
    """Return whether ``X`` holds embeddings, not images."""
    try:
        rows = np.asarray(X)
    except ValueError:  # images of several shapes
        return False
    return rows.ndim == 2 and rows.dtype.kind in "fiu"


def _plain(groups: Any) -> list[Any]:
    # As texts: of one table numbers may be read as such, of the other not.
    return list(map(str, np.asarray(groups).tolist()))


@contextmanager
def noted(kept: list[Warning]) -> Iterator[None]:
    """Keep the warnings of a block, to be shown in the report and raised after it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    kept += [one.message for one in caught if isinstance(one.message, Warning)]
