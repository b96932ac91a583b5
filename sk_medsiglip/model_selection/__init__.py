"""Splitting by patient, and checking splits.

::

    _multilabel_splits.py  folds and held-out parts that spread every label evenly
    _group_counts.py       what y says, counted by patient
    _dealing.py            deals whole groups out to parts
    _leakage.py            check_leakage: patients and pictures on both sides of a split
    _shared_rows.py        finds them
"""

from sk_medsiglip.model_selection._leakage import check_leakage
from sk_medsiglip.model_selection._multilabel_splits import (
    MultilabelStratifiedGroupKFold,
    MultilabelStratifiedGroupShuffleSplit,
)

__all__ = [
    "MultilabelStratifiedGroupKFold",
    "MultilabelStratifiedGroupShuffleSplit",
    "check_leakage",
]
