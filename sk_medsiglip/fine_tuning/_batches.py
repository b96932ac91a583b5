"""Batches: the order of rows, and the tensors for the network.

The order is a function of the seed: batch number k holds the same rows in every process
and after a restart. All epochs form one sequence, so that a run resumes by skipping its
first batches, which costs no time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from sk_medsiglip.fine_tuning._augmentation import Augmentation, draw_changes
from sk_medsiglip.fine_tuning._examples import Examples
from sk_medsiglip.fine_tuning._inputs import Inputs


@dataclass(frozen=True)
class RunOrder:
    """Batches of one process over all epochs, as items ``epoch * n_rows + place``.

    Each epoch is a permutation. Rows that do not fill its last batch are skipped.
    Batch number k of all processes together equals batch number k of a single process
    with a larger ``batch_size``.
    """

    n_rows: int
    batch_size: int
    n_batches: int
    seed: int
    n_processes: int = 1
    process: int = 0
    drop_last = True  # read by DataLoader

    @property
    def batches_per_epoch(self) -> int:
        """Number of whole batches in an epoch."""
        return max(1, self.n_rows // (self.batch_size * self.n_processes))

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[list[int]]:
        order, last = np.empty(0, np.intp), -1
        for number in range(self.n_batches):
            epoch, place = divmod(number, self.batches_per_epoch)
            if epoch != last:
                rng = np.random.default_rng([self.seed, epoch])
                order, last = rng.permutation(self.n_rows), epoch
            start = self.batch_size * (place * self.n_processes + self.process)
            chosen = order[start : start + self.batch_size]
            yield (epoch * self.n_rows + chosen).tolist()


@dataclass(frozen=True, eq=False)
class Collator:
    """Turn items of :class:`RunOrder`, over some rows, into the tensors of a batch."""

    rows: NDArray[np.intp]
    examples: Examples
    inputs: Inputs
    augmentation: Augmentation | None
    seed: int

    def __call__(self, items: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return the tensors of a batch."""
        epochs, places = np.divmod(np.asarray(items), len(self.rows))
        return self.take(self.rows[places], epochs)

    def take(
        self, rows: NDArray[np.intp], epochs: NDArray[np.intp] | None = None
    ) -> dict[str, torch.Tensor]:
        """Return the tensors of some rows.

        Changes of images and the choice among several texts depend on the epochs.
        Without epochs images are unchanged, and each shows its first text.
        """
        batch = self.describe(rows, epochs)
        inputs, token_ids = self.inputs, self.examples.token_ids
        if inputs.image_vectors is not None:
            batch["image_vectors"] = torch.from_numpy(inputs.image_vectors[rows])
        elif inputs.pixels is not None:
            batch["pixels"] = torch.from_numpy(_gather(inputs.pixels, rows))
            if self.augmentation is not None and epochs is not None:
                affine, tone = draw_changes(
                    self.augmentation, self.seed, epochs.tolist(), rows.tolist()
                )
                batch["affine"] = torch.from_numpy(affine)
                batch["tone"] = torch.from_numpy(tone)
        if inputs.text_vectors is not None:
            shown = batch["text_ids"].numpy()
            batch["text_vectors"] = torch.from_numpy(inputs.text_vectors[shown])
        elif token_ids is not None:
            # A text that several rows show is encoded once.
            unique, place = np.unique(batch["text_ids"].numpy(), return_inverse=True)
            batch["tokens"] = torch.from_numpy(token_ids[unique])
            batch["token_of"] = torch.from_numpy(place)
        if inputs.kept is not None and epochs is not None:
            drawn = inputs.kept.draw(rows, int(epochs[0]), self.seed)
            batch |= {name: torch.from_numpy(one) for name, one in drawn.items()}
        return batch

    def describe(
        self, rows: NDArray[np.intp], epochs: NDArray[np.intp] | None = None
    ) -> dict[str, torch.Tensor]:
        """Return the tensors for the loss other than the vectors of rows."""
        batch = {
            "rows": torch.from_numpy(rows.astype(np.int64)),
            "image_ids": torch.from_numpy(self.inputs.image_ids[rows]),
        }
        texts, targets = self.examples.texts, self.examples.targets
        if targets is not None:
            batch["targets"] = torch.from_numpy(targets[rows])
        if texts is not None:
            when = [None] * len(rows) if epochs is None else epochs.tolist()
            shown = map(texts.shown, rows.tolist(), when, [self.seed] * len(rows))
            batch["text_ids"] = torch.tensor(list(shown))
            batch["true_texts"] = _padded(texts.true, rows)
            batch["unknown_texts"] = _padded(texts.unknown, rows)
        return batch


def _gather(pixels: NDArray[np.uint8], rows: NDArray[np.intp]) -> NDArray[np.uint8]:
    # Read in the order of rows, since the pixels may be in a file.
    out = np.empty((len(rows), *pixels.shape[1:]), np.uint8)
    for place in np.argsort(rows, kind="stable"):
        out[place] = pixels[rows[place]]
    return out


def _padded(texts: Sequence[NDArray[np.int64]], rows: NDArray[np.intp]) -> torch.Tensor:
    """Return the texts of rows as a table, padded with -1."""
    chosen = [torch.from_numpy(texts[row]) for row in rows]
    return pad_sequence(chosen, batch_first=True, padding_value=-1)
