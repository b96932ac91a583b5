"""Pixels and texts to vectors: SigLIP checkpoints, loaded once per process.

This is the only room that imports transformers for inference. Resizing belongs to
``images``, storing rows to ``cache``, and combining the two to ``embedding``. The
files::

    _loading.py            load_encoder: the checkpoints used last, kept in memory
    _encoder.py            Encoder: a loaded checkpoint, the same for all engines
    _checkpoints.py        the folder, revision and sizes of a checkpoint
    _hub.py                files of a checkpoint on the hub
    _adapters.py           adapters: small files that change a checkpoint
    _adapter_config.py     validation of peft's configuration of an adapter
    _image_processor.py    the image processor of a checkpoint
    _tokenizer.py          SigLIP's tokenization of texts

    _torch_towers.py       engine="torch"
    _pooling_head.py       patches to the row of an image, and to vectors of its cells
    _openvino_towers.py    engine="openvino", and its graphs kept on disk
    _numerics.py           engine, device and numeric type, chosen for this machine
    _patch_scores.py       similarity of each patch of an image to a text
    _onnx_export.py        the image tower as an ONNX graph

    _batch_size.py         size of a pass, and number of passes at a time
    _fork.py               limits of torch in a forked worker
"""

from sk_medsiglip._public import name_by_room
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
    ran_out_of_memory,
    text_batch_sizes,
    use_one_core,
)
from sk_medsiglip.encoder._checkpoints import (
    DEMO_FOLDER,
    Checkpoint,
    find_checkpoint,
    is_demonstration,
)
from sk_medsiglip.encoder._encoder import Encoder
from sk_medsiglip.encoder._fork import one_thread_in_forked_child
from sk_medsiglip.encoder._hub import check_hub_access, is_downloaded
from sk_medsiglip.encoder._image_processor import load_image_processor, pixel_scaling
from sk_medsiglip.encoder._loading import clear_encoders, load_encoder
from sk_medsiglip.encoder._numerics import (
    ENGINES,
    bfloat16_gain,
    bfloat16_pays,
    choose_device,
    choose_dtype,
    choose_engine,
)
from sk_medsiglip.encoder._onnx_export import export_image_tower
from sk_medsiglip.encoder._patch_scores import PATCH_METHODS, score_patches
from sk_medsiglip.encoder._pooling_head import check_grid
from sk_medsiglip.encoder._tokenizer import count_tokens, load_tokenizer, tokenize
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
    "check_grid",
    "check_hub_access",
    "choose_device",
    "choose_dtype",
    "choose_engine",
    "clear_encoders",
    "count_tokens",
    "digest_adapter",
    "export_image_tower",
    "find_checkpoint",
    "image_batch_sizes",
    "is_demonstration",
    "is_downloaded",
    "load_encoder",
    "load_image_processor",
    "load_network",
    "load_tokenizer",
    "one_thread_in_forked_child",
    "passes_at_once",
    "pixel_scaling",
    "quiet_transformers",
    "ran_out_of_memory",
    "read_adapter",
    "score_patches",
    "text_batch_sizes",
    "tokenize",
    "use_one_core",
]

name_by_room(globals())
