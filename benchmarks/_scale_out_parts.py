"""What one image costs a cluster's CPUs and disks, part by part, at MedSigLIP's size.

All by the functions that a job runs, in core seconds of one thread, files in a warm
page cache. Bandwidth of a disk or an object store is not measured: it belongs to the
place, and ``benchmarks._paper`` assumes one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from benchmarks.reading import draw_radiograph, write_dicom
from sk_medsiglip.cache import Space
from sk_medsiglip.distributed._reading import Reader, Settings
from sk_medsiglip.distributed._shards import (
    KEY_BYTES,
    ShardEntry,
    make_key,
    make_shard,
    put_shard,
)
from sk_medsiglip.distributed._source import Collection, TablePiece
from sk_medsiglip.distributed._storage import Storage
from sk_medsiglip.distributed._tidying import _merge, _Part
from sk_medsiglip.embedding import MedSigLIPEmbedder, ModelFacts
from sk_medsiglip.images import read_image, read_resized

__all__ = ["measure_parts"]

#: Of MedSigLIP.
WIDTH, SIZE, PATCH = 1152, 448, 14

#: Rows of a block for a GPU, and blocks that become one shard.
_BLOCK, _BLOCKS = 64, 64

_COPIES = 8


def measure_parts(scratch: Path, n_repeats: int = 5) -> dict[str, Any]:
    """Return core milliseconds and bytes an image, of reading and of writing."""
    with threadpool_limits(1):
        reading = {
            name: _measure_reading(path, scratch, n_repeats)
            for name, path in _write_radiographs(scratch).items()
        }
        writing = _measure_writing(scratch, n_repeats)
    return {"reading": reading, "writing": writing}


def _write_radiographs(scratch: Path) -> dict[str, Path]:
    """Write one picture in the ways that archives keep it."""
    from pydicom import dcmread
    from pydicom.uid import JPEG2000Lossless

    values = draw_radiograph()
    plain = scratch / "plain.dcm"
    write_dicom(plain, values, (2048, 4096))
    packed = scratch / "jpeg2000.dcm"
    dataset = dcmread(plain)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    dataset.save_as(packed)
    png = scratch / "grey.png"
    Image.fromarray((values[:2000, :2000] >> 4).astype(np.uint8)).save(png)
    jpeg = scratch / "grey.jpg"
    Image.open(png).save(jpeg, quality=90)
    return {
        "PNG, 2000 x 2000, 8 bits": png,
        "JPEG, 2000 x 2000, 8 bits": jpeg,
        "DICOM, 2500 x 2048, 12 bits": plain,
        "DICOM, JPEG 2000 lossless": packed,
    }


def _measure_reading(path: Path, scratch: Path, n_repeats: int) -> dict[str, float]:
    import pyarrow as pa

    copies = []
    for i in range(_COPIES):
        copies.append(scratch / f"{path.stem}-{i}{path.suffix}")
        copies[-1].write_bytes(path.read_bytes())
    table = pa.table({"path": [str(copy) for copy in copies]})
    facts = ModelFacts("none", WIDTH, SIZE, PATCH, 64)
    embedder = MedSigLIPEmbedder("demo", cache=False, device="cpu")
    settings = Settings(embedder, facts, Storage(str(scratch)), {})
    reader = Reader(settings, Collection([], "path", (), "/"), _BLOCK)
    nothing = np.empty(0, f"S{KEY_BYTES}")

    def block() -> None:
        list(reader.blocks(TablePiece(table), nothing))

    rgb = read_image(path)
    milliseconds = {
        "decoding the whole, ms": _core_ms(n_repeats, lambda: read_image(path)),
        "resizing the whole, ms": _core_ms(n_repeats, lambda: read_resized(rgb, SIZE)),
        "file to pixels of the model, ms": _core_ms(
            n_repeats, lambda: read_resized(path, SIZE)
        ),
        "a reading task, ms": _core_ms(n_repeats, block) / _COPIES,
    }
    return {"file, MB": path.stat().st_size / 1e6} | milliseconds


def _measure_writing(scratch: Path, n_repeats: int) -> dict[str, float]:
    """Write blocks as an encoder does, and merge them as the end of a job does."""
    import pyarrow as pa

    rng = np.random.default_rng(0)
    space = Space("image", "demo", "none", "none", "bfloat16", "torch", WIDTH)
    storage = Storage(str(scratch / "written"))
    blocks = []
    for number in range(_BLOCKS):
        names = [f"/archive/{number:03}/{i:08}.dcm" for i in range(_BLOCK)]
        rows = pa.table(
            {
                "key": pa.array([make_key(name, b"") for name in names], pa.binary(16)),
                "source": names,
                "size": [10_240_000] * _BLOCK,
                "mtime": [1_700_000_000_000_000_000 + i for i in range(_BLOCK)],
                "fingerprint": pa.array([rng.bytes(32) for _ in names], pa.binary(32)),
                "patient": [f"P{number:03}{i // 4:04}" for i in range(_BLOCK)],
            }
        )
        blocks.append((rows, rng.normal(size=(_BLOCK, WIDTH)).astype(np.float32)))
    entries: list[ShardEntry] = []

    def write() -> None:
        entries.clear()
        for rows, vectors in blocks:
            shard = make_shard(space, rows, vectors, models=[], recipe={})
            entries.append(put_shard(storage, shard))

    def merge() -> Any:
        return _merge(storage, [_Part(e, np.ones(_BLOCK, bool)) for e in entries])

    n = _BLOCK * _BLOCKS
    writing = _core_ms(n_repeats, write) / n
    merging = _core_ms(n_repeats, merge) / n
    whole = merge()
    return {
        "writing a row, ms": writing,
        "merging a row, ms": merging,
        "bytes a row, in blocks": sum(e.n_bytes for e in entries) / n,
        "bytes a row, merged": whole.n_bytes / n,
        "bytes a row, the vector alone": WIDTH * 4.0,
    }


def _core_ms(n_repeats: int, work: Callable[[], object]) -> float:
    """Return the milliseconds of a core that the best repeat took, all threads'."""
    work()
    best = float("inf")
    for _ in range(n_repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best * 1e3
