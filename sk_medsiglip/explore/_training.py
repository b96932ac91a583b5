"""From labels to a classifier, and its scores of all rows."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.explore._task import Codes, Task
from sk_medsiglip.heads import LinearProbe, PromptProbe
from sk_medsiglip.zero_shot import ZeroShotClassifier

#: Rows with the rarest label up to which a probe that knows the prompts is taken.
FEW_LABELS = 100

Rows = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Labelled:
    """The labelled rows of a session, in the order of their numbers."""

    task: Task
    X: Rows
    codes: Codes
    groups: NDArray[Any] | None

    def keep(self, rows: Any) -> Labelled:
        """Return some of the rows."""
        groups = None if self.groups is None else self.groups[rows]
        return Labelled(self.task, self.X[rows], self.codes[rows], groups)

    def known(self, columns: Sequence[int]) -> Labelled:
        """Return the rows with a known label in one of the columns."""
        return self.keep((self.codes[:, columns] >= 0).any(axis=1))

    def trainable(self) -> list[int]:
        """Return the columns with two different labels."""
        columns = range(self.codes.shape[1])
        values = [np.unique(self.codes[self.codes[:, c] >= 0, c]) for c in columns]
        return [c for c in columns if len(values[c]) > 1]

    def has_few(self, columns: Sequence[int]) -> bool:
        """Tell whether the rarest label of a column has few rows, or one patient."""
        values = range(len(self.task.values))
        of = np.arange(len(self.X)) if self.groups is None else self.groups
        rows = [self.codes[:, c] == value for c in columns for value in values]
        n_rows = min(int(one.sum()) for one in rows)
        return n_rows <= FEW_LABELS or min(len(np.unique(of[one])) for one in rows) < 2


class Prompts:
    """Prompts of a session, encoded; of findings each by itself, and some together."""

    def __init__(
        self, prompts: Mapping[Any, Any], settings: Mapping[str, Any], width: int
    ) -> None:
        # A plain dict of texts: a set of prompts fills its templates in.
        self.texts = dict(prompts.items())
        self._settings = settings
        self._row = np.ones((1, width), dtype=np.float32)
        self._encoded: dict[Any, ZeroShotClassifier] = {}
        self._axes: Rows | None = None

    def texts_of(self, findings: Sequence[str] | None) -> dict[Any, Any]:
        """Return the prompts of some findings, by default of all."""
        names = self.texts if findings is None else findings
        return {name: self.texts[name] for name in names}

    def classifier(self, findings: Sequence[str] | None = None) -> ZeroShotClassifier:
        """Return the zero-shot classifier of some findings, by default of all."""
        texts = self.texts_of(findings)
        key = tuple(texts)
        if key not in self._encoded:
            made = ZeroShotClassifier(texts, **self._settings)
            self._encoded[key] = made.fit(self._row)
        if self._axes is None:
            return self._encoded[key]
        turned: Any = copy.copy(self._encoded[key])
        turned.class_embeddings_ = turned.class_embeddings_ @ self._axes
        return turned

    def along(self, axes: Rows) -> Prompts:
        """Return these prompts for rows in other coordinates, ``X @ axes``."""
        turned = copy.copy(self)
        turned._axes = axes
        return turned


def train(
    labelled: Labelled, columns: Sequence[int], prompts: Prompts | None, *, few: bool
) -> Any:
    """Return a classifier of some columns, which have few labels or many."""
    some = labelled.known(columns)
    probe: Any = LinearProbe()
    if few and prompts is not None:
        probe = PromptProbe(_anchors(labelled.task, columns, prompts))
    target = some.task.target(some.codes, columns)
    with few_labels_expected():
        return probe.fit(some.X, target, groups=some.groups)


def _anchors(task: Task, columns: Sequence[int], prompts: Prompts) -> Any:
    if task.classes is not None:
        return prompts.classifier()
    return prompts.classifier([task.columns[c] for c in columns])


def score_rows(classifier: Any, task: Task, X: Rows, lengths: Rows) -> Rows:
    """Return log odds of each label, or logits of classes, of all rows.

    A class that the classifier does not know is NaN.
    """
    found = _linear_scores(classifier, X, lengths)
    if task.is_binary:
        return found
    assert task.classes is not None  # there are more than two
    if found.shape[1] == 1:  # it knows two of them
        found = np.column_stack([np.zeros_like(found), found])
    scores = np.full((len(X), len(task.classes)), np.nan, dtype=X.dtype)
    scores[:, np.searchsorted(task.classes, classifier.classes_)] = found
    return scores


def _linear_scores(classifier: Any, X: Rows, lengths: Rows) -> Rows:
    """Return the logits of a classifier in one product.

    The three kinds of classifiers are linear, in rows or in rows of length 1. Asked
    themselves they would check and copy all rows, 460 MB for 100,000 images.
    """
    is_unit, constant = True, np.zeros(1)
    if isinstance(classifier, ZeroShotClassifier):
        vectors = classifier.class_embeddings_ * classifier.logit_scale_
        if (
            vectors.shape[-2] == 2
        ):  # present less absent, the second class less the first
            vectors = vectors[..., 1, :] - vectors[..., 0, :]
        weights = vectors.reshape(-1, X.shape[1])
    else:
        weights, constant = classifier.coef_, classifier.intercept_
        is_unit = isinstance(classifier, PromptProbe)
    with np.errstate(invalid="ignore"):  # rows of NaN
        scores = X @ weights.T.astype(X.dtype)
        if is_unit:
            scores /= lengths[:, None]
        scores += constant.astype(X.dtype)
    return scores


@contextmanager
def few_labels_expected() -> Iterator[None]:
    """Ignore what estimators say of few labels: here there are few on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
