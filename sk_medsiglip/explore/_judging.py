"""The one evaluation of a session, on the rows that were locked at its start."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sk_medsiglip._optional import import_optional
from sk_medsiglip.embedding import MedSigLIPEmbedder
from sk_medsiglip.evaluation import evaluate, write_report
from sk_medsiglip.exceptions import SessionError
from sk_medsiglip.explore._task import Codes, Task
from sk_medsiglip.explore._training import Labelled


def read_truth(truth: Any, task: Task, codes: Codes) -> Codes:
    """Return the labels of locked rows: those passed, else those there are."""
    if truth is None:
        return codes
    table = (
        truth if isinstance(truth, pd.DataFrame) else pd.DataFrame(np.asarray(truth))
    )
    if not isinstance(truth, pd.DataFrame) and table.shape[1] == len(task.columns):
        table.columns = pd.Index(task.columns)
    missing = [name for name in task.columns if name not in table]
    if len(table) != len(codes) or missing:
        raise ValueError(
            f"truth must hold labels of {task.columns} for each of {len(codes)} locked "
            f"rows; got shape {table.shape}."
        )
    return np.column_stack([task.read(table[name], name) for name in task.columns])


def check_before_look(
    test: Labelled, classifier: Any, report: Mapping[str, Any], with_report: bool
) -> None:
    """Raise for all that would fail after the look was counted."""
    if not len(test.X):
        raise SessionError(
            "no locked row has a label. Pass truth=, or call end() and label the rows "
            "of session.queue(), which are shown without scores; then judge again."
        )
    if test.task.classes is not None:
        present = set(test.task.target(test.codes, [0]).tolist())
        if unknown := sorted(present - set(classifier.classes_.tolist())):
            raise SessionError(
                f"locked rows are labelled {unknown}, which the classifier has not "
                "learned: label such rows, or pass prompts for all classes."
            )
    if with_report:
        import_optional("matplotlib", extra="plot", purpose="The report")
        import_optional("skops.io", extra="skops", purpose="Saving a classifier")
        inspect.signature(write_report).bind_partial(**report)


def judge_locked(
    estimators: Mapping[Any, Any],
    test: Labelled,
    learned: Labelled,
    columns: Sequence[int],
    *,
    folder: Path | None,
    embedder: MedSigLIPEmbedder,
    n_left_out: int,
    n_looks: int,
    report: Mapping[str, Any],
) -> pd.DataFrame:
    """Return the figures, and write the report where a folder is given."""
    truth = test.task.target(test.codes, columns)
    if folder is not None:
        remarks = [
            "The test images were locked before the first label, whole patients at a "
            "time, and had no part in training.",
            "Training images were chosen by people and by the classifier, for what "
            "they teach; they are not a random sample.",
        ]
        if n_left_out:
            remarks.append(
                f"{n_left_out:,} locked images are left out, because they are "
                "unreadable or have no label."
            )
        if n_looks > 1:
            remarks.append(
                f"This is look {n_looks} at the test set. If earlier looks changed "
                "anything, its figures are too good."
            )
        write_report(
            folder / "report.html",
            estimators,
            test.X,
            truth,
            **{
                "groups": test.groups,
                "X_train": learned.X,
                "y_train": learned.task.target(learned.codes, columns),
                "groups_train": learned.groups,
                "embedder": embedder,
                **report,
                "remarks": [*remarks, *report.get("remarks", ())],
            },
        )
    return evaluate(estimators, test.X, truth, groups=test.groups)
