"""The network that is trained: towers and classifier, from a batch to its loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from sk_medsiglip.encoder import Checkpoint, load_network, pixel_scaling
from sk_medsiglip.fine_tuning._augmentation import apply_changes
from sk_medsiglip.fine_tuning._examples import Examples, positive_weights
from sk_medsiglip.fine_tuning._losses import (
    binary_loss,
    class_loss,
    gather_rows,
    keep_loss,
    pair_signs,
    sigmoid_pair_loss,
)
from sk_medsiglip.fine_tuning._settings import Settings
from sk_medsiglip.fine_tuning._texts import KeptScores
from sk_medsiglip.fine_tuning._trainable import choose_trainable


def build_network(
    settings: Settings,
    examples: Examples,
    kept: KeptScores | None,
    checkpoint: Checkpoint,
    rows: NDArray[np.intp],
    *,
    bf16: bool,
) -> tuple[Network, Any]:
    """Load the checkpoint, and add low-rank matrices or a classifier to train."""
    siglip = low_rank = None
    running = settings.running_towers
    if running:
        # Frozen weights need no more digits than products have.
        halved = bf16 and settings.train == "lora"
        siglip = load_network(checkpoint, "bfloat16" if halved else "float32")
        low_rank = choose_trainable(siglip, settings)
        # Before towers are dropped, since transformers looks into both of them.
        if settings.gradient_checkpointing:
            _compute_again(siglip)
        for tower, name in (("image", "vision_model"), ("text", "text_model")):
            if tower not in running:
                setattr(siglip, name, torch.nn.Identity())
    network = Network(siglip, settings, examples.has_exclusive_classes)
    if settings.classifies and examples.labels is not None:
        network.add_classifier(checkpoint.embedding_dim, examples.labels.n_rows)
    factor, shift = pixel_scaling(checkpoint.folder)
    text_moves = "text" in running
    constants = {
        "factor": np.array(factor, np.float32).reshape(1, -1, 1, 1),
        "shift": np.array(shift, np.float32).reshape(1, -1, 1, 1),
        "weights": positive_weights(settings.pos_weight, examples, rows),
        "kept_tokens": examples.kept_token_ids if text_moves else None,
        "kept_vectors": None if kept is None or text_moves else kept.vectors,
    }
    for name, values in constants.items():
        tensor = None if values is None else torch.from_numpy(values)
        network.register_buffer(name, tensor, persistent=False)
    return network, low_rank


def _compute_again(siglip: Any) -> None:
    """Let layers compute on the way back what they do not keep."""
    settings = {"use_reentrant": False}
    if hasattr(siglip, "activation_checkpointing_enable"):
        siglip.activation_checkpointing_enable(settings)
    else:  # its former name
        siglip.gradient_checkpointing_enable(settings)


class Network(torch.nn.Module):
    """Towers and classifier; its ``forward`` is the loss of a batch.

    The loss is computed inside, so that a wrapper which averages gradients over
    processes meets all trained weights in one call.
    """

    factor: torch.Tensor
    shift: torch.Tensor
    weights: torch.Tensor | None
    kept_tokens: torch.Tensor | None
    kept_vectors: torch.Tensor | None

    def __init__(self, siglip: Any, settings: Settings, several_classes: bool) -> None:
        super().__init__()
        self.siglip = siglip
        self.same_caption = settings.same_caption
        self.keep_weight = settings.keep_weight
        self.several_classes = several_classes
        self.classifier: torch.nn.Linear | None = None

    def add_classifier(self, width: int, n_outputs: int) -> None:
        """Add a linear layer that starts at zero, which gives equal probabilities."""
        self.classifier = torch.nn.Linear(width, n_outputs)
        torch.nn.init.zeros_(self.classifier.weight)
        torch.nn.init.zeros_(self.classifier.bias)

    def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the loss of a batch, as :class:`Collator` makes them."""
        images = self._images(**batch)
        if self.classifier is None:
            loss = self._pairs_loss(images, **batch)
        else:
            logits = self.classifier(embedding_features(images))
            # The share of the known labels of a step that this pass holds.
            loss = self.class_loss(logits, batch["targets"]) * batch.get("share", 1.0)
        if "kept_scores" in batch:
            loss = loss + self.keep_weight * self._kept_loss(images, **batch)
        return {"loss": loss}

    def _pairs_loss(self, images: torch.Tensor, **batch: torch.Tensor) -> torch.Tensor:
        images, texts = self._directions(images, **batch)
        return self.pair_loss(images, gather_rows(texts), batch, gather_rows)

    def pair_loss(
        self,
        images: torch.Tensor,
        texts: torch.Tensor,
        batch: dict[str, torch.Tensor],
        gather: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Return the sigmoid loss; ``gather`` collects the rows of all texts."""
        signs = pair_signs(
            batch["rows"],
            gather(batch["rows"]),
            batch["true_texts"],
            batch["unknown_texts"],
            gather(batch["text_ids"]),
            gather(batch["image_ids"]),
            batch["image_ids"],
            self.same_caption,
        )
        return sigmoid_pair_loss(
            images, texts, self.siglip.logit_scale, self.siglip.logit_bias, signs
        )

    def _kept_loss(self, images: torch.Tensor, **batch: torch.Tensor) -> torch.Tensor:
        ids = batch["kept_ids"]
        if self.kept_vectors is not None:
            texts = self.kept_vectors[ids]
        else:
            assert self.kept_tokens is not None
            tower = self.siglip.text_model
            texts = tower(input_ids=self.kept_tokens[ids]).pooler_output
            texts = F.normalize(texts.float(), dim=-1)
        directions = F.normalize(images.float(), dim=-1)
        return keep_loss(
            directions @ (batch["kept_mix"] @ texts).T,
            batch["kept_scores"],
            batch["kept_spread"],
        )

    def encode(self, **batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return what the loss compares: logits, or vectors of images and texts."""
        images = self._images(**batch)
        if self.classifier is not None:
            return self.classifier(embedding_features(images)), None
        return self._directions(images, **batch)

    def _images(self, **batch: torch.Tensor) -> torch.Tensor:
        """Return image vectors of any length."""
        if "image_vectors" in batch:
            return batch["image_vectors"]
        values = batch["pixels"].permute(0, 3, 1, 2).to(torch.float32)
        if "affine" in batch:
            values = apply_changes(values, batch["affine"], batch["tone"])
        values = values * self.factor - self.shift
        return self.siglip.vision_model(pixel_values=values).pooler_output

    def _directions(
        self, images: torch.Tensor, **batch: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return vectors of unit length: of images, and of the texts they show."""
        texts = batch.get("text_vectors")
        if texts is None:
            tower = self.siglip.text_model
            unique = tower(input_ids=batch["tokens"]).pooler_output
            texts = unique[batch["token_of"]]
        return F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)

    def n_known(self, targets: torch.Tensor) -> torch.Tensor:
        """Return the divisor of :meth:`class_loss`: known labels, or their weights."""
        if self.several_classes and self.weights is not None:
            return self.weights.to(targets.device)[targets].sum()
        return (~torch.isnan(targets)).sum().float()

    def class_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of the classifier's logits."""
        if self.several_classes:
            return class_loss(logits, targets, self.weights)
        if targets.ndim == 1:
            targets = targets[:, None]
        return binary_loss(logits, targets.float(), self.weights)


def embedding_features(vectors: torch.Tensor) -> torch.Tensor:
    """Return embeddings scaled to length ``sqrt(width)``, for the classifier.

    The length of MedSigLIP's vectors says little of what they show, and a learning rate
    that suits one checkpoint would not suit another.
    """
    return F.normalize(vectors.float(), dim=-1) * vectors.shape[-1] ** 0.5
