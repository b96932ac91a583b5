"""The size of a model pass, and the number of passes at a time."""

from __future__ import annotations

import sys

from threadpoolctl import threadpool_limits

# On a CPU, larger passes are not faster than one image of MedSigLIP (1024 patches), or
# 16 of the demonstration checkpoint (64 patches), which fit into the caches. A GPU
# starts at a size that keeps its multipliers busy, and takes more if memory allows.
_PATCHES_CPU = 1024
_PATCHES_GPU = 32_768
_PATCHES_GPU_MOST = 131_072

# A text has 64 tokens: a sixteenth of the work of an image.
_TEXTS_CPU = 32
_TEXTS_GPU = 512
_TEXTS_GPU_MOST = 2048


# One batch is computed while the next is copied to the GPU and the last is stored.
_PASSES_GPU = 3

# Messages of oneDNN if there is no memory left for its kernels or their scratch space.
_WITHOUT_MEMORY = ("could not create a primitive", "could not execute a primitive")


class BatchSize:
    """Size of the next pass: doubled while passes succeed, halved when one fails."""

    def __init__(self, size: int, most: int) -> None:
        self.size = size
        self.limit = sys.maxsize
        self._most = most

    def passed(self, n: int) -> None:
        """Note that a pass of ``n`` succeeded."""
        if n >= self.size:
            self.size = max(self.size, min(2 * self.size, self._most, self.limit))

    def failed(self, n: int) -> None:
        """Note that memory did not hold a pass of ``n``."""
        # Another thread may have lowered the limit further meanwhile.
        self.limit = min(self.limit, max(1, n // 2))
        self.size = min(self.size, self.limit)


def image_batch_sizes(patches: int, device: str) -> tuple[int, int]:
    """Return the first and the largest number of images in a pass.

    Parameters
    ----------
    patches : int
        Number of patches of an image: 1024 for MedSigLIP.
    device : str
        As ``choose_device`` returns it.

    Returns
    -------
    first, most : int
    """
    if device == "cpu":
        return max(1, _PATCHES_CPU // patches), max(1, _PATCHES_CPU // patches)
    return max(1, _PATCHES_GPU // patches), max(1, _PATCHES_GPU_MOST // patches)


def text_batch_sizes(device: str) -> tuple[int, int]:
    """Return the first and the largest number of texts in a pass."""
    if device == "cpu":
        return _TEXTS_CPU, _TEXTS_CPU
    return _TEXTS_GPU, _TEXTS_GPU_MOST


def passes_at_once(patches: int, device: str, engine: str) -> int:
    """Return the number of batches of images to process at a time.

    Parameters
    ----------
    patches : int
        Number of patches of an image.
    device, engine : str
        As ``choose_device`` and ``choose_engine`` return them.

    Returns
    -------
    int
        More than 1 on a GPU, where copies overlap with computation. For small models
        in torch on a CPU, one per core: the threads of one pass would wait for each
        other at every product, while passes of one thread each do not wait. A large
        model uses all cores for one pass.
    """
    if device != "cpu":
        return _PASSES_GPU
    if engine != "torch" or image_batch_sizes(patches, device)[0] == 1:
        return 1
    import torch

    return torch.get_num_threads()


def use_one_core() -> None:
    """Limit torch to one core in this thread."""
    import torch

    torch.get_num_threads()  # torch sets its own number at the first use in a thread
    threadpool_limits(1, user_api="openmp")


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory is exhausted.

    Parameters
    ----------
    error : BaseException
        Error raised by a pass through a network. If it is about the memory of a GPU,
        unused blocks of torch are freed, so that a smaller pass may succeed.

    Returns
    -------
    bool
    """
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()
        return True
    message = str(error)
    # torch's allocator on a CPU has two messages; C++ has "bad_alloc".
    return isinstance(error, RuntimeError) and (
        ("DefaultCPUAllocator" in message and "memory" in message)
        or "can't allocate memory" in message
        or "bad_alloc" in message
        or message.startswith(_WITHOUT_MEMORY)
    )
