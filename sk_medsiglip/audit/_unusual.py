"""Images that are unlike the others of the same data set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from sk_medsiglip._splits import one_column
from sk_medsiglip.audit._novelty import novelty_scores, whiten
from sk_medsiglip.audit._rows import Rows

#: Tukey's fence, in interquartile ranges. Images of four clean sets of phantoms stay
#: below 1.3, and blank images of sets of 400 or more lie above 1.5.
_FENCE = 1.5
_BEYOND = 0.0035  # share of a normal distribution beyond it
_TRIMMED = 0.05  # share of rows that is not learned from at last
_N_FOLDS = 5
_LEAST_PATIENTS = 20


def find_unusual(rows: Rows, groups: Any = None) -> pd.DataFrame:
    """List the images that lie far from those of other patients, the farthest first.

    Distances are those of NoveltyGate. Their logarithms beyond Tukey's fence are
    listed; ``attrs["n_expected"]`` would be if these were normally distributed.
    """
    columns = ["row", "distance"] + ["group"] * (groups is not None)
    if rows.n_patients < _LEAST_PATIENTS:
        table = pd.DataFrame(columns=columns)
        table.attrs["not_tested"] = f"it needs {_LEAST_PATIENTS} patients or more"
        return table
    distance = _distances(rows, np.arange(len(rows.X)))
    # Once more without the farthest, which widen what counts as usual.
    usual = np.flatnonzero(distance <= np.quantile(distance, 1 - _TRIMMED))
    distance = _distances(rows, usual)
    logs = np.log(np.maximum(distance, np.finfo(np.float64).tiny))
    low, high = np.quantile(logs, [0.25, 0.75])
    far = np.flatnonzero(logs > high + _FENCE * (high - low))
    far = far[np.lexsort((rows.row[far], -distance[far]))]
    table = pd.DataFrame({"row": rows.row[far], "distance": distance[far]})
    table.attrs["n_expected"] = _BEYOND * len(logs)
    if groups is not None:
        table["group"] = one_column(groups)[rows.row[far]]
    return table


def _distances(rows: Rows, usual: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return distances from usual rows of other patients."""
    distance = np.empty(len(rows.X))
    for learned, asked in GroupKFold(_N_FOLDS).split(rows.X, groups=rows.patient):
        ordinary = whiten(rows.X[np.intersect1d(learned, usual)].astype(np.float64))
        distance[asked] = -novelty_scores(rows.X[asked], *ordinary)
    return distance
