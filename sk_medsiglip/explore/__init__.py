"""From unlabelled images to a classifier, and to an honest figure, in one session.

::

    _explore.py        explore: a session in the browser
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

    _growing.py        a session whose images are embedded while it is in use
    _embedding.py      the thread that embeds them
    _page.py           the answers to the page in the browser, without HTTP
    _page_view.py      those of them that only show: map, selections, rows, pictures
    _found_rows.py     rows found by a column or by words; _records.py, tables as JSON
    _bench.py          ROC curves of prompts, and what each of their texts adds
    _map_view.py       the map of the page; _colours.py, _raster.py draw it
    _thumbnails.py     pictures of images, by row number
    _app.py            the addresses of the page; _guard.py lets its owner in
    _server.py         the server: socket, address, start and end
    page/              the page itself: HTML, style, scripts
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.explore._explore import explore
from sk_medsiglip.explore._session import ExploreSession

__all__ = ["ExploreSession", "explore"]

name_by_room(globals())
