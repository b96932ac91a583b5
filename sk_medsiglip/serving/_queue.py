"""Requests that wait are answered together, by one pass of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class BatchQueue:
    """Items from many tasks to a function of several, one call at a time.

    A call takes all that waits, up to ``max_batch``, and never waits for more: batches
    grow with the load by themselves.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Any]], Sequence[Any]],
        *,
        max_batch: int,
        max_waiting: int,
        on_batch: Callable[[int], None] = lambda n: None,
    ) -> None:
        self._function = function
        self._max_batch = max_batch
        self._on_batch = on_batch
        self._waiting: asyncio.Queue[tuple[Any, asyncio.Future[Any]]]
        self._waiting = asyncio.Queue(max_waiting)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task = asyncio.create_task(self._serve())

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
        """Stop after the call in hand."""
        self._task.cancel()
        await asyncio.to_thread(self._thread.shutdown)

    async def _serve(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._max_batch and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            # Of clients that are gone by now nobody wants an answer.
            batch = [pair for pair in batch if not pair[1].done()]
            if batch:
                self._on_batch(len(batch))
                await self._answer(batch)

    async def _answer(self, batch: list[tuple[Any, asyncio.Future[Any]]]) -> None:
        loop = asyncio.get_running_loop()
        items = [item for item, _ in batch]
        try:
            answers = await loop.run_in_executor(self._thread, self._function, items)
        except Exception as error:
            if len(batch) > 1:  # one of them alone may be to blame
                for pair in batch:
                    await self._answer([pair])
                return
            answers = [error]
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
