"""Images that are embedded in a thread while the page is in use."""

from __future__ import annotations

import copy
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from sk_medsiglip.embedding import rows_and_failures
from sk_medsiglip.exceptions import SkMedSiglipError

if TYPE_CHECKING:
    from sk_medsiglip.explore._growing import GrowingSession

#: Images in the first piece, and the seconds that a piece should take.
_FIRST, _SECONDS, _LARGEST = 4, 1.0, 4096


class BackgroundEmbedding:
    """The embedding of a session's images, piece by piece.

    Images come in random order, so that the first of them are like the rest; locked
    ones come last. Each piece is stored in the embedder's cache before it is shown.
    """

    def __init__(self, session: GrowingSession, lock: threading.RLock) -> None:
        self.n_done = 0
        self.failed: list[int] = []  # rows of unreadable images
        self.error: str | None = None
        self._session, self._lock = session, lock
        self._total = len(session.X)
        self._began = time.monotonic()
        self._stops = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def is_done(self) -> bool:
        """Whether all images have been embedded, or found to be unreadable."""
        return self.n_done == self._total

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the speed so far; None at the start and at the end."""
        if self.is_done or not self.n_done or self.error:
            return None
        speed = self.n_done / (time.monotonic() - self._began)
        return (self._total - self.n_done) / speed

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the piece in hand, and wait for that a few seconds."""
        self._stops.set()
        if self._thread.is_alive():
            self._thread.join(20)

    def _run(self) -> None:
        try:
            self._embed()
        except Exception as error:
            self.error = str(error) or type(error).__name__
            if not isinstance(error, SkMedSiglipError | OSError | ValueError):
                raise

    def _embed(self) -> None:
        session, images = self._session, self._session.images or ()
        embedder = copy.copy(session.embedder).set_params(on_error="nan", verbose=0)
        rng = np.random.default_rng(session.random_state)
        order = rng.permutation(self._total)
        order = order[np.argsort(session.locked[order], kind="stable")]
        n_piece = _FIRST
        while not self.is_done and not self._stops.is_set():
            rows = order[self.n_done : self.n_done + n_piece]
            began = time.monotonic()
            found, failures = rows_and_failures(embedder, [images[row] for row in rows])
            seconds = time.monotonic() - began
            with self._lock:
                session.take(rows, found)
                self.n_done += len(rows)
                self.failed += rows[list(failures)].tolist()
            if seconds < _SECONDS:
                n_piece = min(2 * n_piece, _LARGEST)
            elif seconds > 2 * _SECONDS:
                n_piece = max(1, n_piece // 2)
