"""A collection through Ray, against the same on one machine; and what follows from it.

Run ``python -m benchmarks.scale_out`` on a quiet machine: about ten minutes on two
cores. ``--images 300 --rows 200 400 --dry`` tries it in two minutes.

1. Throughput: ``embed_dataset`` on a Ray that it starts itself, against
   ``MedSigLIPEmbedder``, on the same files, each turn in a process of its own with an
   empty output. *With start* is the whole call. *Without start* is what further images
   cost: the difference between a job of all files and one of a quarter of them, so that
   commits and the merging of shards are in it, and the start of workers is not.
2. Start: Ray alone, and a job of one image on it.
3. Memory: the peaks of driver, workers and Ray's own processes while collections grow.
   Rows are files of 32 x 32 pixels; a few thousand have pictures of their own, all
   others are hard links to these, far apart in the table.
4. Parts: core seconds an image of reading, resizing and writing, by the functions of
   the job. ``benchmarks._paper`` calculates with them what was not measured: the time
   of millions of images on GPUs, and writes the tables of ``docs/scaling.md``.
   ``--paper`` does that alone, on the last results.

All with the demonstration checkpoint, which knows nothing of medicine; parts are of
MedSigLIP's size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks._measure import setting, write_results
from benchmarks._paper import calculate, with_tables
from benchmarks._scale_out_parts import measure_parts
from benchmarks._watch import Watch
from benchmarks.pipeline import write_pngs
from benchmarks.report import read_results
from sk_medsiglip import EmbeddingCache, MedSigLIPEmbedder

_PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"

ROWS = (2_000, 10_000, 50_000)
DIFFERENT = 2_000
SAMPLE = 100


# ------------------------------------------------- sides, each in a process of its own


def embed_here(folder: str, n: int, out: str) -> dict[str, Any]:
    """Embed the first files of a folder into an empty store; keep the rows."""
    paths = list_pngs(folder)[:n]
    start = time.perf_counter()
    cache = EmbeddingCache(f"{out}/store")
    rows = MedSigLIPEmbedder("demo", device="cpu", cache=cache).transform(paths)
    seconds = time.perf_counter() - start
    cache.close()
    np.save(f"{out}/rows.npy", rows)
    return {"seconds": seconds}


def embed_on_ray(folder: str, n: int, out: str) -> dict[str, Any]:
    """Embed the same files on a Ray that is started for it."""
    from sk_medsiglip.distributed import embed_dataset

    paths = list_pngs(folder)[:n]
    report = embed_dataset(paths, f"{out}/shards", model="demo", device="cpu")
    if report.n_embedded != n:
        raise RuntimeError(f"{report.n_embedded} of {n} images were embedded")
    return {"seconds": report.seconds}


def embed_table(table: str, out: str) -> dict[str, Any]:
    """Embed the rows of a table on Ray."""
    from sk_medsiglip.distributed import embed_dataset

    report = embed_dataset(table, out, model="demo", device="cpu")
    return {"seconds": report.seconds, "embedded": report.n_embedded}


def start_ray(path: str, out: str) -> dict[str, Any]:
    """Start Ray, then embed one image on it, twice."""
    start = time.perf_counter()
    import ray

    imported = time.perf_counter()
    ray.init(
        "local",
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    ready = time.perf_counter()
    from sk_medsiglip.distributed import embed_dataset

    first = embed_dataset([path], f"{out}/1", model="demo", device="cpu")
    again = embed_dataset([path], f"{out}/2", model="demo", device="cpu")
    stop = time.perf_counter()
    ray.shutdown()
    return {
        "import ray, s": imported - start,
        "ray.init, s": ready - imported,
        "first block written, s": first.seconds_to_first,
        "whole job of one image, s": first.seconds,
        "the same once more, s": again.seconds,
        "ray.shutdown, s": time.perf_counter() - stop,
    }


def start_here(path: str, out: str) -> dict[str, Any]:
    """Embed one image on one machine, in a new process."""
    return {"one machine, one image, s": embed_here(path, 1, out)["seconds"]}


_SIDES: dict[str, Callable[..., dict[str, Any]]] = {
    side.__name__: side
    for side in (embed_here, embed_on_ray, embed_table, start_ray, start_here)
}


@contextmanager
def process_of(side: str, *args: Any) -> Any:
    """Give a running process of one side."""
    command = [sys.executable, "-m", "benchmarks.scale_out", "--side", side]
    process = subprocess.Popen(
        [*command, json.dumps(args)], stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process


def run(side: str, *args: Any) -> dict[str, Any]:
    """Return what a side says in a new process."""
    with process_of(side, *args) as process, Watch(process.pid) as watch:
        said = result_of(process)
    return said | {"core seconds": watch.core_seconds}


def result_of(process: Any) -> dict[str, Any]:
    """Return what a process says at its end."""
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a side ended with {process.returncode}")
    return dict(json.loads(said.splitlines()[-1]))


# --------------------------------------------------------------------------- measuring


def list_pngs(folder: str) -> list[str]:
    """Return the files of a folder, or the one file that it is."""
    if os.path.isfile(folder):
        return [folder]
    return sorted(map(str, Path(folder).glob("*.png")))


def measure_throughput(scratch: Path, n: int, n_repeats: int) -> dict[str, Any]:
    """Return images a second of both sides, in turns."""
    folder = scratch / "images"
    folder.mkdir()
    write_pngs(folder, n, 256)
    few = n // 4
    best: dict[tuple[str, int, str], float] = {}
    for _ in range(n_repeats):
        for size in (few, n):
            for side in ("embed_here", "embed_on_ray"):
                out = tempfile.mkdtemp(dir=scratch)
                said = run(side, str(folder), size, out)
                print(f"{side}, {size} images: {said}", flush=True)
                for what, value in said.items():
                    key = side, size, what
                    best[key] = min(best.get(key, np.inf), value)
    figures: dict[str, Any] = {}
    for name, side in (("one machine", "embed_here"), ("Ray", "embed_on_ray")):
        whole, part = (best[side, size, "seconds"] for size in (n, few))
        cores = [best[side, size, "core seconds"] for size in (n, few)]
        figures[name] = {
            f"s, {few:,} images": part,
            f"s, {n:,} images": whole,
            "images/s, with start": n / whole,
            "images/s, without start": (n - few) / (whole - part),
            "core ms of a further image": (cores[0] - cores[1]) / (n - few) * 1e3,
        }
    here, there = figures["one machine"], figures["Ray"]
    return {
        "images": n,
        "px": 256,
        "repeats": n_repeats,
        "largest distance of a vector, share of its length": compare(
            folder, n, scratch
        ),
        "sides": figures,
        "Ray / one machine": {
            way: there[f"images/s, {way} start"] / here[f"images/s, {way} start"]
            for way in ("with", "without")
        },
    }


def compare(folder: Path, n: int, scratch: Path) -> float:
    """Return how far apart rows of the two sides lie, at most."""
    from sk_medsiglip.distributed import load_embeddings

    outs = [Path(tempfile.mkdtemp(dir=scratch)) for _ in range(2)]
    n = min(n, SAMPLE)
    run("embed_here", str(folder), n, str(outs[0]))
    run("embed_on_ray", str(folder), n, str(outs[1]))
    rows = np.load(outs[0] / "rows.npy")
    bunch = load_embeddings(outs[1] / "shards")
    place = {path: i for i, path in enumerate(bunch.frame["source"])}
    found = bunch.X[[place[path] for path in list_pngs(str(folder))[:n]]]
    apart = np.linalg.norm(found - rows, axis=1) / np.linalg.norm(rows, axis=1)
    return float(apart.max())


def measure_start(scratch: Path, n_repeats: int) -> dict[str, float]:
    """Return seconds until Ray is there, and until it has embedded an image."""
    path = scratch / "one.png"
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)
    best: dict[str, float] = {}
    for _ in range(n_repeats):
        for side in ("start_ray", "start_here"):
            out = tempfile.mkdtemp(dir=scratch)
            said = run(side, str(path), out)
            del said["core seconds"]
            for name, seconds in said.items():
                best[name] = min(best.get(name, np.inf), seconds)
    return best


def write_table(scratch: Path, n: int) -> str:
    """Write a table of ``n`` files; all beyond the first thousands are hard links."""
    folder = scratch / f"rows-{n}"
    rng = np.random.default_rng(0)
    names = []
    for i in range(n):
        place = folder / f"{i // DIFFERENT:03}"
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{i % DIFFERENT:05}.png"
        if i < DIFFERENT:
            pixels = rng.integers(0, 256, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        else:
            os.link(folder / "000" / path.name, path)
        names.append(f"{path.relative_to(folder)},P{i:07}\n")
    (folder / "table.csv").write_text("path,patient\n" + "".join(names), "utf-8")
    return str(folder / "table.csv")


def measure_memory(scratch: Path, sizes: Sequence[int]) -> dict[str, Any]:
    """Return peaks of memory while collections of these sizes are embedded."""
    figures: dict[str, Any] = {}
    for n in sizes:
        out = tempfile.mkdtemp(dir=scratch)
        with process_of("embed_table", write_table(scratch, n), out) as process:
            with Watch(process.pid) as watch:
                said = result_of(process)
        if said["embedded"] != n:
            raise RuntimeError(f"{said['embedded']} of {n} rows were embedded")
        figures[f"{n:,} rows"] = {"seconds": said["seconds"]} | watch.megabytes
        print(f"{n:,} rows", figures[f"{n:,} rows"], flush=True)
    first, last = (list(figures.values())[i] for i in (0, -1))
    growth = {name: last[name] / first[name] for name in last if name != "seconds"}
    return {
        "pictures of their own": DIFFERENT,
        "peaks": figures,
        f"{max(sizes):,} rows / {min(sizes):,}": growth,
    }


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--paper", action="store_true", help="calculate anew only")
    parser.add_argument("--dry", action="store_true", help="write no results")
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        name, settings = args.side
        print(json.dumps(_SIDES[name](*json.loads(settings))))
        return
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if args.paper:
        results = read_results()["scale_out"]
    else:
        results = setting("ray", "torch", "pyarrow", "pillow", "pydicom")
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            results["parts"] = measure_parts(scratch)
            results["start"] = measure_start(scratch, args.repeats)
            results["throughput"] = measure_throughput(
                scratch, args.images, args.repeats
            )
            results["memory"] = measure_memory(scratch, args.rows)
    results["paper"] = calculate(results["parts"], read_results()["retrieval"])
    print(json.dumps(results, indent=2))
    if not args.dry:
        write_results("scale_out", results)
        _PAGE.write_text(
            with_tables(_PAGE.read_text("utf-8"), results["paper"]), "utf-8"
        )


if __name__ == "__main__":
    main()
