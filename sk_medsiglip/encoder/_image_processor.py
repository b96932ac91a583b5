"""A checkpoint's own image processor, for the recipe ``resize="processor"``."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.encoder._checkpoints import find_checkpoint
from sk_medsiglip.exceptions import CheckpointError

__all__ = ["load_image_processor", "read_processor"]


@lru_cache(maxsize=8)
def load_image_processor(
    model: str, revision: str | None = None
) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Return the function that resizes as a checkpoint's image processor does.

    Parameters
    ----------
    model : str
        A repository, a folder, or ``"demo"``. No weights are read.
    revision : str or None, default=None
        Commit, or a folder's digest.

    Returns
    -------
    callable
        From RGB pixels of shape (height, width, 3), uint8, to pixels of shape
        (image_size, image_size, 3), uint8: the processor's result before it scales
        to [-1, 1], which the encoder does.

    Raises
    ------
    CheckpointError
        If the checkpoint has no processor, or a damaged one.
    """
    processor = read_processor(find_checkpoint(model, revision, weights=False).folder)

    def resize(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        resized = processor(
            pixels,
            do_rescale=False,
            do_normalize=False,
            input_data_format="channels_last",
            return_tensors="np",
        )["pixel_values"][0]
        return np.ascontiguousarray(resized.transpose(1, 2, 0), dtype=np.uint8)

    return resize


def read_processor(folder: Path) -> Any:
    """Return transformers' image processor for the checkpoint in ``folder``.

    The Pillow one: the other needs torchvision, and gives other bytes.
    """
    from transformers import SiglipImageProcessorPil

    try:
        return SiglipImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"The checkpoint in {str(folder)!r} has no readable "
            f"preprocessor_config.json ({error}). Copy or download it again."
        ) from error
