"""Claims on missing rows: one worker computes a row, the others wait for it.

Between processes a claim is a lock on one byte of one file, at an offset drawn from the
row's key; the operating system drops it when its process dies, so nobody waits for the
dead. Between threads of a process, where such locks say nothing, it is an entry in a
table. Two rows that share an offset (one in 2**30) wait for each other without need.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sk_medsiglip.cache._space import Space
from sk_medsiglip.cache._system import lock_byte, make_folder, open_file, unlock_byte

N_OFFSETS = 2**30  # within what every platform's byte locks can address
SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.05  # seconds between two looks


class Claims:
    """The claims of one process on the rows of one location."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None
        self.forget()

    def __del__(self) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def claim(self, space: Space, fingerprints: Sequence[bytes]) -> list[bool]:
        """Say which rows are the caller's now; equal ones get equal answers."""
        with self._changed:
            answers: dict[int, bool] = {}
            for key in space.keys(fingerprints).tolist():
                if key not in answers:
                    answers[key] = self._claim_one(key)
            return [answers[key] for key in space.keys(fingerprints).tolist()]

    def release(self, space: Space, fingerprints: Sequence[bytes]) -> None:
        """Give claims back and wake who waits for them."""
        with self._changed:
            for key in space.keys(fingerprints).tolist():
                if key in self._held:
                    self._held.discard(key)
                    self._unlock(key % N_OFFSETS)
            self._changed.notify_all()

    def wait(
        self, space: Space, fingerprints: Sequence[bytes], timeout: float | None
    ) -> bool:
        """Return True once none of the rows is claimed, False when time is up."""
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting = set(space.keys(fingerprints).tolist())
        pause = SHORTEST_PAUSE
        with self._changed:
            # Other processes are asked again and again rather than by a blocking
            # lock: that one takes no timeout, and the system would report deadlocks
            # between processes whose threads do not wait for each other at all.
            while waiting := {key for key in waiting if not self._is_free(key)}:
                left = (
                    LONGEST_PAUSE if deadline is None else deadline - time.monotonic()
                )
                if left <= 0:
                    return False
                self._changed.wait(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)
        return True

    def forget(self) -> None:
        """Start empty, as a forked child must: its parent's claims are not its own."""
        self._changed = threading.Condition()
        self._held: set[int] = set()
        self._holders_of_offset: Counter[int] = Counter()
        self._fd = None

    def close(self) -> None:
        """Close the file, unless a thread still holds a claim."""
        with self._changed:
            if self._fd is not None and not self._held:
                os.close(self._fd)
                self._fd = None

    def close_inherited(self) -> None:
        """Close the parent's handle in a forked child, and forget its claims."""
        # The parent keeps its locks: they belong to its process, not to this handle.
        if self._fd is not None:
            os.close(self._fd)
        self.forget()

    def _claim_one(self, key: int) -> bool:
        offset = key % N_OFFSETS
        if key in self._held or not self._lock(offset):
            return False
        self._held.add(key)
        return True

    def _is_free(self, key: int) -> bool:
        if key in self._held:
            return False
        offset = key % N_OFFSETS
        if self._lock(offset):
            self._unlock(offset)
            return True
        return False

    def _lock(self, offset: int) -> bool:
        """Lock an offset for this process, counting how many keys it stands for."""
        if not self._holders_of_offset[offset]:
            fd = self._open()
            if fd is not None and not lock_byte(fd, offset):
                return False
        self._holders_of_offset[offset] += 1
        return True

    def _unlock(self, offset: int) -> None:
        self._holders_of_offset[offset] -= 1
        if not self._holders_of_offset[offset]:
            del self._holders_of_offset[offset]
            if self._fd is not None:
                unlock_byte(self._fd, offset)

    def _open(self) -> int | None:
        """Return the handle, None where the folder cannot be written.

        There, claims hold between threads only: what one process computes the others
        could not read anyway.
        """
        if self._fd is None:
            try:
                make_folder(self.path.parent)
                self._fd = open_file(self.path, os.O_RDWR | os.O_CREAT)
            except OSError:
                return None
        return self._fd
