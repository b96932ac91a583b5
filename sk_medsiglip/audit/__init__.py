"""Auditing a data set before anybody trains on it.

::

    _label_issues.py  find_label_issues, find_disagreements: labels that look wrong
    _copies.py        find_copies: pictures that a data set holds twice
    _shortcuts.py     find_shortcuts: metadata that stand in for a finding
    _slices.py        worst_slices: subgroups in which a classifier does worse
    _novelty.py       NoveltyGate: images unlike those that were learned from
    _drift.py         drift_test: whether a set of images differs from another one

    _audit.py         audit, which makes all checks in one call
    _result.py        Audit: the tables of the checks, a summary, a page
    _sentences.py     the findings of an audit in sentences
    _page_tables.py   the tables of the page, audit.html.jinja
    _unusual.py       images unlike the others of the same data set

    _rows.py          rows and patients as the checks read them
    _answers.py       labels, and answers of classifiers out of folds
    _metadata.py      columns of metadata as levels
    _permutations.py  metadata exchanged between patients of the same labels; p-values
    _ridge.py         ridge regressions: what they explain, and answers out of folds
    _pair_auc.py      areas under ROC curves over some of the pairs
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.audit._audit import audit
from sk_medsiglip.audit._copies import find_copies
from sk_medsiglip.audit._drift import DriftResult, drift_test
from sk_medsiglip.audit._label_issues import find_disagreements, find_label_issues
from sk_medsiglip.audit._novelty import NoveltyGate
from sk_medsiglip.audit._result import Audit
from sk_medsiglip.audit._shortcuts import find_shortcuts
from sk_medsiglip.audit._slices import worst_slices

__all__ = [
    "Audit",
    "DriftResult",
    "NoveltyGate",
    "audit",
    "drift_test",
    "find_copies",
    "find_disagreements",
    "find_label_issues",
    "find_shortcuts",
    "worst_slices",
]

name_by_room(globals())
