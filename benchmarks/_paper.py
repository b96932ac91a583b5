"""On paper: what millions of images take on GPUs, and a billion vectors in a search.

Nothing here was run on a GPU or at these sizes. Every figure follows from parts that
``benchmarks.scale_out`` and ``benchmarks.retrieval`` measured and from the assumptions
below, which the results repeat: who knows better puts other numbers in.

The work of an image is counted from MedSigLIP's shape (27 layers of width 1152 and
inner width 4304, 448 pixels in patches of 14, so n = 1024 patches)::

    layer = 2 n (4 width^2 + 2 width inner) + 4 n^2 width
    image = 27 layers + patches + pooling  =  0.98 TFLOP

The weights' products are 0.84 of it, attention 0.13. (At 384 pixels it would be 0.67.)
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu import operations

__all__ = [
    "ASSUMED",
    "calculate",
    "embedding_job",
    "image_operations",
    "search_of",
    "with_tables",
]

#: None of these was measured.
ASSUMED: dict[str, Any] = {
    "images": 10_000_000,
    "GPUs": 8,
    "share of a GPU's peak that is reached": 0.4,
    "CPU cores beside the GPUs": 96,
    "storage, GB/s": 5.0,
    "GPU": {
        # NVIDIA's data sheets: bfloat16 without sparsity. Dollars: rental prices of
        # spring 2026 (jarvislabs.ai), a price list of many.
        "H100 SXM": {"peak, TFLOP/s": 989.0, "USD an hour": 2.69},
        "A100": {"peak, TFLOP/s": 312.0, "USD an hour": 1.49},
    },
}

#: Vectors on paper, of this many float32.
VECTORS, WIDTH = 1_000_000_000, 1152

#: Partitions that a query looks into, candidates that are measured exactly, and nodes
#: that share the vectors.
NPROBES, CANDIDATES, NODES = 40, 200, 16

#: Of the flat and the two approximate indexes in the results of ``retrieval``.
_INDEXES = {
    "LanceDB, no index": ("LanceDB flat",),
    "LanceDB IVF-SQ": ("LanceDB ivf_sq, nprobes=40",),
    "LanceDB IVF-PQ, 288 bytes": ("LanceDB ivf_pq, nprobes=40, refine_factor=20",),
}


def calculate(
    parts: Mapping[str, Any],
    retrieval: Mapping[str, Any],
    assumed: Mapping[str, Any] = ASSUMED,
) -> dict[str, Any]:
    """Return all that follows from the parts.

    Parameters
    ----------
    parts : mapping
        "reading" and "writing", of ``benchmarks.scale_out``.
    retrieval : mapping
        Results of ``benchmarks.retrieval``.
    assumed : mapping
        As ``ASSUMED``.
    """
    gpus = assumed["GPU"]
    return {
        "assumed, not measured": {k: v for k, v in assumed.items() if k != "GPU"},
        "assumed of a GPU": gpus,
        "an image, TFLOP": image_operations() / 1e12,
        **{
            f"{assumed['images']:,} images on {assumed['GPUs']} {gpu}": {
                kind: embedding_job(reading, parts["writing"], facts, assumed)
                for kind, reading in parts["reading"].items()
            }
            for gpu, facts in gpus.items()
        },
        f"{VECTORS:,} vectors": search_of(VECTORS, parts["writing"], retrieval),
    }


def image_operations() -> float:
    """Return the floating-point operations of an image of MedSigLIP."""
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "image_size": 448,
        "patch_size": 14,
    }
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps({"vision_config": vision})
        Path(folder, "config.json").write_text(text, "utf-8")
        return operations(Path(folder))


def embedding_job(
    reading: Mapping[str, float],
    writing: Mapping[str, float],
    gpu: Mapping[str, float],
    assumed: Mapping[str, Any],
) -> dict[str, Any]:
    """Return hours and cost of a job, and what it waits for.

    Stages work at the same time, so the slowest one decides.
    """
    n, n_gpus = assumed["images"], assumed["GPUs"]
    share = assumed["share of a GPU's peak that is reached"]
    per_gpu = share * gpu["peak, TFLOP/s"] * 1e12 / image_operations()
    write_ms = writing["writing a row, ms"] + writing["merging a row, ms"]
    core_ms = reading["a reading task, ms"] + write_ms
    allowed = {
        "model": n_gpus * per_gpu,
        "reading on CPUs": assumed["CPU cores beside the GPUs"] / core_ms * 1e3,
        "storage": assumed["storage, GB/s"] * 1e3 / reading["file, MB"],
    }
    slowest = min(allowed, key=lambda stage: allowed[stage])
    hours = n / allowed[slowest] / 3600
    return {
        "file, MB": reading["file, MB"],
        "a reading task, core ms": reading["a reading task, ms"],
        "images/s a GPU": per_gpu,
        "cores to feed a GPU": per_gpu * core_ms / 1e3,
        "GB/s to feed a GPU": per_gpu * reading["file, MB"] / 1e3,
        "hours, model alone": n / allowed["model"] / 3600,
        "hours": hours,
        "waits for": slowest,
        "USD": hours * n_gpus * gpu["USD an hour"],
        "files, TB": n * reading["file, MB"] / 1e6,
        "shards, GB": n * writing["bytes a row, merged"] / 1e9,
    }


def search_of(
    n: int, writing: Mapping[str, float], retrieval: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what ``n`` vectors take on disks, and what a query of them reads."""
    measured = retrieval["approximate search"]
    raw = n * WIDTH * 4
    storage = {
        "vectors, float32, TB": raw / 1e12,
        "vectors, float16, TB": raw / 2 / 1e12,
        "shards of a job, TB": n * writing["bytes a row, merged"] / 1e12,
        **{
            f"{name}, vectors and index, TB": (
                raw * measured[key]["bytes on disk / raw"] / 1e12
            )
            for name, (key,) in _INDEXES.items()
        },
    }
    per_node = n // NODES
    # LanceDB's own choice: as many partitions as a partition has rows.
    looked_at = NPROBES * math.sqrt(per_node)
    flat = measured["LanceDB flat"]
    scan = n / (measured["rows"] * flat["queries/s"])
    return {
        "storage": storage,
        "a query": {
            "nodes": NODES,
            "vectors a node": per_node,
            "scan of all by one machine of the benchmark, hours": scan / 3600,
            "the same shared by all nodes, s": scan / NODES,
            "partitions of a node that are looked into": (
                f"{NPROBES} of {round(math.sqrt(per_node)):,}"
            ),
            "IVF-SQ, read by a node, MB": looked_at * WIDTH / 1e6,
            "IVF-PQ, read by a node, MB": looked_at * WIDTH / 4 / 1e6,
            "second stage, read by a node, MB": CANDIDATES * WIDTH * 4 / 1e6,
            "measured at 100,000 vectors, IVF-SQ, ms a query": (
                1e3 / measured["LanceDB ivf_sq, nprobes=40"]["queries/s"]
            ),
        },
    }


# --------------------------------------------------------------------------- the page


def with_tables(page: str, paper: Mapping[str, Any]) -> str:
    """Return ``docs/scaling.md`` with its tables made anew from :func:`calculate`."""
    jobs = [v for name, v in paper.items() if " images on " in name]
    (vectors,) = (v for name, v in paper.items() if name.endswith(" vectors"))
    tables = {
        "embedding": _embedding_table(*jobs),
        "storage": _two_columns("", "of a billion", vectors["storage"]),
        "query": _two_columns("a query of a billion", "", vectors["a query"]),
    }
    for name, table in tables.items():
        page, n = re.subn(
            rf"(<!-- paper: {name} -->\n).*?(<!-- end -->)",
            lambda found, table=table: f"{found[1]}\n{table}\n{found[2]}",
            page,
            flags=re.DOTALL,
        )
        if n != 1:
            raise ValueError(f"the page has {n} places for the table {name!r}")
    return page


def _embedding_table(large: Mapping[str, Any], small: Mapping[str, Any]) -> str:
    head = [
        "10 million of",
        "MB a file",
        "reading task, core ms",
        "cores to feed an H100",
        "GB/s to feed it",
        "hours, waits for",
        "USD",
        "eight A100: hours, waits for",
    ]
    rows = []
    for kind, job in large.items():
        other = small[kind]
        rows.append(
            [
                kind,
                f"{job['file, MB']:.1f}",
                f"{job['a reading task, core ms']:.0f}",
                f"{job['cores to feed a GPU']:.0f}",
                f"{job['GB/s to feed a GPU']:.1f}",
                f"{job['hours']:.1f}, {job['waits for']}",
                f"{job['USD']:,.0f}",
                f"{other['hours']:.1f}, {other['waits for']}",
            ]
        )
    return _table(head, rows)


def _two_columns(left: str, right: str, values: Mapping[str, Any]) -> str:
    return _table([left, right], [[k, _show(v)] for k, v in values.items()])


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
