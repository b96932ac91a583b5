"""What runs the two towers of a checkpoint: what engines differ in."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Towers"]


class Towers(Protocol):
    """The image and the text tower of one checkpoint, ready to run.

    Attributes
    ----------
    engine : str
        ``"torch"`` or ``"openvino"``.
    device, dtype : str
        Where, and in which numeric type.
    logit_scale, logit_bias : float
        Of ``logit = logit_scale * cosine + logit_bias``.
    """

    engine: str
    device: str
    dtype: str
    logit_scale: float
    logit_bias: float

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return vectors (n, width) of RGB images (n, size, size, 3)."""

    def encode_tokens(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return vectors (n, width) of token ids (n, text_tokens)."""
