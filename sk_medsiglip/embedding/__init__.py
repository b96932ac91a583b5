"""Images and texts to embeddings, as scikit-learn transformers.

This room joins the three below it: ``images`` reads, ``encoder`` computes, ``cache``
keeps. The files::

    _image_embedder.py   MedSigLIPEmbedder
    _text_embedder.py    MedSigLIPTextEmbedder
    _patch_embedder.py   MedSigLIPPatchEmbedder
    _volume_embedder.py  MedSigLIPVolumeEmbedder
    _embedder.py         what they share: a model by name, names of features
    _image_work.py       the way of a collection of images: store, readers, model
    _volume_work.py      of studies: slices of many share the model's batches
    _bag_output.py       an error for data frames of bags
    _pooling.py          the rows of a study's slices to one row
    _model_rows.py       from the store what is there, from the model what is not
    _model_cells.py      the same for cells, with the row of the same pass
    _stored_bags.py      bags that stay in the store until they are indexed
    _model_facts.py      what is known of a model before it is loaded
    _read_ahead.py       work ahead in threads while the caller is busy
"""

from sk_medsiglip._public import name_by_room
from sk_medsiglip.embedding._embedder import plain_rows
from sk_medsiglip.embedding._image_embedder import MedSigLIPEmbedder, prepare_image
from sk_medsiglip.embedding._image_work import source_stamps
from sk_medsiglip.embedding._model_facts import (
    ModelFacts,
    facts_of,
    find_facts,
    image_space,
    open_cache,
)
from sk_medsiglip.embedding._patch_embedder import MedSigLIPPatchEmbedder
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
