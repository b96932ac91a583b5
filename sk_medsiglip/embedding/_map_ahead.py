"""Work on the next items in threads while the caller is busy with the last one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["map_ahead"]

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
    """Yield ``work(item)`` of every item, in order.

    Parameters
    ----------
    work : callable
        Runs in the threads; what it raises is raised here.
    items : iterable
        Taken one by one, as there is room.
    n_threads : int
        Under 1, the work is done by the caller's own thread, when it asks.
    window : callable
        Returns how many results may wait for the caller: the bound on memory.
    initializer : callable or None, default=None
        Called once in every thread.

    Yields
    ------
    R
        Items whose turn has not come when the caller stops are not worked on.
    """
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
