"""Fitting a head to a task, and saying how good it is on images it did not see."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from sk_medsiglip.cli._labels import Task
from sk_medsiglip.cli._splits import make_folds, too_rare
from sk_medsiglip.cli._written_files import as_markdown, markdown_report
from sk_medsiglip.heads import (
    LinearProbe,
    PromptProbe,
    PrototypeClassifier,
    SSTextClassifier,
    TipAdapterClassifier,
)

__all__ = ["Estimate", "Training", "absent", "named_labels", "named_prompts"]

_HEADS: dict[str, Any] = {
    "linear-probe": LinearProbe,
    "prompt-probe": PromptProbe,
    "ss-text": SSTextClassifier,
    "tip-adapter": TipAdapterClassifier,
    "prototypes": PrototypeClassifier,
}


@dataclass(frozen=True)
class Estimate:
    """What is known of one label, and how well it is told.

    Parameters
    ----------
    name : str
        The label.
    n_with, n_without, n_unknown : int
        Images.
    auc : float
        Out of fold; NaN where there are too few to say.
    """

    name: str
    n_with: int
    n_without: int
    n_unknown: int
    auc: float

    def cells(self) -> list[str]:
        """Return the row of a table."""
        counts = (self.n_with, self.n_without, self.n_unknown)
        auc = "too few to say" if np.isnan(self.auc) else f"{self.auc:.3f}"
        return [self.name, *(f"{n:,}" for n in counts), auc]


@dataclass(eq=False)
class Training:
    """One task, its embeddings, and the head that is to learn it.

    Parameters
    ----------
    task : Task
        The labels.
    X : ndarray of shape (n_samples, embedding_dim)
        The embeddings.
    groups : ndarray or None
        Patients.
    head : str
        A key of the heads.
    prompts : dict or None
        Of the labels, for heads that take them.
    settings : dict
        Of the text side.
    seed : int
        Of the folds.
    """

    task: Task
    X: NDArray[np.float32]
    groups: NDArray[Any] | None
    head: str
    prompts: dict[str, Any] | None
    settings: dict[str, Any]
    seed: int

    @cached_property
    def _folds(self) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        return make_folds(self.task, self.groups, self.seed)

    def fit(self) -> Any:
        """Return the head, fitted to everything."""
        return self._fit(np.arange(len(self.X)))

    def cross_validate(self) -> list[Estimate]:
        """Return what each label's scores are worth, each image scored by others."""
        truth = self._truth()
        scores = np.full(truth.shape, np.nan)
        for train, test in self._folds:
            with warnings.catch_warnings():
                # A fold may hold one sample of a label; the fit of all says so once.
                warnings.simplefilter("ignore", UserWarning)
                fitted = self._fit(train)
            scores[test] = self._scores(fitted, self.X[test])
        return [
            Estimate(
                name,
                int((truth[:, i] == 1).sum()),
                int((truth[:, i] == 0).sum()),
                int(np.isnan(truth[:, i]).sum()),
                _auc(truth[:, i], scores[:, i]),
            )
            for i, name in enumerate(self.task.names)
        ]

    def how_estimated(self) -> str:
        """Return a sentence on the folds."""
        if not self._folds:
            return too_rare(self.task, self.groups)
        kept = (
            "images of one patient together"
            if self.groups is not None
            else "each image by itself: with several images a patient, "
            "pass --group-column, or the AUC is too good"
        )
        return f"AUC by {len(self._folds)}-fold cross-validation, {kept}."

    def report(
        self,
        estimates: list[Estimate],
        source: Path,
        remarks: list[str],
        model: str,
    ) -> str:
        """Return the report, in Markdown."""
        head = ["label", "images with it", "without", "not known", "AUC"]
        rows = [head, *(row.cells() for row in estimates)]
        notes = [self.how_estimated(), *remarks]
        title = f"{self.head} on {source.name}"
        lines = markdown_report(title, len(self.X), model, rows, notes)
        if self.prompts is not None:
            lines += ["", "## Prompts", ""]
            said = (f"{name}: {value!r}" for name, value in self.prompts.items())
            lines += [f"- {as_markdown(one)}" for one in said]
        return "\n".join(lines) + "\n"

    def _fit(self, rows: NDArray[np.intp]) -> Any:
        cls = _HEADS[self.head]
        head = (
            cls()
            if self.prompts is None
            else cls(named_prompts(self.task, self.prompts), **self.settings)
        )
        groups = None if self.groups is None else self.groups[rows]
        y = named_labels(self.task)
        y = y.iloc[rows] if isinstance(y, pd.DataFrame) else y[rows]
        return head.fit(self.X[rows], y, groups=groups)

    def _truth(self) -> NDArray[np.float64]:
        """Return 1, 0 and NaN, one column a name."""
        if self.task.kind == "classes":
            return self.task.indicators().astype(float)
        return self.task.y.reshape(len(self.X), -1).astype(float)

    def _scores(self, fitted: Any, X: NDArray[np.float32]) -> NDArray[np.float64]:
        if self.task.kind == "findings":
            return np.asarray(fitted.predict_proba(X))
        columns = {str(name): i for i, name in enumerate(fitted.classes_)}
        found = fitted.predict_proba(X)
        missing = np.full(len(X), np.nan)  # a fold without one of the classes
        return np.column_stack(
            [
                found[:, columns[name]] if name in columns else missing
                for name in self.task.names
            ]
        )


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


def _auc(truth: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    known = ~np.isnan(truth) & ~np.isnan(scores)
    if len(np.unique(truth[known])) < 2:
        return float("nan")
    return float(roc_auc_score(truth[known], scores[known]))
