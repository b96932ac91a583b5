"""The layout of a segment, and reading and writing at the lowest level.

A segment describes itself, so the index can be rebuilt from segments alone::

    2 x header       magic, length, crc32, JSON: format, id, byte order, space
    row 0            fingerprint (32 bytes), crc32 (4), vector (4 x width, float32)
    row 1 ...

The header stands there twice, since a flaw in it would cost every row. A row's checksum
continues that of the header, so a row is valid in its own segment only. Rows never
change. One writer at a time, which holds the file's lock; any number of readers, who
use ``preadv`` and not ``mmap``: a page that went bad, or a file cut short, is then an
error to handle and not a signal that kills the process.
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
HEADER_BYTES = 2048  # one of the two copies
ROWS_START = 2 * HEADER_BYTES
ROW_HEAD_BYTES = FINGERPRINT_BYTES + 4
_HEADER = {"format": int, "id": int, "byteorder": str, "space": str}
HEADER_START = struct.Struct("<8sII")  # magic, length and crc32 of the JSON


class DamagedSegment(Exception):
    """A segment whose header cannot be read, so that none of its rows can."""


def row_bytes(width: int) -> int:
    """Return what a row takes on disk."""
    return ROW_HEAD_BYTES + 4 * width


def make_header(number: int, space: Space) -> bytes:
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
            f"the space takes {len(header)} bytes to describe, more than the "
            f"{HEADER_BYTES} that a segment has for it; shorten its recipe."
        )
    return header.ljust(HEADER_BYTES, b"\0")


def read_header(fd: int, path: Path) -> tuple[int, Space, int]:
    """Return a segment's number, its space, and where its checksums start from."""
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
            break  # renamed: the index would never find it
        return header["id"], space, checksum
    raise DamagedSegment(path.name)


def row_checksums(
    seed: int, fingerprints: Sequence[bytes], vectors: NDArray[np.float32]
) -> NDArray[np.uint32]:
    # crc32 takes 1.25 us on the 4.6 kB of a row, blake3 2.6: half a read's cost either
    # way. It misses no flipped bit and no burst up to 32 bits.
    parts = split(as_bytes(vectors), 4 * vectors.shape[1])
    return np.array(
        [
            crc32(part, crc32(fingerprint, seed))
            for part, fingerprint in zip(parts, fingerprints, strict=True)
        ],
        np.uint32,
    )


def as_bytes(array: NDArray[Any]) -> memoryview:
    """Return the memory of a contiguous array, to be read from and written to."""
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

else:  # no reading at a place, so move there and let nobody else move
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
