"""SigLIP's pooling head: one attention over patches and a small perceptron.

SigLIP has no class token: its embedding is one attention over the patches of the last
layer, with a learnt query, and a residual perceptron. The same head can therefore
compute the embedding of a part of an image, without another pass through the layers.
"""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def check_grid(grid: int, patches_per_side: int) -> None:
    """Raise unless the lines of a grid fall between patches.

    Parameters
    ----------
    grid : int
        Number of cells along a side of the image.
    patches_per_side : int
        Number of patches along a side of the image.

    Raises
    ------
    ValueError
        If ``grid`` does not divide ``patches_per_side``; the message lists the grids
        that do.
    """
    possible = [n for n in range(1, patches_per_side + 1) if patches_per_side % n == 0]
    if grid not in possible:
        raise ValueError(
            f"grid={grid!r} does not divide the {patches_per_side} patches along a "
            "side of the images of this model, so cells would cut through patches. Use "
            f"one of {', '.join(map(str, possible))}."
        )


def embed_pixels(
    vision: Any, pixel_values: torch.Tensor, grid: int | None = None
) -> torch.Tensor:
    """Return the row of each image; with ``grid``, its row followed by its cells."""
    # The steps of transformers' image tower, whose forward returns only one row.
    states = vision.embeddings(pixel_values)
    states = vision.encoder(inputs_embeds=states).last_hidden_state
    vectors = _pool(vision.head, vision.post_layernorm(states), grid)
    return vectors[:, 0] if grid is None else vectors


def pool_patches(head: Any, patches: torch.Tensor) -> torch.Tensor:
    """Return the result of transformers' pooling head, with contiguous matrices.

    torch's module multiplies matrices that are not contiguous. For two or more images
    in bfloat16 on a CPU, that takes seconds, more than the 27 layers before it.
    """
    return _pool(head, patches, None)[:, 0]


def project(
    head: Any, patches: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the head's query, and the key and value of every patch."""
    from torch.nn import functional as F

    width = patches.shape[2]
    weight, bias = head.attention.in_proj_weight, head.attention.in_proj_bias
    query = F.linear(head.probe, weight[:width], bias[:width])
    key, value = F.linear(patches, weight[width:], bias[width:]).chunk(2, dim=-1)
    return query, key, value


def split_heads(attention: Any, x: torch.Tensor) -> torch.Tensor:
    """Reshape (n, length, width) to (n, n_heads, length, width of a head)."""
    return x.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)


def refine(head: Any, pooled: torch.Tensor) -> torch.Tensor:
    """Return the embeddings of pooled values, after the output projection."""
    return pooled + head.mlp(head.layernorm(pooled))


def _pool(head: Any, patches: torch.Tensor, grid: int | None) -> torch.Tensor:
    """Return rows (n, 1, width), or with ``grid`` (n, 1 + grid**2, width)."""
    import torch

    query, key, value = project(head, patches)
    pooled = _attend(head.attention, query, key, value)
    if grid is not None:
        cells = _attend(
            head.attention, query, _by_cell(key, grid), _by_cell(value, grid)
        )
        pooled = torch.cat([pooled, cells.reshape(-1, grid**2, cells.shape[2])], dim=1)
    return refine(head, head.attention.out_proj(pooled))


def _attend(
    attention: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    """Return the mean of values, weighted by the similarity of keys and query."""
    from torch.nn import functional as F

    # len() would be a constant in a traced graph.
    query = query.expand(key.shape[0], -1, -1)
    pooled = F.scaled_dot_product_attention(
        split_heads(attention, query),
        split_heads(attention, key),
        split_heads(attention, value),
    )
    return pooled.transpose(1, 2).flatten(2)


def _by_cell(patches: torch.Tensor, grid: int) -> torch.Tensor:
    """Reshape (n, patches, width) to (n * grid**2, patches of a cell, width)."""
    side = isqrt(patches.shape[1]) // grid
    rows = patches.unflatten(1, (grid, side, grid, side))
    return rows.transpose(2, 3).reshape(-1, side**2, patches.shape[2])
