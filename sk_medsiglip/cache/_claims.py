"""Claims on missing rows: one worker computes a row, the others wait for it.

Between processes, a claim is a lock on one byte of one file, at an offset computed from
the key of the row. The operating system releases it when its process dies, so nobody
waits for a dead process. Between threads of a process, where such locks have no effect,
a claim is an entry in a table. Two rows that share an offset (one in 2**30) wait for
each other unnecessarily.
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

N_OFFSETS = 2**30  # addressable by byte locks on every platform
SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.05  # seconds between two attempts


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
        """Return which rows the caller now holds; equal rows get equal answers."""
        with self._changed:
            answers: dict[int, bool] = {}
            for key in space.keys(fingerprints).tolist():
                if key not in answers:
                    answers[key] = self._claim_one(key)
            return [answers[key] for key in space.keys(fingerprints).tolist()]

    def release(self, space: Space, fingerprints: Sequence[bytes]) -> None:
        """Release claims, and wake the threads that wait for them."""
        with self._changed:
            for key in space.keys(fingerprints).tolist():
                if key in self._held:
                    self._held.discard(key)
                    self._unlock(key % N_OFFSETS)
            self._changed.notify_all()

    def wait(
        self, space: Space, fingerprints: Sequence[bytes], timeout: float | None
    ) -> bool:
        """Return True once none of the rows is claimed, or False after ``timeout``."""
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting = set(space.keys(fingerprints).tolist())
        pause = SHORTEST_PAUSE
        with self._changed:
            # Locks of other processes are polled: a blocking lock has no timeout, and
            # the system would report deadlocks between processes whose threads do not
            # wait for each other.
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
        """Forget all claims, since a forked child does not hold those of its parent."""
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
        """Close the handle of the parent in a forked child, and forget its claims."""
        # The parent keeps its locks, which belong to its process, not to this handle.
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
        """Lock an offset for this process, and count the keys that share it."""
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
        """Return the handle, or None if the folder is read-only.

        Claims then hold between threads only, since other processes could not read the
        computed rows anyway.
        """
        if self._fd is None:
            try:
                make_folder(self.path.parent)
                self._fd = open_file(self.path, os.O_RDWR | os.O_CREAT)
            except OSError:
                return None
        return self._fd
