"""Splitting by patient, checking splits, and choosing heads.

::

    _multilabel_splits.py  folds and held-out parts that spread every label evenly
    _group_counts.py       what y says, counted by patient
    _dealing.py            deals whole groups out to parts
    _leakage.py            check_leakage: patients and pictures on both sides of a split
    _shared_rows.py        finds them

    _head_search.py        HeadSearchCV: which head, with which settings; _best_head.py
    _head_space.py         what there is to choose from
    _each_label.py         EachLabel: any classifier, for several labels with blanks
    _group_fits.py         hands patients to the folds in an estimator that ask for them
    _head_folds.py         folds that all heads share
    _head_trials.py        one trial, fold by fold; _head_scores.py, what it is worth
    _head_study.py         trials until there are enough, by one process or several
    _head_storage.py       where they are kept; _head_sampler.py, what they draw
    _lasting_names.py      by what the next process knows a score or a space again
    _head_results.py       cv_results_
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.model_selection._each_label import EachLabel
from sk_medsiglip.model_selection._head_search import HeadSearchCV
from sk_medsiglip.model_selection._leakage import check_leakage
from sk_medsiglip.model_selection._multilabel_splits import (
    MultilabelStratifiedGroupKFold,
    MultilabelStratifiedGroupShuffleSplit,
)

__all__ = [
    "EachLabel",
    "HeadSearchCV",
    "MultilabelStratifiedGroupKFold",
    "MultilabelStratifiedGroupShuffleSplit",
    "check_leakage",
]

name_by_room(globals())
