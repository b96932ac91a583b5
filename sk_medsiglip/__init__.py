"""Medical image classification with MedSigLIP embeddings and scikit-learn.

Public names are loaded at their first use: importing the package takes milliseconds and
loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sk_medsiglip._version import __version__

if TYPE_CHECKING:
    from sk_medsiglip.cache import EmbeddingCache
    from sk_medsiglip.embedding import (
        MedSigLIPEmbedder,
        MedSigLIPPatchEmbedder,
        MedSigLIPTextEmbedder,
        MedSigLIPVolumeEmbedder,
    )
    from sk_medsiglip.fine_tuning import MedSigLIPFineTuner
    from sk_medsiglip.heads import (
        BagProbe,
        LinearProbe,
        PromptProbe,
        PrototypeClassifier,
        SSTextClassifier,
        TipAdapterClassifier,
    )
    from sk_medsiglip.model_selection import HeadSearchCV
    from sk_medsiglip.retrieval import ImageRetriever
    from sk_medsiglip.zero_shot import (
        ConformalZeroShot,
        PromptSearchCV,
        ZeroShotClassifier,
        make_zero_shot_pipeline,
    )

__all__ = [
    "BagProbe",
    "ConformalZeroShot",
    "EmbeddingCache",
    "HeadSearchCV",
    "ImageRetriever",
    "LinearProbe",
    "MedSigLIPEmbedder",
    "MedSigLIPFineTuner",
    "MedSigLIPPatchEmbedder",
    "MedSigLIPTextEmbedder",
    "MedSigLIPVolumeEmbedder",
    "PromptProbe",
    "PromptSearchCV",
    "PrototypeClassifier",
    "SSTextClassifier",
    "TipAdapterClassifier",
    "ZeroShotClassifier",
    "__version__",
    "make_zero_shot_pipeline",
]

_ROOM_OF = {
    "BagProbe": "heads",
    "ConformalZeroShot": "zero_shot",
    "EmbeddingCache": "cache",
    "HeadSearchCV": "model_selection",
    "ImageRetriever": "retrieval",
    "LinearProbe": "heads",
    "MedSigLIPEmbedder": "embedding",
    "MedSigLIPFineTuner": "fine_tuning",
    "MedSigLIPPatchEmbedder": "embedding",
    "MedSigLIPTextEmbedder": "embedding",
    "MedSigLIPVolumeEmbedder": "embedding",
    "PromptProbe": "heads",
    "PromptSearchCV": "zero_shot",
    "PrototypeClassifier": "heads",
    "SSTextClassifier": "heads",
    "TipAdapterClassifier": "heads",
    "ZeroShotClassifier": "zero_shot",
    "make_zero_shot_pipeline": "zero_shot",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = importlib.import_module(f"{__name__}.{_ROOM_OF[name]}")
    return getattr(room, name)


def __dir__() -> list[str]:
    return sorted(__all__)
