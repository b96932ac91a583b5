"""A session whose rows arrive while it is in use, as its images are embedded."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from sk_medsiglip.embedding import MedSigLIPEmbedder, find_facts
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.explore._session import ExploreSession
from sk_medsiglip.images import read_image, source_identity


class GrowingSession(ExploreSession):
    """A session of images, whose rows are NaN until :meth:`take` brings them."""

    def __init__(
        self, images: Sequence[Any], embedder: MedSigLIPEmbedder, **how: Any
    ) -> None:
        facts = find_facts(embedder.model, embedder.revision, embedder.cache)
        X = np.full((len(images), facts.embedding_dim), np.nan, dtype=np.float32)
        super().__init__(X, images=images, model=embedder, **how)

    def take(self, rows: NDArray[np.intp], X: NDArray[np.floating]) -> None:
        """Take the embeddings of rows that had none, NaN for unreadable images."""
        self.X[rows] = X
        self._lengths[rows] = np.nan_to_num(np.linalg.norm(X, axis=1))
        self._score_again()
        if self._projection is None or self._points is None:
            return
        # The axes of the map change when twice as many rows are there, and not before:
        # a map that turns under the hand cannot be read.
        if self._usable.sum() >= 2 * self._projection.n_rows:
            self._points = None
        else:
            new = rows[self._usable[rows]]
            self._points[new] = self._projection.of(self.X[new])

    def _digest(self) -> str:
        """Return a digest of the images, since there are no rows to tell them by."""
        if self.paths is not None:
            return super()._digest()
        digest = blake3(str(len(self.X)).encode())
        for image in self.images or ():
            digest.update(repr(_identity(image)).encode())
        return digest.hexdigest(length=16)


def _identity(image: Any) -> Any:
    """Return what tells an image from others; nothing for an unreadable one."""
    if (found := source_identity(image)) is None:  # an image open in Pillow
        with suppress(ImageReadError):
            return blake3(read_image(image).tobytes()).hexdigest()
    return found
