"""Figures of a refit: areas under ROC curves, out of folds; histograms of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg
from numpy.typing import NDArray

from sk_medsiglip._labels import Labels
from sk_medsiglip._splits import make_folds
from sk_medsiglip.evaluation import evaluate
from sk_medsiglip.explore._task import BLANK, UNSURE, Task
from sk_medsiglip.explore._training import (
    Labelled,
    Prompts,
    few_labels_expected,
    score_rows,
    train,
)

_N_FOLDS = 5
_N_BINS = 40
_FIGURES = ("label", "value", "low", "high", "n", "n_positive", "note")
_COLUMNS = ("refit", "stage", "label", "value", "low", "high", "change")

Rows = NDArray[np.floating]


def figures_of_refit(
    labelled: Labelled,
    trained: Sequence[int],
    prompts: Prompts | None,
    *,
    stage: str,
    few: bool,
    past: pd.DataFrame,
) -> pd.DataFrame:
    """Return a table of figures, and how they moved since the refits before."""
    task = labelled.task
    if few and prompts is not None:
        labelled, prompts = _in_fewer_coordinates(labelled, prompts)
    parts = []
    for place, column in enumerate(task.columns):
        is_trained = place in trained
        found = _out_of_fold(labelled, place, prompts, few=few) if is_trained else None
        if found is None:
            name = column if task.classes is None else task.names[0]
            name = name if task.is_binary else "macro"
            note = "a label has one patient" if is_trained else "labels of one kind"
            parts.append(_no_figure(name, labelled, place, f"{note} only"))
        else:
            parts.append(judge_column(found[0], place, found[1]))
        by = "prompts" if prompts is not None else ""
        parts[-1]["stage"] = stage if is_trained else by
    table = pd.concat(parts, ignore_index=True)
    known = past.dropna(subset="value") if len(past) else past
    before = known.groupby("label")["value"].last() if len(known) else {}
    table["change"] = table["value"] - table["label"].map(before).astype(float)
    table["refit"] = int(past["refit"].max()) + 1 if len(past) else 1
    return table[[*_COLUMNS, *(n for n in _FIGURES if n not in _COLUMNS)]]


def histogram(
    scores: pd.Series, answers: NDArray[np.int16] | None, task: Task
) -> pd.DataFrame:
    """Return how many rows with each answer have scores within each of 40 ranges."""
    values = scores.to_numpy()
    shown = ~np.isnan(values)
    if not shown.any():
        return pd.DataFrame()
    codes = np.full(len(values), BLANK) if answers is None else answers
    edges = np.histogram_bin_edges(values[shown], _N_BINS)
    words = {str(value): code for code, value in enumerate(task.values)}
    words |= {"unsure": UNSURE, "unlabelled": BLANK}
    counts = {
        word: np.histogram(values[shown & (codes == code)], edges)[0]
        for word, code in words.items()
    }
    ranges = {"label": scores.name, "low": edges[:-1], "high": edges[1:]}
    return pd.DataFrame({**ranges, **counts})


def _in_fewer_coordinates(
    labelled: Labelled, prompts: Prompts
) -> tuple[Labelled, Prompts]:
    """Return few rows, and prompts, in a basis of what they span together.

    Lengths and products stay, and so do all scores; the fits of the folds take half the
    time.
    """
    vectors = prompts.classifier().class_embeddings_.reshape(-1, labelled.X.shape[1])
    both = np.vstack([labelled.X, vectors]).astype(np.float64)
    if len(both) >= both.shape[1]:
        return labelled, prompts
    axes, _ = scipy.linalg.qr(both.T, mode="economic", check_finite=False)
    return replace(labelled, X=labelled.X @ axes), prompts.along(axes)


def _out_of_fold(
    labelled: Labelled, column: int, prompts: Prompts | None, *, few: bool
) -> tuple[Labelled, Rows] | None:
    """Return known rows of a column, and scores by classifiers without their patients.

    None where a label has one patient only.
    """
    some = labelled.known([column])
    present, target = np.unique(some.codes[:, column], return_inverse=True)
    folds = make_folds(Labels(present, target), _N_FOLDS, some.groups, some.X)
    if folds is None:
        return None
    n_scores = 1 if some.task.is_binary else len(some.task.values)
    scores = np.empty((len(some.X), n_scores), dtype=some.X.dtype)
    for learned, judged in folds.pairs():
        fitted = train(some.keep(learned), [column], prompts, few=few)
        asked = some.X[judged]
        lengths = np.linalg.norm(asked, axis=1)
        scores[judged] = score_rows(fitted, some.task, asked, lengths)
    return some, scores


def judge_column(labelled: Labelled, column: int, scores: Rows) -> pd.DataFrame:
    """Return the area under the ROC curve of scores, with intervals by patient."""
    if not labelled.task.is_binary:
        scores = scores[:, np.unique(labelled.codes[:, column])]
        if scores.shape[1] == 2:
            scores = scores[:, 1:] - scores[:, :1]
    with few_labels_expected():
        table = evaluate(
            {"session": scores},
            np.zeros((len(scores), 1)),
            labelled.task.target(labelled.codes, [column]),
            groups=labelled.groups,
            metrics="roc_auc",
        )
    return table.loc[table["label"] != "micro", list(_FIGURES)]


def _no_figure(name: Any, labelled: Labelled, column: int, note: str) -> pd.DataFrame:
    """Return a line without a figure, and why there is none."""
    codes = labelled.codes[:, column]
    n_positive = int((codes == 1).sum()) if labelled.task.is_binary else 0
    line = [name, np.nan, np.nan, np.nan, int((codes >= 0).sum()), n_positive, note]
    return pd.DataFrame([line], columns=list(_FIGURES))
