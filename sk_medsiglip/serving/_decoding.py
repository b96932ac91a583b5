"""Images are decoded in processes of their own, which may die without the server.

Decoders of medical images are written in C and meet files from anywhere. A process has
one image at a time: one that crashes it, or takes too long, hurts no other.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import queue
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.exceptions import ImageReadError

Prepare = Callable[[Any], NDArray[np.uint8]]


class Decoders:
    """Some processes that decode; ``decode`` may be called from any thread."""

    def __init__(self, prepare: Prepare, n_processes: int, seconds: float) -> None:
        self._seconds = seconds
        self._all = [_Decoder(prepare) for _ in range(n_processes)]
        # The last one in is the first out: it has started already.
        self._idle: queue.LifoQueue[_Decoder] = queue.LifoQueue()
        for decoder in self._all:
            self._idle.put(decoder)
        # Before multiprocessing waits for its processes, which ignore its signal.
        atexit.register(self.close)

    @property
    def n_restarts(self) -> int:
        """Number of processes that died or were stopped at work."""
        return sum(decoder.n_restarts for decoder in self._all)

    def decode(self, content: bytes) -> NDArray[np.uint8]:
        """Return the pixels of an image at the model's size; raise if it has none."""
        decoder = self._idle.get()
        try:
            return decoder.decode(content, self._seconds)
        finally:
            self._idle.put(decoder)

    def close(self) -> None:
        """End the processes."""
        atexit.unregister(self.close)
        for decoder in self._all:
            decoder.close()


class _Decoder:
    """One process, started again after it died."""

    def __init__(self, prepare: Prepare) -> None:
        self._prepare = prepare
        self.n_restarts = 0
        self._is_ready = self._is_closed = False
        self._pipe, self._process = self._start()

    def decode(self, content: bytes, seconds: float) -> NDArray[np.uint8]:
        try:
            if not self._is_ready:  # its imports are not the image's fault
                self._pipe.recv_bytes()
                self._is_ready = True
            self._pipe.send_bytes(content)
            if not self._pipe.poll(seconds):
                raise TimeoutError
            answer = self._pipe.recv()
        except (OSError, EOFError) as error:
            if self._is_closed:
                raise ImageReadError("the server is shutting down") from None
            self._stop()
            self.n_restarts += 1
            self._is_ready = False
            self._pipe, self._process = self._start()
            slow = isinstance(error, TimeoutError)
            reason = f"took over {seconds:g} s" if slow else "ended the decoder"
            raise ImageReadError(f"the image cannot be read: it {reason}") from None
        if isinstance(answer, tuple):
            raise ImageReadError(*answer)
        pixels: NDArray[np.uint8] = answer
        return pixels

    def close(self) -> None:
        """End the process for good, also while another thread waits for it."""
        self._is_closed = True
        self._stop()

    def _stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _start(self) -> tuple[Connection, BaseProcess]:
        # Not forked: threads of the server may hold locks at that moment.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_run, args=(theirs, self._prepare), daemon=True
        )
        with _signals_blocked():
            process.start()
        theirs.close()
        return ours, process


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Let a process start without SIGINT and SIGTERM, until it ignores them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # its start would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(pipe: Connection, prepare: Prepare) -> None:
    """Decode what comes through a pipe, until its other end closes."""
    # Terminals and service managers signal all processes; the server has to answer
    # what is in hand, and needs its decoders for that.
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    # Libraries quote what they find in a file, and logs must not hold that.
    warnings.simplefilter("ignore")
    logging.disable()
    try:
        pipe.send_bytes(b"ready")
        while True:
            pipe.send(_decoded(pipe.recv_bytes(), prepare))
    except (EOFError, OSError):  # the server has ended
        return


def _decoded(content: bytes, prepare: Prepare) -> NDArray[np.uint8] | tuple[str, str]:
    """Return the pixels of an image, or reason and hint of its error."""
    try:
        return prepare(content)
    except ImageReadError as error:
        return error.reason, error.hint
    except Exception as error:
        return f"decoding ended in a {type(error).__name__}", ""
