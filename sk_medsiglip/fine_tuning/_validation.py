"""Scores of a network on the validation split."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from sk_medsiglip.fine_tuning._batches import Collator
from sk_medsiglip.fine_tuning._network import Network


def validation_scores(
    network: Network,
    collator: Collator,
    block_size: int,
    batch_size: int,
    accelerator: Any,
) -> dict[str, float]:
    """Return the loss, and for classes the mean area under the ROC curve.

    Pairs are compared in blocks of the size of a training step, since the loss of a
    pair grows with the number of others.
    """
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad(), accelerator.autocast():
            images, texts = _encode_all(network, collator, batch_size, accelerator)
            if texts is None:
                return _class_scores(network, images, collator)
            return {"loss": _pairs_loss(network, images, texts, collator, block_size)}
    finally:
        network.train(was_training)


def _encode_all(
    network: Network, collator: Collator, batch_size: int, accelerator: Any
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the outputs of the network for all rows in order, in every process."""
    rows, n = collator.rows, accelerator.num_processes
    # Every process needs the same number of rows; the surplus is removed at the end.
    share = -(-len(rows) // n)
    mine = np.arange(share) + share * accelerator.process_index
    images, texts = [], []
    for start in range(0, share, batch_size):
        batch = collator.take(rows[mine[start : start + batch_size] % len(rows)])
        encoded = network.encode(**_to(accelerator.device, batch))
        images.append(encoded[0])
        texts.append(encoded[1])

    def gather(parts: list[Any]) -> torch.Tensor:
        return accelerator.gather(torch.cat(parts))[: len(rows)].float()

    return gather(images), None if texts[0] is None else gather(texts)


def _to(device: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: values.to(device) for name, values in batch.items()}


def _pairs_loss(
    network: Network,
    images: torch.Tensor,
    texts: torch.Tensor,
    collator: Collator,
    block_size: int,
) -> float:
    # Shuffled, since neighbouring rows often belong to one patient.
    rows = collator.rows
    order = np.random.default_rng(0).permutation(len(rows))
    total = 0.0
    for block in np.array_split(order, max(1, round(len(rows) / block_size))):
        batch = _to(images.device, collator.describe(rows[block]))
        loss = network.pair_loss(images[block], texts[block], batch, torch.clone)
        total += float(loss) * len(block)
    return total / len(rows)


def _class_scores(
    network: Network, logits: torch.Tensor, collator: Collator
) -> dict[str, float]:
    targets = collator.examples.targets
    assert targets is not None
    targets = targets[collator.rows]
    loss = network.class_loss(logits, torch.from_numpy(targets).to(logits.device))
    scores = logits.cpu().numpy()
    if network.several_classes:
        table = np.eye(scores.shape[1])[targets]
    else:
        table = targets.reshape(len(targets), -1).astype(np.float64)
    areas = []
    for target, score in zip(table.T, scores.T, strict=True):
        known = ~np.isnan(target)
        areas.append(roc_auc_score(target[known], score[known]))
    return {"loss": float(loss), "auc": float(np.mean(areas))}
