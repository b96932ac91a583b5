"""Rows of images that are prepared elsewhere, from a model that stays loaded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.embedding._image_embedder import MedSigLIPEmbedder


class PreparedImages:
    """The steps of an embedder from prepared pixels to rows, for a service.

    Parameters
    ----------
    embedder : MedSigLIPEmbedder
        Fitted embedder; do not change it afterwards. Its model is found here, once, and
        loaded by the first call.

    Raises
    ------
    CheckpointError
        If the weights differ from those at ``fit``.
    ModelAccessError
        If the model is not available.
    """

    def __init__(self, embedder: MedSigLIPEmbedder) -> None:
        self._embedder = embedder
        self._rows = embedder._model_rows("image")

    @property
    def n_threads(self) -> int:
        """Number of threads that are best for calls: several for a small model."""
        # Passes on a GPU are queued one after the other.
        on_cpu = self._rows.numerics.device == "cpu"
        return self._rows.passes_at_once if on_cpu else 1

    def start_thread(self) -> None:
        """Prepare one of several threads of calls, each of which uses one core."""
        self._rows.start_thread()

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the rows of images, as ``transform`` does.

        Parameters
        ----------
        pixels : ndarray of shape (n_images, image_size, image_size, 3), uint8
            Images as ``prepare_image`` returns them.

        Returns
        -------
        ndarray of shape (n_images, embedding_dim), float32
        """
        rows = self._rows
        if rows.cache is not None:
            vectors = self._embedder._image_work(rows).embed(list(pixels)).vectors
        else:
            size = rows.image_batch_size()
            starts = range(0, len(pixels), size)
            parts = [rows.encode_images(pixels[i : i + size]) for i in starts]
            vectors = np.concatenate(parts)
        return self._embedder._finish(vectors)
