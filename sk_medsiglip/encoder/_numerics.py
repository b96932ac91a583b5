"""Engine, device and numeric type of a model pass, chosen before anything is loaded.

A CPU that supports bfloat16 is not always faster in it: a Zen 4 was measured twice as
fast as in float32, while a Xeon with AVX-512 BF16 but without AMX takes 1.6 times as
long. So one matrix product is timed.
"""

from __future__ import annotations

import time
from functools import lru_cache

from sk_medsiglip.encoder._openvino_towers import cpu_has_bfloat16

ENGINES = ("torch", "openvino")

#: Smallest gain that is worth the loss of digits. The processors measured are far on
#: either side, at 0.6 and 1.9.
WORTH_IT = 1.3

#: Sizes of the timed product, those of MedSigLIP's layers; it takes milliseconds.
SHAPE = (512, 1152, 1152)
REPEATS = 4


def choose_engine(engine: str) -> str:
    """Return the engine selected by ``engine``; "auto" is torch."""
    if engine == "auto":
        return "torch"
    if engine not in ENGINES:
        raise ValueError(
            f"engine must be 'auto', {' or '.join(map(repr, ENGINES))}, got {engine!r}."
        )
    return engine


def choose_device(device: str, engine: str = "torch") -> str:
    """Return the device selected by ``device`` on this machine.

    Parameters
    ----------
    device : str
        ``"auto"`` or a torch device.
    engine : str, default="torch"
        Result of :func:`choose_engine`.

    Returns
    -------
    str
        A torch device.

    Raises
    ------
    ValueError
        If the device is unknown to torch, not available, or not supported by the
        engine.
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
            f"device={device!r} is not known to torch; use 'auto', 'cpu', 'cuda', "
            "'cuda:0' or 'mps'."
        ) from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={device!r} was requested, but torch finds no CUDA device. Use "
            "device='auto', or install a CUDA build of torch."
        )
    return device


def choose_dtype(dtype: str, device: str, engine: str = "torch") -> str:
    """Return the numeric type selected by ``dtype`` on a device.

    Parameters
    ----------
    dtype : str
        ``"auto"``, ``"float32"`` or ``"bfloat16"``.
    device : str
        Result of :func:`choose_device`.
    engine : str, default="torch"
        Result of :func:`choose_engine`.

    Returns
    -------
    str
        ``"float32"`` or ``"bfloat16"``.
    """
    if dtype != "auto":
        return dtype
    if engine == "openvino":
        native = bfloat16_pays()  # this engine is chosen for its speed
    else:
        import torch

        native = device.startswith("cuda") and torch.cuda.is_bf16_supported(
            including_emulation=False
        )
    return "bfloat16" if native else "float32"


def bfloat16_pays() -> bool:
    """Return whether this CPU is clearly faster in bfloat16 than in float32.

    Raises
    ------
    MissingDependencyError
        If OpenVINO, which knows the capabilities of the CPU, is not installed.
    """
    return cpu_has_bfloat16() and bfloat16_gain() >= WORTH_IT


@lru_cache(maxsize=1)
def bfloat16_gain() -> float:
    """Return the speed of a product in bfloat16 relative to float32, measured once."""
    import torch

    n_rows, n_inner, n_columns = SHAPE
    best = {}
    factors = {}
    for dtype in (torch.float32, torch.bfloat16):
        left = torch.ones(n_rows, n_inner, dtype=dtype)
        factors[dtype] = left, torch.ones(n_inner, n_columns, dtype=dtype)
        best[dtype] = float("inf")
    for _ in range(REPEATS):  # in turns, so that disturbances affect both
        for dtype, (left, right) in factors.items():
            start = time.perf_counter()
            left @ right
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.float32] / best[torch.bfloat16]
