"""Images and texts to embeddings, as scikit-learn transformers.

This room joins the three below it: ``images`` reads, ``encoder`` computes, ``cache``
keeps.
"""

from sk_medsiglip.embedding._image_embedder import MedSigLIPEmbedder
from sk_medsiglip.embedding._text_embedder import MedSigLIPTextEmbedder
from sk_medsiglip.embedding._volume_embedder import MedSigLIPVolumeEmbedder

__all__ = ["MedSigLIPEmbedder", "MedSigLIPTextEmbedder", "MedSigLIPVolumeEmbedder"]
