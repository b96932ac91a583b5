"""The map of a page: its colours by labels, scores and columns, and its picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.explore._colours import (
    Colouring,
    colour_categories,
    colour_numbers,
    colour_words,
)
from sk_medsiglip.explore._raster import DIAMOND, DISC, SQUARE, Area, draw_map
from sk_medsiglip.explore._session import ExploreSession
from sk_medsiglip.explore._task import UNSURE

#: Most values of a column that is coloured by category, and that the page lists.
_MOST_VALUES = 50
#: Fewer different numbers than these are categories.
_FEW_NUMBERS = 8
_ON_MAP = (
    "Each point is an image. Points that are near each other on the map need not be "
    "alike: neighbours are found in the space of the embeddings. "
)


class MapView:
    """The map of a session, its colours and its picture."""

    def __init__(self, session: ExploreSession) -> None:
        self._session = session
        self.tried: pd.DataFrame | None = None  # scores of prompts on trial
        self.selected = np.zeros(len(session.X), dtype=bool)
        self._columns = _columns_to_colour(session)
        self._kept: tuple[Any, Colouring] | None = None

    def colours(self) -> list[dict[str, Any]]:
        """Return all that the map can be coloured by."""
        session, found = self._session, []
        for name in session.columns:
            about = {"id": f"label:{name}", "name": f"Label: {name}"}
            found.append({**about, "kind": "label", "column": name})
        for origin, scores in (("score", session.scores), ("try", self.tried)):
            if scores is None or scores.isna().all(axis=None):
                continue
            words = "Score" if origin == "score" else "Prompts on trial"
            for name in map(str, scores):
                about = {"id": f"{origin}:{name}", "name": f"{words}: {name}"}
                found.append({**about, "kind": "score", "column": name})
        for name, about in self._columns.items():
            found.append(
                {"id": f"column:{name}", "name": name, "column": name, **about}
            )
        return found

    def scores(self, name: str) -> NDArray[np.floating]:
        """Return scores by the name of a column, or by the id of a colour."""
        origin, _, column = name.partition(":")
        table = self.tried if origin == "try" else self._session.scores
        if origin not in ("try", "score"):
            column = name
        named = {} if table is None else {str(one): table[one] for one in table}
        if column not in named:
            raise ValueError(f"there are no scores {name!r}; there are {list(named)}.")
        scores: NDArray[np.floating] = named[column].to_numpy()
        return scores

    def describe(self, colour: str, seq: int) -> dict[str, Any]:
        """Return the bounds of the map, with a margin, and the legend of a colour."""
        points = self._session.points
        known = points[np.isfinite(points[:, 0])]
        low, high = np.zeros(2), np.zeros(2)
        if len(known):
            low, high = known.min(axis=0), known.max(axis=0)
        margin = np.maximum(0.04 * (high - low), 1e-3)
        (x0, y0), (x1, y1) = (low - margin).tolist(), (high + margin).tolist()
        column = self._column_of(colour)
        marks = "unsure: diamonds"
        if self._session._task.classes is None:
            marks = f"yes: squares; no: discs; {marks}"
        return {
            "x0": x0, "x1": x1, "y0": y0, "y1": y1,
            "legend": self._colouring(colour, seq).legend,
            "note": f"{_ON_MAP}Labels of {column} have dark edges ({marks}). Selected "
            "images have a ring.",
        }  # fmt: skip

    def draw(self, colour: str, seq: int, area: Area, size: tuple[int, int]) -> bytes:
        """Return a picture of an area as PNG."""
        return draw_map(
            self._session.points,
            self._colouring(colour, seq),
            marks=self._marks(self._column_of(colour)),
            selected=self.selected,
            area=area,
            size=size,
        )

    def _colouring(self, colour: str, seq: int) -> Colouring:
        if self._kept is None or self._kept[0] != (colour, seq):
            self._kept = (colour, seq), self._find_colouring(colour)
        return self._kept[1]

    def _find_colouring(self, colour: str) -> Colouring:
        kind, _, name = colour.partition(":")
        if kind == "label":
            return self._by_label(name)
        frame = self._session.frame
        if kind == "column" and frame is not None and name in self._columns:
            values = frame[name]
            if self._columns[name]["kind"] == "number":
                return colour_numbers(values)
            return colour_categories(values)
        if kind in ("score", "try"):
            return colour_numbers(self.scores(colour))
        raise ValueError(f"the map has no colour {colour!r}.")

    def _by_label(self, name: str) -> Colouring:
        task = self._session._task
        codes = self._session._shown[:, task.column(name)]
        words, n = [*task.values, "unsure"], len(task.values)
        places = np.array([*range(n + 1), -1])  # of unsure and blank, from the end
        if task.classes is None:  # yes first
            words[:2], places[:2] = words[1::-1], (1, 0)
        return colour_words(places[codes], words)

    def _column_of(self, colour: str) -> str:
        """Return the column whose labels are marked beside a colour."""
        columns = self._session.columns
        name = colour.partition(":")[2]
        return name if name in columns else columns[0]

    def _marks(self, column: str) -> NDArray[np.uint8]:
        task = self._session._task
        codes = self._session._shown[:, task.column(column)]
        marks = np.where(codes >= 0, DISC, 0).astype(np.uint8)
        if task.classes is None:
            marks[codes == 1] = SQUARE
        marks[codes == UNSURE] = DIAMOND
        return marks


def _columns_to_colour(session: ExploreSession) -> dict[str, dict[str, Any]]:
    """Return the columns of the table with few values, or with numbers."""
    found: dict[str, dict[str, Any]] = {}
    frame = pd.DataFrame() if session.frame is None else session.frame
    for name, column in frame.items():
        if not isinstance(name, str) or name in session.columns:
            continue
        values = column.dropna().unique()
        is_number = pd.api.types.is_numeric_dtype(column) and column.dtype != bool
        if is_number and len(values) > _FEW_NUMBERS:
            found[name] = {"kind": "number"}
        elif 1 < len(values) <= _MOST_VALUES:
            words = sorted(map(str, values))
            found[name] = {"kind": "category", "values": words}
    return found
