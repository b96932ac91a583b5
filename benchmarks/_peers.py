"""How people embed images with a SigLIP checkpoint today, as each one's own pages say.

All in float32 on the CPU, from paths to an array of vectors. Every maker loads the
model once; what it returns is timed.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin

__all__ = ["PEERS", "HoldingTransformer", "PlainTransformer", "installed_peers"]

Embed = Callable[[Sequence[str]], NDArray[np.float32]]

#: Images that went through :class:`PlainTransformer`'s model, in this process.
passes = 0


def notebook_loop(model: str | Path) -> Embed:
    """Processor and model in a loop over batches of 8, as in notebooks."""
    import torch
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(model)
    network = AutoModel.from_pretrained(model, dtype=torch.float32).eval()

    def embed(paths: Sequence[str]) -> NDArray[np.float32]:
        rows = []
        for start in range(0, len(paths), 8):
            images = [Image.open(p).convert("RGB") for p in paths[start : start + 8]]
            with torch.no_grad():
                inputs = processor(images=images, return_tensors="pt")
                rows.append(network.get_image_features(**inputs).pooler_output.numpy())
        return np.concatenate(rows)

    return embed


def transformers_pipeline(model: str | Path) -> Embed:
    """Load the ``image-feature-extraction`` pipeline of transformers."""
    import torch
    from transformers import AutoImageProcessor, SiglipVisionModel, pipeline

    tower = SiglipVisionModel.from_pretrained(model, dtype=torch.float32)
    processor = AutoImageProcessor.from_pretrained(model)
    run = pipeline(
        "image-feature-extraction",
        model=tower,
        image_processor=processor,
        pool=True,
        device="cpu",
    )

    def embed(paths: Sequence[str]) -> NDArray[np.float32]:
        rows = run(list(paths), batch_size=8)
        return np.array(rows, dtype=np.float32).reshape(len(paths), -1)

    return embed


def sentence_transformers(model: str | Path) -> Embed:
    """Let the library sentence-transformers load the same checkpoint."""
    import torch
    from sentence_transformers import SentenceTransformer

    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    whole = SentenceTransformer(
        str(model), device="cpu", model_kwargs={"dtype": torch.float32}
    )

    def embed(paths: Sequence[str]) -> NDArray[np.float32]:
        images = [Image.open(path).convert("RGB") for path in paths]
        return whole.encode(images, batch_size=8, show_progress_bar=False)

    return embed


PEERS: dict[str, tuple[Callable[[str | Path], Embed], str]] = {
    "loop over transformers": (notebook_loop, "transformers"),
    "transformers pipeline": (transformers_pipeline, "transformers"),
    "sentence-transformers": (sentence_transformers, "sentence_transformers"),
}


def installed_peers() -> dict[str, Callable[[str | Path], Embed]]:
    """Return the peers that this environment holds."""
    return {
        name: make
        for name, (make, module) in PEERS.items()
        if importlib.util.find_spec(module)
    }


class PlainTransformer(TransformerMixin, BaseEstimator):
    """A transformer that people write by hand: it holds its model, and caches nothing.

    Parameters
    ----------
    model : str
        Checkpoint folder.
    """

    def __init__(self, model: str) -> None:
        self.model = model

    def fit(self, X: Any, y: Any = None) -> PlainTransformer:
        self.embed_ = notebook_loop(self.model)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        global passes
        passes += len(X)
        return self.embed_(list(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags


class HoldingTransformer(PlainTransformer):
    """A transformer that keeps its network as an attribute, as hand-written ones do."""

    def fit(self, X: Any, y: Any = None) -> HoldingTransformer:
        import torch
        from transformers import AutoImageProcessor, AutoModel

        self.processor_ = AutoImageProcessor.from_pretrained(self.model)
        self.network_ = AutoModel.from_pretrained(self.model, dtype=torch.float32)
        self.network_.eval()
        return self

    def transform(self, X: Any) -> Any:
        import torch

        images = [Image.open(path).convert("RGB") for path in X]
        with torch.no_grad():
            inputs = self.processor_(images=images, return_tensors="pt")
            return self.network_.get_image_features(**inputs).pooler_output.numpy()
