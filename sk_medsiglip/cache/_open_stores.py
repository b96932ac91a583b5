"""One store a location and process, and what happens to it when the process forks.

Sharing is not thrift. Locks on bytes of a file are lost when *any* handle of the
process on that file closes, and SQLite has the same frailty; so a process opens each
location once, whoever asks.

No SQLite connection crosses a fork, which would corrupt the file: it is closed before
and opened again, on both sides, when it is next needed.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import deque
from pathlib import Path

from sk_medsiglip.cache._store import Store

N_IDLE = 4  # stores kept open though no cache refers to them

_lock = threading.RLock()
_stores: weakref.WeakValueDictionary[Path, Store] = weakref.WeakValueDictionary()
_last_opened: deque[Store] = deque(maxlen=N_IDLE)
_forking: list[Store] = []


def open_store(location: Path) -> Store:
    """Return this process's store at a location, the same for all who ask.

    The last few stay open when nobody refers to them, since an estimator with
    ``cache=True`` makes a new cache in each call.
    """
    with _lock:
        store = _stores.get(location)
        if store is None:
            store = _stores[location] = Store(location)
            _last_opened.append(store)
        return store


def _before_fork() -> None:
    _lock.acquire()
    _forking.extend(_stores.values())
    for store in _forking:
        store.prepare_fork()


def _after_fork_in_parent() -> None:
    for store in _forking:
        store.resume_after_fork()
    _forking.clear()
    _lock.release()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    for store in _forking:
        store.start_as_child()
    _forking.clear()


@atexit.register
def _close_all() -> None:
    for store in list(_stores.values()):
        store.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
