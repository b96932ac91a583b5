"""Read and prepare images in threads while the model works on earlier ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import NDArray

from sk_medsiglip.exceptions import ImageReadError

__all__ = ["Prepared", "read_ahead"]

# The fingerprint of an image and its pixels at the model's size.
Prepared = tuple[bytes, NDArray[np.uint8]]

T = TypeVar("T")


def read_ahead(
    sources: Sequence[Any],
    rows: Sequence[int],
    prepare: Callable[[Any], T],
    *,
    n_jobs: int | None,
    window: int,
) -> Iterator[tuple[int, T | ImageReadError]]:
    """Yield the prepared image of every row, in order.

    Parameters
    ----------
    sources : sequence
        All images.
    rows : sequence of int
        Which of them to read.
    prepare : callable
        From a source to its fingerprint and pixels; runs in the threads.
    n_jobs : int or None
        Number of threads, as joblib counts them.
    window : int
        Prepared images that may wait for the model: the bound on memory.

    Yields
    ------
    row : int
    prepared : (bytes, ndarray) or ImageReadError
        Errors are handed over, not raised: the caller decides.
    """

    def attempt(row: int) -> T | ImageReadError:
        try:
            return prepare(sources[row])
        except ImageReadError as error:
            return error.at_row(row)

    if len(rows) == 1:  # a single image needs no thread
        yield rows[0], attempt(rows[0])
        return
    n_threads = min(effective_n_jobs(n_jobs), len(rows))
    with ThreadPoolExecutor(n_threads, thread_name_prefix="read-ahead") as pool:
        waiting: deque[tuple[int, Future]] = deque()
        try:
            for row in rows:
                waiting.append((row, pool.submit(attempt, row)))
                if len(waiting) > window + n_threads:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
