"""Metadata exchanged between patients who carry the same labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Exchange:
    """Exchanges metadata between patients who carry the same labels.

    An image takes the cell of an image with its label. Where the giving patient has
    fewer images, some are given twice.
    """

    def __init__(
        self,
        patient: NDArray[np.intp],
        label: NDArray[np.bool_],
        cells: NDArray[np.intp],
        random: np.random.Generator,
    ) -> None:
        """Sort images by patient and label once."""
        self._cells, self._random = cells, random
        n_patients = int(patient.max()) + 1
        # A unit is a patient's images with the same label.
        self._unit = 2 * patient + label
        self._size = np.bincount(self._unit, minlength=2 * n_patients)
        self._start = np.cumsum(self._size) - self._size
        has = (self._size > 0).reshape(-1, 2)
        pattern = has[:, 0] + 2 * has[:, 1]
        self._alike = [np.flatnonzero(pattern == one) for one in np.unique(pattern)]
        self._in_units = np.argsort(self._unit, kind="stable")
        self._rank = np.arange(len(cells)) - self._start[self._unit[self._in_units]]

    def cells(self) -> NDArray[np.intp]:
        """Return the cells of all images after an exchange at random."""
        giver = np.empty(len(self._size) // 2, dtype=np.intp)
        for patients in self._alike:
            giver[patients] = self._random.permutation(patients)
        unit = self._unit[self._in_units]
        gives = 2 * giver[unit // 2] + unit % 2
        # Images of a unit in an order at random, so that it has no part in the test.
        keys = self._random.random(len(unit))
        shuffled = self._in_units[np.argsort(unit + keys)]
        taken = shuffled[self._start[gives] + self._rank % self._size[gives]]
        drawn = np.empty_like(self._cells)
        drawn[self._in_units] = self._cells[taken]
        return drawn
