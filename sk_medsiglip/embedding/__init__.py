"""Images and texts to embeddings, as scikit-learn transformers.

This room combines the three below it: ``images`` reads, ``encoder`` computes, ``cache``
stores. The files::

    _image_embedder.py   MedSigLIPEmbedder
    _text_embedder.py    MedSigLIPTextEmbedder
    _patch_embedder.py   MedSigLIPPatchEmbedder
    _volume_embedder.py  MedSigLIPVolumeEmbedder
    _embedder.py         their base class: a model by name, names of features
    _prepared_images.py  rows of images that are prepared elsewhere, for a service
    _image_work.py       a collection of images through store, readers and model
    _volume_work.py      a collection of studies, whose slices share batches
    _bag_output.py       an error for data frames of bags
    _pooling.py          the rows of the slices of a study to one row
    _model_rows.py       rows from the store, or from a model pass
    _model_cells.py      cells from the store, or from a pass that also gives the row
    _stored_bags.py      bags that stay in the store until they are indexed
    _model_facts.py      facts about a model that is not loaded
    _read_ahead.py       work ahead in threads while the caller is busy
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.embedding._embedder import plain_rows
from sk_medsiglip.embedding._image_embedder import MedSigLIPEmbedder, prepare_image
from sk_medsiglip.embedding._image_embedder import (
    rows_and_failures as rows_and_failures,
)
from sk_medsiglip.embedding._image_work import source_stamps
from sk_medsiglip.embedding._model_facts import (
    ModelFacts,
    facts_of,
    find_facts,
    image_space,
    open_cache,
)
from sk_medsiglip.embedding._patch_embedder import MedSigLIPPatchEmbedder
from sk_medsiglip.embedding._prepared_images import PreparedImages
from sk_medsiglip.embedding._read_ahead import read_ahead
from sk_medsiglip.embedding._text_embedder import (
    EncodedTexts,
    MedSigLIPTextEmbedder,
    encode_texts,
)
from sk_medsiglip.embedding._volume_embedder import MedSigLIPVolumeEmbedder

__all__ = [
    "EncodedTexts",
    "MedSigLIPEmbedder",
    "MedSigLIPPatchEmbedder",
    "MedSigLIPTextEmbedder",
    "MedSigLIPVolumeEmbedder",
    "ModelFacts",
    "PreparedImages",
    "encode_texts",
    "facts_of",
    "find_facts",
    "image_space",
    "open_cache",
    "plain_rows",
    "prepare_image",
    "read_ahead",
    "source_stamps",
]

name_by_room(globals())
