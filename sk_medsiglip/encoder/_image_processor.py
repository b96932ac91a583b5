"""The image processor of a checkpoint, for the recipe ``resize="processor"``."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.encoder._checkpoints import find_checkpoint
from sk_medsiglip.exceptions import CheckpointError

_HINT = 'Correct its preprocessor_config.json, or use resize="medsiglip".'


@lru_cache(maxsize=8)
def load_image_processor(
    model: str, revision: str | None = None
) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Return a function that resizes like the image processor of a checkpoint.

    Parameters
    ----------
    model : str
        A repository, a folder, or ``"demo"``. No weights are read.
    revision : str or None, default=None
        Commit, or digest of a folder.

    Returns
    -------
    callable
        Function from RGB pixels of shape (height, width, 3), uint8, to pixels of shape
        (image_size, image_size, 3), uint8: the result of the processor before scaling
        to [-1, 1], which is done by the encoder.

    Raises
    ------
    CheckpointError
        If the processor is missing or damaged.
    """
    checkpoint = find_checkpoint(model, revision, weights=False)
    processor = _read_processor(checkpoint.folder)
    size = (checkpoint.image_size, checkpoint.image_size, 3)

    def resize(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        try:
            resized = processor(
                pixels,
                do_rescale=False,
                do_normalize=False,
                input_data_format="channels_last",
                return_tensors="np",
            )["pixel_values"][0].transpose(1, 2, 0)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"The image processor of {model!r} fails ({error}). {_HINT}"
            ) from error
        if resized.shape != size:
            raise CheckpointError(
                f"The image processor of {model!r} returns pixels of shape "
                f"{resized.shape}; its image tower expects {size}. {_HINT}"
            )
        return np.ascontiguousarray(resized, dtype=np.uint8)

    return resize


def pixel_scaling(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the scaling of pixels by a checkpoint, ``pixels * scale - shift``.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the checkpoint.

    Returns
    -------
    scale, shift : tuple of 3 float
        One value per channel, for pixels from 0 to 255. Steps that the processor of the
        checkpoint skips (``do_rescale``, ``do_normalize``) are skipped.

    Raises
    ------
    CheckpointError
        If the processor is missing or has other channels.
    """
    processor = _read_processor(folder)
    factor = processor.rescale_factor if processor.do_rescale else 1.0
    mean, std = [0.0] * 3, [1.0] * 3
    if processor.do_normalize:
        mean, std = processor.image_mean, processor.image_std
    try:
        scale = tuple(float(factor) / float(s) for s in std)
        shift = tuple(float(m) / float(s) for m, s in zip(mean, std, strict=True))
    except (TypeError, ValueError, ZeroDivisionError):
        scale = shift = ()
    if len(scale) != 3 or not np.isfinite(scale + shift).all():
        raise CheckpointError(
            f"preprocessor_config.json in {str(folder)!r} gives mean {mean} and "
            f"standard deviation {std}; three numbers each are expected. Copy or "
            "download it again."
        )
    return scale, shift


def _read_processor(folder: Path) -> Any:
    """Return transformers' Pillow processor; the other needs torchvision."""
    from transformers import SiglipImageProcessorPil

    try:
        return SiglipImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"The checkpoint in {str(folder)!r} has no readable "
            f"preprocessor_config.json ({error}). Copy or download it again."
        ) from error
