"""Fitting and choosing of heads, and their cross-validated metrics."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from sk_medsiglip._version import __version__
from sk_medsiglip.cli._collection import LabelledImages, Task
from sk_medsiglip.cli._console import CommandError, bar, model_notice
from sk_medsiglip.cli._splits import make_folds, too_rare
from sk_medsiglip.evaluation import evaluate
from sk_medsiglip.heads import (
    BagProbe,
    LinearProbe,
    PromptProbe,
    PrototypeClassifier,
    SSTextClassifier,
    TipAdapterClassifier,
)
from sk_medsiglip.model_selection import HeadSearchCV

_HEADS: dict[str, Any] = {
    "linear-probe": LinearProbe,
    "bag-probe": partial(BagProbe, pooled_row=True),
    "prompt-probe": PromptProbe,
    "ss-text": SSTextClassifier,
    "tip-adapter": TipAdapterClassifier,
    "prototypes": PrototypeClassifier,
}
_SHOWN_TRIALS = 10
_MARKUP = re.compile(r"[\\`*_\[\]#|~$]|^[+-]")

# Heads of --search that have probabilities. Those for joblib hold types that skops does
# not trust.
_TRIED = ("logistic", "knn", "prototypes")
_TRIED_FOR_JOBLIB = ("mlp", "boosting")
_TRIED_WITH_PROMPTS = ("prompt_probe", "ss_text", "tip_adapter")
_COLUMNS = ("label", "with it", "without", "not known", "AUC", "95% interval")


@dataclass(frozen=True)
class Trained:
    """A fitted head, a table of metrics, and remarks on their computation."""

    head: Any
    columns: tuple[str, ...]
    rows: list[list[str]]
    notes: list[str]

    def write_report(
        self, file: Path, title: str, n_images: int, model: str, remarks: list[str]
    ) -> None:
        """Write the table, the remarks and the prompts in Markdown."""
        made_by = f"{n_images:,} images, embedded by {model}; sk-medsiglip"
        lines = [
            *(f"# {_markdown(title)}", "", _markdown(f"{made_by} {__version__}."), ""),
            *(f"**{model_notice(model)}**", "", _markdown_row(self.columns)),
            *("|" + " --- |" * len(self.columns), *map(_markdown_row, self.rows), ""),
            *(f"- {_markdown(note)}" for note in [*self.notes, *remarks]),
        ]
        prompts = getattr(self.head, "prompts", None)
        if prompts is not None:
            said = (f"{name}: {value!r}" for name, value in prompts.items())
            lines += ["", "## Prompts", "", *(f"- {_markdown(one)}" for one in said)]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_head(name: str, task: Task, prompts: Any, settings: dict[str, Any]) -> Any:
    """Return an unfitted head; ``settings`` belong to its prompts."""
    if prompts is None:
        return _HEADS[name]()
    return _HEADS[name](task.named_prompts(prompts), **settings)


def train_head(head: Any, data: LabelledImages, X: Any, seed: int) -> Trained:
    """Fit a head to all images, and score them by cross-validation."""
    task, groups = data.task, data.groups
    fitted = _fit(head, data, X)
    folds = make_folds(task, groups, seed)
    scores = np.full((len(X), len(task.names)), np.nan)
    for train, test in folds:
        with warnings.catch_warnings():
            # Warnings about rare labels are shown by the fit to all images.
            warnings.simplefilter("ignore", UserWarning)
            of_fold = _fit(head, data.keep(train), X[train])
        scores[test] = label_scores(task, of_fold, X[test])
    penalty = getattr(fitted, "C_", None)
    kept = _how_kept(groups)
    estimated = f"AUC by {len(folds)}-fold cross-validation (seed {seed}), {kept}."
    notes = [estimated if folds else too_rare(task, groups)]
    if penalty is not None:
        given = ", ".join(f"{one:.3g}" for one in np.ravel(penalty))
        notes.append(f"Penalty chosen by inner cross-validation: C = {given}.")
    return Trained(fitted, _COLUMNS, _rows(data, scores, len(folds) > 0), notes)


def search_head(
    data: LabelledImages,
    X: NDArray[np.float32],
    prompts: dict[str, Any] | None,
    settings: dict[str, Any],
    *,
    for_skops: bool,
) -> tuple[HeadSearchCV, Trained]:
    """Choose a head, and return the search and the best head with the best trials."""
    heads = [*_TRIED, *([] if for_skops else _TRIED_FOR_JOBLIB)]
    if prompts is not None:
        heads += _TRIED_WITH_PROMPTS
        prompts = data.task.named_prompts(prompts)
    search = HeadSearchCV(space=heads, prompts=prompts, **settings, verbose=bar())
    try:
        search.fit(X, data.y, groups=data.groups)
    except ValueError as error:
        raise CommandError(str(error)) from None
    notes = [
        f"{len(search.cv_results_['state'])} trials; AUC by {search.n_splits_}-fold "
        f"cross-validation, {_how_kept(data.groups)}.",
        search.search_report_,
        f"The best of many scores is too optimistic: {search.best_score_:.3f} is not "
        "an estimate for new patients.",
    ]
    columns = ("head", "AUC of the folds", "+-", "settings")
    return search, Trained(search.best_estimator_, columns, _best_trials(search), notes)


def judge_search(
    search: HeadSearchCV, data: LabelledImages, X: NDArray[np.float32]
) -> str:
    """Return a sentence with the AUC of nested cross-validation, if possible."""
    impossible = "Nested cross-validation was not possible, because"
    rare = f"{impossible} a label is too rare: a fold has only images of one kind."
    folds = make_folds(data.task, data.groups, search.random_state)
    if not folds:
        return rare
    inner = clone(search).set_params(storage=None, verbose=0)
    groups = None if data.groups is None else {"groups": data.groups}
    try:
        scores = cross_val_score(
            inner, X, data.y, cv=folds, params=groups, error_score="raise"
        )
    except ValueError as error:  # for example a finding in two patients
        return f"{impossible} {error}"
    if not np.isfinite(scores).all():
        return rare
    return (
        "On patients that were not used for the choice the search reached an AUC of "
        f"{scores.mean():.3f} (nested cross-validation)."
    )


def label_scores(task: Task, fitted: Any, X: Any) -> NDArray[np.float64]:
    """Return one column of probabilities for each name of a task."""
    found = np.asarray(fitted.predict_proba(X))
    if task.kind == "findings":
        return found
    columns = {str(name): i for i, name in enumerate(fitted.classes_)}
    none = np.zeros(len(found))  # for classes that are not in a fold
    return np.column_stack(
        [found[:, columns[n]] if n in columns else none for n in task.names]
    )


def judge(data: LabelledImages, scores: NDArray[np.float64]) -> pd.DataFrame:
    """Return the AUC of scores by label, with intervals by patient."""
    task = data.task
    one = task.kind == "finding" or (task.kind == "classes" and len(task.names) == 2)
    with warnings.catch_warnings():
        # The table shows labels with images of one kind.
        warnings.simplefilter("ignore", UserWarning)
        return evaluate(
            {"head": scores[:, -1] if one else scores},
            np.zeros((len(task.y), 1)),
            data.y,
            groups=data.groups,
            metrics="roc_auc",
            pos_label=task.names[0] if task.kind == "finding" else None,
        )


def _fit(head: Any, data: LabelledImages, X: Any) -> Any:
    return clone(head).fit(X, data.y, groups=data.groups)


def _rows(
    data: LabelledImages, scores: NDArray[np.float64], judged: bool
) -> list[list[str]]:
    """Return a row for each label, and only one for two classes."""
    task, truth = data.task, data.task.truth()
    names = list(task.names)
    if task.kind == "classes" and len(names) == 2:
        truth, names = truth[:, 1:], [f"{names[1]} (against {names[0]})"]
    figures = ["value", "low", "high"]
    aucs = np.full((len(names), 3), np.nan)
    if judged:
        aucs = judge(data, scores)[figures].to_numpy(float)[: len(names)]
    rows = []
    for name, values, (auc, low, high) in zip(names, truth.T, aucs, strict=True):
        counts = ((values == 1).sum(), (values == 0).sum(), np.isnan(values).sum())
        said = ["too few images", ""] if np.isnan(auc) else [f"{auc:.3f}", ""]
        if not np.isnan(low):
            said[1] = f"{low:.3f} to {high:.3f}"
        rows.append([name, *(f"{n:,}" for n in counts), *said])
    return rows


def _how_kept(groups: Any) -> str:
    """Return a phrase on the treatment of patients in folds."""
    if groups is not None:
        return "images of one patient together"
    return (
        "with images treated as independent. If patients have several images, pass "
        "--group-column, or the AUC is too optimistic"
    )


def _best_trials(search: HeadSearchCV) -> list[list[str]]:
    """Return the best trials as rows, beginning with the chosen one."""
    results = search.cv_results_
    order = results["rank_test_score"].argsort(kind="stable").tolist()
    order.remove(search.best_index_)  # first, whatever its rank
    rows: dict[str, list[str]] = {}
    for i in [search.best_index_, *order]:
        params = dict(results["params"][i])
        if results["state"][i] != "complete":
            continue
        rows.setdefault(
            repr(params),
            [
                params.pop("head"),
                f"{results['mean_test_score'][i]:.3f}",
                f"{results['std_test_score'][i]:.3f}",
                ", ".join(f"{k}={_short(v)}" for k, v in params.items()),
            ],
        )
    return list(rows.values())[:_SHOWN_TRIALS]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _markdown(text: object) -> str:
    """Return a text on one line, escaped for Markdown."""
    line = escape(" ".join(str(text).split()), quote=False)
    return _MARKUP.sub(r"\\\g<0>", line)


def _markdown_row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(_markdown, cells))} |"
