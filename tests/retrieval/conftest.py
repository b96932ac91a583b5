"""What several tests of search share: functions that run in a child process."""

import contextlib

import forked
import pytest


@pytest.fixture
def running():
    """Return a context manager for a child process that runs a function.

    The child is forked from a process that has one thread and has imported the slow
    parts. The function gets a pipe as its last argument.
    """
    return _running


@contextlib.contextmanager
def _running(target, *args):
    context = forked.context
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(*args, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        if process.is_alive():
            process.kill()
        process.join()
