"""matplotlib axes for displays, and grids of images in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from sk_medsiglip._drawn_names import drawn_lines
from sk_medsiglip._optional import import_optional

#: Largest number of pixels drawn per side; larger images are subsampled.
_MAX_SHOWN = 256


def new_axes(ax: Any, size: tuple[float, float], purpose: str) -> Any:
    """Return the given axes, or those of a new figure of this size in inches."""
    pyplot = import_optional("matplotlib.pyplot", extra="plot", purpose=purpose)
    if ax is None:
        _, ax = pyplot.subplots(figsize=size, layout="constrained")
    return ax


def draw_grid(
    ax: Any,
    tiles: Sequence[tuple[NDArray[Any] | None, str]],
    n_columns: int,
    *,
    purpose: str,
    title: str | None = None,
    nothing: str = "nothing found",
) -> tuple[Any, list[Any]]:
    """Draw images with captions of up to three lines, and return all axes.

    ``nothing`` is written if there are no tiles.
    """
    n_columns = max(1, min(n_columns, len(tiles)))
    n_rows = max(1, -(-len(tiles) // n_columns))
    ax = new_axes(ax, (max(4.2, 2.1 * n_columns), 0.4 + 2.6 * n_rows), purpose)
    ax.set_axis_off()
    if title is not None:
        ax.set_title(drawn_lines(title, 60), fontsize=10)
    if not tiles:
        ax.text(0.5, 0.5, nothing, ha="center", transform=ax.transAxes)
    axes = []
    for place, (image, caption) in enumerate(tiles):
        i, j = divmod(place, n_columns)
        # The caption takes the upper fifth of a tile.
        corner = (j + 0.02) / n_columns, (n_rows - 1 - i + 0.02) / n_rows
        tile = ax.inset_axes((*corner, 0.96 / n_columns, 0.76 / n_rows))
        tile.set(xticks=[], yticks=[])
        tile.spines[:].set_visible(image is None)
        if image is None:
            style = {"ha": "center", "fontsize": 7, "transform": tile.transAxes}
            tile.text(0.5, 0.5, "no image", **style)
        else:
            step = -(-max(image.shape[:2]) // _MAX_SHOWN)
            tile.imshow(image[::step, ::step], cmap="gray")
        tile.set_title(caption, fontsize=7, pad=3)
        axes.append(tile)
    return ax, axes
