"""Engine, device and numeric type of a model pass, chosen before anything is loaded.

That a CPU has bfloat16 does not say that it pays: a Zen 4 was measured twice as fast in
it as in float32; a Xeon with AVX-512 BF16 but without AMX takes 1.6 times as long. One
product tells.
"""

from __future__ import annotations

import time
from functools import lru_cache

from sk_medsiglip.encoder._openvino_towers import cpu_has_bfloat16

ENGINES = ("torch", "openvino")

#: The gain from which on it is worth the digits. The processors measured are far on
#: either side: 0.6 and 1.9.
WORTH_IT = 1.3

#: Rows and columns of the product, in the shape of MedSigLIP's layers; milliseconds.
SHAPE = (512, 1152, 1152)
REPEATS = 4


def choose_engine(engine: str) -> str:
    """Return the engine that ``engine`` means: "auto" is torch."""
    if engine == "auto":
        return "torch"
    if engine not in ENGINES:
        raise ValueError(
            f"engine={engine!r} is none of 'auto', {', '.join(map(repr, ENGINES))}."
        )
    return engine


def choose_device(device: str, engine: str = "torch") -> str:
    """Return the device that ``device`` means on this machine.

    Parameters
    ----------
    device : str
        ``"auto"`` or a torch device.
    engine : str, default="torch"
        As :func:`choose_engine` returns it.

    Returns
    -------
    str
        A torch device.

    Raises
    ------
    ValueError
        If torch does not know it, this machine does not have it, or the engine does
        not run on it.
    """
    if engine == "openvino":
        if device not in ("auto", "cpu"):
            raise ValueError(
                f"engine='openvino' runs on the CPU, not on device={device!r}. Use "
                "device='cpu', or engine='torch'."
            )
        return "cpu"
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(
            f"device={device!r} is not a device that torch knows; use 'auto', 'cpu', "
            "'cuda', 'cuda:0' or 'mps'."
        ) from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={device!r}, but torch sees no CUDA device here. Use "
            "device='auto', or install a CUDA build of torch."
        )
    return device


def choose_dtype(dtype: str, device: str, engine: str = "torch") -> str:
    """Return the numeric type that ``dtype`` means on a device.

    Parameters
    ----------
    dtype : str
        ``"auto"``, ``"float32"`` or ``"bfloat16"``.
    device : str
        As :func:`choose_device` returns it.
    engine : str, default="torch"
        As :func:`choose_engine` returns it.

    Returns
    -------
    str
        ``"float32"`` or ``"bfloat16"``.
    """
    if dtype != "auto":
        return dtype
    if engine == "openvino":
        # This engine is chosen for its speed.
        native = bfloat16_pays()
    else:
        import torch

        native = device.startswith("cuda") and torch.cuda.is_bf16_supported(
            including_emulation=False
        )
    return "bfloat16" if native else "float32"


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
