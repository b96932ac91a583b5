"""The solver on numpy or on a torch device, and the choice of the device."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.heads._batched_lbfgs import Minimum, minimize


def minimize_on(
    device: str,
    features: Any,
    loss: Any,
    penalty: NDArray[np.floating],
    offset: NDArray[np.floating] | None,
    energy: NDArray[np.floating] | None,
    tol: float,
    max_iter: int,
) -> Minimum:
    """Minimise all problems on a device, and return the results as numpy arrays."""
    if device == "auto":
        device = _gpu_in_use() or "cpu"
    if device == "cpu":
        return minimize(
            features,
            loss,
            penalty,
            offset=offset,
            energy=energy,
            tol=tol,
            max_iter=max_iter,
        )
    torch = _torch_with(device)

    def there(array: Any) -> Any:
        return None if array is None else torch.as_tensor(array, device=device)

    moved = {f.name: there(getattr(loss, f.name)) for f in dataclasses.fields(loss)}
    found = minimize(
        there(features),
        dataclasses.replace(loss, **moved),
        there(penalty),
        offset=there(offset),
        tol=tol,
        max_iter=max_iter,
    )
    found.weights = found.weights.cpu().numpy()
    found.logits = found.logits.cpu().numpy()
    return found


def _torch_with(device: str) -> Any:
    """Return torch, or raise if it cannot use the device."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"device={device!r} cannot be used: {str(error).splitlines()[0]} Use "
            "'cpu', which computes with numpy."
        ) from error
    return torch


def _gpu_in_use() -> str | None:
    """Return the GPU if torch is already loaded, else None."""
    torch = sys.modules.get("torch")
    return "cuda" if torch is not None and torch.cuda.is_available() else None
