"""What stored rows cost as collections grow: 1,000, 10,000 and 100,000 files.

Run ``python -m benchmarks.scaling``; ``--small`` takes seconds. Every picture is a file
of its own and has a row of its own, as wide as MedSigLIP's. Rows are computed by a
checkpoint of one layer, since here only what happens *after* the model counts.

Timed is ``transform`` of paths whose rows are stored, in one process that has used the
store before, and in one that opens it first; beside it, in turns, what no way round can
avoid: asking the system for every file's state, and gathering as many rows from memory.
Sizes take turns, so that a slope does not come from the machine's mood.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks._measure import in_turns, setting, write_results
from sk_medsiglip import EmbeddingCache, MedSigLIPEmbedder
from sk_medsiglip.encoder import DEMO_FOLDER, clear_encoders

WIDTH = 1152
SIZES = (1_000, 10_000, 100_000)
BEYOND = (10_000_000, 1_000_000_000)
SAMPLE = 200


def write_checkpoint(folder: Path) -> Path:
    """Write a model of one layer and one patch, its rows as wide as MedSigLIP's."""
    import torch
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    config = SiglipConfig(
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 16,
            "image_size": 14,
            "patch_size": 14,
        },
        text_config={
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "projection_size": WIDTH,
            "vocab_size": 300,
            "bos_token_id": 1,
            "eos_token_id": 1,
        },
    )
    torch.manual_seed(0)
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessorPil(
        size={"height": 14, "width": 14}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(folder)
    for name in ("spiece.model", "tokenizer_config.json", "special_tokens_map.json"):
        if (DEMO_FOLDER / name).exists():
            shutil.copyfile(DEMO_FOLDER / name, folder / name)
    return folder


def write_pictures(folder: Path, n: int) -> list[str]:
    """Write PNG files of 8 x 8 random pixels, no two alike, 1,000 a folder."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(n):
        place = folder / f"{i // 1000:03}"
        place.mkdir(exist_ok=True)
        paths.append(str(place / f"{i:06}.png"))
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(paths[-1])
    return paths


def measure(scratch: Path, sizes: Sequence[int], repeats: int) -> dict[str, Any]:
    """Return the figures of every size, their slope, and what follows from it."""
    (scratch / "pictures").mkdir()
    model = write_checkpoint(scratch / "checkpoint")
    paths = write_pictures(scratch / "pictures", max(sizes))
    cache = EmbeddingCache(scratch / "store")
    embedder = MedSigLIPEmbedder(
        model, device="cpu", cache=cache, batch_size=256, n_jobs=os.cpu_count()
    )
    start = time.perf_counter()
    rows = embedder.fit(paths).transform(paths)
    filled = time.perf_counter() - start
    print(f"stored {len(paths)} rows in {filled:.0f} s", flush=True)
    clear_encoders()
    agrees = check_rows(embedder, paths, rows)

    rng = np.random.default_rng(1)
    sides: dict[str, Callable[[], object]] = {}
    for n in sizes:
        some = [paths[i] for i in rng.permutation(len(paths))[:n]]
        order = rng.permutation(len(paths))[:n]
        sides[f"{n} warm"] = partial(embedder.transform, some)
        sides[f"{n} first"] = partial(open_and_transform, embedder, cache, some)
        sides[f"{n} stat"] = partial(ask_for_states, some)
        sides[f"{n} gather"] = partial(np.take, rows, order, axis=0)
    best = in_turns(repeats, sides)
    figures: dict[str, Any] = {
        str(n): {
            "transform, s": best[f"{n} warm"],
            "transform, us a row": best[f"{n} warm"] / n * 1e6,
            "store opened first, us a row": best[f"{n} first"] / n * 1e6,
            "os.stat, us a file": best[f"{n} stat"] / n * 1e6,
            "numpy gather, us a row": best[f"{n} gather"] / n * 1e6,
        }
        for n in sizes
    }
    for name, one in figures.items():
        print(name, one, flush=True)
    n_bytes = int(cache.stats()["bytes"])
    slope = fit_slope(sizes, [best[f"{n} warm"] for n in sizes])
    top = profile(partial(embedder.transform, paths))
    cache.close()
    return {
        "rows": len(paths),
        "rows agree with ones computed without a store": agrees,
        "storing, reading and this small model, s": filled,
        "bytes a row, all files of the store": n_bytes / len(paths),
        "bytes a row, the vector alone": rows.shape[1] * rows.itemsize,
        "sizes": figures,
        "log-log slope": slope,
        "beyond": {
            str(n): beyond(n, max(sizes), best[f"{max(sizes)} warm"], slope, n_bytes)
            for n in BEYOND
        },
        "profile of the largest, share of the time": top,
    }


def open_and_transform(
    embedder: MedSigLIPEmbedder, cache: EmbeddingCache, paths: list[str]
) -> None:
    """Do what a new process does: open the store, then read."""
    cache.close()
    embedder.transform(paths)


def ask_for_states(paths: list[str]) -> None:
    """Ask the system for the state of every file."""
    for path in paths:
        os.stat(path)


def check_rows(
    embedder: MedSigLIPEmbedder, paths: list[str], rows: NDArray[np.float32]
) -> bool:
    """Compare a sample of rows, stored and read back, with a plain computation."""
    sample = np.random.default_rng(2).choice(len(paths), min(SAMPLE, len(paths)), False)
    some = [paths[i] for i in sample]
    plain = MedSigLIPEmbedder(embedder.model, device="cpu", cache=False)
    expected = plain.transform(some)
    again = embedder.transform(some)
    clear_encoders()
    return bool(
        np.array_equal(again, rows[sample])
        and np.allclose(again, expected, rtol=1e-4, atol=1e-4)
    )


def fit_slope(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the exponent: 1 is a cost that grows as the number of rows does."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def beyond(
    n: int, largest: int, seconds: float, slope: float, n_bytes: int
) -> dict[str, float]:
    """Return what a size that was not measured would need, by the measured slope.

    Time grows at least as the rows do: a slope under 1 comes from fixed costs of small
    calls and is not carried on.
    """
    return {
        "hours of transform": seconds * (n / largest) ** max(slope, 1.0) / 3600,
        "store, TB": n_bytes / largest * n / 1e12,
        "result in memory, TB": n * WIDTH * 4 / 1e12,
    }


def profile(work: Callable[[], object]) -> dict[str, float]:
    """Return the functions with the most time of their own, as shares of the whole."""
    profiler = cProfile.Profile()
    profiler.runcall(work)
    # Of each function: its file, line and name; two counts, own time, whole time.
    functions = pstats.Stats(profiler).stats.items()  # type: ignore[attr-defined]
    whole = sum(times[2] for _, times in functions)
    top = sorted(functions, key=lambda item: -item[1][2])[:8]
    return {
        name if file == "~" else f"{Path(file).name}, {name}": times[2] / whole
        for (file, _, name), times in top
    }


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="write no results")
    args = parser.parse_args()
    sizes = [100, 300, 1000] if args.small else sorted(args.sizes)
    results = setting("numpy", "blake3", width=WIDTH, repeats=args.repeats)
    with tempfile.TemporaryDirectory() as scratch:
        results |= measure(Path(scratch), sizes, args.repeats)
    if args.small:
        print(results)
    else:
        write_results("scaling", results)


if __name__ == "__main__":
    main()
