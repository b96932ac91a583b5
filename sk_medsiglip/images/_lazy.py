"""One image inside something bigger: a slice of a volume, a region of a slide."""

from __future__ import annotations

from abc import ABC, abstractmethod

from sk_medsiglip.images._picture import Picture

__all__ = ["LazyImage"]


class LazyImage(ABC):
    """Abstract: an image that is a few bytes until its turn to be read comes.

    It may stand wherever a path may. Rows are read by several threads, so ``load`` of
    two images of one volume may run at the same moment.
    """

    @abstractmethod
    def load(self, *, frame: int | str | None, max_pixels: int) -> Picture:
        """Decode it; raise ``ImageReadError`` without a source, which is added."""

    @abstractmethod
    def describe(self) -> str:
        """Return how messages name it; no tag of a patient."""

    def whole(self) -> object | None:
        """Return the path, URL, bytes or array that it is a part of, if just one."""
        return None

    def part(self) -> str:
        """Return a text that says which part; equal for equal parts."""
        return ""
