"""The layout of a segment, and its reading and writing at the lowest level.

A segment is self-describing, so the index can be rebuilt from segments alone::

    2 x header       magic, length, crc32, JSON: format, id, byte order, space
    row 0            fingerprint (32 bytes), crc32 (4), vector (4 x width, float32)
    row 1 ...

The header is stored twice, since damage to it would cost every row. The checksum of a
row continues that of the header, so a row is valid only in its segment. Rows never
change. There is one writer at a time, which holds the lock of the file, and any number
of readers. They use ``preadv`` rather than ``mmap``, so that a bad page or a truncated
file is an error, not a signal that kills the process.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._json import read_json
from sk_medsiglip.cache._space import FINGERPRINT_BYTES, Space
from sk_medsiglip.cache._system import open_file
from sk_medsiglip.exceptions import CacheFormatError

SEGMENT_FORMAT = 1
MAGIC = b"skmsiglp"
HEADER_BYTES = 2048  # per copy
ROWS_START = 2 * HEADER_BYTES
ROW_HEAD_BYTES = FINGERPRINT_BYTES + 4
_HEADER = {"format": int, "id": int, "byteorder": str, "space": str}
HEADER_START = struct.Struct("<8sII")  # magic, length and crc32 of the JSON


class DamagedSegment(Exception):
    """A segment whose header cannot be read, and therefore none of its rows."""


def row_bytes(width: int) -> int:
    """Return the size of a row on disk, in bytes."""
    return ROW_HEAD_BYTES + 4 * width


def make_header(number: int, space: Space) -> bytes:
    """Return one copy of the header of a segment."""
    text = json.dumps(
        {
            "format": SEGMENT_FORMAT,
            "id": number,
            "byteorder": sys.byteorder,
            "space": space.line,
        }
    ).encode()
    header = HEADER_START.pack(MAGIC, len(text), crc32(text)) + text
    if len(header) > HEADER_BYTES:
        raise ValueError(
            f"the description of the space takes {len(header)} bytes, more than the "
            f"{HEADER_BYTES} available in a segment; shorten its recipe."
        )
    return header.ljust(HEADER_BYTES, b"\0")


def read_header(fd: int, path: Path) -> tuple[int, Space, int]:
    """Return the number and space of a segment, and the seed of its checksums."""
    copies = bytearray(2 * HEADER_BYTES)
    read_at(fd, [memoryview(copies)], 0)
    for copy in (copies[:HEADER_BYTES], copies[HEADER_BYTES:]):
        magic, length, checksum = HEADER_START.unpack_from(copy)
        text = bytes(copy[HEADER_START.size : HEADER_START.size + length])
        if magic != MAGIC or crc32(text) != checksum:
            continue
        try:
            header = read_json(text, _HEADER)
            space = Space.from_line(header["space"])
        except ValueError as error:
            raise DamagedSegment(f"{path.name}: {error}") from error
        if (header["format"], header["byteorder"]) != (SEGMENT_FORMAT, sys.byteorder):
            raise CacheFormatError(
                f"{path.name} has format {header['format']} "
                f"({header['byteorder']}-endian); this version of sk_medsiglip reads "
                f"format {SEGMENT_FORMAT} ({sys.byteorder}-endian). Upgrade "
                "sk_medsiglip, or set SK_MEDSIGLIP_CACHE to another folder."
            )
        if f"{header['id']:08x}" != path.stem:
            break  # a renamed file, which the index could not find
        return header["id"], space, checksum
    raise DamagedSegment(path.name)


def row_checksums(
    seed: int, fingerprints: Sequence[bytes], vectors: NDArray[np.float32]
) -> NDArray[np.uint32]:
    """Return the checksum of each row, which continues ``seed``."""
    # crc32 takes 1.25 us for the 4.6 kB of a row, blake3 2.6 us. It detects every
    # flipped bit, and every burst of up to 32 bits.
    parts = split(as_bytes(vectors), 4 * vectors.shape[1])
    return np.array(
        [
            crc32(part, crc32(fingerprint, seed))
            for part, fingerprint in zip(parts, fingerprints, strict=True)
        ],
        np.uint32,
    )


def as_bytes(array: NDArray[Any]) -> memoryview:
    """Return a writable view of the memory of a contiguous array."""
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def split(data: memoryview, n_bytes: int) -> list[memoryview]:
    return [data[i : i + n_bytes] for i in range(0, len(data), n_bytes)]


def open_fd(path: Path, flags: int) -> int:
    return open_file(path, flags | getattr(os, "O_BINARY", 0))


def write_all(fd: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


if sys.platform != "win32":

    def read_at(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        return os.preadv(fd, buffers, offset)

else:  # preadv is missing, so seek and read under a lock
    _moving = threading.Lock()

    def read_at(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        with _moving:
            os.lseek(fd, offset, os.SEEK_SET)
            n_read = 0
            for buffer in buffers:
                part = os.read(fd, len(buffer))
                buffer[: len(part)] = part
                n_read += len(part)
        return n_read
