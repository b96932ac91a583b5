"""A loaded checkpoint: pixels and texts to vectors."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from sk_medsiglip.encoder._checkpoints import Checkpoint
from sk_medsiglip.encoder._fork import (
    check_device_after_fork,
    one_thread_in_forked_child,
)

if TYPE_CHECKING:
    import torch

__all__ = ["Encoder"]


class Encoder:
    """A SigLIP checkpoint in memory, safe to share between threads.

    Made by :func:`load_encoder`. Estimators never hold one: they ask for it again by
    name, and the process keeps one copy.

    Parameters
    ----------
    checkpoint : Checkpoint
        Where it came from.
    network : transformers.SiglipModel
        In evaluation mode, on its device.
    tokenizer : transformers.PreTrainedTokenizerBase
        The checkpoint's tokenizer.
    processor : object
        The checkpoint's image processor.
    dtype : str
        ``"float32"`` or ``"bfloat16"``.

    Attributes
    ----------
    revision : str
        The hub commit, or a digest of the folder.
    device : str
        ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    embedding_dim, image_size, text_tokens : int
        Width of an embedding, px a side, tokens a text.
    logit_scale, logit_bias : float
        Of ``logit = logit_scale * cosine + logit_bias``. ``logit_scale`` is the
        factor itself; the checkpoint stores its logarithm.
    """

    engine = "torch"

    def __init__(
        self,
        checkpoint: Checkpoint,
        network: Any,
        tokenizer: Any,
        processor: Any,
        *,
        dtype: str,
    ) -> None:
        self.checkpoint = checkpoint
        self.model = checkpoint.model
        self.revision = checkpoint.revision
        self.embedding_dim = checkpoint.embedding_dim
        self.image_size = checkpoint.image_size
        self.text_tokens = checkpoint.text_tokens
        self.dtype = dtype
        self.device = str(network.device)
        self.logit_scale = float(network.logit_scale.detach().float().exp())
        self.logit_bias = float(network.logit_bias.detach().float())
        self._network = network
        self._tokenizer = tokenizer
        self._processor = processor
        self._pid = os.getpid()
        # One pass at a time: torch already uses all cores within a pass, and the
        # memory of several at once would not be bounded.
        self._lock = threading.Lock()
        _alive.add(self)

    def __repr__(self) -> str:
        return (
            f"<Encoder {self.model!r} revision={self.revision!r} "
            f"device={self.device!r} dtype={self.dtype!r}>"
        )

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        """Return the pooled, unnormalised image vectors.

        Parameters
        ----------
        pixels : ndarray of shape (n_images, image_size, image_size, 3), uint8
            RGB, already at the model's size. One pass: mind the memory.

        Returns
        -------
        ndarray of shape (n_images, embedding_dim), float32
        """
        import torch

        if not pixels.flags.writeable:
            # torch warns about read-only arrays; memory-mapped ones are.
            pixels = pixels.copy()
        with self._pass():
            values = torch.from_numpy(pixels).to(self._network.device)
            values = values.permute(0, 3, 1, 2).to(torch.float32).contiguous()
            values = values.mul_(self._pixel_scale()).sub_(self._pixel_shift())
            pooled = self._network.vision_model(
                pixel_values=values.to(self._network.dtype)
            ).pooler_output
            return pooled.float().cpu().numpy()

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return the pooled, unnormalised text vectors.

        Parameters
        ----------
        texts : sequence of str
            Each is lower-cased, cut and padded to ``text_tokens``. The padding is
            attended to, as in training: that is why its length is fixed.

        Returns
        -------
        ndarray of shape (n_texts, embedding_dim), float32
        """
        import torch

        tokens = self._tokenizer(
            [text.lower() for text in texts],
            padding="max_length",
            max_length=self.text_tokens,
            truncation=True,
        )["input_ids"]
        with self._pass():
            input_ids = torch.tensor(tokens, device=self._network.device)
            pooled = self._network.text_model(input_ids=input_ids).pooler_output
            return pooled.float().cpu().numpy()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has before it is cut."""
        lowered = [text.lower() for text in texts]
        # Not verbose: it would warn that the whole text does not fit, and none is used.
        tokens = self._tokenizer(lowered, verbose=False)["input_ids"]
        return [len(ids) for ids in tokens]

    def _pixel_scale(self) -> torch.Tensor:
        return self._channels(
            [self._processor.rescale_factor / s for s in self._processor.image_std]
        )

    def _pixel_shift(self) -> torch.Tensor:
        mean, std = self._processor.image_mean, self._processor.image_std
        return self._channels([m / s for m, s in zip(mean, std, strict=True)])

    def _channels(self, values: list[float]) -> torch.Tensor:
        import torch

        return torch.tensor(values, device=self._network.device).view(1, 3, 1, 1)

    @contextmanager
    def _pass(self) -> Iterator[None]:
        import torch

        check_device_after_fork(self.device, self._pid)
        one_thread_in_forked_child()
        with self._lock, torch.inference_mode():
            yield


# Every encoder in memory, so that a forked child can renew their locks: another
# thread of the parent may have held one when the child was made.
_alive: weakref.WeakSet[Encoder] = weakref.WeakSet()


def _renew_locks() -> None:
    for encoder in _alive:
        encoder._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
