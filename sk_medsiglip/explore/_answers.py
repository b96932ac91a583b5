"""The labels that the lines of a label file add up to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.explore._label_file import Entry
from sk_medsiglip.explore._task import Task


class Answers:
    """Codes of the answers, replayed from entries in the order of the file.

    While the session is open, open rows take labels; once it has ended, locked rows do.
    """

    def __init__(
        self, task: Task, base: NDArray[np.int16], locked: NDArray[np.bool_]
    ) -> None:
        self._task, self._base, self._locked = task, base, locked
        self._labels: list[Entry] = []
        self._undone: set[str] = set()
        self._n_before_end = 0
        self.codes = base.copy()
        self.is_ended = False
        self.n_looks = 0

    def add(self, entry: Entry) -> None:
        """Apply an entry; ValueError says why it cannot be applied."""
        if entry["what"] == "label":
            self._apply(entry)
            self._labels.append(entry)
        elif entry["what"] == "undo":
            self._undo(entry["of"])
        elif entry["what"] == "end" and not self.is_ended:
            self.is_ended, self._n_before_end = True, len(self._labels)
        elif entry["what"] == "look":
            self.n_looks += 1

    def has(self, label: str) -> bool:
        """Tell whether an entry with a label was applied."""
        return any(one["id"] == label for one in reversed(self._labels))

    def last_of(self, user: str) -> Entry | None:
        """Return the last label of a user that can still be undone."""
        for entry in reversed(self._labels[self._n_before_end :]):
            if entry["by"] == user and entry["id"] not in self._undone:
                return entry
        return None

    def _apply(self, entry: Entry) -> None:
        column = self._task.column(entry["column"])
        code = self._task.code(entry["value"])
        rows = np.array(entry["rows"], dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self.codes)):
            raise ValueError(f"it names rows other than 0 to {len(self.codes) - 1}")
        if (self._locked[rows] != self.is_ended).any():
            raise ValueError(
                "after the end of the training it labels rows that are not locked"
                if self.is_ended
                else "before the end of the training it labels locked rows"
            )
        self.codes[rows, column] = code

    def _undo(self, label: str) -> None:
        open_labels = self._labels[self._n_before_end :]
        if label not in {one["id"] for one in open_labels} - self._undone:
            raise ValueError("it undoes a label that is not there")
        self._undone.add(label)
        self.codes = self._base.copy()
        for entry in self._labels:
            if entry["id"] not in self._undone:
                rows = np.array(entry["rows"], dtype=np.int64)
                column = self._task.column(entry["column"])
                self.codes[rows, column] = self._task.code(entry["value"])
