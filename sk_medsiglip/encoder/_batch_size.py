"""The size of a model pass, and the number of passes at a time."""

from __future__ import annotations

import sys

from threadpoolctl import threadpool_limits

# On a CPU, one image of MedSigLIP's 1024 patches is as fast as more, and so are 16 of
# the demonstration checkpoint's 64: what a pass needs stays in the CPU's caches. A GPU
# starts where its multipliers are busy, and takes more where memory allows.
_PATCHES_CPU = 1024
_PATCHES_GPU = 32_768
_PATCHES_GPU_MOST = 131_072

# A text is 64 tokens: a sixteenth of an image's work.
_TEXTS_CPU = 32
_TEXTS_GPU = 512
_TEXTS_GPU_MOST = 2048


# One pass computes while another batch is copied there and a third is stored.
_PASSES_GPU = 3

# Messages of the C++ under torch and OpenVINO: the standard library's, and oneDNN's
# where no memory is left for its kernels or their scratch space.
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
        # Another thread may have learnt the same, or more, meanwhile.
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
    """Return how many batches of images should be on their way at a time.

    Parameters
    ----------
    patches : int
        Number of patches of an image.
    device, engine : str
        As ``choose_device`` and ``choose_engine`` return them.

    Returns
    -------
    int
        Over 1 on a GPU, where copying goes on beside computing; and for light models
        in torch on a CPU, one for each core. The threads of one pass wait for each
        other at every product, for long where reading threads hold a core; passes of
        one thread each wait for nothing. A heavy model has all cores to itself.
    """
    if device != "cpu":
        return _PASSES_GPU
    if engine != "torch" or image_batch_sizes(patches, device)[0] == 1:
        return 1
    import torch

    return torch.get_num_threads()


def use_one_core() -> None:
    """Let torch compute on one core whatever this thread asks of it from now on."""
    import torch

    torch.get_num_threads()  # torch sets its own number at a thread's first use
    threadpool_limits(1, user_api="openmp")


def ran_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory is full.

    Parameters
    ----------
    error : BaseException
        Raised by a pass through a network. After an error of a GPU's memory, torch's
        unused blocks are given back to the device, so that a smaller pass may succeed.

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
    # torch's allocator on a CPU words it in two ways.
    return isinstance(error, RuntimeError) and (
        ("DefaultCPUAllocator" in message and "memory" in message)
        or "can't allocate memory" in message
        or "bad_alloc" in message
        or message.startswith(_WITHOUT_MEMORY)
    )
