"""The towers of transformers, run by torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.encoder._adapters import apply_adapter
from sk_medsiglip.encoder._checkpoints import Checkpoint, damaged, named_shards
from sk_medsiglip.encoder._fork import (
    check_device_after_fork,
    one_thread_in_forked_child,
)
from sk_medsiglip.encoder._image_processor import pixel_scaling
from sk_medsiglip.encoder._pooling_head import embed_pixels, pool_patches
from sk_medsiglip.exceptions import CheckpointError, ForkedProcessError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class _Sent:
    """A tensor that is being copied; ``ready`` is the event at the end of the copy."""

    tensor: torch.Tensor
    ready: torch.cuda.Event | None = None


class TorchTowers:
    """Both towers on one device; see :class:`Towers`."""

    engine = "torch"

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str) -> None:
        import torch

        network = load_network(checkpoint, dtype)
        scale, shift = pixel_scaling(checkpoint.folder)
        try:
            self._network = network.to(device)
        except RuntimeError as error:
            if "forked subprocess" in str(error):
                raise ForkedProcessError(
                    "This worker was forked after CUDA was used, and CUDA does not "
                    "survive a fork. Start workers with spawn or loky "
                    '(joblib.parallel_config(backend="loky")), or use device="cpu".'
                ) from error
            raise
        self.device = str(self._network.device)
        self.dtype = dtype
        self.logit_scale = float(network.logit_scale.detach().float().exp())
        self.logit_bias = float(network.logit_bias.detach().float())
        self._scale, self._shift = self._channels(scale), self._channels(shift)
        self._pid = os.getpid()
        on_cuda = self.device.startswith("cuda")
        self._copies = torch.cuda.Stream(self._network.device) if on_cuda else None

    def send(self, values: NDArray) -> _Sent:
        """Copy an array to the device; a copy to a GPU overlaps with its work."""
        import torch

        check_device_after_fork(self.device, self._pid)
        if not values.flags.writeable:
            # torch warns about read-only arrays, such as memory-mapped ones.
            values = values.copy()
        tensor = torch.from_numpy(values)
        if self._copies is None:
            return _Sent(tensor.to(self._network.device))
        with torch.cuda.stream(self._copies):
            there = tensor.pin_memory().to(self._network.device, non_blocking=True)
            return _Sent(there, self._copies.record_event())

    def run_images(self, sent: _Sent, grid: int | None = None) -> _Sent:
        """Compute the vectors of RGB pixels (n, size, size, 3), uint8."""
        with self._pass():
            values = self.pixel_values(sent)
            return self._returned(embed_pixels(self.vision, values, grid))

    def pixel_values(self, sent: _Sent) -> torch.Tensor:
        """Return sent pixels as input of the image tower."""
        import torch

        values = self._arrived(sent).permute(0, 3, 1, 2).to(torch.float32)
        values = values.contiguous().mul_(self._scale).sub_(self._shift)
        return values.to(self._network.dtype)

    @property
    def vision(self) -> Any:
        """The image tower."""
        return self._network.vision_model

    def run_texts(self, sent: _Sent) -> _Sent:
        """Compute the vectors of token ids (n, text_tokens), int64."""
        with self._pass():
            input_ids = self._arrived(sent)
            output = self._network.text_model(input_ids=input_ids)
            return self._returned(output.pooler_output)

    def fetch(self, result: _Sent) -> NDArray[np.float32]:
        """Return computed vectors."""
        if result.ready is not None:
            result.ready.synchronize()
        return result.tensor.numpy()

    def _arrived(self, sent: _Sent) -> torch.Tensor:
        """Make this pass wait for the end of the copy."""
        import torch

        if sent.ready is not None:
            stream = torch.cuda.current_stream(self._network.device)
            stream.wait_event(sent.ready)
            sent.tensor.record_stream(stream)
        return sent.tensor

    def _returned(self, vectors: torch.Tensor) -> _Sent:
        """Queue the copy back to the CPU, ahead of the passes that follow."""
        import torch

        vectors = vectors.float()
        if self._copies is None:
            return _Sent(vectors.cpu())
        back = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
        back.copy_(vectors, non_blocking=True)
        return _Sent(back, torch.cuda.current_stream(vectors.device).record_event())

    def _channels(self, values: tuple[float, ...]) -> torch.Tensor:
        import torch

        return torch.tensor(values, device=self._network.device).view(1, 3, 1, 1)

    @contextmanager
    def _pass(self) -> Iterator[None]:
        import torch

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
        hint = "reinstall it: pip install --force-reinstall transformers"
        if "torchvision" in str(error):
            hint = (
                "the installed torchvision does not fit this torch; run: "
                "pip uninstall torchvision"
            )
        raise CheckpointError(
            f"transformers cannot load SigLIP here ({error}); {hint}"
        ) from error

    _check_weight_files(checkpoint)
    try:
        with quiet_transformers():
            network, report = SiglipModel.from_pretrained(
                checkpoint.folder,
                # Adapters are applied before weights are rounded.
                dtype=torch.float32 if checkpoint.adapters else getattr(torch, dtype),
                attn_implementation="sdpa",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **_only_images(checkpoint),
            )
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(damaged(checkpoint, str(error))) from error
    # transformers fills missing weights with random numbers, and only reports it.
    lacking = sorted(report["missing_keys"]) or sorted(
        str(key) for key in report["mismatched_keys"]
    )
    if not checkpoint.has_text:
        lacking = [name for name in lacking if name.startswith("vision_model.")]
        network.logit_scale.data.fill_(float("nan"))
        network.logit_bias.data.fill_(float("nan"))
    if lacking:
        raise CheckpointError(
            damaged(
                checkpoint,
                f"{len(lacking)} weights are missing or of another shape, the first "
                f"is {lacking[0]}",
            )
        )
    for folder in checkpoint.adapters:
        apply_adapter(network, folder)
    if checkpoint.adapters:
        network = network.to(getattr(torch, dtype))
    head = network.vision_model.head
    head.forward = partial(pool_patches, head)
    return network.eval().requires_grad_(False)


def _only_images(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the configuration of an image tower alone, with a tiny text tower."""
    if checkpoint.has_text:
        return {}
    from transformers import SiglipConfig, SiglipVisionConfig

    vision = SiglipVisionConfig.from_pretrained(
        checkpoint.folder, local_files_only=True
    )
    width = vision.hidden_size
    tiny = {
        "num_hidden_layers": 0,
        "hidden_size": width,
        "projection_size": width,
        "num_attention_heads": vision.num_attention_heads,
        "intermediate_size": 1,
        "vocab_size": 2,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    config = SiglipConfig(vision_config=vision.to_dict(), text_config=tiny)
    return {"config": config}


def _check_weight_files(checkpoint: Checkpoint) -> None:
    """Raise if a weight file is missing."""
    folder = checkpoint.folder
    if (folder / "model.safetensors").is_file():
        return
    shards = named_shards(folder)
    absent = [path.name for path in shards if not path.is_file()]
    if shards and not absent:
        return
    reason = f"{', '.join(absent) or 'model.safetensors'} is missing"
    if not shards and (any(folder.glob("*.bin")) or any(folder.glob("*.pt"))):
        reason += "; .bin and .pt files are pickles, which are never opened"
    raise CheckpointError(damaged(checkpoint, reason))


def weights_not_finite(checkpoint: Checkpoint) -> list[str]:
    """Return the names of the tensors of a checkpoint that hold NaN or infinity."""
    from safetensors import safe_open

    strange = []
    for folder in (checkpoint.folder, *checkpoint.adapters):
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as tensors:
                strange += [
                    name
                    for name in tensors.keys()  # noqa: SIM118 (it is not a mapping)
                    if not tensors.get_tensor(name).isfinite().all()
                ]
    return strange


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the progress bars and reports of transformers."""
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
