"""The newest rows of the index: one record a put, until many go into the tree at once.

Keys are hashes, so each row of a put would change another page of the index's tree: 32
rows, 32 pages. Here a put is one small record; every ``MOST_RECENT`` rows all are moved
into the tree in the order of their keys, a page at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import numpy as np

# The place of a put's first row, and the keys of all of them.
RECENT_SCHEMA = """
CREATE TABLE IF NOT EXISTS recent (first INTEGER PRIMARY KEY, keys BLOB NOT NULL);
"""

MOST_RECENT = 32_768  # rows; reading as many anew, when others wrote, takes 3 ms


class RecentRows:
    """The rows that one connection knows."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._places: dict[int, int] = {}
        self._version: int | None = None

    def places(self) -> dict[int, int]:
        """Return the place of every recent key, as the file says now."""
        run = self._connection.execute
        # Changes with every commit of another connection, not with our own.
        version = run("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._version = None
            places: dict[int, int] = {}
            for first, blob in run("SELECT first, keys FROM recent"):
                keys = np.frombuffer(blob, "<i8").tolist()
                for place, key in enumerate(keys, first):
                    places.setdefault(key, place)
            self._places, self._version = places, version
        return self._places

    def add(self, keys: Sequence[int], first: int) -> None:
        """Note that rows lie one after another from ``first`` on, within a writing."""
        known = self.places()
        blob = np.array(keys, "<i8").tobytes()
        self._connection.execute("INSERT INTO recent VALUES (?, ?)", (first, blob))
        for place, key in enumerate(keys, first):
            known.setdefault(key, place)
        if len(known) >= MOST_RECENT:
            self.settle()

    def settle(self) -> None:
        """Move all into the tree, within a writing."""
        known = self.places()
        if known:
            self._connection.executemany(
                "INSERT OR IGNORE INTO rows VALUES (?, ?)", sorted(known.items())
            )
            self._connection.execute("DELETE FROM recent")
            known.clear()

    def forget(self) -> None:
        """Believe nothing: what was noted last has been rolled back."""
        self._version = None
