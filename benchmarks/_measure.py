"""How the benchmarks measure: in turns, the best of several, with what they ran on."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = [
    "best_of",
    "cpu_features",
    "in_turns",
    "read_results",
    "setting",
    "write_results",
]

_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
_RESULTS = Path(__file__).parent / "results"


def best_of(n_repeats: int, work: Callable[[], object]) -> float:
    """Return the seconds of the fastest repeat."""
    return in_turns(n_repeats, {"work": work})["work"]


def in_turns(
    n_repeats: int,
    sides: Mapping[str, Callable[[], object]],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the best seconds of each side, the sides taking turns.

    Machines are shared: what disturbs one side disturbs the other then, too. On a busy
    machine ``clock=time.process_time`` with one thread counts this process alone.
    """
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(n_repeats):
        for name, work in sides.items():
            start = clock()
            work()
            best[name] = min(best[name], clock() - start)
    return best


def setting(*packages: str, **sizes: Any) -> dict[str, Any]:
    """Return what a figure depends on besides the code."""
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "cpu_features": cpu_features(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        **sizes,
    }


def cpu_features() -> list[str]:
    """Return which of the instructions that models are fast by this CPU has."""
    described = Path("/proc/cpuinfo")
    if not described.exists():
        return []
    flags = set(described.read_text(encoding="utf-8").split())
    return [name for name in _FEATURES if name in flags]


def read_results(name: str) -> dict[str, Any]:
    """Return the results of an earlier run."""
    path = _RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def write_results(name: str, results: Mapping[str, Any]) -> None:
    """Write ``benchmarks/results/<name>.json``."""
    _RESULTS.mkdir(exist_ok=True)
    path = _RESULTS / f"{name}.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
