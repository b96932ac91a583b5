"""Saving and loading a fitted pipeline: ours, and one whose estimator holds its model.

Run ``python -m benchmarks.persistence FOLDER`` with a full-size checkpoint, or without
one for the demonstration's. Loading is timed in a new process, imports included, up to
the first prediction of one image that was embedded before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from benchmarks._measure import setting, write_results
from benchmarks._peers import HoldingTransformer
from benchmarks.pipeline import write_pngs
from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.encoder import DEMO_FOLDER, clear_encoders

PREDICT = """
import joblib, sys
pipe = joblib.load(sys.argv[1])
pipe.predict([sys.argv[2]])
"""


def measure(model: str | Path, scratch: Path, n: int) -> dict[str, Any]:
    """Return bytes and seconds of both."""
    paths = write_pngs(scratch, n, 256)
    y = np.arange(n) % 2
    cache = scratch / "store"
    plain = str(DEMO_FOLDER) if model == "demo" else str(model)
    sides = {
        "ours": MedSigLIPEmbedder(model, device="cpu", cache=cache),
        "holding its model": HoldingTransformer(plain),
    }
    figures: dict[str, Any] = {}
    for name, embedder in sides.items():
        pipe = make_pipeline(embedder, LogisticRegression()).fit(paths, y)
        file = scratch / "pipe.joblib"
        start = time.perf_counter()
        joblib.dump(pipe, file)
        saved = time.perf_counter() - start
        start = time.perf_counter()
        joblib.load(file)
        loaded = time.perf_counter() - start
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", PREDICT, str(file), paths[0]], check=True)
        figures[name] = {
            "bytes": file.stat().st_size,
            "save, s": saved,
            "load, s": loaded,
            "new process to first prediction, s": time.perf_counter() - start,
        }
        print(name, figures[name], flush=True)
        del pipe
        clear_encoders()
    return figures


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--dry", action="store_true", help="write no results")
    args = parser.parse_args()
    results = setting("torch", "transformers", "joblib", "scikit-learn")
    for name, model in (("demonstration", "demo"), ("full size", args.folder)):
        if model is None:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            results[name] = measure(model, Path(scratch), args.images)
    if not args.dry:
        write_results("persistence", results)


if __name__ == "__main__":
    main()
