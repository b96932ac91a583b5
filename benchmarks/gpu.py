"""A GPU's share of its own peak: images a second in bfloat16, from pixels to vectors.

Run ``python -m benchmarks.gpu FOLDER``, where FOLDER is, or becomes, a checkpoint of
MedSigLIP's shape with random weights. ``--device cpu`` runs the same on a CPU.

The peak is the best of large square matrix products in bfloat16, measured in turns with
the model. The model's work is counted from its configuration: two operations for each
weight of a layer and each patch, and the attention's two products.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import in_turns, setting, write_results
from benchmarks.engines import make_full_size
from sk_medsiglip.encoder import find_checkpoint, load_encoder

THREADS = 3  # batches in flight, as the embedder has them on a GPU


def operations(folder: Path) -> float:
    """Return the floating-point operations of one image's pass."""
    whole = json.loads((folder / "config.json").read_text("utf-8"))
    config = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "image_size": 224,
        "patch_size": 16,
        **whole["vision_config"],
    }
    width, inner = config["hidden_size"], config["intermediate_size"]
    n = (config["image_size"] // config["patch_size"]) ** 2
    weights = 4 * width * width + 2 * width * inner
    layer = 2 * n * weights + 4 * n * n * width
    first = 2 * n * width * 3 * config["patch_size"] ** 2
    pooling = 2 * n * 2 * width * width
    return float(config["num_hidden_layers"] * layer + first + pooling)


def matrix_product(device: str, size: int) -> Callable[[], None]:
    """Return a product of two square matrices in bfloat16, ready to run."""
    import torch

    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    b = torch.randn(size, size, device=device, dtype=torch.bfloat16)

    def run() -> None:
        for _ in range(4):
            torch.matmul(a, b)
        if device != "cpu":
            torch.cuda.synchronize()

    run()
    return run


def measure(
    folder: Path, device: str, batch: int, n_batches: int, size: int, n_repeats: int
) -> dict[str, Any]:
    """Return images a second, one batch after the other and several in flight."""
    encoder = load_encoder(folder, device=device, dtype="bfloat16")
    rng = np.random.default_rng(0)
    px = encoder.image_size
    pixels = rng.integers(0, 256, (batch, px, px, 3), dtype=np.uint8)
    encoder.encode_images(pixels)

    def one_by_one() -> None:
        for _ in range(n_batches):
            encoder.encode_images(pixels)

    def in_flight() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(encoder.encode_images, [pixels] * n_batches))

    product = matrix_product(device, size)
    best = in_turns(
        n_repeats,
        {"product": product, "one by one": one_by_one, "in flight": in_flight},
    )
    peak = 4 * 2 * size**3 / best["product"]
    work = operations(find_checkpoint(folder).folder)
    n = batch * n_batches
    return {
        "images in a pass": batch,
        "peak of products, TFLOP/s": peak / 1e12,
        "an image, TFLOP": work / 1e12,
        **{f"images/s, {way}": n / best[way] for way in ("one by one", "in flight")},
        "share of the peak": n * work / best["in flight"] / peak,
    }


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="full-size checkpoint")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--size", type=int, default=8192, help="of the products")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="write no results")
    args = parser.parse_args()
    folder = make_full_size(args.folder)
    results = setting("torch", "transformers", device=args.device)
    for batch in (32, 64, 128):
        results[f"{batch} images a pass"] = measure(
            folder, args.device, batch, args.batches, args.size, args.repeats
        )
        print(results[f"{batch} images a pass"], flush=True)
    if not args.dry:
        write_results("gpu", results)


if __name__ == "__main__":
    main()
