"""The tables and pictures of an audit's page."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sk_medsiglip._page import Picture, photograph
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import image_rows, read_image

#: Columns of each table that a page shows: words, and figures. Those that may hold
#: names of patients, files or rare levels are not among them.
_SHOWN = {
    "labels": ("row finding given suggested", "score"),
    "disagreements": ("labels finding", "n_rows n_minority"),
    "copies": ("row other_row kind same_group same_label", "cosine"),
    "unusual": ("row", "distance"),
    "shortcuts": (
        "column finding shortcut",
        "p_value auc_readable auc auc_within auc_conflicting",
    ),
    "slices": ("slice finding", "n_patients n_positive auc auc_rest p_value findable"),
}


class ShownTable(NamedTuple):
    """A table as the page shows it."""

    columns: list[str]
    rows: list[list[str]]
    n_words: int
    n_left: int  # rows that are not shown
    pictures: list[Picture]


def show_table(
    check: str,
    table: pd.DataFrame,
    max_rows: int,
    names: Sequence[str] | None,
    images: Any,
) -> ShownTable:
    """Return the first rows of a table, with pictures if there are images."""
    words, figures = (
        [column for column in columns.split() if column in table]
        for columns in _SHOWN[check]
    )
    shown = table.head(max_rows)
    rows = [
        [_cell(column, one[column], names) for column in words + figures]
        for one in shown.to_dict("records")
    ]
    pictures = []
    if images is not None and "row" in shown:
        pictures = _pictures(shown["row"].drop_duplicates(), images, names)
    n_left = len(table) - len(shown)
    return ShownTable(words + figures, rows, len(words), n_left, pictures)


def _cell(column: str, value: Any, names: Sequence[str] | None) -> str:
    """Return a value as the page shows it, nothing for a figure that is not defined."""
    if column in ("row", "other_row"):
        return _name(value, names)
    if column == "labels":
        rows = sorted(row for own in value.values() for row in own)
        return ", ".join(_name(row, names) for row in rows)
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not isinstance(value, Real):
        return str(value)
    number = float(value)
    if np.isnan(number):
        return ""
    return f"{number:,.0f}" if number.is_integer() else f"{number:.3f}"


def _name(row: int, names: Sequence[str] | None) -> str:
    """Return the name of an image."""
    return f"row {row}" if names is None else str(names[row])


def _pictures(
    rows: pd.Series, images: Any, names: Sequence[str] | None
) -> list[Picture]:
    """Return some images, without those that cannot be read."""
    sources = image_rows(images)
    shown = []
    for row in rows:
        name = _name(row, names)
        try:
            source = photograph(read_image(sources[row]))
        except ImageReadError:
            continue
        shown.append(Picture(source, f"Image {name}.", name))
    return shown
