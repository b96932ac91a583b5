"""Splitting by patient, checking splits, and choosing heads.

::

    _multilabel_splits.py  folds and held-out parts that spread every label evenly
    _leakage.py            check_leakage: patients and pictures on both sides of a split
    _pictures.py           which images are the same picture, and which nearly so

    _head_search.py        HeadSearchCV: which head, with which settings
    _head_space.py         the heads and settings to choose from
    _head_trials.py        one trial, fold by fold
    _head_study.py         Optuna's study: storage, trials, cv_results_
    _head_choice.py        the trial that is taken: LinearProbe, or a better one
    _head_scores.py        scores of a head on rows that it did not learn from
    _each_label.py         EachLabel: any classifier, for several labels with blanks
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.model_selection._each_label import EachLabel
from sk_medsiglip.model_selection._head_search import HeadSearchCV
from sk_medsiglip.model_selection._leakage import check_leakage
from sk_medsiglip.model_selection._multilabel_splits import (
    MultilabelStratifiedGroupKFold,
    MultilabelStratifiedGroupShuffleSplit,
)
from sk_medsiglip.model_selection._pictures import find_near_copies, read_pictures

__all__ = [
    "EachLabel",
    "HeadSearchCV",
    "MultilabelStratifiedGroupKFold",
    "MultilabelStratifiedGroupShuffleSplit",
    "check_leakage",
    "find_near_copies",
    "read_pictures",
]

name_by_room(globals())
