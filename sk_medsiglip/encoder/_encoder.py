"""A loaded checkpoint: pixels and texts to vectors."""

from __future__ import annotations

import os
import threading
import traceback
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.encoder._batch_size import (
    BatchSize,
    image_batch_sizes,
    passes_at_once,
    ran_out_of_memory,
    text_batch_sizes,
)
from sk_medsiglip.encoder._checkpoints import Checkpoint
from sk_medsiglip.encoder._pooling_head import check_grid
from sk_medsiglip.encoder._tokenizer import count_tokens, tokenize
from sk_medsiglip.encoder._torch_towers import weights_not_finite
from sk_medsiglip.exceptions import CheckpointError, OutOfMemoryError


class Towers(Protocol):
    """The image tower and the text tower of one checkpoint, ready to run.

    A pass has three steps. ``send`` and ``fetch`` may run in several threads at a time,
    ``run_images`` and ``run_texts`` in one. On a GPU they only queue work, so that
    copies of one batch overlap with the computation of another.
    """

    engine: str
    device: str
    dtype: str
    logit_scale: float
    logit_bias: float

    def send(self, values: NDArray) -> Any:
        """Copy an array to the device."""

    def run_images(self, sent: Any, grid: int | None = None) -> Any:
        """Compute vectors of RGB pixels (n, size, size, 3), uint8.

        They are rows (n, width), or with ``grid`` rows and cells
        (n, 1 + grid**2, width).
        """

    def run_texts(self, sent: Any) -> Any:
        """Compute the vectors of token ids (n, text_tokens), int64."""

    def fetch(self, result: Any) -> NDArray[np.float32]:
        """Return computed vectors."""


class Encoder:
    """A SigLIP checkpoint in memory, safe to share between threads.

    It is returned by :func:`load_encoder`. Estimators never hold an encoder: they
    request it again by name, and the process keeps one copy.

    Parameters
    ----------
    checkpoint : Checkpoint
        The checkpoint from which it was loaded.
    towers : Towers
        The engine that runs its two towers.
    tokenizer : transformers.PreTrainedTokenizerBase or None
        The tokenizer of the checkpoint; None if there is no text tower.

    Attributes
    ----------
    revision : str
        The hub commit, or a digest of the folder.
    engine : {"torch", "openvino"}
        Engine that runs the model.
    dtype : {"float32", "bfloat16"}
        Numeric type of weights and activations.
    device : str
        ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    embedding_dim : int
        Width of an embedding.
    image_size : int
        Height and width of an image, in pixels.
    text_tokens : int
        Number of tokens per text.
    logit_scale, logit_bias : float
        Scale and bias in ``logit = logit_scale * cosine + logit_bias``.
        ``logit_scale`` is the factor itself; the checkpoint stores its logarithm.
    """

    def __init__(self, checkpoint: Checkpoint, towers: Towers, tokenizer: Any) -> None:
        self.checkpoint = checkpoint
        self.model = checkpoint.model
        self.revision = checkpoint.revision
        self.embedding_dim = checkpoint.embedding_dim
        self.image_size = checkpoint.image_size
        self.text_tokens = checkpoint.text_tokens
        self.engine = towers.engine
        self.device = towers.device
        self.dtype = towers.dtype
        self.logit_scale = towers.logit_scale
        self.logit_bias = towers.logit_bias
        self._towers = towers
        self._tokenizer = tokenizer
        patches = (checkpoint.image_size // checkpoint.patch_size) ** 2
        self._image_batch = BatchSize(*image_batch_sizes(patches, self.device))
        self._text_batch = BatchSize(*text_batch_sizes(self.device))
        # A pass uses all cores, and the memory of many at once would be unbounded; only
        # small models run several, on one core each. Work for a GPU is queued by one
        # thread at a time.
        at_once = passes_at_once(patches, self.device, self.engine)
        self._n_slots = at_once if self.device == "cpu" else 1
        self._slots = threading.BoundedSemaphore(self._n_slots)
        _alive.add(self)

    def __repr__(self) -> str:
        return (
            f"<Encoder {self.model!r} revision={self.revision!r} "
            f"engine={self.engine!r} device={self.device!r} dtype={self.dtype!r}>"
        )

    @property
    def image_batch_size(self) -> int:
        """Number of images per pass with ``batch_size="auto"``, as memory allows."""
        return self._image_batch.size

    @property
    def text_batch_size(self) -> int:
        """Number of texts per pass with ``batch_size="auto"``, as memory allows."""
        return self._text_batch.size

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        """Return the pooled, unnormalised image vectors.

        Parameters
        ----------
        pixels : ndarray of shape (n_images, image_size, image_size, 3), uint8
            RGB pixels at the size of the model. They are processed in one pass, or in
            several smaller ones if it does not fit into memory.

        Returns
        -------
        ndarray of shape (n_images, embedding_dim), float32

        Raises
        ------
        OutOfMemoryError
            If the pass of a single image does not fit into memory.
        """
        shape = (self.embedding_dim,)
        return self._encode(pixels, self._towers.run_images, self._image_batch, shape)

    def encode_cells(
        self, pixels: np.ndarray, grid: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors of images and of their cells, from the same pass.

        The vector of a cell is the result of the pooling head of the model for the
        patches of that cell alone: a softmax over these patches, then the perceptron
        of the head. It lies in the space of images and texts.

        Parameters
        ----------
        pixels : ndarray of shape (n_images, image_size, image_size, 3), uint8
            As for :meth:`encode_images`.
        grid : int
            Number of cells along a side of the image. It must divide the number of
            patches along a side (32 for MedSigLIP).

        Returns
        -------
        rows : ndarray of shape (n_images, embedding_dim), float32
            The same as from :meth:`encode_images`.
        cells : ndarray of shape (n_images, grid**2, embedding_dim), float32
            Vectors of the cells, row by row from the top left.

        Raises
        ------
        ValueError
            If ``grid`` does not divide the patches; the message lists the grids that
            do.
        OutOfMemoryError
            If the pass of a single image does not fit into memory.
        """
        check_grid(grid, self.image_size // self.checkpoint.patch_size)
        vectors = self._encode(
            pixels,
            partial(self._towers.run_images, grid=grid),
            self._image_batch,
            (1 + grid**2, self.embedding_dim),
        )
        return vectors[:, 0], vectors[:, 1:]

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return the pooled, unnormalised text vectors.

        Parameters
        ----------
        texts : sequence of str
            Texts, which are lower-cased, cut and padded to ``text_tokens``. Padding
            takes part in the attention, as in training, so the length is fixed.

        Returns
        -------
        ndarray of shape (n_texts, embedding_dim), float32
        """
        tokens = tokenize(self._check_tokenizer(), texts, self.text_tokens)
        shape = (self.embedding_dim,)
        return self._encode(tokens, self._towers.run_texts, self._text_batch, shape)

    def count_tokens(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Return the number of tokens of each text before it is cut.

        Parameters
        ----------
        texts : sequence of str

        Returns
        -------
        list of (int, int)
            Number of all tokens, and number of those in the vocabulary. A text without
            known tokens, for example in another script, is meaningless to the model.
        """
        return count_tokens(self._check_tokenizer(), texts)

    def _check_tokenizer(self) -> Any:
        """Return the tokenizer, or raise if there is no text tower."""
        if self._tokenizer is None:
            raise CheckpointError(
                f"The checkpoint {self.model!r} has only an image tower, so it cannot "
                "compare images with texts. Use the full checkpoint from which it was "
                "made."
            )
        return self._tokenizer

    def _encode(
        self,
        values: np.ndarray,
        run: Callable[[Any], Any],
        batch: BatchSize,
        shape: tuple[int, ...],
    ) -> np.ndarray:
        """Run passes as large as memory allows; ``shape`` is that of one result."""
        vectors = np.empty((len(values), *shape), np.float32)
        start = 0
        while start < len(values):
            part = values[start : start + batch.limit]
            try:
                sent = self._towers.send(part)
                with self._slots:
                    result = run(sent)
                rows = self._towers.fetch(result)
            except (RuntimeError, MemoryError) as error:
                # The frames of the failed pass keep its memory allocated.
                traceback.clear_frames(error.__traceback__)
                if not ran_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise OutOfMemoryError(
                        f"A pass with a single input does not fit into the memory of "
                        f"{self.device} together with the weights of {self.model!r} in "
                        f"{self.dtype}. Free memory there, or use dtype='bfloat16'."
                    ) from error
                batch.failed(len(part))
                continue
            batch.passed(len(part))
            if not np.isfinite(rows).all():
                raise CheckpointError(self._not_finite())
            vectors[start : start + len(part)] = rows
            start += len(part)
        return vectors

    def _not_finite(self) -> str:
        """Return the message for vectors with NaN or infinity, naming the weights."""
        strange = weights_not_finite(self.checkpoint)
        if strange:
            return (
                f"The checkpoint {self.model!r} computes NaN: {len(strange)} of its "
                f"tensors are not finite, the first is {strange[0]}. Its training "
                "diverged, or its file is damaged; use another checkpoint."
            )
        return (
            f"The checkpoint {self.model!r} computes numbers that are not finite in "
            f"{self.dtype} with {self.engine}, from finite weights: they overflow. Use "
            "dtype='float32' and engine='torch'."
        )


# Every encoder in memory, so that a forked child can renew their locks, which another
# thread of the parent may have held at the fork.
_alive: weakref.WeakSet[Encoder] = weakref.WeakSet()


def _renew_locks() -> None:
    for encoder in _alive:
        encoder._slots = threading.BoundedSemaphore(encoder._n_slots)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
