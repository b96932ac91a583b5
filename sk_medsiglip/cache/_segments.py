"""Segments, opened for reading or writing; see ``_segment_layout`` for the layout."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.cache._segment_layout import (
    ROW_HEAD_BYTES,
    ROWS_START,
    DamagedSegment,
    as_bytes,
    make_header,
    open_fd,
    read_at,
    read_header,
    row_bytes,
    row_checksums,
    split,
    write_all,
)
from sk_medsiglip.cache._space import FINGERPRINT_BYTES, Space
from sk_medsiglip.cache._system import lock_file
from sk_medsiglip.exceptions import CacheError

ROWS_PER_CALL = 256  # two buffers per row; the system accepts 1024 at a time
ROWS_PER_CHUNK = 2048  # when a whole segment is read
CHUNK_BYTES = 16 * 2**20  # limits the number of large rows


class Segment:
    """A segment, opened for reading."""

    def __init__(self, path: Path) -> None:
        self._fd = open_fd(path, os.O_RDONLY)  # closed in __del__, by the last reader
        self.path = path
        self.id, self.space, self._seed = read_header(self._fd, path)
        self._vector_bytes = 4 * self.space.width
        self._row_bytes = row_bytes(self.space.width)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)

    @property
    def n_rows(self) -> int:
        """Number of complete rows in the file."""
        size = os.fstat(self._fd).st_size
        return max(0, size - ROWS_START) // self._row_bytes

    @property
    def is_deleted(self) -> bool:
        """Whether the file has been deleted since it was opened."""
        return os.fstat(self._fd).st_nlink == 0

    def read(
        self,
        rows: NDArray[np.int64],
        fingerprints: Sequence[bytes],
        out: NDArray[np.float32],
        targets: Sequence[int],
        failures: dict[int, OSError],
    ) -> NDArray[np.bool_]:
        """Read rows into ``out[targets]``; return a mask of intact rows."""
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
                    # The next rows may be on an intact part of the disk.
                    failures[targets[start]] = error
                    start += 1
                    continue
                # Checked immediately, while the vectors are in the cache of the CPU.
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
        """Return the fingerprint stored in a row; empty beyond the end."""
        head = bytearray(FINGERPRINT_BYTES)
        start = ROWS_START + row * self._row_bytes
        n_read = read_at(self._fd, [memoryview(head)], start)
        return bytes(head) if n_read == len(head) else b""

    def scan(
        self, start: int = 0
    ) -> Iterator[tuple[int, list[bytes], NDArray[np.float32], NDArray[np.bool_]]]:
        """Read and check all rows from ``start``, chunk by chunk."""
        record = np.dtype(
            [
                ("fingerprint", f"V{FINGERPRINT_BYTES}"),
                ("checksum", "<u4"),
                ("vector", "<f4", (self.space.width,)),
            ]
        )
        n_at_once = min(ROWS_PER_CHUNK, max(1, CHUNK_BYTES // self._row_bytes))
        for first in range(start, self.n_rows, n_at_once):
            chunk = np.zeros(min(n_at_once, self.n_rows - first), record)
            self._read_chunk(chunk, first)
            vectors = np.ascontiguousarray(chunk["vector"])
            fingerprints = [bytes(f) for f in chunk["fingerprint"].tolist()]
            checksums = row_checksums(self._seed, fingerprints, vectors)
            yield first, fingerprints, vectors, chunk["checksum"] == checksums

    def _read_chunk(self, chunk: NDArray[np.void], first: int) -> None:
        """Fill the readable rows of a chunk."""
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


class SegmentWriter:
    """The only writer of a segment, from :meth:`create` or :meth:`resume`."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self.id, self.space, self._seed = read_header(fd, path)
        self._row_bytes = row_bytes(self.space.width)
        size = os.fstat(fd).st_size
        self.n_rows = max(0, size - ROWS_START) // self._row_bytes
        self.truncate(self.n_rows)  # remove an unfinished row of a killed writer

    @classmethod
    def create(cls, folder: Path, space: Space) -> SegmentWriter:
        """Create a new segment."""
        # Numbers are random, so that used ones need not be known. Using a number again
        # by chance is harmless, since rows are checked.
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
        """Resume a segment; None if another writer holds it, or it is unusable."""
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
        """Size of the file in bytes."""
        return ROWS_START + self.n_rows * self._row_bytes

    @property
    def is_deleted(self) -> bool:
        """Whether the file has been deleted, so that new rows would be lost."""
        return os.fstat(self._fd).st_nlink == 0

    def append(
        self, fingerprints: Sequence[bytes], vectors: NDArray[np.float32]
    ) -> None:
        """Append all rows, or none."""
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
        """Truncate the file to its first ``n_rows`` rows."""
        self.n_rows = n_rows
        os.ftruncate(self._fd, self.n_bytes)

    def close(self) -> None:
        """Close the file, which releases its lock."""
        os.close(self._fd)


def list_segments(folder: Path) -> list[Path]:
    """Return the segments in a folder, which may be missing."""
    return sorted(folder.glob("*.rows"))


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield the start and end of runs of consecutive ``rows``."""
    breaks = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
    for start, stop in zip([0, *breaks], [*breaks, len(rows)], strict=True):
        for first in range(start, stop, ROWS_PER_CALL):
            yield first, min(first + ROWS_PER_CALL, stop)
