"""The tables and pictures of an audit's page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from sk_medsiglip._page import Picture, photograph
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import image_rows, read_image

#: Columns of each table that a page shows, and their headings. Those that may hold
#: names of patients, files or rare levels are not among them.
_HEADINGS = {
    "labels": {
        "row": "Image", "finding": "Finding", "given": "Given label",
        "suggested": "Likelier label", "score": "Score",
    },
    "disagreements": {
        "labels": "Images", "finding": "Finding", "n_rows": "Labelled images",
        "n_minority": "In the minority",
    },
    "copies": {
        "row": "Image", "other_row": "Copy of", "kind": "Kind",
        "same_group": "Same patient", "same_label": "Same labels",
        "cosine": "Cosine",
    },
    "unusual": {"row": "Image", "distance": "Distance"},
    "shortcuts": {
        "column": "Column", "finding": "Finding", "shortcut": "Shortcut",
        "p_value": "p", "auc_readable": "AUC of reading it",
        "auc": "AUC of the finding", "auc_within": "Within its levels",
        "auc_conflicting": "Where they conflict",
    },
    "slices": {
        "slice": "Subgroup", "finding": "Finding", "n_patients": "Patients",
        "n_positive": "Images with it", "auc": "AUC", "auc_rest": "AUC of the others",
        "p_value": "p", "findable": "Findable",
    },
}  # fmt: skip
_N_WORDS = {
    "labels": 4, "disagreements": 2, "copies": 5, "unusual": 1, "shortcuts": 3,
    "slices": 2,
}  # fmt: skip


@dataclass(frozen=True)
class ShownTable:
    """A table as the page shows it."""

    caption: str
    head: list[str]
    rows: list[list[str]]
    n_words: int
    pictures: list[Picture] = field(default_factory=list)


def show_table(
    check: str,
    table: pd.DataFrame,
    caption: str,
    max_rows: int,
    names: Sequence[str] | None,
    images: Any,
) -> ShownTable:
    """Return the first rows of a table, with pictures if there are images."""
    headings = {
        column: heading
        for column, heading in _HEADINGS[check].items()
        if column in table
    }
    shown = table.head(max_rows)
    rows = [
        [
            _cell(column, value, names)
            for column, value in zip(headings, one, strict=True)
        ]
        for one in shown[list(headings)].itertuples(index=False)
    ]
    if len(table) > max_rows:
        caption += f"; the first {max_rows:,} of {len(table):,}"
    pictures = []
    if images is not None and "row" in shown:
        pictures = _pictures(shown, images, names)
    return ShownTable(caption, list(headings.values()), rows, _N_WORDS[check], pictures)


def _cell(column: str, value: Any, names: Sequence[str] | None) -> str:
    """Return a value as the page shows it."""
    if column in ("row", "other_row"):
        return _name(value, names)
    if column == "labels":
        rows = sorted(row for own in value.values() for row in own)
        return ", ".join(_name(row, names) for row in rows)
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Real):
        number = float(value)
        return f"{number:,.0f}" if number.is_integer() else _figure(number)
    return str(value)


def _figure(number: float) -> str:
    """Return a figure, empty where it is not defined."""
    return "" if np.isnan(number) else f"{number:.3f}"


def _name(row: int, names: Sequence[str] | None) -> str:
    """Return the name of an image."""
    return f"row {row}" if names is None else str(names[row])


def _pictures(
    table: pd.DataFrame, images: Any, names: Sequence[str] | None
) -> list[Picture]:
    """Return the images of a table, without those that cannot be read."""
    sources = image_rows(images)
    shown = []
    for row in table["row"].drop_duplicates():
        name = _name(row, names)
        try:
            source = photograph(read_image(sources[row]))
        except ImageReadError:
            continue
        shown.append(Picture(source, f"Image {name}.", name))
    return shown
