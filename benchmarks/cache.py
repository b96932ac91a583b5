"""The store of embeddings against numpy: reading, writing, bytes on disk.

Run ``python benchmarks/cache.py``. Ratios are taken within one run, best of several
repeats, and written to ``benchmarks/results/cache.json``.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from blake3 import blake3

from sk_medsiglip.cache import EmbeddingCache, Space, file_stamps

N_ROWS, WIDTH, BATCH = 10_000, 1152, 32
RESULTS = Path(__file__).parent / "results" / "cache.json"
SPACE = Space(
    "image", "google/medsiglip-448", "0" * 40, "medsiglip", "float32", "torch", WIDTH
)


def best_of(n_repeats: int, work: Callable[[], object]) -> float:
    """Return the seconds of the fastest repeat."""
    seconds = []
    for _ in range(n_repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(folder: Path) -> dict[str, float]:
    """Return microseconds a row, and ratios to the numpy way of the same."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((N_ROWS, WIDTH), dtype=np.float32)
    prints = [blake3(i.to_bytes(8, "little")).digest() for i in range(N_ROWS)]
    order = rng.permutation(N_ROWS)
    shuffled = [prints[i] for i in order]
    out = np.empty_like(rows)
    location = folder / "store"

    cache = EmbeddingCache(location)
    start = time.perf_counter()
    for i in range(0, N_ROWS, BATCH):
        cache.put_many(SPACE, prints[i : i + BATCH], rows[i : i + BATCH])
    write = time.perf_counter() - start
    cache.close()

    def write_plainly() -> None:
        with open(folder / "plain", "wb") as file:
            for i in range(0, N_ROWS, BATCH):
                file.write(rows[i : i + BATCH].data)
                file.flush()

    def read_first() -> None:
        cache.close()  # what a new process has to do
        cache.get_many(SPACE, shuffled, out)

    gather = best_of(20, lambda: np.take(rows, order, axis=0, out=out))
    first = best_of(5, read_first)
    warm = best_of(20, lambda: cache.get_many(SPACE, shuffled, out))
    assert np.array_equal(out, rows[order])

    tenth = rng.permutation(N_ROWS)[: N_ROWS // 10]
    some, few = [prints[i] for i in tenth], out[: N_ROWS // 10]
    sparse = best_of(20, lambda: cache.get_many(SPACE, some, few)) * 10

    paths = []
    for i in range(N_ROWS):
        paths.append(str(folder / f"{i}.png"))
        Path(paths[-1]).touch()
    time.sleep(0.1)  # until the files are at rest
    stamps = file_stamps(paths)
    cache.remember_files(stamps, "as is", prints)
    files = best_of(5, lambda: cache.recall_files(file_stamps(paths), "as is"))
    assert cache.recall_files(stamps, "as is") == prints

    plain = best_of(3, write_plainly)
    n_bytes = cache.stats()["bytes"]
    cache.close()
    per_row = 1e6 / N_ROWS
    return {
        "gather_us": gather * per_row,
        "read_warm_us": warm * per_row,
        "read_first_us": first * per_row,
        "read_sparse_us": sparse * per_row,
        "recall_files_us": files * per_row,
        "write_us": write * per_row,
        "write_plain_file_us": plain * per_row,
        "read_warm_to_gather": warm / gather,
        "read_first_to_gather": first / gather,
        "read_sparse_to_gather": sparse / gather,
        "recall_files_to_gather": files / gather,
        "write_to_plain_file": write / plain,
        "disk_to_raw": n_bytes / rows.nbytes,
    }


def main() -> None:
    """Measure, print and write down."""
    with tempfile.TemporaryDirectory() as folder:
        figures = {name: round(x, 3) for name, x in measure(Path(folder)).items()}
    for name, figure in figures.items():
        print(f"{name:>24} {figure:8.2f}")
    setting = {"rows": N_ROWS, "width": WIDTH, "batch": BATCH}
    setting |= {"machine": platform.machine(), "python": platform.python_version()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(setting | figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
