"""Work on the next items in threads while the caller is busy with the last one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    n_threads: int,
    window: Callable[[], int],
    initializer: Callable[[], None] | None = None,
) -> Iterator[R]:
    """Yield ``work(item)`` of every item, in order."""
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
