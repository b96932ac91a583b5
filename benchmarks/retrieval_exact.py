"""Exact search: ours, numpy, scikit-learn, faiss and usearch.

Run ``python -m benchmarks.retrieval_exact`` where faiss-cpu and usearch are installed;
without them the other sides are compared. Made-up unit vectors of 1152 float32 in
clusters, in no order; ten neighbours of 1, 32 and 1,000 queries. All sides have the
same number of threads, hold the rows before the clock starts, and take turns. Slow
sides are asked fewer queries, and the figures say how many.

faiss is given its best: the OpenBLAS in its wheel is of 2021 and takes newer CPUs for
old ones, so it is told what numpy's finds (``OPENBLAS_CORETYPE``); and besides its
default it is measured with products by BLAS from 20 queries on, as it once did by
default. What it does as installed is measured in a process of its own, on fewer rows.

A million rows take 12 GB of memory: themselves, a copy in float16, and faiss's own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_info, threadpool_limits

from benchmarks._measure import in_turns, setting, write_results
from sk_medsiglip.retrieval._top_rows import top_rows

WIDTH = 1152
N = 10
BATCHES = (1, 32, 1000)
#: Most queries that slow sides are asked at a time.
FEWER = {"scikit-learn, euclidean": 100, "scikit-learn, cosine": 32, "usearch": 32}
#: Most rows where scikit-learn's cosine is measured: it copies them at every call.
MOST_COPIED = 200_000
#: Rows that are searched by faiss as installed.
FEW_ROWS = 100_000
#: Scores that plain numpy computes at a time: 512 MB of float32, and twice as much of
#: int64 that argpartition makes of them.
NUMPY_SCORES = 2**27
Vectors = NDArray[np.floating]
Side = Callable[[Vectors], Any]


def make_rows(n: int, n_queries: int) -> tuple[Vectors, Vectors]:
    """Return unit vectors in clusters of about 200, and queries from the same ones."""
    rng = np.random.default_rng(0)
    n_clusters = max(4, n // 200)
    common = rng.standard_normal(WIDTH, dtype=np.float32)
    centres = rng.standard_normal((n_clusters, WIDTH), dtype=np.float32) + common

    def draw(size: int) -> Vectors:
        drawn = rng.standard_normal((size, WIDTH), dtype=np.float32)
        drawn += centres[rng.integers(n_clusters, size=size)]
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        return drawn

    rows = np.empty((n, WIDTH), np.float32)
    for start in range(0, n, 10_000):
        stop = min(n, start + 10_000)
        rows[start:stop] = draw(stop - start)
    return rows, draw(n_queries)


def with_numpy(rows: Vectors, queries: Vectors) -> NDArray[np.int64]:
    """Return the nearest by the few lines that most people write."""
    found = []
    step = max(1, NUMPY_SCORES // len(rows))
    for start in range(0, len(queries), step):
        scores = queries[start : start + step] @ rows.T
        some = np.argpartition(-scores, N, axis=1)[:, :N]
        order = np.argsort(-np.take_along_axis(scores, some, axis=1), axis=1)
        found.append(np.take_along_axis(some, order, axis=1))
    return np.vstack(found)


def make_sides(rows: Vectors, threads: int) -> dict[str, Side]:
    """Return by name what finds the positions of queries' neighbours."""
    half = rows.astype(np.float16)
    sides: dict[str, Side] = {
        "ours": lambda queries: top_rows(queries, rows, N)[1],
        "ours, float16 rows": lambda queries: top_rows(queries, half, N)[1],
        "numpy": partial(with_numpy, rows),
    }
    if find_spec("faiss"):
        sides |= faiss_sides(rows, threads)
    if find_spec("usearch"):
        from usearch.index import MetricKind, search

        sides["usearch"] = lambda queries: (
            search(rows, queries, N, MetricKind.IP, exact=True, threads=threads).keys
        )
    # Of unit vectors the nearest by either are those of the highest product.
    for metric in ("euclidean", "cosine"):
        if metric == "cosine" and len(rows) > MOST_COPIED:
            continue
        model = NearestNeighbors(
            n_neighbors=N, algorithm="brute", metric=metric, n_jobs=threads
        )
        model.fit(rows)
        sides[f"scikit-learn, {metric}"] = partial(
            model.kneighbors, return_distance=False
        )
    return sides


def faiss_sides(rows: Vectors, threads: int) -> dict[str, Side]:
    """Return faiss by its default and by BLAS from 20 queries on."""
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(WIDTH)
    index.add(rows)
    usual = faiss.cvar.distance_compute_blas_threshold

    def search(queries: Vectors, blas_from: int) -> Any:
        faiss.cvar.distance_compute_blas_threshold = blas_from
        return index.search(queries, N)[1]

    return {
        "faiss": partial(search, blas_from=usual),
        "faiss, BLAS from 20 queries": partial(search, blas_from=20),
    }


def agreement(found: Any, true: NDArray[np.int64]) -> float:
    """Return which share of the neighbours was found."""
    shared = [
        len(np.intersect1d(one, other))
        for one, other in zip(np.asarray(found), true, strict=True)
    ]
    return float(np.sum(shared)) / true.size


def true_neighbours(rows: Vectors, queries: Vectors) -> NDArray[np.int64]:
    """Return the neighbours by float64, block by block."""
    scores = np.empty((len(queries), len(rows)))
    for start in range(0, len(rows), 10_000):
        block = rows[start : start + 10_000].astype(np.float64)
        scores[:, start : start + 10_000] = queries.astype(np.float64) @ block.T
    return np.argsort(-scores, axis=1, kind="stable")[:, :N]


def measure(n: int, repeats: int, threads: int) -> dict[str, Any]:
    """Return queries a second of every side, and how they compare with ours."""
    rows, queries = make_rows(n, max(BATCHES))
    sides = make_sides(rows, threads)
    few = queries[:8]
    true = true_neighbours(rows, few)
    figures: dict[str, Any] = {
        "share of the float64 neighbours found": {
            name: agreement(side(few), true) for name, side in sides.items()
        }
    }
    for batch in BATCHES:
        asked = {name: min(batch, FEWER.get(name, batch)) for name in sides}
        work = {
            name: partial(side, queries[: asked[name]]) for name, side in sides.items()
        }
        best = in_turns(repeats, work)
        rate = {name: asked[name] / best[name] for name in sides}
        figures[f"queries at a time: {batch:,}"] = {
            name: {
                "queries/s": rate[name],
                "times as long as ours": rate["ours"] / rate[name],
                **({"asked": asked[name]} if asked[name] < batch else {}),
            }
            for name in sides
        }
        print(f"{n:,} rows, {batch} queries", flush=True)
        for name in sides:
            ratio = rate["ours"] / rate[name]
            print(f"  {name:28}{rate[name]:12.2f}/s{ratio:8.2f}", flush=True)
    return figures


def faiss_as_installed(n: int, threads: int) -> dict[str, Any]:
    """Return the figures of a process that does not tell OpenBLAS about the CPU."""
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    command = [sys.executable, "-m", "benchmarks.retrieval_exact", "--as-installed"]
    ran = subprocess.run(
        [*command, "--rows", str(n), "--threads", str(threads)],
        env=environment,
        capture_output=True,
        check=True,
        text=True,
    )
    return json.loads(ran.stdout.splitlines()[-1])


def measure_as_installed(n: int, threads: int) -> dict[str, Any]:
    """Return times of faiss and of ours, in turns."""
    rows, queries = make_rows(n, max(BATCHES))
    sides: dict[str, Side] = {"ours": lambda queries: top_rows(queries, rows, N)}
    sides |= faiss_sides(rows, threads)
    figures: dict[str, Any] = {}
    for batch in BATCHES:
        work = {name: partial(side, queries[:batch]) for name, side in sides.items()}
        best = in_turns(5 if batch < 1000 else 2, work)
        figures[f"queries at a time: {batch:,}"] = {
            name: {
                "queries/s": batch / s,
                "times as long as ours": s / best["ours"],
            }
            for name, s in best.items()
        }
    return figures


def numpys_openblas() -> str | None:
    """Return the CPU that numpy's OpenBLAS takes this one for."""
    found = [one for one in threadpool_info() if one["internal_api"] == "openblas"]
    return found[0]["architecture"] if found else None


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--dry", action="store_true", help="small, writes no results")
    parser.add_argument("--as-installed", action="store_true", help="see the file")
    args = parser.parse_args()
    import torch  # so that nobody pays for the import

    torch.set_num_threads(args.threads)
    with threadpool_limits(args.threads):
        if args.as_installed:
            print(json.dumps(measure_as_installed(args.rows, args.threads)))
            return
        core = numpys_openblas()
        if core is not None:
            os.environ["OPENBLAS_CORETYPE"] = core
        modules = {"faiss-cpu": "faiss", "usearch": "usearch"}
        peers = [name for name, module in modules.items() if find_spec(module)]
        packages = ("numpy", "scikit-learn", "torch", *peers)
        results = setting(*packages, width=WIDTH, neighbours=N, threads=args.threads)
        for n in (2_000, 20_000) if args.dry else (2_000, FEW_ROWS, args.rows):
            repeats = args.repeats * (5 if n < 10_000 else 1)
            results[f"{n:,} rows"] = measure(n, repeats, args.threads)
    if "faiss-cpu" in peers:
        n = 5_000 if args.dry else FEW_ROWS
        found = faiss_as_installed(n, args.threads)
        results[f"{n:,} rows, faiss's BLAS as installed"] = found
        print(json.dumps(found, indent=1))
    if not args.dry:
        write_results("retrieval_exact", results)


if __name__ == "__main__":
    main()
