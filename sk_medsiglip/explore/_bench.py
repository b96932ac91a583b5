"""The prompt bench: ROC curves of scores, and what each text of a prompt adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from sk_medsiglip.embedding import MedSigLIPTextEmbedder
from sk_medsiglip.evaluation import roc_band
from sk_medsiglip.explore._training import Labelled
from sk_medsiglip.prompts import check_prompts, encode_class_vectors

_SIDES = ("negative", "positive")  # as the vectors of a finding are ordered


def curves(labelled: Labelled, scores: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return ROC curves of the labelled rows with bands by patient, by score.

    A score without labels of both kinds has none.
    """
    found = {}
    for name in scores:
        known, truth = _truth(labelled, name)
        if len(np.unique(truth)) < 2:
            continue
        groups = None if labelled.groups is None else labelled.groups[known]
        band = roc_band(truth, scores[name].to_numpy()[known], groups=groups)
        found[str(name)] = {
            "fpr": band.grid.tolist(),
            "tpr": np.interp(band.grid, band.x, band.y).tolist(),
            "low": _list(band.low),
            "high": _list(band.high),
        }
    return found


def gains_of_texts(
    labelled: Labelled, prompts: Mapping[Any, Any], embedder: MedSigLIPTextEmbedder
) -> list[dict[str, Any]]:
    """Return the area under the ROC curve without each text, and what the text adds.

    Both are None where labels are of one kind, or a side has no other text.
    """
    question = check_prompts(prompts)
    sides = question.texts  # absent and present of each finding; or one for each class
    columns = np.repeat(question.labels, 2 if question.is_pairs else 1)
    left_out = [
        (side, place)
        for side, texts in enumerate(sides)
        for place in range(len(texts))
        if len(texts) > 1
    ]
    fewer = [
        [text for i, text in enumerate(sides[side]) if i != place]
        for side, place in left_out
    ]
    vectors = encode_class_vectors([*sides, *fewer], embedder)
    without = dict(zip(left_out, vectors[len(sides) :], strict=True))
    unit = labelled.X / np.linalg.norm(labelled.X, axis=1, keepdims=True)
    are_pairs = question.is_pairs or len(sides) == 2
    found = []
    for side, texts in enumerate(sides):
        # Of two classes the score is that of the second.
        asked = columns[side] if question.is_pairs or not are_pairs else columns[1]
        known, truth = _truth(labelled, asked)
        rows = unit[known]
        whole = _area(rows, truth, vectors, side, are_pairs)
        for place, text in enumerate(texts):
            changed = vectors[: len(sides)].copy()
            changed[side] = without.get((side, place), np.nan)
            area = _area(rows, truth, changed, side, are_pairs)
            found.append({
                "column": str(columns[side]),
                "side": _SIDES[side % 2] if question.is_pairs else None,
                "text": text,
                "auc_without": area,
                "change": None if area is None or whole is None else whole - area,
            })  # fmt: skip
    return found


def _list(values: NDArray[np.floating]) -> list[float | None]:
    """Return numbers as JSON has them, None for NaN."""
    return [None if np.isnan(one) else one for one in values.tolist()]


def _truth(labelled: Labelled, name: Any) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Return the rows where it is known whether a score's label is there, and that."""
    task = labelled.task
    if task.classes is None:
        if name not in task.columns:
            return np.zeros(len(labelled.X), dtype=bool), np.empty(0, dtype=bool)
        codes, wanted = labelled.codes[:, task.columns.index(name)], 1
    else:
        codes = labelled.codes[:, 0]
        wanted = task.values.index(name) if name in task.values else -1
    known = codes >= 0
    return known, codes[known] == wanted


def _area(
    rows: NDArray[np.floating],
    truth: NDArray[np.bool_],
    vectors: NDArray[np.floating],
    side: int,
    are_pairs: bool,
) -> float | None:
    """Return the area of a side's score: the second of a pair less the first."""
    wanted = vectors[side]
    if are_pairs:
        first = side // 2 * 2
        wanted = vectors[first + 1] - vectors[first]
    if len(np.unique(truth)) < 2 or np.isnan(wanted).any():
        return None
    # scikit-learn's area takes most of its time for checks.
    ranks, n_present = rankdata(rows @ wanted), int(truth.sum())
    below = ranks[truth].sum() - n_present * (n_present + 1) / 2
    return float(below / (n_present * (len(truth) - n_present)))
