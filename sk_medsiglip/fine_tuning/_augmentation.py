"""Mild changes of a picture that leave its findings what they are.

What happens to an image is drawn from the seed, the epoch and the row, not from a
stream of random numbers: a run that was stopped goes on with the same pictures.
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

__all__ = ["Augmentation", "Changes", "apply_changes", "draw_changes"]


@dataclass(frozen=True)
class Augmentation:
    """How far training images may be changed, each way by itself.

    The defaults are what a second radiograph of the same patient may differ by. None
    turns a picture over: the heart of a chest X-ray lies left.

    Parameters
    ----------
    rotation : float, default=5.0
        Degrees, either way.
    shift : float, default=0.03
        Share of the width and of the height, either way.
    scale : float, default=0.05
        Share by which the picture grows or shrinks.
    brightness : float, default=0.08
        Share of white that is added or taken.
    contrast : float, default=0.15
        Share by which the distance from the middle grey grows or shrinks.
    flip_left_right : bool, default=False
        Mirror half of the images. Right for skin or histology; wrong wherever sides
        mean something.
    flip_up_down : bool, default=False
        The same, upside down.

    Raises
    ------
    ValueError
        If a number is negative or too large to be meant.

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


@dataclass(frozen=True, eq=False)
class Changes:
    """What happens to each image of a batch.

    Parameters
    ----------
    affine : ndarray of shape (n, 2, 3), float32
        From places in the changed picture to places in the picture, both from -1 to 1.
    tone : ndarray of shape (n, 2), float32
        Factor on the distance from the middle grey, and what is added to it; as
        shares of white.
    """

    affine: NDArray[np.float32]
    tone: NDArray[np.float32]


def draw_changes(
    how: Augmentation, seed: int, epochs: Sequence[int], rows: Sequence[int]
) -> Changes:
    """Draw what happens to rows of a batch.

    Parameters
    ----------
    how : Augmentation
        How far.
    seed : int
        Of the run.
    epochs, rows : sequence of int
        Of each image: equal ones are changed alike, whoever asks and when.

    Returns
    -------
    Changes
    """
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
        # From -1 to 1 are two widths.
        affine[i, :, 2] = 2 * how.shift * across, 2 * how.shift * down
        tone[i] = 1 + how.contrast * hard, how.brightness * bright
    return Changes(affine, tone)


def apply_changes(
    pixels: torch.Tensor, affine: torch.Tensor, tone: torch.Tensor
) -> torch.Tensor:
    """Return changed pictures.

    Parameters
    ----------
    pixels : tensor of shape (n, 3, height, width), float
        From 0 to 255.
    affine : tensor of shape (n, 2, 3)
    tone : tensor of shape (n, 2)
        As in :class:`Changes`.

    Returns
    -------
    tensor of shape (n, 3, height, width)
        From 0 to 255. What lies outside the picture is as its nearest edge.
    """
    from torch.nn import functional as F

    grid = F.affine_grid(affine, list(pixels.shape), align_corners=False)
    moved = F.grid_sample(
        pixels, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    factor, added = tone[:, 0, None, None, None], tone[:, 1, None, None, None]
    return ((moved - 127.5) * factor + 127.5 + 255 * added).clamp_(0, 255)
