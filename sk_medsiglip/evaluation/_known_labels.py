"""Labels of one finding or of several, and the scores that belong to them, checked."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip.prompts import check_columns

__all__ = ["KnownLabels", "check_labels_and_scores"]


class KnownLabels(NamedTuple):
    """One finding, where its label is known.

    Parameters
    ----------
    name : object
        Column of a DataFrame, or the column's number; None if there is one finding.
    present : ndarray of bool, shape (n_known,)
        Whether it is there.
    score : ndarray of shape (n_known,)
        What says so.
    rows : ndarray of shape (n_known,)
        Places among all samples.
    """

    name: Any
    present: NDArray[np.bool_]
    score: NDArray[np.float64]
    rows: NDArray[np.intp]

    @property
    def words(self) -> str:
        """How a message names it."""
        return "y_true" if self.name is None else f"finding {self.name!r} of y_true"


def check_labels_and_scores(y_true: ArrayLike, y_score: ArrayLike) -> list[KnownLabels]:
    """Return each finding's labels and scores.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_findings)
        1 and 0, NaN where a label is not known.
    y_score : array-like in the same shape
        Numbers, higher where the finding is likelier; infinite ones are.

    Returns
    -------
    list of KnownLabels
        One a finding.

    Raises
    ------
    ValueError
        If shapes differ, a finding has no label, or either holds anything else.
    """
    labels, scores = _labels(y_true), np.asarray(y_score, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim not in (1, 2):
        hint = (
            " Pass the probability of the second class: predict_proba(X)[:, 1]."
            if labels.ndim == 1 and scores.shape == (len(labels), 2)
            else ""
        )
        raise ValueError(
            f"y_true has shape {labels.shape}, the scores {scores.shape}; both must be "
            f"(n_samples,) or (n_samples, n_findings).{hint}"
        )
    columns = getattr(y_true, "columns", None)
    if columns is not None:
        check_columns(y_score, columns)
    one = labels.ndim == 1
    names = range(labels.shape[-1]) if columns is None else columns.tolist()
    found = []
    for name, label, score in zip(
        [None] if one else names,
        labels[None] if one else labels.T,
        scores[None] if one else scores.T,
        strict=True,
    ):
        rows = np.flatnonzero(~np.isnan(label))
        finding = KnownLabels(name, label[rows] == 1, score[rows], rows)
        if not rows.size:
            raise ValueError(f"{finding.words} holds no label: leave it out.")
        if np.isnan(finding.score).any():
            raise ValueError(
                f"the scores of {finding.words} hold NaN: leave those out."
            )
        found.append(finding)
    return found


def _labels(y_true: Any) -> NDArray[np.float64]:
    given = np.asarray(y_true)
    unknown = pd.isna(given)
    try:
        labels = np.where(unknown, np.nan, given).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "y_true must hold 1, 0, and NaN where a label is not known; got "
            f"{given[~unknown].tolist()[0]!r}. For names pass y == 'effusion'."
        ) from error
    odd = labels[~unknown & ~np.isin(labels, [0, 1])]
    if odd.size:
        raise ValueError(
            "y_true must hold 1, 0, and NaN where a label is not known; got "
            f"{odd[0]:g}. For -1 as 'uncertain' replace it: y.replace(-1, np.nan)."
        )
    return labels
