"""Losses: the sigmoid loss of pairs, over processes too, and cross-entropies with gaps.

Formulas only: nothing here knows of images, models or estimators.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed
from torch.nn import functional as F

__all__ = [
    "SAME_CAPTION",
    "binary_loss",
    "class_loss",
    "gather_rows",
    "keep_loss",
    "pair_signs",
    "sigmoid_pair_loss",
]

#: What an image and the caption of another row are to each other if the caption is
#: true of that image too.
SAME_CAPTION = ("ignore", "positive", "negative")


def sigmoid_pair_loss(
    images: torch.Tensor,
    texts: torch.Tensor,
    log_scale: torch.Tensor,
    bias: torch.Tensor,
    signs: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the sigmoid loss that SigLIP was trained with.

    ``-1/n * sum_ij log sigmoid(z_ij * (exp(log_scale) * <x_i, t_j> + bias))``, where
    ``x`` and ``t`` have length 1 [1]_.

    Parameters
    ----------
    images : tensor of shape (n, width)
        Image vectors of any length.
    texts : tensor of shape (m, width)
        Text vectors of any length.
    log_scale, bias : tensor of one element
        As the checkpoint stores them.
    signs : tensor of shape (n, m) or None, default=None
        ``z``: 1 for a pair, -1 for none, 0 leaves it out. None is 1 on the diagonal
        and -1 elsewhere, as in the paper.

    Returns
    -------
    tensor of no dimension

    References
    ----------
    .. [1] Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023,
       equation 1 and algorithm 1.
    """
    x = F.normalize(images.float(), dim=-1)
    t = F.normalize(texts.float(), dim=-1)
    logits = log_scale.float().exp() * (x @ t.T) + bias.float()
    if signs is None:
        signs = 2 * torch.eye(*logits.shape, device=logits.device) - 1
    signs = signs.to(logits.dtype)
    # log sigmoid(0) is no zero: what is left out must be multiplied away.
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
    """Say which image and text of a batch are a pair, which are none.

    Parameters
    ----------
    row_ids : tensor of shape (n,), int64
        Rows of this process's images.
    all_row_ids : tensor of shape (m,), int64
        Rows of all processes.
    true_texts : tensor of shape (n, k), int64
        Texts that are true of each image, filled up with -1.
    unknown_texts : tensor of shape (n, l), int64
        Texts of which it is not known, filled up with -1. Always left out.
    all_texts : tensor of shape (m,), int64
        The text that each row shows in this batch.
    all_images, images : tensors of shape (m,) and (n,), int64
        Equal numbers are equal pictures.
    same_caption : {"ignore", "positive", "negative"}
        What becomes of a text that another row shows and that is true of this image.

    Returns
    -------
    tensor of shape (n, m), int8
        1, -1, or 0 where the pair is left out.
    """
    own = row_ids[:, None] == all_row_ids[None, :]
    true_too = (true_texts[:, :, None] == all_texts[None, None, :]).any(1)
    # What was written of the same picture in another row is true of it here.
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
    """Return how far scores have moved.

    Parameters
    ----------
    scores, before : tensors of shape (n, n_scores)
        Now, and before training.
    spread : tensor of shape (n_scores,)
        Standard deviation of ``before`` over all images.

    Returns
    -------
    tensor of no dimension
        The sum over scores of mean square changes, each as a share of its spread. Of a
        score that is 0 where nothing moved, and 2 where the order of images has become
        chance.
    """
    return (((scores - before) / spread) ** 2).mean(dim=0).sum()


class _GatherRows(torch.autograd.Function):
    """Rows of all processes, one after the other, whose gradients find their way back.

    Each process computes the loss of its own images against the texts of all; so the
    gradient of a text is the sum over processes.
    """

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        ctx.n_rows = len(rows)
        every = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(every, rows.contiguous())
        return torch.cat(every)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        summed = gradient.contiguous().clone()
        distributed.all_reduce(summed)
        start = ctx.n_rows * distributed.get_rank()
        return summed[start : start + ctx.n_rows]


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows of all processes; those of a single one as they are.

    Parameters
    ----------
    rows : tensor of shape (n, ...)
        As many in every process.

    Returns
    -------
    tensor of shape (n_processes * n, ...)
        In the order of processes. Gradients flow back to the process a row came from.
    """
    if _n_processes() == 1:
        return rows
    return _GatherRows.apply(rows) if rows.is_floating_point() else _gather_ids(rows)


def _gather_ids(rows: torch.Tensor) -> torch.Tensor:
    every = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
    distributed.all_gather(every, rows.contiguous())
    return torch.cat(every)


def _n_processes() -> int:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def binary_loss(
    logits: torch.Tensor, targets: torch.Tensor, pos_weight: torch.Tensor | None
) -> torch.Tensor:
    """Return the binary cross-entropy of what is known.

    Parameters
    ----------
    logits, targets : tensors of shape (n, n_labels)
        Targets are 1, 0, and NaN where a label is not known.
    pos_weight : tensor of shape (n_labels,) or None
        Factor on the loss of positives.

    Returns
    -------
    tensor of no dimension
        Mean over the known entries of all processes, so scaled that the mean over
        processes is that mean; 0 where none is known.
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
    """Return the cross-entropy, weighted by class.

    Parameters
    ----------
    logits : tensor of shape (n, n_classes)
    targets : tensor of shape (n,), int64
        Places of the classes.
    class_weight : tensor of shape (n_classes,) or None

    Returns
    -------
    tensor of no dimension
        Weighted mean over the rows of all processes, scaled as in
        :func:`binary_loss`.
    """
    each = F.cross_entropy(
        logits.float(), targets, weight=class_weight, reduction="none"
    )
    weights = torch.ones_like(each) if class_weight is None else class_weight[targets]
    return each.sum() / _mean_over_processes(weights.sum())


def _mean_over_processes(total: torch.Tensor) -> torch.Tensor:
    """Return the mean of a count; gradients are averaged over processes later."""
    total = total.detach().float().clone()
    n = _n_processes()
    if n > 1:
        distributed.all_reduce(total)
    return (total / n).clamp(min=1e-12)
