"""The store of embeddings against numpy, and beside other ways to keep rows.

Run ``python -m benchmarks.cache`` (peers are left out where they are not installed; see
``benchmarks/README.md``). In one run, 10,000 and 100,000 rows of 1152 float32, read in
shuffled order from a warm page cache:

- a contiguous numpy gather of the same rows is the unit of reading;
- bare LMDB with the same durability (``sync=False``: what is written survives the death
  of the process, not a power cut) is the unit of writing in batches of 32;
- the raw vectors are the unit of size;
- ``MedSigLIPEmbedder.transform`` of paths whose rows are stored is measured too, with
  the whole of what a user waits for.

And 1,000,000 rows imported from Parquet, against a plain sequential write of the same
bytes that is read back.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from benchmarks._measure import best_of, in_turns, setting, write_results
from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.cache import EmbeddingCache, Space, file_stamps
from sk_medsiglip.embedding import ModelFacts, image_space

WIDTH, BATCH = 1152, 32
SPACE = Space("image", "folder", "0" * 40, "pixels", "float32", "torch", WIDTH)

Rows = NDArray[np.float32]


def make_rows(n: int) -> tuple[Rows, list[bytes]]:
    """Return vectors and fingerprints."""
    rows = np.random.default_rng(0).standard_normal((n, WIDTH), dtype=np.float32)
    return rows, [blake3(i.to_bytes(8, "little")).digest() for i in range(n)]


def bytes_on_disk(folder: Path) -> int:
    """Return what the files of a folder take."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    return sum(4096 * -(-p.stat().st_size // 4096) for p in files)


# -------------------------------------------------------------------- ways to keep rows
# Each: write(keys, rows) of one batch; read(keys, out) of shuffled rows; close().


class Ours:
    """The store of this package."""

    def __init__(self, folder: Path) -> None:
        self.cache = EmbeddingCache(folder)

    def write(self, keys: Sequence[bytes], rows: Rows) -> None:
        self.cache.put_many(SPACE, keys, rows)

    def read(self, keys: Sequence[bytes], out: Rows) -> None:
        assert self.cache.get_many(SPACE, keys, out).all()

    def close(self) -> None:
        self.cache.close()


class LMDB:
    """Bare LMDB; no checksum."""

    def __init__(self, folder: Path) -> None:
        import lmdb

        size = 16 * 2**30
        self.env = lmdb.open(str(folder), map_size=size, sync=False, metasync=False)

    def write(self, keys: Sequence[bytes], rows: Rows) -> None:
        with self.env.begin(write=True) as transaction:
            for key, row in zip(keys, rows, strict=True):
                transaction.put(key, row.data)

    def read(self, keys: Sequence[bytes], out: Rows) -> None:
        with self.env.begin(buffers=True) as transaction:
            for i, key in enumerate(keys):
                out[i] = np.frombuffer(transaction.get(key), np.float32)

    def close(self) -> None:
        self.env.close()


class SQLiteRows:
    """One SQLite table of blobs; no checksum."""

    def __init__(self, folder: Path) -> None:
        self.db = sqlite3.connect(folder / "rows.sqlite3", isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = NORMAL")
        self.db.execute("CREATE TABLE rows (key BLOB PRIMARY KEY, row BLOB)")

    def write(self, keys: Sequence[bytes], rows: Rows) -> None:
        self.db.execute("BEGIN")
        pairs = zip(keys, (row.tobytes() for row in rows), strict=True)
        self.db.executemany("INSERT INTO rows VALUES (?, ?)", pairs)
        self.db.execute("COMMIT")

    def read(self, keys: Sequence[bytes], out: Rows) -> None:
        for i, key in enumerate(keys):
            found = self.db.execute("SELECT row FROM rows WHERE key = ?", (key,))
            out[i] = np.frombuffer(found.fetchone()[0], np.float32)

    def close(self) -> None:
        self.db.close()


class DiskCache:
    """diskcache, as its documentation uses it."""

    def __init__(self, folder: Path) -> None:
        import diskcache

        self.cache = diskcache.Cache(str(folder), size_limit=2**36)

    def write(self, keys: Sequence[bytes], rows: Rows) -> None:
        with self.cache.transact():
            for key, row in zip(keys, rows, strict=True):
                self.cache[key] = row.tobytes()

    def read(self, keys: Sequence[bytes], out: Rows) -> None:
        for i, key in enumerate(keys):
            out[i] = np.frombuffer(self.cache[key], np.float32)

    def close(self) -> None:
        self.cache.close()


class NpyFiles:
    """One .npy file a row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, keys: Sequence[bytes], rows: Rows) -> None:
        for key, row in zip(keys, rows, strict=True):
            np.save(self.folder / f"{key.hex()}.npy", row)

    def read(self, keys: Sequence[bytes], out: Rows) -> None:
        for i, key in enumerate(keys):
            out[i] = np.load(self.folder / f"{key.hex()}.npy")

    def close(self) -> None:
        pass


class JoblibMemory:
    """joblib.Memory around a function of one key."""

    def __init__(self, folder: Path) -> None:
        from joblib import Memory

        self.rows: dict[bytes, Rows] = {}
        self.cached = Memory(folder, verbose=0).cache(self._compute, ignore=["self"])

    def _compute(self, key: bytes) -> Rows:
        return self.rows[key]

    def write(self, keys: Sequence[bytes], rows: Rows) -> None:
        self.rows = dict(zip(keys, rows, strict=True))
        for key in keys:
            self.cached(key)

    def read(self, keys: Sequence[bytes], out: Rows) -> None:
        for i, key in enumerate(keys):
            out[i] = self.cached(key)

    def close(self) -> None:
        pass


PEERS = {
    "LMDB": (LMDB, "lmdb"),
    "SQLite rows": (SQLiteRows, "sqlite3"),
    "diskcache": (DiskCache, "diskcache"),
    ".npy files": (NpyFiles, "numpy"),
    "joblib.Memory": (JoblibMemory, "joblib"),
}


def measure_rows(scratch: Path, n: int, n_repeats: int, most: int) -> dict[str, Any]:
    """Return the figures of every way for one number of rows."""
    rows, keys = make_rows(n)
    order = np.random.default_rng(1).permutation(n)
    shuffled = [keys[i] for i in order]
    out = np.empty_like(rows)
    ways: dict[str, Any] = {"ours": Ours}
    for name, (way, module) in PEERS.items():
        slow = way in (JoblibMemory, NpyFiles, DiskCache)
        if importlib.util.find_spec(module) and not (slow and n > most):
            ways[name] = way

    figures: dict[str, Any] = {}
    best_write = dict.fromkeys(ways, float("inf"))
    opened: dict[str, Any] = {}
    for repeat in range(min(n_repeats, 3)):
        for name, way in ways.items():
            folder = scratch / f"{name}-{n}"
            if repeat:
                opened[name].close()
                shutil.rmtree(folder)
            folder.mkdir()
            opened[name] = kept = way(folder)
            start = time.perf_counter()
            for i in range(0, n, BATCH):
                kept.write(keys[i : i + BATCH], rows[i : i + BATCH])
            best_write[name] = min(best_write[name], time.perf_counter() - start)

    sides: dict[str, Callable[[], object]] = {
        "gather": lambda: np.take(rows, order, axis=0, out=out)
    }
    for name, kept in opened.items():
        sides[name] = lambda kept=kept: kept.read(shuffled, out)
    best_read = in_turns(n_repeats, sides)
    for name, kept in opened.items():
        kept.read(shuffled, out)
        assert np.array_equal(out, rows[order]), name
        kept.close()  # what is on disk is counted at rest
        figures[name] = {
            "read, us a row": 1e6 * best_read[name] / n,
            "read / gather": best_read[name] / best_read["gather"],
            "write, us a row": 1e6 * best_write[name] / n,
            "disk / raw": bytes_on_disk(scratch / f"{name}-{n}") / rows.nbytes,
        }
    if "LMDB" in figures:
        figures["ours"]["write / LMDB"] = best_write["ours"] / best_write["LMDB"]
    for name in opened:
        if name != "ours":
            shutil.rmtree(scratch / f"{name}-{n}")
    figures["gather, us a row"] = 1e6 * best_read["gather"] / n
    figures["transform of cached paths"] = measure_paths(
        scratch, opened["ours"].cache, rows, keys, n_repeats
    )
    shutil.rmtree(scratch / f"ours-{n}")
    return figures


def measure_paths(
    scratch: Path, cache: EmbeddingCache, rows: Rows, keys: list[bytes], n_repeats: int
) -> dict[str, float]:
    """Return what ``transform`` of paths costs whose rows are stored.

    The model is on record in the store, as after an embedding elsewhere: no weights.
    """
    folder = scratch / "images"
    folder.mkdir()
    paths = []
    for i in range(len(rows)):
        paths.append(str(folder / f"{i}.png"))
        Path(paths[-1]).touch()
    time.sleep(0.2)  # until the files are at rest
    facts = ModelFacts("0" * 40, WIDTH, 448, 14, 64, 100.0, -16.0)
    model = str(scratch / "no such folder")
    cache.remember_model(model, None, vars(facts))
    embedder = MedSigLIPEmbedder(model, cache=cache)
    # What the embedder itself would have noted when it read these files.
    work = embedder._image_work()
    label = image_space(model, facts, "float32", "torch")
    known = {fingerprint: row for fingerprint, row in zip(keys, rows, strict=True)}
    for start in range(0, len(rows), 4096):
        cache.put_many(label, keys[start : start + 4096], rows[start : start + 4096])
        cache.remember_files(
            file_stamps(paths[start : start + 4096]),
            work.recipe,
            keys[start : start + 4096],
        )
    order = np.random.default_rng(2).permutation(len(rows))
    shuffled = [paths[i] for i in order]
    out = np.empty_like(rows)
    found = embedder.transform(shuffled)
    assert np.array_equal(found, np.array([known[keys[i]] for i in order]))
    best = in_turns(
        n_repeats,
        {
            "gather": lambda: np.take(rows, order, axis=0, out=out),
            "transform": lambda: embedder.transform(shuffled),
            "stat": lambda: [os.stat(path) for path in shuffled],
        },
    )
    shutil.rmtree(folder)
    per_row = 1e6 / len(rows)
    return {
        "us a row": best["transform"] * per_row,
        "transform / gather": best["transform"] / best["gather"],
        "of it os.stat, us a row": best["stat"] * per_row,
    }


def measure_bulk(scratch: Path, n: int) -> dict[str, float]:
    """Return what importing ``n`` rows costs, over writing and reading the bytes."""
    part_rows, _ = make_rows(min(n, 50_000))
    part = len(part_rows)
    source = EmbeddingCache(scratch / "source")
    for start in range(0, n, part):
        keys = [
            blake3(i.to_bytes(8, "little")).digest() for i in range(start, start + part)
        ]
        source.put_many(SPACE, keys, part_rows)
    file = scratch / "rows.parquet"
    start_time = time.perf_counter()
    source.export_parquet(file)
    exported = time.perf_counter() - start_time
    source.close()
    shutil.rmtree(scratch / "source")

    def write_and_read() -> None:
        plain = scratch / "plain"
        with open(plain, "wb") as out:
            for _ in range(0, n, part):
                out.write(part_rows.data)
        buffer = bytearray(part_rows.nbytes)
        with open(plain, "rb", buffering=0) as file_in:
            while file_in.readinto(buffer):
                pass

    plain_seconds = best_of(2, write_and_read)
    (scratch / "plain").unlink()
    target = EmbeddingCache(scratch / "target")
    start_time = time.perf_counter()
    report = target.import_parquet(file)
    imported = time.perf_counter() - start_time
    assert report.new == n
    size = target.stats()["bytes"]
    target.close()
    shutil.rmtree(scratch / "target")
    file.unlink()
    return {
        "rows": n,
        "import, s": imported,
        "plain write and read back, s": plain_seconds,
        "import / plain": imported / plain_seconds,
        "export, s": exported,
        "disk / raw": size / (4 * WIDTH * n),
    }


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--bulk", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--scratch", help="folder on the disk to measure")
    parser.add_argument("--dry", action="store_true", help="write no results")
    args = parser.parse_args()
    results = setting("numpy", "blake3", "pyarrow", width=WIDTH, batch=BATCH)
    scratch = Path(tempfile.mkdtemp(dir=args.scratch))
    try:
        for n in args.rows:
            results[f"{n:,} rows"] = measure_rows(scratch, n, args.repeats, most=10_000)
            for name, figures in results[f"{n:,} rows"].items():
                print(f"{n:>9,} {name}: {figures}", flush=True)
        if args.bulk:
            results["import in bulk"] = measure_bulk(scratch, args.bulk)
            print(results["import in bulk"], flush=True)
    finally:
        shutil.rmtree(scratch)
    if not args.dry:
        write_results("cache", results)


if __name__ == "__main__":
    main()
