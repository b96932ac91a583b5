"""What runs the two towers of a checkpoint: what engines differ in."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Towers(Protocol):
    """The image and the text tower of one checkpoint, ready to run.

    A pass has three steps. ``send`` and ``fetch`` may run in several threads at a
    time; ``run_images`` and ``run_texts`` in one. On a GPU they only queue work, so
    that copies of one batch go on beside the computation of another.
    """

    engine: str
    device: str
    dtype: str
    logit_scale: float
    logit_bias: float

    def send(self, values: NDArray) -> Any:
        """Bring an array to the device."""

    def run_images(self, sent: Any) -> Any:
        """Compute the vectors of RGB pixels (n, size, size, 3), uint8."""

    def run_texts(self, sent: Any) -> Any:
        """Compute the vectors of token ids (n, text_tokens), int64."""

    def fetch(self, result: Any) -> NDArray[np.float32]:
        """Return computed vectors (n, width)."""
