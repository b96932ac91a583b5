"""Retrieval: what is found on phantoms, and approximate search beside others.

Run ``python -m benchmarks.retrieval`` with ``sk-medsiglip[retrieval]``; where faiss-cpu
and usearch are installed they are measured too. Three parts:

- phantoms of a seed that no training saw, the demonstration checkpoint: captions to
  images and back, prompts to images by finding, and example to images by finding, other
  patients only, beside chance and pixel neighbours;
- LanceDB at several settings beside faiss IVF-PQ and usearch HNSW, unit vectors of 1152
  values in clusters, as in ``benchmarks.retrieval_exact``: seconds to build, bytes on
  disk, queries a second one at a time, and recall@10 against exact search;
- 200 filters drawn at random, each against brute force in pandas.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from benchmarks._measure import setting, write_results
from benchmarks.retrieval_exact import WIDTH, agreement, make_rows
from sk_medsiglip import MedSigLIPEmbedder, MedSigLIPTextEmbedder
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.retrieval import ImageRetriever, metrics
from sk_medsiglip.retrieval._top_rows import top_rows

SEED = 71_003
PROMPTS = {
    "cardiomegaly": "the heart is enlarged",
    "consolidation": "an opacity of consolidation in the lung",
    "device": "a pacemaker on the chest wall",
    "effusion": "pleural effusion",
    "nodule": "a round nodule in the lung",
    "pneumothorax": "pneumothorax",
}
N = 10
Vectors = NDArray[np.floating]


def on_phantoms(n: int) -> dict[str, Any]:
    """Return what words and examples find among phantoms."""
    phantoms = make_chest_phantoms(n, random_state=SEED)
    images = unit(MedSigLIPEmbedder("demo", cache=False).transform(phantoms.images))
    texts = unit(
        MedSigLIPTextEmbedder("demo", cache=False).transform(phantoms.captions)
    )
    # Images whose captions read the same are mates of each other's captions.
    _, same = np.unique(phantoms.captions, return_inverse=True)
    mates = same[:, None] == same
    figures: dict[str, Any] = {"images": n, "different captions": int(same.max()) + 1}
    for way, scores in (
        ("caption to image", texts @ images.T),
        ("image to caption", images @ texts.T),
    ):
        figures[way] = {
            f"hit rate@{k}": {
                "ours": metrics.hit_rate_at_k(mates, scores, k=k),
                "chance": metrics.chance_level(metrics.hit_rate_at_k, mates, k=k),
            }
            for k in (1, 5, 10)
        }
        figures[way]["median rank"] = metrics.median_rank(mates, scores)
    figures["precision@10 by finding"] = by_finding(phantoms, images)
    return figures


def by_finding(phantoms: Any, images: Vectors) -> dict[str, Any]:
    """Return precision@10 of prompts and of examples, finding by finding."""
    text = MedSigLIPTextEmbedder("demo", cache=False)
    pixels = np.stack(
        [
            np.asarray(Image.fromarray(image).convert("L").resize((32, 32)), np.float32)
            for image in phantoms.images
        ]
    ).reshape(len(images), -1)
    pixels = unit(pixels - pixels.mean(axis=1, keepdims=True))
    groups = np.asarray(phantoms.groups)
    found = {}
    for name in phantoms.target_names:
        ill = phantoms.target[:, phantoms.target_names.index(name)] == 1
        prompt = unit(text.transform([PROMPTS[name]]))
        rows = {
            "prompt": metrics.precision_at_k(ill[None], prompt @ images.T, k=N),
            "chance": float(ill.mean()),
        }
        asked = np.flatnonzero(ill)[:100]
        others = groups[asked][:, None] != groups  # not the patient's own images
        relevant = np.broadcast_to(ill, others.shape) & others
        for side, vectors in (("example", images), ("example, pixels", pixels)):
            scores = np.where(others, vectors[asked] @ vectors.T, -np.inf)
            first = np.argsort(-scores, axis=1)[:, :N]
            rows[side] = float(np.take_along_axis(relevant, first, axis=1).mean())
        found[name] = rows
    return found


def unit(rows: Any) -> Vectors:
    """Return rows of length 1."""
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def approximate(n: int, n_queries: int, folder: Path) -> dict[str, Any]:
    """Return what indexes cost and find."""
    rows, queries = make_rows(n, n_queries)
    true = top_rows(queries, rows, N)[1]
    figures: dict[str, Any] = {"rows": n, "queries": n_queries}

    def note(
        name: str, seconds: float, size: float, search: Callable[[Any], Any]
    ) -> None:
        search(queries[:3])  # what is read once
        start = time.perf_counter()
        found = np.vstack([search(query[None]) for query in queries])
        taken = time.perf_counter() - start
        figures[name] = {
            "build, s": seconds,
            "bytes on disk / raw": size / rows.nbytes,
            "queries/s": n_queries / taken,
            "recall@10": agreement(found, true),
        }
        print(name, figures[name], flush=True)

    exact = ImageRetriever(model="demo").fit(rows)
    note("ours, exact in memory", 0.0, rows.nbytes, partial(neighbors, exact))
    del exact
    for ann, settings in (
        ("flat", {}),
        ("ivf_sq", {"nprobes": 8}),
        ("ivf_sq", {"nprobes": 40}),
        ("ivf_pq", {"nprobes": 40, "refine_factor": 20}),
        ("hnsw", {"ef": 200}),
    ):
        uri = folder / f"{ann}"
        retriever = ImageRetriever(
            model="demo", index="lancedb", uri=uri, ann=ann, **settings
        )
        if uri.exists():
            seconds = figures["LanceDB ivf_sq, nprobes=8"]["build, s"]
            retriever = ImageRetriever.load(uri, ann=ann, **settings)
        else:
            start = time.perf_counter()
            retriever.fit(rows)
            seconds = time.perf_counter() - start
        words = "".join(f", {k}={v}" for k, v in settings.items())
        note(
            f"LanceDB {ann}{words}",
            seconds,
            on_disk(uri),
            partial(neighbors, retriever),
        )
        if not (ann == "ivf_sq" and settings["nprobes"] == 8):
            shutil.rmtree(uri)
    if find_spec("faiss"):
        import faiss

        start = time.perf_counter()
        n_lists = int(4 * np.sqrt(n))
        coarse = faiss.IndexFlatIP(WIDTH)
        pq = faiss.IndexIVFPQ(
            coarse, WIDTH, n_lists, WIDTH // 8, 8, faiss.METRIC_INNER_PRODUCT
        )
        pq.train(rows[: 50 * n_lists])
        pq.add(rows)
        seconds = time.perf_counter() - start
        pq.nprobe = 40
        size = faiss.serialize_index(pq).nbytes
        note("faiss IVF-PQ, nprobe=40", seconds, size, lambda q: pq.search(q, N)[1])
        del pq
    if find_spec("usearch"):
        from usearch.index import Index, MetricKind

        start = time.perf_counter()
        graph = Index(ndim=WIDTH, metric=MetricKind.IP, dtype="f32")
        graph.add(np.arange(n), rows)
        seconds = time.perf_counter() - start
        size = graph.serialized_length
        note("usearch HNSW", seconds, size, lambda q: graph.search(q, N).keys[None])
    return figures


def neighbors(retriever: ImageRetriever, queries: Vectors) -> NDArray[np.int64]:
    """Return the numbers of the nearest rows."""
    return retriever.kneighbors(queries, N, return_distance=False)


def on_disk(folder: Path) -> int:
    """Return the bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def filtered(n_filters: int, folder: Path) -> dict[str, Any]:
    """Return how many filters found exactly the rows that brute force finds."""
    rng = np.random.default_rng(0)
    rows, queries = make_rows(3000, 1)
    table = pd.DataFrame(
        {
            "modality": rng.choice(["CT", "MR", "X-ray", None], len(rows)),
            "age": np.where(
                rng.random(len(rows)) < 0.1, np.nan, rng.integers(0, 99, len(rows))
            ),
            "contrast": rng.random(len(rows)) < 0.3,
        }
    )
    right = dict.fromkeys(("exact", "lancedb"), 0)
    retrievers = {
        "exact": ImageRetriever(model="demo").fit(rows, metadata=table),
        "lancedb": ImageRetriever(
            model="demo", index="lancedb", uri=folder / "filtered"
        ).fit(rows, metadata=table),
    }
    scores = rows @ queries[0]
    for _ in range(n_filters):
        low, high = sorted(rng.integers(0, 99, 2).tolist())
        kind = str(rng.choice(["CT", "MR", "X-ray"]))
        age, modality = table["age"], table["modality"]
        text, mask = [
            (f"age between {low} and {high}", age.between(low, high)),
            (f"modality = '{kind}' and age > {low}", (modality == kind) & (age > low)),
            (f"not (age <= {high})", age > high),
            ("age is null or contrast = true", age.isna() | table["contrast"]),
            (f"modality in ('{kind}', 'CT') and contrast = false",
             modality.isin([kind, "CT"]) & ~table["contrast"]),
        ][int(rng.integers(5))]  # fmt: skip
        allowed = np.flatnonzero(mask)
        expected = allowed[np.argsort(-scores[allowed], kind="stable")[:N]]
        for name, retriever in retrievers.items():
            hits = retriever.search(queries[0], N, where=text)["id"].to_numpy()
            right[name] += set(hits) == set(expected)
    return {"filters": n_filters, **{f"{k}, right": v for k, v in right.items()}}


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--dry", action="store_true", help="small, writes no results")
    args = parser.parse_args()
    modules = {"faiss-cpu": "faiss", "usearch": "usearch"}
    peers = [name for name, module in modules.items() if find_spec(module)]
    results = setting("numpy", "torch", "lancedb", *peers, width=WIDTH, neighbours=N)
    results["phantoms"] = on_phantoms(200 if args.dry else 2000)
    print(results["phantoms"], flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results["filters"] = filtered(20 if args.dry else 200, folder)
        print(results["filters"], flush=True)
        rows = 6_000 if args.dry else args.rows
        results["approximate search"] = approximate(rows, args.queries, folder)
    if not args.dry:
        write_results("retrieval", results)


if __name__ == "__main__":
    main()
