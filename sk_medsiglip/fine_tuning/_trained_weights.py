"""The file of a checkpoint that holds the trained weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sk_medsiglip.exceptions import CheckpointError
from sk_medsiglip.fine_tuning._run_folder import check_complete

__all__ = ["load_trained", "save_trained"]

_FILE = "trained.safetensors"


def save_trained(network: torch.nn.Module, checkpoint: Path) -> None:
    """Write the weights that are trained; the others are those of the base."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    save_file(_trained(network), checkpoint / _FILE)


def load_trained(network: torch.nn.Module, checkpoint: Path) -> None:
    """Put the trained weights of a checkpoint into a network.

    Parameters
    ----------
    network : torch.nn.Module
    checkpoint : pathlib.Path
        A complete one.

    Raises
    ------
    CheckpointError
        If they are damaged, or of another network.
    """
    check_complete(checkpoint)
    path = checkpoint / _FILE
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from error
    own = _trained(network)
    if own.keys() != tensors.keys() or any(
        own[name].shape != tensor.shape for name, tensor in tensors.items()
    ):
        raise CheckpointError(f"{str(path)!r} holds other weights than are trained.")
    network.load_state_dict(tensors, strict=False)


def _trained(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }
