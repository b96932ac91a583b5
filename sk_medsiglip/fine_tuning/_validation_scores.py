"""How well a network does on the validation split."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from sk_medsiglip.fine_tuning._batches import Collator
from sk_medsiglip.fine_tuning._losses import pair_signs
from sk_medsiglip.fine_tuning._network import Network

__all__ = ["validation_scores"]


def validation_scores(
    network: Network,
    collator: Collator,
    block_size: int,
    batch_size: int,
    accelerator: Any,
) -> dict[str, float]:
    """Return the loss, and for classes the area under the ROC curve.

    Parameters
    ----------
    network : Network
    collator : Collator
        Of the validation rows.
    block_size : int
        Pairs that are compared at a time, as many as in a training step: the loss of
        a pair grows with what it is compared with.
    batch_size : int
        Rows in one pass.
    accelerator : accelerate.Accelerator
        Whose processes share the work.

    Returns
    -------
    dict of str to float
        ``"loss"`` and, for classes, ``"auc"``: the mean over labels or classes.
    """
    rows = collator.rows
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad(), accelerator.autocast():
            images, texts = _encode_all(network, collator, batch_size, accelerator)
            if network.classifier is not None:
                return _class_scores(network, images, collator, rows)
            assert texts is not None
            return {
                "loss": _pair_loss(network, images, texts, collator, rows, block_size)
            }
    finally:
        network.train(was_training)


def _encode_all(
    network: Network, collator: Collator, batch_size: int, accelerator: Any
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return what the network makes of all rows, in their order, in every process."""
    rows, n = collator.rows, accelerator.num_processes
    # The same number in every process; what is too many is cut off afterwards.
    share = -(-len(rows) // n)
    mine = np.arange(share) + share * accelerator.process_index
    images, texts = [], []
    for start in range(0, share, batch_size):
        some = rows[mine[start : start + batch_size] % len(rows)]
        batch = {
            name: values.to(accelerator.device)
            for name, values in collator.take(some).items()
        }
        encoded = network.encode(**batch)
        images.append(encoded[0])
        texts.append(encoded[1])
    every = accelerator.gather(torch.cat(images))[: len(rows)].float()
    if texts[0] is None:
        return every, None
    return every, accelerator.gather(torch.cat(texts))[: len(rows)].float()  # type: ignore[arg-type]


def _pair_loss(
    network: Network,
    images: torch.Tensor,
    texts: torch.Tensor,
    collator: Collator,
    rows: NDArray[np.intp],
    block_size: int,
) -> float:
    # Neighbours are often of one patient: blocks are drawn, always the same ones.
    order = np.random.default_rng(0).permutation(len(rows))
    n_blocks = max(1, round(len(rows) / block_size))
    total = 0.0
    for block in np.array_split(order, n_blocks):
        batch = {
            name: values.to(images.device)
            for name, values in collator.describe(rows[block]).items()
        }
        signs = pair_signs(
            batch["rows"],
            batch["rows"],
            batch["true_texts"],
            batch["unknown_texts"],
            batch["text_ids"],
            batch["image_ids"],
            batch["image_ids"],
            network.same_caption,
        )
        loss = network.pair_loss(images[block], texts[block], signs)
        total += float(loss) * len(block)
    return total / len(rows)


def _class_scores(
    network: Network,
    logits: torch.Tensor,
    collator: Collator,
    rows: NDArray[np.intp],
) -> dict[str, float]:
    assert collator.targets is not None
    targets = collator.targets[rows]
    loss = network.class_loss(logits, torch.from_numpy(targets).to(logits.device))
    scores = logits.cpu().numpy()
    if network.several_classes:
        target = np.eye(scores.shape[1])[targets]
    else:
        target = targets.reshape(len(targets), -1).astype(np.float64)
    areas = [
        _area(target[:, column], scores[:, column]) for column in range(target.shape[1])
    ]
    return {"loss": float(loss), "auc": float(np.mean(areas))}


def _area(target: NDArray[np.float64], scores: NDArray[np.floating]) -> float:
    known = ~np.isnan(target)
    return float(roc_auc_score(target[known], scores[known]))
