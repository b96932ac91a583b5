"""How many images or texts go through a model in one pass."""

from __future__ import annotations

import sys

__all__ = ["BatchSize", "image_batch_sizes", "text_batch_sizes"]

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


class BatchSize:
    """The size of the next pass: doubled while passes succeed, halved when one fails.

    Parameters
    ----------
    size : int
        Of the first pass.
    most : int
        Never more than this.

    Attributes
    ----------
    size : int
        Suggested for the next pass.
    limit : int
        What memory is known not to exceed; no pass may be larger.
    """

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
        Of one image: 1024 for MedSigLIP.
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
