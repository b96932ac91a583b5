"""Losses: the sigmoid loss of pairs, and cross-entropies of labels with blanks.

This file holds only formulas. It does not depend on images, models or estimators.
"""

from __future__ import annotations

import torch
from torch import distributed
from torch.nn import functional as F


def sigmoid_pair_loss(
    images: torch.Tensor,
    texts: torch.Tensor,
    log_scale: torch.Tensor,
    bias: torch.Tensor,
    signs: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the sigmoid loss of SigLIP.

    It is ``-1/n * sum_ij log sigmoid(z_ij * (exp(log_scale) * <x_i, t_j> + bias))``,
    where ``x`` and ``t`` have unit length: equation 1 and algorithm 1 of Zhai et al.,
    "Sigmoid Loss for Language Image Pre-Training", ICCV 2023. The sign ``z`` is 1 for a
    matching pair, -1 for others, and 0 for those to leave out. By default only the
    diagonal matches.
    """
    x = F.normalize(images.float(), dim=-1)
    t = F.normalize(texts.float(), dim=-1)
    logits = log_scale.float().exp() * (x @ t.T) + bias.float()
    if signs is None:
        signs = 2 * torch.eye(*logits.shape, device=logits.device) - 1
    signs = signs.to(logits.dtype)
    # log sigmoid(0) is not 0, so pairs that are left out are multiplied by 0.
    return -(F.logsigmoid(signs * logits) * signs.abs()).sum() / len(logits)


def pair_signs(
    row_ids: torch.Tensor,
    all_row_ids: torch.Tensor,
    true_texts: torch.Tensor,
    unknown_texts: torch.Tensor,
    all_texts: torch.Tensor,
    all_images: torch.Tensor,
    images: torch.Tensor,
    same_caption: str,
) -> torch.Tensor:
    """Return 1 for images and texts that match, -1 for others, 0 to leave them out.

    Rows are those of this process and of all processes. True and unknown texts are
    tables with one row per image, padded with -1. Identical images have equal numbers
    in ``images``.
    """
    own = row_ids[:, None] == all_row_ids[None, :]
    true_too = (true_texts[:, :, None] == all_texts[None, None, :]).any(1)
    # A text of an identical image in another row is also true.
    true_too |= images[:, None] == all_images[None, :]
    unknown = (unknown_texts[:, :, None] == all_texts[None, None, :]).any(1)
    signs = torch.full(own.shape, -1, dtype=torch.int8, device=own.device)
    signs[unknown] = 0
    signs[true_too] = {"ignore": 0, "positive": 1, "negative": -1}[same_caption]
    signs[own] = 1
    return signs


def keep_loss(
    scores: torch.Tensor, before: torch.Tensor, spread: torch.Tensor
) -> torch.Tensor:
    """Return the summed mean squared changes of scores relative to their spread."""
    return (((scores - before) / spread) ** 2).mean(dim=0).sum()


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows of all processes in order; each has the same number.

    Each process computes the loss of its images against the texts of all processes, so
    the gradient of a text is a sum over processes.
    """
    if _n_processes() == 1:
        return rows
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(rows))


def _n_processes() -> int:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def binary_loss(
    logits: torch.Tensor, targets: torch.Tensor, pos_weight: torch.Tensor | None
) -> torch.Tensor:
    """Return the binary cross-entropy of targets 1 and 0, leaving out NaN.

    It is scaled so that the mean over processes is the mean over all known targets.
    """
    known = ~torch.isnan(targets)
    each = F.binary_cross_entropy_with_logits(
        logits.float(),
        torch.where(known, targets, 0).float(),
        pos_weight=pos_weight,
        reduction="none",
    )
    return (each * known).sum() / _mean_over_processes(known.sum())


def class_loss(
    logits: torch.Tensor, targets: torch.Tensor, class_weight: torch.Tensor | None
) -> torch.Tensor:
    """Return the cross-entropy weighted by class, scaled like :func:`binary_loss`."""
    each = F.cross_entropy(
        logits.float(), targets, weight=class_weight, reduction="none"
    )
    weights = torch.ones_like(each) if class_weight is None else class_weight[targets]
    return each.sum() / _mean_over_processes(weights.sum())


def _mean_over_processes(total: torch.Tensor) -> torch.Tensor:
    # The mean, since gradients are averaged over processes later.
    total = total.detach().float().clone()
    n = _n_processes()
    if n > 1:
        distributed.all_reduce(total)
    return (total / n).clamp(min=1e-12)
