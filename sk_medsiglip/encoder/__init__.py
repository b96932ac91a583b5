"""Pixels and texts to vectors: SigLIP checkpoints, loaded once a process.

The only room that imports transformers for inference. What it gives is raw: resizing
belongs to ``images``, keeping rows to ``cache``, and joining them to ``embedding``.
"""

from sk_medsiglip.encoder._adapters import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    TUNED_WEIGHTS,
    TUNING,
    digest_adapter,
    read_adapter,
)
from sk_medsiglip.encoder._batch_size import (
    image_batch_sizes,
    passes_at_once,
    text_batch_sizes,
    use_one_core,
)
from sk_medsiglip.encoder._bfloat16 import bfloat16_gain, bfloat16_pays
from sk_medsiglip.encoder._checkpoints import DEMO_FOLDER, Checkpoint, find_checkpoint
from sk_medsiglip.encoder._encoder import Encoder
from sk_medsiglip.encoder._hub import check_hub_access, is_downloaded
from sk_medsiglip.encoder._image_processor import load_image_processor, read_processor
from sk_medsiglip.encoder._loading import (
    ENGINES,
    choose_device,
    choose_dtype,
    choose_engine,
    clear_encoders,
    load_encoder,
    load_tokenizer,
)
from sk_medsiglip.encoder._patch_scores import PATCH_METHODS, score_patches
from sk_medsiglip.encoder._torch_towers import load_network, quiet_transformers

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "DEMO_FOLDER",
    "ENGINES",
    "PATCH_METHODS",
    "TUNED_WEIGHTS",
    "TUNING",
    "Checkpoint",
    "Encoder",
    "bfloat16_gain",
    "bfloat16_pays",
    "check_hub_access",
    "choose_device",
    "choose_dtype",
    "choose_engine",
    "clear_encoders",
    "digest_adapter",
    "find_checkpoint",
    "image_batch_sizes",
    "is_downloaded",
    "load_encoder",
    "load_image_processor",
    "load_network",
    "load_tokenizer",
    "passes_at_once",
    "quiet_transformers",
    "read_adapter",
    "read_processor",
    "score_patches",
    "text_batch_sizes",
    "use_one_core",
]
