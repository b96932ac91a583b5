"""The newest rows of the index: one record per put, until many go into the tree.

Keys are hashes, so each row of a put would change another page of the tree of the
index: 32 rows, 32 pages. Here a put is one small record. After ``MOST_RECENT`` rows,
all are moved to the tree in the order of their keys, page by page.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import numpy as np

# The place of the first row of a put, and the keys of all its rows.
RECENT_SCHEMA = """
CREATE TABLE IF NOT EXISTS recent (first INTEGER PRIMARY KEY, keys BLOB NOT NULL);
"""

MOST_RECENT = 32_768  # rows; reading them again after another writer takes 3 ms


class RecentRows:
    """Recent rows, as known to one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._places: dict[int, int] = {}
        self._version: int | None = None

    def places(self) -> dict[int, int]:
        """Return the places of recent keys, read again if the file has changed."""
        run = self._connection.execute
        # Changes with commits of other connections, not with our own.
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
        """Record rows at consecutive places from ``first``, within a transaction."""
        known = self.places()
        blob = np.array(keys, "<i8").tobytes()
        self._connection.execute("INSERT INTO recent VALUES (?, ?)", (first, blob))
        for place, key in enumerate(keys, first):
            known.setdefault(key, place)
        if len(known) >= MOST_RECENT:
            self.settle()

    def settle(self) -> None:
        """Move all rows to the tree, within a transaction."""
        known = self.places()
        if known:
            self._connection.executemany(
                "INSERT OR IGNORE INTO rows VALUES (?, ?)", sorted(known.items())
            )
            self._connection.execute("DELETE FROM recent")
            known.clear()

    def forget(self) -> None:
        """Discard the rows in memory after a rollback."""
        self._version = None
