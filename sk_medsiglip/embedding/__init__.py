"""Images and texts to embeddings, as scikit-learn transformers.

This room joins the three below it: ``images`` reads, ``encoder`` computes, ``cache``
keeps.
"""

from sk_medsiglip.embedding._image_embedder import MedSigLIPEmbedder
from sk_medsiglip.embedding._text_embedder import MedSigLIPTextEmbedder

__all__ = ["MedSigLIPEmbedder", "MedSigLIPTextEmbedder"]
