"""From image files to vectors: this package and what people use now.

Run ``python -m benchmarks.embedding FOLDER`` in an environment that holds the peers
(``benchmarks/README.md``); FOLDER is, or becomes, a full-size checkpoint with random
weights. All sides embed the same PNG files with the same checkpoint, in turns; ours
store their rows on disk, the others keep nothing.

At full size a handful of images are embedded and the time of 500 is that of one times
500: nothing of what is timed depends on their number.

Agreement is measured on images of the model's own size, where no side resizes; else the
sides differ by their resizing (ours as TensorFlow does it for MedSigLIP, the others
with Pillow's antialiasing).
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._measure import in_turns, setting, write_results
from benchmarks._peers import installed_peers
from benchmarks.engines import make_full_size
from benchmarks.pipeline import write_pngs
from sk_medsiglip import EmbeddingCache, MedSigLIPEmbedder
from sk_medsiglip.encoder import DEMO_FOLDER, clear_encoders, find_checkpoint

OURS = {
    "ours, torch float32": {"engine": "torch", "dtype": "float32"},
    "ours, torch bfloat16": {"engine": "torch", "dtype": "bfloat16"},
    "ours, openvino bfloat16": {"engine": "openvino", "dtype": "bfloat16"},
}
BASE = "loop over transformers"


class Fresh:
    """Embed with an empty store each time, conversions of the model kept."""

    def __init__(self, model: str | Path, scratch: Path, **settings: str) -> None:
        self.model, self.scratch, self.settings = model, scratch, settings

    def __call__(self, paths: list[str]) -> NDArray[np.float32]:
        cache = EmbeddingCache(tempfile.mkdtemp(dir=self.scratch))
        cache.converted = self.scratch / "converted"
        embedder = MedSigLIPEmbedder(
            self.model, device="cpu", cache=cache, **self.settings
        )
        rows = embedder.transform(paths)
        cache.close()
        return rows


def measure(
    model: str | Path, n: int, px: int, n_repeats: int, scratch: Path, whole: int
) -> dict[str, Any]:
    """Return seconds and agreement of every side for ``n`` images."""
    folder = scratch / f"{n}"
    folder.mkdir()
    paths = write_pngs(folder, n, px)
    own = scratch / f"own-{n}"
    own.mkdir()
    same_size = write_pngs(own, 4, find_checkpoint(model).image_size)
    peer_model = DEMO_FOLDER if model == "demo" else model
    makers: dict[str, Any] = {
        name: partial(make, peer_model) for name, make in installed_peers().items()
    }
    for name, settings in OURS.items():
        if settings["engine"] == "torch" or importlib.util.find_spec("openvino"):
            makers[name] = partial(Fresh, model, scratch, **settings)
    # Full-size models do not all fit into memory: each side meets the base alone.
    figures: dict[str, Any] = {}
    base = makers.pop(BASE)()
    expected = base(same_size)
    for name, make in makers.items():
        side = make()
        rows = side(same_size)
        cosine = (rows * expected).sum(1)
        cosine /= np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1)
        side(paths[:1])
        best = in_turns(
            n_repeats, {BASE: partial(base, paths), name: partial(side, paths)}
        )
        figures[name] = {
            "s an image": best[name] / n,
            f"s, {whole:,} images": best[name] / n * whole,
            f"s an image of the {BASE}": best[BASE] / n,
            "speed over the loop": best[BASE] / best[name],
            "smallest cosine to the loop, no resizing": float(cosine.min()),
        }
        print(name, figures[name], flush=True)
        clear_encoders()
        del side
    return {"images": n, "px": px, **figures}


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="full-size checkpoint")
    parser.add_argument("--images", type=int, default=5000, help="for the demo")
    parser.add_argument("--full-images", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="write no results")
    args = parser.parse_args()
    known = ("torch", "transformers", "sentence-transformers", "openvino")
    packages = [p for p in known if importlib.util.find_spec(p.replace("-", "_"))]
    results = setting(*packages)
    scratch = Path(tempfile.mkdtemp())
    try:
        results["demonstration checkpoint"] = measure(
            "demo", args.images, 256, args.repeats, scratch, args.images
        )
        if args.folder:
            full = make_full_size(args.folder)
            results["full size"] = measure(
                full, args.full_images, 1024, args.repeats, scratch, 500
            )
    finally:
        shutil.rmtree(scratch)
    if not args.dry:
        write_results("embedding", results)


if __name__ == "__main__":
    main()
