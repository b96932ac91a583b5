"""Bags of image parts: what they add to the model pass, what they take, how they read.

Run ``python -m benchmarks.patches``. The model pass is one image through an image tower
of MedSigLIP's shape with random weights (1.7 GB, made in a temporary folder), with and
without the vectors of 8 x 8 cells, in turns, in seconds of CPU time of one thread,
which other work on the machine disturbs least. A pass still varies by as much as the
cells cost, so the pooling head is also timed by itself.

Stored forms are compared by the cosine of a vector with its stored form: of cells of
the demonstration checkpoint on phantoms, of cells of the full-size tower, and of normal
numbers of which one in 400 is 100 times larger.

Bags of 64 x 1152 are read in shuffled order from a warm page cache: as
``MedSigLIPPatchEmbedder`` reads them, checksums and unpacking included, and by numpy
from one file of float32 (``numpy.load`` with a memory map, then a gather).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from numpy.typing import NDArray
from safetensors.torch import save_file
from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel

from benchmarks._measure import in_turns, setting, write_results
from sk_medsiglip.cache import STORED_TYPES, BagPacking, EmbeddingCache, Space
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.encoder import Encoder, load_encoder
from sk_medsiglip.encoder._pooling_head import _pool

GRID, WIDTH, SIZE = 8, 1152, 448
ROW_HEAD = 36  # bytes of fingerprint and checksum


def make_tower(folder: Path, layers: int) -> Path:
    """Write an image tower of MedSigLIP's shape with random weights."""
    torch.manual_seed(0)
    config = SiglipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4304,
        num_hidden_layers=layers,
        num_attention_heads=16,
        image_size=SIZE,
        patch_size=14,
    )
    config.save_pretrained(folder)
    weights = SiglipVisionModel(config).state_dict()
    save_file(
        {f"vision_model.{name}": tensor for name, tensor in weights.items()},
        folder / "model.safetensors",
    )
    half = [0.5] * 3
    SiglipImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, image_mean=half, image_std=half
    ).save_pretrained(folder)
    return folder


def measure_pass(encoder: Encoder, n_repeats: int) -> dict[str, float]:
    """Time one image with and without cells, and the pooling head by itself."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    passes = in_turns(
        n_repeats,
        {
            "row": lambda: encoder.encode_images(pixels),
            "row and cells": lambda: encoder.encode_cells(pixels, GRID),
        },
        time.process_time,
    )
    head = encoder._towers.vision.head
    patches = torch.randn(1, 1024, WIDTH)
    with torch.inference_mode():
        pooling = in_turns(
            10 * n_repeats,
            {
                "row": lambda: _pool(head, patches, None),
                "row and cells": lambda: _pool(head, patches, GRID),
            },
            time.process_time,
        )
    return {
        "s, row": passes["row"],
        "s, row and cells": passes["row and cells"],
        "extra cost of the cells, whole passes": (
            passes["row and cells"] / passes["row"] - 1
        ),
        "extra cost of the cells, head alone over the pass": (
            (pooling["row and cells"] - pooling["row"]) / passes["row"]
        ),
    }


def smallest_cosine(bags: NDArray[np.float32], stored: str) -> float:
    """Return the smallest cosine of a vector with its stored form."""
    packing = BagPacking(*bags.shape[1:], stored)
    a = bags.astype(np.float64)
    b = packing.unpack(packing.pack(bags)).astype(np.float64)
    lengths = np.linalg.norm(a, axis=2) * np.linalg.norm(b, axis=2)
    return float(((a * b).sum(axis=2) / lengths).min())


def measure_forms(encoder: Encoder, n_images: int) -> dict[str, Any]:
    """Return the bytes and the accuracy of each stored form."""
    rng = np.random.default_rng(1)
    phantoms = make_chest_phantoms(n_images, random_state=1).images
    demo = load_encoder("demo")
    pixels = np.repeat(np.asarray(phantoms)[..., None], 3, axis=3)
    full = rng.integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    outliers = rng.standard_normal((n_images, GRID**2, WIDTH), dtype=np.float32)
    outliers[rng.random(outliers.shape) < 1 / 400] *= 100
    sources = {
        "demonstration": demo.encode_cells(pixels, GRID)[1],
        "full size, random weights": encoder.encode_cells(full, GRID)[1],
        "normal with outliers": outliers,
    }
    return {
        stored: {
            "bytes an image, 64 x 1152": (
                4 * BagPacking(GRID**2, WIDTH, stored).n_words + ROW_HEAD
            ),
            **{
                f"smallest cosine, {name}": smallest_cosine(bags, stored)
                for name, bags in sources.items()
            },
        }
        for stored in STORED_TYPES
    }


def measure_reads(folder: Path, n_bags: int, n_repeats: int) -> dict[str, float]:
    """Return bags a second from the store, and by numpy from one file."""
    rng = np.random.default_rng(2)
    shape = (n_bags, GRID**2, WIDTH)
    bags = rng.standard_normal(shape, dtype=np.float32)
    np.save(folder / "bags.npy", bags)
    order = rng.permutation(n_bags)
    fingerprints = [blake3(i.to_bytes(8, "little")).digest() for i in range(n_bags)]
    shuffled = [fingerprints[i] for i in order]
    cache = EmbeddingCache(folder / "store")
    sides = {"numpy.load": lambda: np.load(folder / "bags.npy", mmap_mode="r")[order]}
    for stored in STORED_TYPES:
        packing = BagPacking(GRID**2, WIDTH, stored)
        space = Space(
            "cells", "folder", "0" * 40, stored, "float32", "torch", packing.n_words
        )
        for start in range(0, n_bags, 16):
            part = slice(start, start + 16)
            cache.put_many(space, fingerprints[part], packing.pack(bags[part]))
        sides[stored] = lambda space=space, packing=packing: _read(
            cache, space, packing, shuffled
        )
    del bags
    seconds = in_turns(n_repeats, sides, time.process_time)
    cache.close()
    return {
        f"bags/s of CPU time, {name}": n_bags / one for name, one in seconds.items()
    }


def _read(
    cache: EmbeddingCache, space: Space, packing: BagPacking, asked: list[bytes]
) -> NDArray[np.float32]:
    """Read bags in pieces, as the lazy array of the embedder does."""
    bags = np.empty((len(asked), packing.n_instances, packing.width), np.float32)
    words = np.empty((16, packing.n_words), np.float32)
    for start in range(0, len(asked), 16):
        part = asked[start : start + 16]
        cache.get_many(space, part, words[: len(part)])
        bags[start : start + 16] = packing.unpack(words[: len(part)])
    return bags


def measure(
    folder: Path, *, layers: int, n_repeats: int, n_images: int, n_bags: int
) -> Mapping[str, Any]:
    """Return all figures."""
    encoder = load_encoder(make_tower(folder / "tower", layers), dtype="float32")
    return {
        "model pass": measure_pass(encoder, n_repeats),
        "stored forms": measure_forms(encoder, n_images),
        "warm reads": measure_reads(folder, n_bags, n_repeats),
        "packing": {"ms a bag, int8": 1e3 * _pack_seconds()},
    }


def _pack_seconds() -> float:
    rng = np.random.default_rng(3)
    bags = rng.standard_normal((4, GRID**2, WIDTH), dtype=np.float32)
    packing = BagPacking(GRID**2, WIDTH, "int8")
    return in_turns(20, {"pack": lambda: packing.pack(bags)}, time.process_time)[
        "pack"
    ] / len(bags)


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=27)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--bags", type=int, default=1000)
    parser.add_argument("--dry", action="store_true", help="write no results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {"layers": args.layers, "n_images": args.images, "n_bags": args.bags}
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), n_repeats=args.repeats, **sizes)
    results = {
        **setting("torch", "numpy", threads=torch.get_num_threads(), **sizes),
        **found,
    }
    print(results)
    if not args.dry:
        write_results("patches", results)


if __name__ == "__main__":
    main()
