"""Limits of torch in a forked worker: one thread, without a GPU.

A fork copies one thread: the OpenMP workers of the parent are missing in the child, and
its next parallel region would wait for them forever. A single thread needs none of
them. A CUDA context does not survive a fork at all.
"""

from __future__ import annotations

import os

from sk_medsiglip.exceptions import ForkedProcessError

_forked = False
_limited = False


def one_thread_in_forked_child() -> None:
    """Limit torch to one thread if this process was forked."""
    global _limited
    if _forked and not _limited:
        import torch

        torch.set_num_threads(1)
        _limited = True


def check_device_after_fork(device: str, pid: int) -> None:
    """Raise if a parent of this process loaded weights on a GPU."""
    if device.startswith("cuda") and pid != os.getpid():
        raise ForkedProcessError(
            "This worker was forked after the model was loaded on the GPU, and "
            "CUDA does not survive a fork. Start workers with spawn or loky "
            '(joblib.parallel_config(backend="loky")), embed before forking so that '
            'the cache holds every row, or use device="cpu" in the workers.'
        )


def _mark_forked() -> None:
    global _forked, _limited
    _forked, _limited = True, False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)
