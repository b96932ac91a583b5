"""Which rows make a batch, and what of them the network needs.

The order of a run is a function of its seed: batch number k is the same rows in every
process, and after a restart. All epochs are one sequence, so that going on means to
skip the first batches of it, which costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sk_medsiglip.fine_tuning._augmentation import Augmentation, draw_changes
from sk_medsiglip.fine_tuning._kept import Kept
from sk_medsiglip.fine_tuning._pairs import Pairs

__all__ = ["Collator", "Rows", "RunOrder"]


class RunOrder:
    """The batches of one process, over all epochs.

    Parameters
    ----------
    n_rows : int
        Training rows.
    batch_size : int
        Rows in a batch of one process.
    n_batches : int
        Of a process, in the whole run.
    seed : int
        Of the run.
    n_processes, process : int
        The batches of all processes with the same number make one step's batch: the
        rows that a single process with a larger ``batch_size`` would take.

    Notes
    -----
    Each epoch is a permutation; rows that do not fill its last batch wait for the next
    one, which draws others. An item is ``epoch * n_rows + place``.
    """

    def __init__(
        self,
        n_rows: int,
        batch_size: int,
        n_batches: int,
        seed: int,
        n_processes: int = 1,
        process: int = 0,
    ) -> None:
        self.batch_size = batch_size
        self.batches_per_epoch = max(1, n_rows // (batch_size * n_processes))
        self.drop_last = True
        self._n_rows = n_rows
        self._n_batches = n_batches
        self._seed = seed
        self._step = batch_size * n_processes
        self._first = batch_size * process

    def __len__(self) -> int:
        return self._n_batches

    def __iter__(self) -> Iterator[list[int]]:
        order: NDArray[np.intp] = np.empty(0, np.intp)
        last = -1
        for number in range(self._n_batches):
            epoch, place = divmod(number, self.batches_per_epoch)
            if epoch != last:
                order = np.random.default_rng([self._seed, epoch]).permutation(
                    self._n_rows
                )
                last = epoch
            start = place * self._step + self._first
            chosen = order[start : start + self.batch_size]
            yield (epoch * self._n_rows + chosen).tolist()


class Rows(torch.utils.data.Dataset):
    """Items of :class:`RunOrder` as they are: :class:`Collator` knows them."""

    def __init__(self, n_items: int) -> None:
        self._n_items = n_items

    def __len__(self) -> int:
        return self._n_items

    def __getitem__(self, item: int) -> int:
        return item


@dataclass(frozen=True, eq=False)
class Collator:
    """From rows to what the network takes.

    Parameters
    ----------
    rows : ndarray of shape (n_rows,), int
        Rows of the collection that are trained on, or judged on.
    pixels : ndarray of shape (n_samples, size, size, 3), uint8, or None
        Of the whole collection.
    image_vectors : ndarray of shape (n_samples, width), float32, or None
        Instead of pixels, where the image tower stays as it is.
    image_ids : ndarray of shape (n_samples,), int
        Equal numbers are equal pictures.
    pairs : Pairs or None
        Texts; None where there are classes.
    token_ids : ndarray of shape (n_texts, text_tokens), int64, or None
        Of all texts.
    text_vectors : ndarray of shape (n_texts, width), float32, or None
        Instead of tokens, where the text tower stays as it is.
    targets : ndarray of shape (n_samples,) or (n_samples, n_labels), or None
        Places of classes, or 1, 0 and NaN.
    augmentation : Augmentation or None
        None leaves pictures as they are.
    seed : int
        Of the run.
    kept : Kept or None, default=None
        Scores of images that are to stay.
    """

    rows: NDArray[np.intp]
    pixels: NDArray[np.uint8] | None
    image_vectors: NDArray[np.float32] | None
    image_ids: NDArray[np.int64]
    pairs: Pairs | None
    token_ids: NDArray[np.int64] | None
    text_vectors: NDArray[np.float32] | None
    targets: NDArray[Any] | None
    augmentation: Augmentation | None
    seed: int
    kept: Kept | None = None

    def __call__(self, items: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return the tensors of a batch."""
        epochs, places = np.divmod(np.asarray(items), len(self.rows))
        return self.take(self.rows[places], epochs)

    def take(
        self, rows: NDArray[np.intp], epochs: NDArray[np.intp] | None = None
    ) -> dict[str, torch.Tensor]:
        """Return the tensors of rows of the collection.

        Parameters
        ----------
        rows : ndarray of shape (n,)
        epochs : ndarray of shape (n,) or None, default=None
            Decide changes and which of several texts is shown. None changes nothing
            and shows each image's first text.

        Returns
        -------
        dict of str to tensor
        """
        batch = self.describe(rows, epochs)
        if self.image_vectors is not None:
            batch["image_vectors"] = torch.from_numpy(self.image_vectors[rows])
        elif self.pixels is not None:
            batch["pixels"] = torch.from_numpy(self._gather(self.pixels, rows))
            if self.augmentation is not None and epochs is not None:
                changes = draw_changes(
                    self.augmentation, self.seed, epochs.tolist(), rows.tolist()
                )
                batch["affine"] = torch.from_numpy(changes.affine)
                batch["tone"] = torch.from_numpy(changes.tone)
        if self.text_vectors is not None:
            shown = batch["text_ids"].numpy()
            batch["text_vectors"] = torch.from_numpy(self.text_vectors[shown])
        elif self.token_ids is not None:
            # A text that several rows show goes through the tower once.
            unique, place = np.unique(batch["text_ids"].numpy(), return_inverse=True)
            batch["tokens"] = torch.from_numpy(self.token_ids[unique])
            batch["token_of"] = torch.from_numpy(place)
        if self.kept is not None and epochs is not None:
            drawn = self.kept.draw(rows, int(epochs[0]), self.seed)
            batch |= {name: torch.from_numpy(one) for name, one in drawn.items()}
        return batch

    def describe(
        self, rows: NDArray[np.intp], epochs: NDArray[np.intp] | None = None
    ) -> dict[str, torch.Tensor]:
        """Return what the loss must know of rows besides their vectors.

        Parameters
        ----------
        rows, epochs
            As for :meth:`take`.

        Returns
        -------
        dict of str to tensor
        """
        batch = {
            "rows": torch.from_numpy(rows.astype(np.int64)),
            "image_ids": torch.from_numpy(self.image_ids[rows]),
        }
        if self.targets is not None:
            batch["targets"] = torch.from_numpy(self.targets[rows])
        pairs = self.pairs
        if pairs is not None:
            when = [None] * len(rows) if epochs is None else epochs.tolist()
            shown = [
                pairs.shown(row, epoch, self.seed)
                for row, epoch in zip(rows.tolist(), when, strict=True)
            ]
            batch["text_ids"] = torch.tensor(shown)
            batch["true_texts"] = torch.from_numpy(_padded(pairs.true, rows))
            batch["unknown_texts"] = torch.from_numpy(_padded(pairs.unknown, rows))
        return batch

    @staticmethod
    def _gather(pixels: NDArray[np.uint8], rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        # In the order of the file, where it is one.
        out = np.empty((len(rows), *pixels.shape[1:]), np.uint8)
        for place in np.argsort(rows, kind="stable"):
            out[place] = pixels[rows[place]]
        return out


def _padded(
    texts: Sequence[NDArray[np.int64]], rows: NDArray[np.intp]
) -> NDArray[np.int64]:
    """Return texts of rows as a table, filled up with -1."""
    chosen = [texts[row] for row in rows]
    table = np.full((len(rows), max(1, *map(len, chosen))), -1, np.int64)
    for line, some in zip(table, chosen, strict=True):
        line[: len(some)] = some
    return table
