"""The small SigLIP network and the losses it learns from."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from transformers import SiglipConfig, SiglipModel

WIDTH = 192
IMAGE_SIZE = 128


def build_model(vocabulary_size: int) -> SiglipModel:
    """Return the untrained network: 128 px, patch 16, width 192, 4 M parameters."""
    config = SiglipConfig(
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": 6,
            "num_attention_heads": 3,
            "image_size": IMAGE_SIZE,
            "patch_size": 16,
        },
        text_config={
            "vocab_size": vocabulary_size,
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "projection_size": WIDTH,
            "pad_token_id": 1,
            "bos_token_id": 1,
            "eos_token_id": 1,
        },
    )
    # Eager attention trains faster than SDPA on a CPU at 64 tokens.
    config._attn_implementation = "eager"
    model = SiglipModel(config)
    with torch.no_grad():
        model.logit_scale.fill_(2.3)  # exp gives 10
        model.logit_bias.fill_(-1.5)  # about the logit of the share of positives
    return model


class FactEncoder(nn.Module):
    """Stands in for the image tower while the text tower warms up."""

    def __init__(self, n_facts: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * n_facts, 256), nn.GELU(), nn.Linear(256, WIDTH)
        )

    def forward(self, facts: torch.Tensor) -> torch.Tensor:
        """Return a vector for each row of 1 (true), 0 (false), -1 (open)."""
        return self.layers(torch.cat([facts == 1, facts == 0], dim=1).float())


def sigmoid_loss(
    model: SiglipModel,
    images: torch.Tensor,
    texts: torch.Tensor,
    verdict: torch.Tensor,
) -> torch.Tensor:
    """Return SigLIP's loss with labels by entailment; open pairs do not count."""
    images = functional.normalize(images.float(), dim=-1)
    texts = functional.normalize(texts.float(), dim=-1)
    logits = images @ texts.T * model.logit_scale.exp() + model.logit_bias
    known = (verdict >= 0).float()
    loss = functional.binary_cross_entropy_with_logits(
        logits, verdict.clamp(min=0).float(), reduction="none"
    )
    return (loss * known).sum() / known.sum().clamp(min=1)


def patch_loss(logits: torch.Tensor, coverage: torch.Tensor) -> torch.Tensor:
    """Return how badly the patches tell where each finding lies."""
    # A nodule covers a fifth of a patch at most, so little coverage counts in full.
    wanted = (coverage.float() * (6 / 255)).clamp(max=1)
    weight = 1 + 5 * wanted
    return functional.binary_cross_entropy_with_logits(
        logits.float(), wanted, weight=weight
    )
