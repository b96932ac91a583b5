"""The writer of a segment. The layout is told in ``_segment_layout``."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.cache._locks import lock_file
from sk_medsiglip.cache._segment_layout import (
    ROW_HEAD_BYTES,
    ROWS_START,
    DamagedSegment,
    as_bytes,
    make_header,
    open_fd,
    read_header,
    row_bytes,
    row_checksums,
    write_all,
)
from sk_medsiglip.cache._space import FINGERPRINT_BYTES, Space
from sk_medsiglip.exceptions import CacheError


class SegmentWriter:
    """The one writer of a segment; made by :meth:`create` or :meth:`resume`."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self.id, self.space, self._seed = read_header(fd, path)
        self._row_bytes = row_bytes(self.space.width)
        size = os.fstat(fd).st_size
        self.n_rows = max(0, size - ROWS_START) // self._row_bytes
        self.truncate(self.n_rows)  # a row that a dying writer left unfinished

    @classmethod
    def create(cls, folder: Path, space: Space) -> SegmentWriter:
        """Begin a new segment."""
        # Numbers are drawn, not counted: nobody has to know which were ever used. A
        # number that comes again by chance harms nothing, as rows are checked.
        number = secrets.randbits(31)
        path = folder / f"{number:08x}.rows"
        fd = open_fd(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            lock_file(fd)
            write_all(fd, 2 * make_header(number, space))
            return cls(path, fd)
        except BaseException:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise

    @classmethod
    def resume(cls, path: Path) -> SegmentWriter | None:
        """Go on with a segment; None if another writer has it, or it is unusable."""
        try:
            fd = open_fd(path, os.O_RDWR)
        except OSError:
            return None
        try:
            if lock_file(fd) and os.fstat(fd).st_nlink:
                return cls(path, fd)
        except (OSError, DamagedSegment, CacheError):
            pass
        os.close(fd)
        return None

    @property
    def n_bytes(self) -> int:
        """Bytes in the file."""
        return ROWS_START + self.n_rows * self._row_bytes

    @property
    def is_deleted(self) -> bool:
        """Whether somebody unlinked the file, so that nobody would find new rows."""
        return os.fstat(self._fd).st_nlink == 0

    def append(
        self, fingerprints: Sequence[bytes], vectors: NDArray[np.float32]
    ) -> None:
        """Write rows at the end, all of them or none."""
        rows = np.empty((len(vectors), self._row_bytes), np.uint8)
        rows[:, :FINGERPRINT_BYTES] = np.frombuffer(
            b"".join(fingerprints), np.uint8
        ).reshape(-1, FINGERPRINT_BYTES)
        checksums = row_checksums(self._seed, fingerprints, vectors)
        rows[:, FINGERPRINT_BYTES:ROW_HEAD_BYTES] = (
            checksums.astype("<u4", copy=False).view(np.uint8).reshape(-1, 4)
        )
        rows[:, ROW_HEAD_BYTES:] = vectors.view(np.uint8)
        try:
            os.lseek(self._fd, self.n_bytes, os.SEEK_SET)
            write_all(self._fd, as_bytes(rows))
        except BaseException:
            self.truncate(self.n_rows)
            raise
        self.n_rows += len(vectors)

    def truncate(self, n_rows: int) -> None:
        """Cut the file after its first ``n_rows`` rows."""
        self.n_rows = n_rows
        os.ftruncate(self._fd, self.n_bytes)

    def close(self) -> None:
        """Close the file, and with it give up its lock."""
        os.close(self._fd)
