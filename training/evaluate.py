"""Quick look at a checkpoint while it trains, straight over transformers."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from sklearn.utils import Bunch
from torch.nn import functional

from training.prompts import EVALUATION_PROMPTS
from training.tokenizer import tokenize


@torch.no_grad()
def embed_images(model, images: np.ndarray, batch: int = 100) -> np.ndarray:
    """Return float32 vectors of grey uint8 images at the model's size."""
    parts = []
    for start in range(0, len(images), batch):
        pixels = torch.from_numpy(images[start : start + batch]).float()
        pixels = pixels.div_(127.5).sub_(1)[:, None].expand(-1, 3, -1, -1)
        parts.append(model.vision_model(pixel_values=pixels).pooler_output.numpy())
    return np.concatenate(parts)


@torch.no_grad()
def embed_prompts(model, tokenizer, texts: list[str]) -> torch.Tensor:
    """Return the normalised mean of the prompts' normalised vectors."""
    vectors = model.text_model(input_ids=tokenize(tokenizer, texts)).pooler_output
    return functional.normalize(functional.normalize(vectors, dim=-1).mean(0), dim=0)


def zero_shot_scores(model, tokenizer, vectors: np.ndarray, names) -> np.ndarray:
    """Return present minus absent for each image and finding."""
    images = functional.normalize(torch.from_numpy(vectors), dim=-1)
    columns = []
    for name in names:
        pair = EVALUATION_PROMPTS[name]
        positive = embed_prompts(model, tokenizer, pair["positive"])
        negative = embed_prompts(model, tokenizer, pair["negative"])
        columns.append(images @ (positive - negative))
    return torch.stack(columns, dim=1).numpy()


def zero_shot_auc(
    model, tokenizer, bunch: Bunch, vectors: np.ndarray | None = None
) -> dict[str, float]:
    """Return the AUC of each finding and their mean."""
    model.eval()
    if vectors is None:
        vectors = embed_images(model, bunch.images)
    scores = zero_shot_scores(model, tokenizer, vectors, bunch.target_names)
    model.train()
    each = {
        name: round(float(roc_auc_score(bunch.target[:, i], scores[:, i])), 4)
        for i, name in enumerate(bunch.target_names)
    }
    return {"macro": round(float(np.mean(list(each.values()))), 4), **each}
