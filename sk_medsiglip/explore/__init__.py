"""From unlabelled images to a classifier, and to an honest figure, in one session.

::

    _session.py        ExploreSession: its parameters, its end and its files
    _looking.py        selections, what to label next, neighbours, suspects
    _learning.py       scores by prompts, a classifier from the labels so far
    _labelling.py      rows and labels, and rows that are locked for the test

    _task.py           the question of a session: its columns, answers and their codes
    _label_file.py     the file of labels: one JSON object a line, never changed
    _answers.py        the labels that the lines of the file add up to
    _locked.py         which rows are kept for the test, by patient
    _training.py       prompts alone, PromptProbe or LinearProbe
    _figures.py        areas under ROC curves, out of folds; histograms
    _judging.py        the evaluation on locked rows, and the report
    _queue.py          which images to label next
    _map.py            a map in two dimensions, and the points inside a polygon
    _exports.py        tables, samples for FiftyOne, the classifier as files
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.explore._session import ExploreSession

__all__ = ["ExploreSession"]

name_by_room(globals())
