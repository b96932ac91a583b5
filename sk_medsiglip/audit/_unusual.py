"""Images that are unlike the others of the same data set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from sk_medsiglip._splits import one_column
from sk_medsiglip.audit._novelty import NoveltyGate
from sk_medsiglip.audit._rows import Rows

#: Tukey's fence, in interquartile ranges. Images of four clean sets of phantoms stay
#: below 1.3, and blank images of sets of 400 or more lie above 1.5.
_FENCE = 1.5
_TRIMMED = 0.05  # share of rows that is not learned from at last
_N_FOLDS = 5
_LEAST_PATIENTS = 20


def find_unusual(rows: Rows, groups: Any = None) -> pd.DataFrame:
    """List the images that lie far from those of other patients, the farthest first.

    Gates that did not learn from a patient measure the distances of the patient's
    images. Logarithms of distances beyond Tukey's fence are listed.
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
    if groups is not None:
        table["group"] = one_column(groups)[rows.row[far]]
    return table


def _distances(rows: Rows, usual: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return distances by gates that learned from usual rows of other patients."""
    distance = np.empty(len(rows.X))
    # A rate that any number of patients allows, since only scores are used.
    gate = NoveltyGate(false_alarm_rate=0.5, cv=2, on_novel="ignore")
    for learned, asked in GroupKFold(_N_FOLDS).split(rows.X, groups=rows.patient):
        learned = np.intersect1d(learned, usual)
        gate.fit(rows.X[learned], groups=rows.patient[learned])
        distance[asked] = -gate.score_samples(rows.X[asked])
    return distance
