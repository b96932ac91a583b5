"""Big things that are read once and kept in memory while they are in use."""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

__all__ = ["Held"]

T = TypeVar("T")

#: Readers work in the order of the collection, so two are in use at the border of two
#: studies, and no more.
_N_HELD = 2

_in_use = threading.Lock()
_recent: list[weakref.ref[Held]] = []


class Held(ABC, Generic[T]):
    """Abstract: something that is loaded when it is asked for, by one thread only.

    Of all of them in the process the last two that were used stay loaded, whatever
    the number of studies; one that nobody refers to any more goes at once.
    """

    def __init__(self) -> None:
        self._loading = threading.Lock()
        self._content: T | None = None

    def content(self) -> T:
        """Return what ``_load`` returned, now or earlier."""
        with self._loading:
            content = self._load() if self._content is None else self._content
            self._content = content
        self._note_use()
        return content

    @abstractmethod
    def _load(self) -> T: ...

    def _note_use(self) -> None:
        with _in_use:
            others = [ref for ref in _recent if ref() is not None and ref() is not self]
            _recent[:] = [*others, weakref.ref(self)]
            while len(_recent) > _N_HELD:
                oldest = _recent.pop(0)()
                if oldest is not None:
                    oldest._content = None
