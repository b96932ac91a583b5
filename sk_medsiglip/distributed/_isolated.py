"""Read images in a process that may die of one of them.

A damaged file can kill a decoder that is written in C, or make it ask for all memory.
A task in which that happens is tried again by Ray and dies again. So after a worker
has died, images are read here: each death is the failure of one image.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from queue import LifoQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.exceptions import ImageReadError

#: Seconds that one image may take: some decoders do not die but never end.
_PATIENCE = 600.0

_reader: Any = None


class IsolatedReader:
    """A context that gives a function like ``Reader.prepare``; threads may share it."""

    def __init__(self, reader: Any, n_processes: int) -> None:
        self._reader = reader
        # The one that was used last comes first, so that few are started.
        self._free: LifoQueue[ProcessPoolExecutor | None] = LifoQueue()
        for _ in range(n_processes):
            self._free.put(None)

    def __enter__(self) -> Any:
        return self._prepare

    def __exit__(self, *_: object) -> None:
        while not self._free.empty():
            _end(self._free.get())

    def _prepare(self, source: Any) -> tuple[bytes, NDArray[np.uint8]]:
        # A pool of one, so that who died is who read this.
        pool = self._free.get() or ProcessPoolExecutor(
            1, get_context("spawn"), initializer=_start, initargs=(self._reader,)
        )
        try:
            result = pool.submit(_read, source).result(_PATIENCE)
        except (BrokenProcessPool, TimeoutError) as error:
            _end(pool)
            self._free.put(None)
            died = isinstance(error, BrokenProcessPool)
            raise ImageReadError(
                "reading it ended the process that read it"
                if died
                else f"reading it took over {_PATIENCE:.0f} s",
                "The file is damaged in a way that its decoder does not survive, or "
                "needs more memory than there is. Write it again with another tool.",
            ) from None
        except BaseException:
            self._free.put(pool)
            raise
        self._free.put(pool)
        return result


def _end(pool: ProcessPoolExecutor | None) -> None:
    """End a process, even one that never ends by itself."""
    if pool is None:
        return
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(wait=True, cancel_futures=True)


def _start(reader: Any) -> None:
    global _reader
    _reader = reader


def _read(source: Any) -> tuple[bytes, NDArray[np.uint8]]:
    return _reader.prepare(source)
