"""``GridSearchCV`` over image files: ours, a plain pipeline, its ``memory``, embetter.

Run ``python -m benchmarks.search`` in an environment that holds the peers
(``benchmarks/README.md``). 1,000 PNG files, the demonstration checkpoint, 10 values of
``C`` in 5 folds, refit: 51 fits. Model passes are counted in every process, by a file
that each pass appends to. The search on the ready matrix is the unit.

The demonstration's rows have 192 values, so its search is over in half a second, and
asking for the state of 51,000 files is a large part of that. MedSigLIP's have 1152:
ours and the ready matrix are also measured with a random model of that width.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from benchmarks import _peers
from benchmarks._measure import in_turns, setting, write_results
from benchmarks.scaling import write_checkpoint
from sk_medsiglip import EmbeddingCache, MedSigLIPEmbedder
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.encoder import DEMO_FOLDER

COUNTS = "BENCHMARK_PASSES"  # file that every model pass appends its images to


class CountedEmbedder(MedSigLIPEmbedder):
    """Ours, every pass noted in a file."""

    def transform(self, X: Any) -> Any:
        from sk_medsiglip.encoder import Encoder

        if not hasattr(Encoder, "counted"):
            Encoder.counted = True  # type: ignore[attr-defined]
            original = Encoder.encode_images

            @functools.wraps(original)
            def encode_images(self: Encoder, pixels: Any) -> Any:
                note(len(pixels))
                return original(self, pixels)

            Encoder.encode_images = encode_images  # type: ignore[method-assign]
        return super().transform(X)


class CountedPlain(_peers.HoldingTransformer):
    """The transformer that holds its model, every pass noted in a file."""

    def transform(self, X: Any) -> Any:
        note(len(X))
        return super().transform(X)


class EmbetterCached(CountedPlain):
    """The same, wrapped by embetter's ``cached``.

    ``cached`` replaces the method of one instance, which ``clone`` forgets; so the
    wrapping is done in ``fit`` here, as anybody who searches would have to.
    """

    def __init__(self, model: str, folder: str) -> None:
        super().__init__(model)
        self.folder = folder

    def fit(self, X: Any, y: Any = None) -> EmbetterCached:
        from embetter.utils import cached

        class Inner:
            transform = staticmethod(self._embed_some)

        super().fit(X)
        self.inner_ = cached(self.folder, Inner())
        return self

    def _embed_some(self, paths: list[str]) -> Any:
        # It calls with an empty list once all is stored.
        return CountedPlain.transform(self, paths) if paths else []

    def transform(self, X: Any) -> Any:
        return self.inner_.transform([str(path) for path in X])


def note(n: int) -> None:
    """Append to the file of passes; whole lines, from any process."""
    with open(os.environ[COUNTS], "a") as file:
        file.write(f"{n}\n")


def counted() -> int:
    """Return the passes since the last call."""
    path = Path(os.environ[COUNTS])
    total = sum(map(int, path.read_text().split())) if path.exists() else 0
    path.write_text("")
    return total


def search(steps: list[tuple[str, Any]], n_jobs: int, **pipe: Any) -> GridSearchCV:
    """Return the search over ten values of C in five folds."""
    head = LogisticRegression(max_iter=200)
    return GridSearchCV(
        Pipeline([*steps, ("head", head)], **pipe),
        {"head__C": np.logspace(-4, 1, 10)},
        cv=5,
        n_jobs=n_jobs,
    )


def write_phantoms(folder: Path, n: int) -> tuple[Any, Any]:
    """Write drawn radiographs; return their paths and one finding."""
    folder.mkdir()
    phantoms = make_chest_phantoms(n, random_state=0)
    paths = []
    for i, image in enumerate(phantoms.images):
        paths.append(str(folder / f"{i}.png"))
        Image.fromarray(image).save(paths[-1])
    return np.array(paths), phantoms.target[:, 0]


def measure_wide(n: int, n_jobs: int, scratch: Path) -> dict[str, float]:
    """Return seconds of ours and of the ready matrix, 1152 values a row."""
    X, y = write_phantoms(scratch / f"wide-{n_jobs}", n)
    model = write_checkpoint(scratch / f"model-{n_jobs}")
    store = EmbeddingCache(scratch / f"wide-store-{n_jobs}")
    ours = MedSigLIPEmbedder(model, device="cpu", cache=store)
    ready = ours.transform(X)
    best = in_turns(
        3,
        {
            "ready matrix": lambda: search([("none", "passthrough")], n_jobs).fit(
                ready, y
            ),
            "ours, stored": lambda: search([("embed", ours)], n_jobs).fit(X, y),
        },
    )
    return {
        **{f"{name}, s": seconds for name, seconds in best.items()},
        "ours, stored / ready matrix": best["ours, stored"] / best["ready matrix"],
    }


def measure(n: int, n_jobs: int, scratch: Path, n_plain: int) -> dict[str, Any]:
    """Return seconds, passes and bytes of every way."""
    X, y = write_phantoms(scratch / f"images-{n_jobs}", n)
    ready = MedSigLIPEmbedder("demo", device="cpu", cache=False).transform(X)
    model = str(DEMO_FOLDER)
    figures: dict[str, Any] = {}

    def run(name: str, make: Callable[[], Any], kept: Path | None, data: Any) -> None:
        counted()
        start = time.perf_counter()
        fitted = make().fit(data, y[: len(data)])
        seconds = time.perf_counter() - start
        size = 0
        if kept is not None:
            store.close()  # what is on disk is counted at rest
            size = sum(p.stat().st_size for p in kept.rglob("*") if p.is_file())
        figures[name] = {
            "s": seconds,
            "model passes": counted(),
            "bytes on disk": size,
            "best score": float(fitted.best_score_),
        }
        print(n_jobs, name, figures[name], flush=True)

    store = EmbeddingCache(scratch / f"store-{n_jobs}")
    ours = CountedEmbedder("demo", device="cpu", cache=store)
    matrix = functools.partial(search, [("none", "passthrough")], n_jobs)
    warm = functools.partial(search, [("embed", ours)], n_jobs)
    run("ready matrix", matrix, None, ready)
    run("ours, empty store", warm, store.location, X)
    for repeat in range(3):  # in turns
        run(f"ready matrix, turn {repeat}", matrix, None, ready)
        run(f"ours, stored, turn {repeat}", warm, store.location, X)
    plain = CountedPlain(model)
    run(
        f"plain pipeline, {n_plain} images",
        lambda: search([("embed", plain)], n_jobs),
        None,
        X[:n_plain],
    )
    memory = scratch / f"memory-{n_jobs}"
    run(
        "Pipeline(memory=)",
        lambda: search([("embed", plain)], n_jobs, memory=str(memory)),
        memory,
        X,
    )
    if importlib.util.find_spec("embetter"):
        kept = scratch / f"embetter-{n_jobs}"
        embetter = EmbetterCached(model, str(kept))
        run("embetter cached", lambda: search([("embed", embetter)], n_jobs), kept, X)

    def fastest(prefix: str) -> float:
        return min(f["s"] for key, f in figures.items() if key.startswith(prefix))

    figures["ours, stored / ready matrix"] = fastest("ours, stored") / fastest("ready")
    return figures


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--plain-images", type=int, default=100)
    parser.add_argument("--n-jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--dry", action="store_true", help="write no results")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    known = ("torch", "transformers", "scikit-learn", "embetter")
    names = {"scikit-learn": "sklearn"}
    packages = [p for p in known if importlib.util.find_spec(names.get(p, p))]
    results = setting(*packages, images=args.images)
    scratch = Path(tempfile.mkdtemp())
    os.environ[COUNTS] = str(scratch / "passes")
    try:
        for n_jobs in args.n_jobs:
            results[f"n_jobs={n_jobs}"] = measure(
                args.images, n_jobs, scratch, args.plain_images
            )
            wide = measure_wide(args.images, n_jobs, scratch)
            print(n_jobs, "1152 values", wide, flush=True)
            results[f"n_jobs={n_jobs}, 1152 values a row"] = wide
    finally:
        shutil.rmtree(scratch)
    if not args.dry:
        write_results("search", results)


if __name__ == "__main__":
    # Not of this script: workers and joblib's hashing look the classes up by module.
    from benchmarks.search import main as of_module

    of_module()
