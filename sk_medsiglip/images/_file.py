"""Files whose sizes are believed, and not what their headers say."""

from __future__ import annotations

import io
import os

__all__ = ["BoundedFile"]


class BoundedFile(io.BufferedReader):
    """A file opened for reading that never asks for memory beyond its end.

    ``read(n)`` of an ordinary file sets ``n`` bytes aside before it reads, and a wrong
    header may ask for four gigabytes of a file that has a few hundred bytes.
    """

    def __init__(self, path: str) -> None:
        super().__init__(io.FileIO(path, "rb"))
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to ``size`` bytes; all that is left for None or a negative one."""
        if size is not None and size > 0:
            size = min(size, max(0, self._size - self.tell()))
        return super().read(size)
