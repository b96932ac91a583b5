"""Scores by prompts, and a classifier trained on the labels so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import Bunch
from threadpoolctl import threadpool_limits

from sk_medsiglip.exceptions import SessionError
from sk_medsiglip.explore._figures import figures_of_refit, histogram, judge_column
from sk_medsiglip.explore._labelling import Labelling
from sk_medsiglip.explore._task import Task, task_of
from sk_medsiglip.explore._training import Labelled, Prompts, score_rows, train

#: The stage of a session that has prompts and no labels yet.
PROMPTS_ALONE = "prompts"
#: Number of values of labelled rows from which more than one thread pays: many small
#: products in a row are slowed down to half by threads that wait for each other.
_MANY_VALUES = 2**21
_TEXT_SIDE = ("model", "revision", "dtype", "device", "engine", "cache")


class Learning(Labelling):
    """Abstract session that learns from labels, and chooses nothing."""

    embedder: Any
    classifier_: Any = None
    stage_: str | None = None
    figures_: pd.DataFrame
    _last_figures: pd.DataFrame
    _trained: Sequence[int] = ()  # columns that the classifier learned
    _prompts: Prompts | None = None
    # Scores by the prompts alone, and by the classifier where it has learned.
    _prompt_scores: NDArray[np.floating] | None = None
    _scores: NDArray[np.floating] | None = None

    def use_prompts(self, prompts: Mapping[Any, Any]) -> None:
        """Take other prompts, from the next :meth:`refit` on.

        Parameters
        ----------
        prompts : dict or PromptSet
            Prompts for each column, or for each class.

        Raises
        ------
        PromptError
            If the prompts are malformed.
        ValueError
            If they are for other columns or classes than those of the session.
        """
        asked = task_of(prompts, self._task.columns)
        same = asked.values == self._task.values
        if not same or set(asked.columns) != set(self._task.columns):
            raise ValueError(
                f"prompts are for {list(prompts)}; this session labels "
                f"{self._task.columns} with {self._task.values}."
            )
        encoded = self._encode(prompts)
        self._prompt_scores = self._score(
            encoded.classifier(self._findings()), self._task
        )
        self._prompts = encoded

    @property
    def prompts(self) -> dict[Any, Any] | None:
        """The prompts that the next refit starts from."""
        return None if self._prompts is None else dict(self._prompts.texts)

    @property
    def scores(self) -> pd.DataFrame:
        """Log odds of each column, or logits of classes, by the last refit.

        Before it those of the prompts. NaN for locked and unreadable rows, and where
        nothing was learned.
        """
        scores = self._prompt_scores if self._scores is None else self._scores
        if scores is None:
            scores = np.full((len(self.X), len(self._task.names)), np.nan)
        return pd.DataFrame(scores, columns=self._task.names)

    def score(self, prompts: Mapping[Any, Any] | None = None) -> Bunch:
        """Score all rows by prompts, without changing the session.

        Parameters
        ----------
        prompts : dict or PromptSet, default=None
            Prompts of one finding or several, or of classes. By default, the scores
            are those of the last refit.

        Returns
        -------
        Bunch
            ``scores``, a DataFrame with a row for each image and a column for each
            finding or class, NaN for locked rows; ``histogram``, the number of rows
            with each label that have scores from ``low`` to ``high``; and ``auc``,
            areas under the ROC curve with intervals by patient, where there are two
            labels. Of a trained classifier these are the figures of its refit.

        Raises
        ------
        PromptError
            If the prompts are malformed.
        """
        self.refresh()
        task, table = self._task, self.scores
        if prompts is not None:
            task = task_of(prompts, self._task.columns)
            found = self._score(self._encode(prompts).classifier(), task)
            table = pd.DataFrame(found, columns=task.names)
        rows = self._labelled_rows()
        labelled = self._labelled(rows)
        areas, parts = [], []
        for column in task.columns:
            names = [column] if task.classes is None else task.names
            place = None
            if task.values == self._task.values and column in self._task.columns:
                place = self._task.column(column)
            answers = None if place is None else self._codes[:, place]
            parts += [histogram(table[name], answers, self._task) for name in names]
            if place is not None and place in labelled.trainable():
                known = labelled.codes[:, place] >= 0
                scores = table[names].to_numpy()[rows[known]]
                areas.append(judge_column(labelled.keep(known), place, scores))
        auc = pd.concat(areas, ignore_index=True) if areas else pd.DataFrame()
        if prompts is None and self._trained:
            auc = self._last_figures
        return Bunch(scores=table, histogram=pd.concat(parts), auc=auc)

    def refit(self, *, figures: bool = True) -> pd.DataFrame:
        """Train on the labels so far, and estimate how good that is.

        With no label the prompts decide alone. Up to 100 rows with the rarest label it
        is a :class:`~sk_medsiglip.heads.PromptProbe`, then, and without prompts, a
        :class:`~sk_medsiglip.heads.LinearProbe`. A finding is trained on once it has
        both labels, and decided by its prompts until then.

        Parameters
        ----------
        figures : bool, default=True
            Whether to estimate how good it is, which takes most of the time. Without,
            the table is empty.

        Returns
        -------
        DataFrame
            A row for each label: ``refit``, its number; ``stage``; ``label``;
            ``value``, the area under the ROC curve on images of patients that were not
            learned from; ``low`` and ``high``, its interval by patient; ``change``
            since the last refit with a figure; ``n`` and ``n_positive``, labelled
            images; and ``note``, which says why there is no figure.

        Raises
        ------
        SessionError
            If the training has ended, or there are neither prompts nor two labels.

        Notes
        -----
        Cost: six fits for each column, five of them to judge by, and one product of
        all rows with the weights.
        """
        self.refresh()
        if self.is_ended:
            raise SessionError("the training has ended: the classifier is final.")
        labelled, few = self._train()
        self._last_figures = pd.DataFrame()
        if not figures:
            return self._last_figures
        with _threads_for(labelled):
            found = figures_of_refit(
                labelled, self._trained, self._prompts, stage=str(self.stage_), few=few,
                past=self.figures_,
            )  # fmt: skip
        past = [self.figures_] if len(self.figures_) else []
        self.figures_ = pd.concat([*past, found], ignore_index=True)
        self._last_figures = found
        return found

    def _train(self) -> tuple[Labelled, bool]:
        """Train on all labels; return the labelled rows, and whether labels are few."""
        labelled = self._labelled(self._labelled_rows())
        columns, few = labelled.trainable(), True
        if columns:
            few = labelled.has_few(columns)
            with _threads_for(labelled):
                self.classifier_ = train(labelled, columns, self._prompts, few=few)
            self.stage_ = type(self.classifier_).__name__
        elif self._prompts is not None:
            self.classifier_ = self._prompts.classifier(self._findings())
            self.stage_ = PROMPTS_ALONE
        else:
            raise SessionError(
                "there are no prompts, and no column with two different labels: label "
                "some rows of each kind, or pass prompts."
            )
        self._trained = columns
        self._score_by_classifier()
        return labelled, few

    def _score_again(self) -> None:
        """Compute the scores of all rows that may have any."""
        if self._prompts is not None:
            prompted = self._prompts.classifier(self._findings())
            self._prompt_scores = self._score(prompted, self._task)
        self._score_by_classifier()

    def _score_by_classifier(self) -> None:
        """Compute the scores by what was learned; those of the prompts stay."""
        self._scores = self._prompt_scores
        if not self._trained:
            return
        found = self._score(self.classifier_, self._task)
        if self._task.classes is not None:
            self._scores = found
            return
        shape = (len(self.X), len(self._task.names))
        scores = np.full(shape, np.nan, dtype=found.dtype)
        if self._prompt_scores is not None:
            scores[:] = self._prompt_scores
        scores[:, self._trained] = found
        self._scores = scores

    def _score(self, classifier: Any, task: Task) -> NDArray[np.floating]:
        """Return scores of all rows, NaN for those that may not be shown with one."""
        scores = score_rows(classifier, task, self.X, self._lengths)
        hidden = self._lengths == 0
        if not self.n_looks:
            hidden |= self.locked
        scores[hidden] = np.nan
        return scores

    def _encode(self, prompts: Mapping[Any, Any]) -> Prompts:
        return Prompts(prompts, self._text_side(), self.X.shape[1])

    def _text_side(self) -> dict[str, Any]:
        """Return the parameters of the embedder that also apply to texts."""
        params = self.embedder.get_params(deep=False)
        return {name: params[name] for name in _TEXT_SIDE}

    def _findings(self, columns: Sequence[int] | None = None) -> list[str] | None:
        """Return the names of findings, by default of all; None for classes."""
        if self._task.classes is not None:
            return None
        places = range(len(self._task.columns)) if columns is None else columns
        return [self._task.columns[place] for place in places]

    def _labelled_rows(self) -> NDArray[np.intp]:
        """Return the rows to learn from: a known label, readable, not locked."""
        known = (self._codes >= 0).any(axis=1)
        return np.flatnonzero(known & self._usable)

    def _labelled(self, rows: NDArray[np.intp]) -> Labelled:
        groups = None if self.groups is None else self.groups[rows]
        return Labelled(self._task, self.X[rows], self._codes[rows], groups)


def _threads_for(labelled: Labelled) -> threadpool_limits:
    """Limit numpy's threads while little is computed."""
    return threadpool_limits(1 if labelled.X.size < _MANY_VALUES else None)
