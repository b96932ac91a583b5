"""Labels of one finding or of several, and the scores that belong to them, checked."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip._labels import check_indicator


class KnownLabels(NamedTuple):
    """One finding, where its label is known; the name is None if there is only one."""

    name: Any
    present: NDArray[np.bool_]
    score: NDArray[np.float64]
    rows: NDArray[np.intp]

    @property
    def words(self) -> str:
        """How a message names it."""
        return "y_true" if self.name is None else f"finding {self.name!r} of y_true"


def check_labels_and_scores(y_true: ArrayLike, y_score: ArrayLike) -> list[KnownLabels]:
    """Return each finding's labels and scores, where the label is known.

    Scores may be infinite. The names of columns that both have must be in one order.
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
    _check_order(y_true, y_score)
    names = list(getattr(y_true, "columns", range(labels.shape[-1])))
    names = [None] if labels.ndim == 1 else names
    found = []
    both = np.atleast_2d(labels.T), np.atleast_2d(scores.T)
    for name, label, score in zip(names, *both, strict=True):
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
    if given.dtype.kind == "f":
        fractions = given[np.isfinite(given) & (given % 1 != 0)]
        if fractions.size:
            raise ValueError(
                f"y_true holds fractions such as {fractions[0]:g}; labels are 1, 0, "
                "and NaN where one is not known. y_true and y_score may be swapped."
            )
    try:
        return check_indicator(given)
    except ValueError as error:
        error.add_note("y is y_true here. For names pass y == 'effusion'.")
        raise


def _check_order(y_true: Any, y_score: Any) -> None:
    """Raise if both name their columns, and a finding's scores are elsewhere."""
    labels = [str(name) for name in getattr(y_true, "columns", ())]
    scores = [str(name) for name in getattr(y_score, "columns", ())]
    # Other names, such as p_effusion, are taken by their places.
    if any(a != b and b in labels for a, b in zip(labels, scores, strict=False)):
        raise ValueError(
            f"the columns of y_true are {labels}, those of the scores {scores}: this "
            f"would compare the wrong ones. Pass y_score[{labels}]."
        )
