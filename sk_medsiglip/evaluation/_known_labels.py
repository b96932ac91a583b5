"""Labels of one or several findings and the scores that belong to them, checked."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip._labels import check_indicator


class KnownLabels(NamedTuple):
    """Samples with a known label of one finding; ``name`` is None for a 1-D label."""

    name: Any
    present: NDArray[np.bool_]
    score: NDArray[np.float64]
    rows: NDArray[np.intp]

    @property
    def words(self) -> str:
        """Name of the finding in a message."""
        return "y_true" if self.name is None else f"finding {self.name!r} of y_true"


def check_labels_and_scores(y_true: ArrayLike, y_score: ArrayLike) -> list[KnownLabels]:
    """Return the labels and scores of each finding, where the label is known.

    Scores may be infinite. Column names that both inputs have must be in one order.
    """
    labels, scores = _labels(y_true), np.asarray(y_score, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim not in (1, 2):
        hint = (
            " Pass the probability of the second class: predict_proba(X)[:, 1]."
            if labels.ndim == 1 and scores.shape == (len(labels), 2)
            else ""
        )
        raise ValueError(
            f"y_true has shape {labels.shape}, and the scores have shape "
            f"{scores.shape}; both must be (n_samples,) or (n_samples, n_findings)."
            f"{hint}"
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
            raise ValueError(f"{finding.words} has no known label: leave it out.")
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
                f"y_true holds fractions such as {fractions[0]:g}; labels must be 1, "
                "0, or NaN if not known. y_true and y_score may have been swapped."
            )
    try:
        return check_indicator(given)
    except ValueError as error:
        error.add_note("Here y is y_true. For names of classes pass y == 'effusion'.")
        raise


def _check_order(y_true: Any, y_score: Any) -> None:
    """Raise if both have column names and a finding's scores are in another place."""
    labels = [str(name) for name in getattr(y_true, "columns", ())]
    scores = [str(name) for name in getattr(y_score, "columns", ())]
    # Columns with other names, such as p_effusion, are matched by position.
    if any(a != b and b in labels for a, b in zip(labels, scores, strict=False)):
        raise ValueError(
            f"the columns of y_true are {labels}, and those of the scores are "
            f"{scores}: this would compare the wrong ones. Pass y_score[{labels}]."
        )
