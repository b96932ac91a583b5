"""The image tower's last step, with its memory in the order that is fast.

SigLIP pools its patches by one attention whose query is a learnt probe. torch's module
for it moves the axis of the batch behind that of the patches, and then multiplies
matrices that do not lie contiguously. With two or more images in bfloat16 on a CPU that
one product costs seconds, more than the 27 layers before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def pool_patches(head: Any, patches: torch.Tensor) -> torch.Tensor:
    """Return what transformers' pooling head returns."""
    from torch.nn import functional as F

    attention = head.attention
    # Not len(): that would be a constant in a traced graph.
    n, width = patches.shape[0], patches.shape[2]
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    query = F.linear(head.probe, weight[:width], bias[:width]).expand(n, -1, -1)
    key, value = F.linear(patches, weight[width:], bias[width:]).chunk(2, dim=-1)
    by_head = [
        x.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        for x in (query, key, value)
    ]
    pooled = F.scaled_dot_product_attention(*by_head).transpose(1, 2).flatten(2)
    pooled = attention.out_proj(pooled)
    return (pooled + head.mlp(head.layernorm(pooled)))[:, 0]
