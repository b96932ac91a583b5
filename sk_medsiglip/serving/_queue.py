"""Requests that wait are answered together, by one pass of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class BatchQueue:
    """Items from many tasks to a function of several, a few calls at a time.

    A call takes its share of all that waits, up to ``max_batch``, and never waits for
    more: batches grow with the load by themselves. Each of ``n_threads`` threads calls
    ``start_thread`` first, which may limit it to a part of the machine; an item with
    nothing beside it is given to another thread, which is not limited.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Any]], Sequence[Any]],
        *,
        max_batch: int,
        max_waiting: int,
        n_threads: int = 1,
        start_thread: Callable[[], None] | None = None,
        on_batch: Callable[[int], None] = lambda n: None,
    ) -> None:
        self._function = function
        self._max_batch = max_batch
        self._on_batch = on_batch
        self._waiting: asyncio.Queue[tuple[Any, asyncio.Future[Any]]]
        self._waiting = asyncio.Queue(max_waiting)
        self._unlimited = ThreadPoolExecutor(1, "model")
        self._limited = ThreadPoolExecutor(n_threads, "model", start_thread)
        self._n_threads = self._n_idle = n_threads
        self._tasks = [asyncio.create_task(self._serve()) for _ in range(n_threads)]

    async def ask(self, item: Any) -> Any:
        """Return the answer to an item; raise ``QueueFull`` if too many wait."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((item, answer))
        return await answer

    @property
    def n_waiting(self) -> int:
        """Number of items that wait."""
        return self._waiting.qsize()

    async def close(self) -> None:
        """Stop after the calls in hand."""
        for task in self._tasks:
            task.cancel()
        for threads in (self._unlimited, self._limited):
            await asyncio.to_thread(threads.shutdown)

    async def _serve(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            share = -(-(1 + self._waiting.qsize()) // self._n_idle)
            while len(batch) < min(share, self._max_batch):
                batch.append(self._waiting.get_nowait())
            # Of clients that are gone by now nobody wants an answer.
            batch = [pair for pair in batch if not pair[1].done()]
            if batch:
                self._on_batch(len(batch))
                is_alone = len(batch) == 1 and self._n_idle == self._n_threads
                self._n_idle -= 1
                await self._answer(
                    batch, self._unlimited if is_alone else self._limited
                )
                self._n_idle += 1

    async def _answer(
        self, batch: list[tuple[Any, asyncio.Future[Any]]], threads: ThreadPoolExecutor
    ) -> None:
        loop = asyncio.get_running_loop()
        items = [item for item, _ in batch]
        try:
            answers = await loop.run_in_executor(threads, self._function, items)
        except Exception as error:
            if len(batch) > 1:  # one of them alone may be to blame
                for pair in batch:
                    await self._answer([pair], threads)
                return
            answers = [error]
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
