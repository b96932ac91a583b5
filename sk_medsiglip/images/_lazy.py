"""An image inside something bigger, such as a slice of a volume, read when needed."""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sk_medsiglip.images._decoded_image import DecodedImage


class LazyImage(ABC):
    """Abstract image that takes a few bytes until it is read; thread-safe."""

    @abstractmethod
    def load(self, *, frame: int | str | None, max_pixels: int) -> DecodedImage:
        """Decode the image; the caller adds the source to an ``ImageReadError``."""

    @abstractmethod
    def describe(self) -> str:
        """Return a name for messages, without any tag of a patient."""

    def whole(self) -> object | None:
        """Return the path, URL, bytes or array that contains it, if it is only one."""
        return None

    def part(self) -> str:
        """Return a text that identifies the part; equal parts have equal texts."""
        return ""


@dataclass(frozen=True, eq=False)
class Part(LazyImage):
    """A slice of a volume or a frame of a file."""

    name: str
    read: Callable[[int], DecodedImage]  # is given max_pixels

    def load(self, *, frame: int | str | None, max_pixels: int) -> DecodedImage:
        """Decode the image; ``frame`` is ignored for a part."""
        return self.read(max_pixels)

    def describe(self) -> str:
        """Return a name for messages."""
        return self.name


T = TypeVar("T")

#: Readers work in the order of the collection, so at most two studies are in use.
_N_HELD = 2

_in_use = threading.Lock()
_recent: list[weakref.ref[Held]] = []


class Held(ABC, Generic[T]):
    """Abstract large content that one thread loads when it is needed.

    Only the two used most recently in the whole process stay loaded.
    """

    def __init__(self) -> None:
        self._loading = threading.Lock()
        self._content: T | None = None

    def content(self) -> T:
        """Return the content; load it if it is not in memory."""
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
