"""Random changes of training images that do not alter their findings.

They depend only on the seed, the epoch and the row rather than on a stream of random
numbers, so that a resumed run continues with the same images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Augmentation:
    """Ranges of random changes of training images.

    The defaults correspond to differences between two radiographs of one patient.
    Images are not mirrored by default, since the sides of the body differ.

    Parameters
    ----------
    rotation : float, default=5.0
        Largest rotation in degrees, in either direction.
    shift : float, default=0.03
        Largest shift in either direction, as a share of width and height.
    scale : float, default=0.05
        Largest relative change of size, in either direction.
    brightness : float, default=0.08
        Largest change of brightness in either direction, as a share of white.
    contrast : float, default=0.15
        Largest relative change of contrast around the middle grey, in either direction.
    flip_left_right : bool, default=False
        Whether to mirror half of the images. This suits images of skin or histology,
        but not images in which left and right have a meaning.
    flip_up_down : bool, default=False
        Whether to flip half of the images upside down.

    Raises
    ------
    ValueError
        If a number is negative or implausibly large.

    Examples
    --------
    >>> from sk_medsiglip.fine_tuning import Augmentation
    >>> Augmentation(rotation=180, flip_left_right=True, flip_up_down=True).rotation
    180
    """

    rotation: float = 5.0
    shift: float = 0.03
    scale: float = 0.05
    brightness: float = 0.08
    contrast: float = 0.15
    flip_left_right: bool = False
    flip_up_down: bool = False

    def __post_init__(self) -> None:
        most = {"rotation": 180.0, "shift": 0.5, "scale": 0.5}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name.startswith("flip"):
                if not isinstance(value, bool):
                    raise ValueError(f"{one.name} must be a bool, got {value!r}.")
            elif not 0 <= value <= most.get(one.name, 1.0):
                raise ValueError(
                    f"{one.name} must lie between 0 and {most.get(one.name, 1.0):g}, "
                    f"got {value!r}."
                )


def draw_changes(
    how: Augmentation, seed: int, epochs: Sequence[int], rows: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw an affine map, and a factor and an offset of grey values, for each image."""
    # Maps from the changed image to the original, in coordinates from -1 to 1.
    affine = np.empty((len(rows), 2, 3), np.float32)
    tone = np.empty((len(rows), 2), np.float32)
    for i, (epoch, row) in enumerate(zip(epochs, rows, strict=True)):
        rng = np.random.Generator(np.random.Philox(key=[seed, (epoch << 32) + row]))
        angle, across, down, size, bright, hard = rng.uniform(-1, 1, 6)
        mirror, turn = rng.random(2) < 0.5
        angle = math.radians(how.rotation * angle)
        size = 1 + how.scale * size
        flip = np.array(
            [
                -1 if mirror and how.flip_left_right else 1,
                -1 if turn and how.flip_up_down else 1,
            ]
        )
        cos, sin = math.cos(angle) / size, math.sin(angle) / size
        affine[i, :, :2] = np.array([[cos, -sin], [sin, cos]]) * flip
        # Coordinates run from -1 to 1, so the width is 2.
        affine[i, :, 2] = 2 * how.shift * across, 2 * how.shift * down
        tone[i] = 1 + how.contrast * hard, how.brightness * bright
    return affine, tone


def apply_changes(
    pixels: torch.Tensor, affine: torch.Tensor, tone: torch.Tensor
) -> torch.Tensor:
    """Return changed images of shape (n, 3, height, width), values from 0 to 255.

    Images are extended beyond their edges with the values at the edge.
    """
    from torch.nn import functional as F

    grid = F.affine_grid(affine, list(pixels.shape), align_corners=False)
    moved = F.grid_sample(
        pixels, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    factor, added = tone[:, 0, None, None, None], tone[:, 1, None, None, None]
    return ((moved - 127.5) * factor + 127.5 + 255 * added).clamp_(0, 255)
