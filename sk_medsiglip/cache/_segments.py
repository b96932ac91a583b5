"""Segments, opened for reading. Their layout is told in ``_segment_layout``."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.cache._segment_layout import (
    ROW_HEAD_BYTES,
    ROWS_START,
    as_bytes,
    open_fd,
    read_at,
    read_header,
    row_bytes,
    row_checksums,
    split,
)
from sk_medsiglip.cache._space import FINGERPRINT_BYTES

ROWS_PER_CALL = 256  # two buffers a row; the system takes 1024 at a time
ROWS_PER_CHUNK = 2048  # when a whole segment is read


class Segment:
    """A segment, opened for reading."""

    def __init__(self, path: Path) -> None:
        self._fd = open_fd(path, os.O_RDONLY)  # closed when the last reader lets go
        self.path = path
        self.id, self.space, self._seed = read_header(self._fd, path)
        self._vector_bytes = 4 * self.space.width
        self._row_bytes = row_bytes(self.space.width)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)

    @property
    def n_rows(self) -> int:
        """Number of whole rows in the file now."""
        size = os.fstat(self._fd).st_size
        return max(0, size - ROWS_START) // self._row_bytes

    @property
    def is_deleted(self) -> bool:
        """Whether the file was unlinked since it was opened."""
        return os.fstat(self._fd).st_nlink == 0

    def read(
        self,
        rows: NDArray[np.int64],
        fingerprints: Sequence[bytes],
        out: NDArray[np.float32],
        targets: Sequence[int],
        failures: dict[int, OSError],
    ) -> NDArray[np.bool_]:
        """Read rows into ``out[targets]``; say which of them are as expected."""
        n_bytes = self._vector_bytes
        flat = as_bytes(out)
        heads = np.zeros((len(rows), ROW_HEAD_BYTES), np.uint8)
        buffers: list[memoryview] = [flat] * (2 * len(rows))
        buffers[::2] = split(as_bytes(heads), ROW_HEAD_BYTES)
        buffers[1::2] = [flat[i * n_bytes : (i + 1) * n_bytes] for i in targets]
        checksums = np.zeros(len(rows), np.uint32)
        read = np.zeros(len(rows), dtype=bool)
        for start, end in _runs(rows):
            while start < end:
                place = ROWS_START + int(rows[start]) * self._row_bytes
                try:
                    n_read = read_at(self._fd, buffers[2 * start : 2 * end], place)
                except OverflowError:
                    break
                except OSError as error:
                    # Those behind it may be on a sound part of the disk.
                    failures[targets[start]] = error
                    start += 1
                    continue
                # Checked at once, while the vectors are in the processor's cache.
                stop = start + n_read // self._row_bytes
                if stop == start:
                    if place + self._row_bytes > os.fstat(self._fd).st_size:
                        break
                    failures[targets[start]] = OSError(
                        errno.EIO, os.strerror(errno.EIO)
                    )
                    start += 1
                    continue
                read[start:stop] = True
                for i in range(start, stop):
                    checksums[i] = crc32(
                        buffers[2 * i + 1], crc32(fingerprints[i], self._seed)
                    )
                start = stop
        expected = np.frombuffer(b"".join(fingerprints), np.uint8)
        same = heads[:, :FINGERPRINT_BYTES] == expected.reshape(-1, FINGERPRINT_BYTES)
        found = heads[:, FINGERPRINT_BYTES:].copy().view("<u4")[:, 0]
        return read & same.all(axis=1) & (found == checksums)

    def fingerprint(self, row: int) -> bytes:
        """Return what a row says that it is; empty beyond the end."""
        head = bytearray(FINGERPRINT_BYTES)
        start = ROWS_START + row * self._row_bytes
        n_read = read_at(self._fd, [memoryview(head)], start)
        return bytes(head) if n_read == len(head) else b""

    def scan(
        self, start: int = 0
    ) -> Iterator[tuple[int, list[bytes], NDArray[np.float32], NDArray[np.bool_]]]:
        """Read and check all rows from ``start`` on, a chunk at a time."""
        record = np.dtype(
            [
                ("fingerprint", f"V{FINGERPRINT_BYTES}"),
                ("checksum", "<u4"),
                ("vector", "<f4", (self.space.width,)),
            ]
        )
        for first in range(start, self.n_rows, ROWS_PER_CHUNK):
            chunk = np.zeros(min(ROWS_PER_CHUNK, self.n_rows - first), record)
            self._read_chunk(chunk, first)
            vectors = np.ascontiguousarray(chunk["vector"])
            fingerprints = [bytes(f) for f in chunk["fingerprint"].tolist()]
            checksums = row_checksums(self._seed, fingerprints, vectors)
            yield first, fingerprints, vectors, chunk["checksum"] == checksums

    def _read_chunk(self, chunk: NDArray[np.void], first: int) -> None:
        """Fill what can be read of a chunk."""
        failures, row = [], 0
        while row < len(chunk):
            place = ROWS_START + (first + row) * self._row_bytes
            try:
                n_read = read_at(self._fd, [as_bytes(chunk[row:])], place)
            except OSError as error:
                failures.append(error)
                n_read = self._row_bytes
            if n_read < self._row_bytes:  # the end of the file
                return
            row += n_read // self._row_bytes
        if len(failures) == len(chunk):
            raise failures[0]


def list_segments(folder: Path) -> list[Path]:
    """Return the segments that lie in a folder, which may be missing."""
    return sorted(folder.glob("*.rows"))


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield stretches of ``rows`` that follow each other in the file."""
    breaks = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
    for start, stop in zip([0, *breaks], [*breaks, len(rows)], strict=True):
        for first in range(start, stop, ROWS_PER_CALL):
            yield first, min(first + ROWS_PER_CALL, stop)
