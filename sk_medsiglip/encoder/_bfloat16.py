"""Whether bfloat16 pays on this CPU: that it is there does not say so.

A Zen 4 was measured twice as fast in it as in float32, a Xeon with AVX-512 BF16 but
without AMX takes 1.6 times as long. One product tells.
"""

from __future__ import annotations

import time
from functools import lru_cache

from sk_medsiglip.encoder._openvino_towers import cpu_has_bfloat16

#: The gain from which on it is worth the digits. The processors measured are far on
#: either side: 0.6 and 1.9.
WORTH_IT = 1.3

#: Rows and columns of the product, in the shape of MedSigLIP's layers; milliseconds.
SHAPE = (512, 1152, 1152)
REPEATS = 4


def bfloat16_pays() -> bool:
    """Say whether this CPU is clearly faster in bfloat16 than in float32.

    Raises
    ------
    MissingDependencyError
        If OpenVINO, which is asked first, is not installed.
    """
    return cpu_has_bfloat16() and bfloat16_gain() >= WORTH_IT


@lru_cache(maxsize=1)
def bfloat16_gain() -> float:
    """Return how many times faster one product is in bfloat16, measured once."""
    import torch

    n_rows, n_inner, n_columns = SHAPE
    best = {}
    factors = {}
    for dtype in (torch.float32, torch.bfloat16):
        left = torch.ones(n_rows, n_inner, dtype=dtype)
        factors[dtype] = left, torch.ones(n_inner, n_columns, dtype=dtype)
        best[dtype] = float("inf")
    for _ in range(REPEATS):  # in turns: what disturbs one disturbs the other
        for dtype, (left, right) in factors.items():
            start = time.perf_counter()
            left @ right
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.float32] / best[torch.bfloat16]
