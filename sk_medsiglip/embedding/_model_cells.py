"""Cells of images from the store or a model pass, and the rows of the same pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.cache import BagPacking, EmbeddingCache, Space
from sk_medsiglip.embedding._model_facts import space_of
from sk_medsiglip.embedding._model_rows import ModelRows


@dataclass(eq=False)
class ModelCells(ModelRows):
    """Packed cells of one model and grid, followed by the pooled row of the image.

    The store keeps the two separately, so that each can be used alone. ``pooled`` are
    the rows of the same model; ``with_row`` requests them for stored cells too.
    """

    packing: BagPacking = field(kw_only=True)
    grid: int = field(kw_only=True)
    pooled: ModelRows = field(kw_only=True)
    with_row: bool = field(kw_only=True)

    @property
    def width(self) -> int:
        """Number of values in a row: packed cells, then the pooled row."""
        return self.packing.n_words + self.pooled.width

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the packed cells and the row of each image from a model pass."""
        rows, cells = self.encoder.encode_cells(pixels, self.grid)
        return np.hstack([self.packing.pack(cells), rows])

    def get(
        self, fingerprints: Sequence[bytes], out: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Fill the rows of ``out`` that are stored; return a mask of them."""
        n, n_words = len(fingerprints), self.packing.n_words
        words = np.empty((n, n_words), np.float32)
        found = super().get(fingerprints, words)
        out[:, :n_words] = words
        if self.with_row:
            rows = np.empty((n, self.pooled.width), np.float32)
            found &= self.pooled.get(fingerprints, rows)
            out[:, n_words:] = rows
        return found

    def put(
        self,
        cache: EmbeddingCache,
        fingerprints: Sequence[bytes],
        rows: NDArray[np.float32],
    ) -> None:
        """Store cells and pooled rows; rows that are already stored are kept."""
        n_words = self.packing.n_words
        stored = np.empty((len(fingerprints), self.pooled.width), np.float32)
        new = ~self.pooled.stored_in(cache).get(fingerprints, stored)
        rows[~new, n_words:] = stored[~new]
        # Rows first, so that a killed process does not leave cells without a row.
        self.pooled.put(cache, list(compress(fingerprints, new)), rows[new, n_words:])
        super().put(cache, fingerprints, rows[:, :n_words])

    def _space(self, dtype: str, engine: str) -> Space:
        n_words = self.packing.n_words
        return space_of(
            self.kind, self.recipe, self.model, self.facts, dtype, engine, n_words
        )


def cells_of(
    pooled: ModelRows, grid: int, stored: str, *, with_row: bool
) -> ModelCells:
    """Return the cells of the images whose rows are ``pooled``."""
    same = {one.name: getattr(pooled, one.name) for one in fields(pooled) if one.init}
    same |= {"kind": "cells", "recipe": f"{pooled.recipe};grid={grid};{stored}"}
    packing = BagPacking(grid**2, pooled.width, stored)
    return ModelCells(
        **same, packing=packing, grid=grid, pooled=pooled, with_row=with_row
    )
