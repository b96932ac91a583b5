"""Auditing a data set before anybody trains on it.

::

    _label_issues.py  find_label_issues, find_disagreements: labels that look wrong

    _rows.py          rows and patients as the pieces read them
    _questions.py     the questions that labels answer; out-of-fold answers to them
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.audit._label_issues import find_disagreements, find_label_issues

__all__ = ["find_disagreements", "find_label_issues"]

name_by_room(globals())
