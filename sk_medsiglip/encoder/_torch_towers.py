"""The towers as transformers wrote them, run by torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.encoder._checkpoints import Checkpoint, damaged
from sk_medsiglip.encoder._fork import (
    check_device_after_fork,
    one_thread_in_forked_child,
)
from sk_medsiglip.encoder._image_processor import read_processor
from sk_medsiglip.exceptions import CheckpointError, ForkedProcessError

if TYPE_CHECKING:
    import torch

__all__ = ["TorchTowers", "load_network"]


class TorchTowers:
    """Both towers on one device; see :class:`Towers`.

    Parameters
    ----------
    checkpoint : Checkpoint
        With its weights.
    device, dtype : str
        As ``choose_device`` and ``choose_dtype`` return them.
    """

    engine = "torch"

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str) -> None:
        network = load_network(checkpoint, dtype)
        processor = read_processor(checkpoint.folder)
        try:
            self._network = network.to(device)
        except RuntimeError as error:
            if "forked subprocess" in str(error):
                raise ForkedProcessError(
                    "This worker was made by fork after CUDA was used, and CUDA does "
                    "not survive a fork. Start workers with spawn or loky "
                    '(joblib.parallel_config(backend="loky")), or use device="cpu".'
                ) from error
            raise
        self.device = str(self._network.device)
        self.dtype = dtype
        self.logit_scale = float(network.logit_scale.detach().float().exp())
        self.logit_bias = float(network.logit_bias.detach().float())
        mean, std = processor.image_mean, processor.image_std
        self._scale = self._channels([processor.rescale_factor / s for s in std])
        self._shift = self._channels([m / s for m, s in zip(mean, std, strict=True)])
        self._pid = os.getpid()

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return vectors (n, width) of RGB images (n, size, size, 3)."""
        import torch

        if not pixels.flags.writeable:
            # torch warns about read-only arrays; memory-mapped ones are.
            pixels = pixels.copy()
        with self._pass():
            values = torch.from_numpy(pixels).to(self._network.device)
            values = values.permute(0, 3, 1, 2).to(torch.float32).contiguous()
            values = values.mul_(self._scale).sub_(self._shift)
            pooled = self._network.vision_model(
                pixel_values=values.to(self._network.dtype)
            ).pooler_output
            return pooled.float().cpu().numpy()

    def encode_tokens(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return vectors (n, width) of token ids (n, text_tokens)."""
        import torch

        with self._pass():
            input_ids = torch.from_numpy(tokens).to(self._network.device)
            pooled = self._network.text_model(input_ids=input_ids).pooler_output
            return pooled.float().cpu().numpy()

    def _channels(self, values: list[float]) -> torch.Tensor:
        import torch

        return torch.tensor(values, device=self._network.device).view(1, 3, 1, 1)

    @contextmanager
    def _pass(self) -> Iterator[None]:
        import torch

        check_device_after_fork(self.device, self._pid)
        one_thread_in_forked_child()
        with torch.inference_mode():
            yield


def load_network(checkpoint: Checkpoint, dtype: str) -> Any:
    """Return transformers' model of a checkpoint, for inference."""
    import torch
    from safetensors import SafetensorError

    try:
        from transformers import SiglipModel
    except ImportError as error:
        raise CheckpointError(
            f"transformers cannot load SigLIP here ({error}). A torchvision that does "
            "not belong to this torch causes that; run: pip uninstall torchvision"
        ) from error

    _check_weight_files(checkpoint)
    try:
        with quiet_transformers():
            network, report = SiglipModel.from_pretrained(
                checkpoint.folder,
                dtype=getattr(torch, dtype),
                attn_implementation="sdpa",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(damaged(checkpoint, str(error))) from error
    # transformers fills what a file lacks with random numbers and carries on.
    lacking = sorted(report["missing_keys"]) or sorted(
        str(key) for key in report["mismatched_keys"]
    )
    if lacking:
        raise CheckpointError(
            damaged(
                checkpoint,
                f"{len(lacking)} weights are missing or of another shape, the first "
                f"is {lacking[0]}",
            )
        )
    return network.eval().requires_grad_(False)


def _check_weight_files(checkpoint: Checkpoint) -> None:
    """Raise if a weight file is not there."""
    folder = checkpoint.folder
    if (folder / "model.safetensors").is_file():
        return
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        absent = sorted(name for name in shards if not (folder / name).is_file())
        if not absent:
            return
        reason = f"{', '.join(absent)} is missing"
    else:
        reason = "model.safetensors is missing"
        if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
            reason += "; .bin and .pt files are pickles, which are never opened"
    raise CheckpointError(damaged(checkpoint, reason))


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' loading bars; ours say what the user waits for."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    verbosity = logging.get_verbosity()
    logging.disable_progress_bar()
    # Its report of missing weights is replaced by a CheckpointError.
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
