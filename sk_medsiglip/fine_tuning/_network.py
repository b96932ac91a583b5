"""What is trained: two towers, or one and a classifier, from a batch to its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from sk_medsiglip.fine_tuning._augmentation import apply_changes
from sk_medsiglip.fine_tuning._losses import (
    binary_loss,
    class_loss,
    gather_rows,
    keep_loss,
    pair_signs,
    sigmoid_pair_loss,
)

__all__ = ["Network", "Scaling", "Weighting", "embedding_features"]


@dataclass(frozen=True)
class Scaling:
    """From pixel values to what the image tower takes: ``value * factor - shift``.

    Parameters
    ----------
    factor, shift : tuple of float
        Of each colour.
    """

    factor: tuple[float, ...]
    shift: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Weighting:
    """How much answers count.

    Parameters
    ----------
    same_caption : {"ignore", "positive", "negative"}
        See :func:`pair_signs`.
    several_classes : bool, default=False
        Whether the classifier's rows are exclusive classes.
    weights : tensor of shape (n_rows,) or None, default=None
        Of positives, or of exclusive classes.
    """

    same_caption: str = "ignore"
    several_classes: bool = False
    weights: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Keeping:
    """Texts by which images are to have the scores that they had.

    Parameters
    ----------
    weight : float
        How much a change counts.
    tokens : tensor of shape (n_texts, text_tokens), int64, or None
        Of the texts, where the text tower is trained.
    vectors : tensor of shape (n_texts, width) or None
        Theirs, of length 1, where it is not.
    """

    weight: float
    tokens: torch.Tensor | None
    vectors: torch.Tensor | None


class Network(torch.nn.Module):
    """Towers and classifier; its ``forward`` is the loss of a batch.

    The loss is computed inside, so that a wrapper which averages gradients over
    processes meets all trained weights in one call.

    Parameters
    ----------
    siglip : transformers.SiglipModel or None
        Both towers; None where a classifier sees embeddings only.
    scaling : Scaling
        Of pixels.
    width : int
        Of an embedding.
    n_outputs : int
        Rows of the classifier; 0 has none, and compares images with texts.
    weighting : Weighting
    keeping : Keeping or None, default=None
    """

    def __init__(
        self,
        siglip: Any,
        scaling: Scaling,
        width: int,
        n_outputs: int,
        weighting: Weighting,
        keeping: Keeping | None = None,
    ) -> None:
        super().__init__()
        self.siglip = siglip
        self.same_caption = weighting.same_caption
        self.several_classes = weighting.several_classes
        self.classifier: torch.nn.Linear | None = None
        if n_outputs:
            self.classifier = torch.nn.Linear(width, n_outputs)
            # Nothing is known of the classes yet: equal chances.
            torch.nn.init.zeros_(self.classifier.weight)
            torch.nn.init.zeros_(self.classifier.bias)
        self.factor: torch.Tensor
        self.shift: torch.Tensor
        self.weights: torch.Tensor | None
        self._put("factor", torch.tensor(scaling.factor).view(1, -1, 1, 1))
        self._put("shift", torch.tensor(scaling.shift).view(1, -1, 1, 1))
        self._put("weights", weighting.weights)
        self.kept_tokens: torch.Tensor | None
        self.kept_vectors: torch.Tensor | None
        self.keep_weight = 0.0 if keeping is None else keeping.weight
        self._put("kept_tokens", None if keeping is None else keeping.tokens)
        self._put("kept_vectors", None if keeping is None else keeping.vectors)

    def _put(self, name: str, values: torch.Tensor | None) -> None:
        self.register_buffer(name, values, persistent=False)

    def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the loss of a batch, as :class:`Collator` makes them."""
        images = self._images(**batch)
        loss = (
            self._pairs_loss(images, **batch)
            if self.classifier is None
            else batch.get("share", 1.0)
            * self.class_loss(
                self.classifier(embedding_features(images)), batch["targets"]
            )
        )
        if "kept_scores" in batch:
            loss = loss + self.keep_weight * self._kept_loss(images, **batch)
        return {"loss": loss}

    def _pairs_loss(self, images: torch.Tensor, **batch: torch.Tensor) -> torch.Tensor:
        images, texts = self._directions(images, **batch)
        signs = pair_signs(
            batch["rows"],
            gather_rows(batch["rows"]),
            batch["true_texts"],
            batch["unknown_texts"],
            gather_rows(batch["text_ids"]),
            gather_rows(batch["image_ids"]),
            batch["image_ids"],
            self.same_caption,
        )
        return self.pair_loss(images, gather_rows(texts), signs)

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
        """Return what the loss compares: logits or image vectors, and text vectors."""
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
        """Return vectors of images and of the texts they show, of length 1."""
        texts = batch.get("text_vectors")
        if texts is None:
            tower = self.siglip.text_model
            unique = tower(input_ids=batch["tokens"]).pooler_output
            texts = unique[batch["token_of"]]
        # Of length 1 before they are gathered: what travels is what is compared.
        return F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)

    def pair_loss(
        self, images: torch.Tensor, texts: torch.Tensor, signs: torch.Tensor
    ) -> torch.Tensor:
        """Return the sigmoid loss of vectors."""
        return sigmoid_pair_loss(
            images, texts, self.siglip.logit_scale, self.siglip.logit_bias, signs
        )

    def n_known(self, targets: torch.Tensor) -> torch.Tensor:
        """Return what :meth:`class_loss` of these divides by: labels, or weights."""
        if self.several_classes and self.weights is not None:
            return self.weights.to(targets.device)[targets].sum()
        return (~torch.isnan(targets)).sum().float()

    def class_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of a classifier's answers."""
        if self.several_classes:
            return class_loss(logits, targets, self.weights)
        if targets.ndim == 1:
            targets = targets[:, None]
        return binary_loss(logits, targets.float(), self.weights)


def embedding_features(vectors: torch.Tensor) -> torch.Tensor:
    """Return what the classifier sees of embeddings: directions, values about 1.

    The length of MedSigLIP's vectors says little of what they show, and a learning rate
    that suits one checkpoint would not suit another.
    """
    return F.normalize(vectors.float(), dim=-1) * vectors.shape[-1] ** 0.5
