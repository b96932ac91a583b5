"""The view of a page: the map, selections, rows and their pictures."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from sk_medsiglip.exceptions import SessionError
from sk_medsiglip.explore._embedding import BackgroundEmbedding
from sk_medsiglip.explore._found_rows import rows_with_text, rows_with_values
from sk_medsiglip.explore._map_view import MapView
from sk_medsiglip.explore._records import plain, records
from sk_medsiglip.explore._session import ExploreSession
from sk_medsiglip.explore._thumbnails import Thumbnails

#: What a page asks for: the query of a GET, or the JSON of a POST.
Asked = Mapping[str, Any]

_MOST_ROWS = 500  # rows that are listed or described at a time
_LARGEST_MAP = 2048  # pixels


class PageView:
    """Abstract page that shows a session, and changes nothing in it."""

    embedding: BackgroundEmbedding | None = None

    def __init__(self, session: ExploreSession) -> None:
        self.session = session
        self.lock = threading.RLock()
        self.thumbnails = Thumbnails(session)
        self._map = MapView(session)
        self._n_changes = 0
        self._points: Any = None
        self._n_maps = 0

    @property
    def seq(self) -> int:
        """A number that grows with every change of what a page shows."""
        n_embedded = 0 if self.embedding is None else self.embedding.n_done
        return self._n_changes + n_embedded + self.session._file.n_read

    def map(self, asked: Asked) -> dict[str, Any]:
        """Return the bounds of the map and the legend of a colour."""
        return self._map.describe(asked["colour"], self.seq)

    def map_picture(self, asked: Asked) -> bytes:
        """Return a picture of an area of the map as PNG."""
        x0, x1, y0, y1 = (float(asked[name]) for name in ("x0", "x1", "y0", "y1"))
        width, height = int(asked["w"]), int(asked["h"])
        fits = 1 <= min(width, height) and max(width, height) <= _LARGEST_MAP
        if not (np.isfinite([x0, x1, y0, y1]).all() and x0 < x1 and y0 < y1 and fits):
            raise ValueError(
                f"a map has x0 < x1, y0 < y1, and 1 to {_LARGEST_MAP} pixels a side."
            )
        return self._map.draw(
            asked["colour"], self.seq, (x0, x1, y0, y1), (width, height)
        )

    def select(self, asked: Asked) -> dict[str, Any]:
        """Select the rows that meet all conditions."""
        session = self.session
        mask = np.ones(len(session.X), dtype=bool)
        for name, wanted in (asked.get("where") or {}).items():
            mask &= rows_with_values(session, name, wanted)
        if asked.get("rows") is not None:
            chosen = session._check_numbers(asked["rows"])
            mask &= np.isin(np.arange(len(mask)), chosen)
        if asked.get("text"):
            captions = [self.thumbnails.caption(row) for row in range(len(mask))]
            mask &= rows_with_text(session, captions, str(asked["text"]))
        polygon, how = asked.get("polygon"), dict[str, Any]()
        if asked.get("box") is not None:
            x0, y0, x1, y1 = asked["box"]
            polygon = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
        low, high = asked.get("low"), asked.get("high")
        if low is not None or high is not None:
            name = asked.get("column") or str(session.scores.columns[0])
            how["scores"] = self._map.scores(name)
            how["low"] = -np.inf if low is None else float(low)
            how["high"] = np.inf if high is None else float(high)
        rows = session.select(mask=mask, polygon=polygon, **how)
        self._map.selected = np.isin(np.arange(len(mask)), rows)
        self._n_changes += 1
        return {"n": len(rows), "rows": rows[:_MOST_ROWS].tolist()}

    def queue(self, asked: Asked) -> dict[str, Any]:
        """Return the images to label next, and a sentence on how they are chosen."""
        k = min(int(asked.get("k", 16)), _MOST_ROWS)
        rows = self.session.queue(k, column=asked.get("column") or None)
        if self.session.is_ended:
            why = "Locked images without a label, in random order, without scores."
        else:
            why = (
                "Images that the classifier is least sure of, one of each kind. At the "
                "start, half of them are those with the highest scores by the prompts, "
                "or random ones where there are no prompts."
            )
        return {"rows": rows.tolist(), "why": why}

    def suspects(self, asked: Asked) -> dict[str, Any]:
        """Return labels that look wrong, and copies."""
        found = self.session.suspects()
        return {
            "labels": records(found.labels)[:_MOST_ROWS],
            "copies": records(found.copies)[:_MOST_ROWS],
            "unreadable": self._unreadable()[:_MOST_ROWS],
            "note": " ".join(found.labels.attrs.get("notes", ())) or None,
        }

    def neighbours(self, asked: Asked) -> dict[str, Any]:
        """Return the images nearest to one, in the space of the embeddings."""
        k = min(int(asked.get("k", 12)), _MOST_ROWS)
        found = self.session.neighbours(int(asked["row"]), k)
        return {"rows": records(found[["row", "cosine"]])}

    def rows(self, asked: Asked) -> list[dict[str, Any]]:
        """Describe rows; locked ones are left out until the training has ended."""
        session = self.session
        given = [int(row) for row in str(asked["rows"]).split(",") if row][:_MOST_ROWS]
        session._check_numbers(given)
        rows = [row for row in given if self._is_shown(row)]
        words = session._task.words(session._shown[rows]).fillna("")
        scores, points = session.scores.iloc[rows], session.points[rows]
        return [
            {
                "row": row,
                "labels": {str(c): words.at[i, c] for c in words},
                "scores": {
                    str(name): plain(value)
                    for name, value in zip(scores, scores.to_numpy()[i], strict=True)
                },
                "group": None if session.groups is None else plain(session.groups[row]),
                "caption": self.thumbnails.caption(row),
                "locked": bool(session.locked[row]),
                "readable": bool(session._lengths[row] > 0),
                "n_slices": self.thumbnails.n_slices(row),
                "x": plain(points[i, 0]),
                "y": plain(points[i, 1]),
            }
            for i, row in enumerate(rows)
        ]

    def image(self, asked: Asked) -> bytes:
        """Return a picture of an image, or of a slice of a study, as JPEG."""
        place = asked.get("slice")
        return self.thumbnails.picture(
            self._row_of(asked),
            int(asked.get("size", 160)),
            None if place in (None, "") else int(place),
        )

    def heat(self, asked: Asked) -> bytes:
        """Return a heat map of a column's prompts as a transparent PNG."""
        prompts = {
            str(name): texts for name, texts in (self.session.prompts or {}).items()
        }
        name = asked.get("column") or next(iter(prompts), "")
        if name not in prompts:
            raise ValueError(
                f"there are no prompts for {name!r} to draw a heat map of."
            )
        texts, negative, place = prompts[name], None, asked.get("slice")
        if isinstance(texts, Mapping) and "positive" in texts:
            texts, negative = texts["positive"], texts["negative"]
        place = None if place in (None, "") else int(place)
        return self.thumbnails.heat(self._row_of(asked), texts, negative, place)

    def _is_shown(self, row: int) -> bool:
        return bool(not self.session.locked[row] or self.session.is_ended)

    def _row_of(self, asked: Asked) -> int:
        (row,) = self.session._check_numbers([int(asked["row"])])
        if not self._is_shown(row):
            raise SessionError(f"row {row} is locked for the test.")
        return int(row)

    def _unreadable(self) -> list[int]:
        """Return the rows whose images could not be read, locked ones apart."""
        session = self.session
        if self.embedding is not None:
            return [row for row in sorted(self.embedding.failed) if self._is_shown(row)]
        return np.flatnonzero((session._lengths == 0) & ~session.locked).tolist()

    def _map_id(self) -> str:
        """Return a name that changes with the points of the map."""
        if self._points is not self.session.points:
            self._points = self.session.points
            self._n_maps += 1
        n_done = 0 if self.embedding is None else self.embedding.n_done
        return f"{self._n_maps}-{n_done}"
