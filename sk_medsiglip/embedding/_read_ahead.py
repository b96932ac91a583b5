"""Work on the next items in threads while the caller is busy with earlier ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import NDArray

from sk_medsiglip.exceptions import ImageReadError

# The fingerprint of an image, and its pixels at the size of the model.
Prepared = tuple[bytes, NDArray[np.uint8]]

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(
    sources: Sequence[Any],
    rows: Sequence[int],
    prepare: Callable[[Any], T],
    *,
    n_jobs: int | None,
    window: Callable[[], int],
) -> Iterator[tuple[int, T | ImageReadError]]:
    """Yield the prepared image of every row, in order.

    Parameters
    ----------
    sources : sequence
        All images.
    rows : sequence of int
        Positions of the images to read.
    prepare : callable
        Function applied to each source in the threads, such as one that returns its
        fingerprint and pixels.
    n_jobs : int or None
        Number of threads, as in joblib.
    window : callable
        Function that returns the number of prepared images that may wait for the
        model, which bounds memory.

    Yields
    ------
    row : int
        Position of the image.
    prepared : result of ``prepare`` or ImageReadError
        The error is passed on and not raised, so that the caller can decide.
    """

    def attempt(row: int) -> tuple[int, T | ImageReadError]:
        try:
            return row, prepare(sources[row])
        except ImageReadError as error:
            return row, error.at_row(row)

    # A single image does not need a thread.
    n_threads = min(effective_n_jobs(n_jobs), len(rows)) if len(rows) > 1 else 0
    yield from map_ahead(attempt, rows, n_threads=n_threads, window=window)


def map_ahead(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    n_threads: int,
    window: Callable[[], int],
    initializer: Callable[[], None] | None = None,
) -> Iterator[R]:
    """Yield ``work(item)`` for every item, in order."""
    if n_threads < 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(n_threads, "ahead", initializer) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= window() + n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
