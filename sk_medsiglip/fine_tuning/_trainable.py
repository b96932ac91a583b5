"""The weights that are trained: which, how fast each moves, and their file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sk_medsiglip._optional import import_optional
from sk_medsiglip.exceptions import CheckpointError
from sk_medsiglip.fine_tuning._settings import Settings

_NAMES = {"image": "vision_model", "text": "text_model"}
_LAYERS = {
    "attention": r"self_attn\.(q_proj|k_proj|v_proj|out_proj)",
    "all": r"(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.(fc1|fc2))",
}
_LOGIT = ("logit_scale", "logit_bias")

# The layers of a tower, and what comes before them.
_LAYER = re.compile(r"\b(vision_model|text_model)\.encoder\.layers\.(\d+)\.")
_BEFORE = re.compile(r"\b(embeddings)\b")

# Weight decay pulls matrices towards zero; vectors have no reason to be small.
_NO_DECAY_NAMES = ("probe", *_LOGIT)

_FILE = "trained.safetensors"


def choose_trainable(siglip: Any, settings: Settings) -> Any:
    """Set which weights of a frozen network are trained."""
    towers = settings.trained_towers
    if not towers:
        return None
    if settings.train == "lora":
        return _add_low_rank(siglip, settings)
    for name in towers:
        tower = getattr(siglip, _NAMES[name])
        if settings.train == "full":
            tower.requires_grad_(True)
            continue
        if getattr(tower, "head", None) is not None:
            tower.head.requires_grad_(True)
        if settings.train == "last_blocks":
            _train_last_blocks(tower, name, settings.n_blocks)
    # The vectors of both towers meet in the scale and the bias.
    for name in _LOGIT if len(towers) == 2 else ():
        getattr(siglip, name).requires_grad_(True)
    return None


def _add_low_rank(siglip: Any, settings: Settings) -> Any:
    import_optional("peft", extra="finetune", purpose="train='lora'")
    from peft import LoraConfig, get_peft_model

    names = "|".join(_NAMES[tower] for tower in settings.trained_towers)
    layers = _LAYERS[settings.lora_layers]
    alpha = settings.lora_alpha
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank if alpha is None else alpha,  # type: ignore[arg-type]
        lora_dropout=settings.lora_dropout,
        target_modules=rf"({names})\.encoder\.layers\.\d+\.{layers}",
    )
    return get_peft_model(siglip, config)


def _train_last_blocks(tower: Any, name: str, n_blocks: int) -> None:
    layers = tower.encoder.layers
    if n_blocks > len(layers):
        raise ValueError(
            f"n_blocks={n_blocks}, but the {name} tower has {len(layers)} layers. Use "
            f"n_blocks={len(layers)} at most, or train='full'."
        )
    layers[len(layers) - n_blocks :].requires_grad_(True)
    norm = tower.post_layernorm if name == "image" else tower.final_layer_norm
    norm.requires_grad_(True)


def parameter_groups(
    network: torch.nn.Module,
    *,
    learning_rate: float,
    classifier_rate: float,
    weight_decay: float,
    layer_decay: float,
) -> list[dict[str, Any]]:
    """Return the trained weights as groups for the optimizer.

    The rate falls by ``layer_decay`` with each layer below the top; the network's
    ``classifier`` has its own. Weight decay applies to matrices only.
    """
    # Layers count over the whole tower, trained or not: the top is the top.
    n_layers = _n_layers(name for name, _ in network.named_parameters())
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = learning_rate * layer_decay ** _below_top(name, n_layers)
        if name.startswith("classifier."):
            rate = classifier_rate
        plain = parameter.ndim < 2 or name.rpartition(".")[2] in _NO_DECAY_NAMES
        groups.setdefault((rate, 0.0 if plain else weight_decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _n_layers(names: Iterable[str]) -> dict[str, int]:
    found = [one for one in map(_LAYER.search, names) if one]
    return {
        tower: 1 + max(int(one[2]) for one in found if one[1] == tower)
        for tower in {one[1] for one in found}
    }


def _below_top(name: str, n_layers: dict[str, int]) -> int:
    """Return how many layers lie above a weight; the head is the top."""
    if found := _LAYER.search(name):
        return n_layers[found[1]] - int(found[2])
    if _BEFORE.search(name):
        tower = "vision_model" if "vision_model" in name else "text_model"
        return n_layers.get(tower, 0) + 1
    return 0


def save_trained(network: torch.nn.Module, checkpoint: Path) -> None:
    """Write the trained weights of a network; the others are those of the base."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    save_file(trained_tensors(network), checkpoint / _FILE)


def load_trained(network: torch.nn.Module, checkpoint: Path) -> None:
    """Put the trained weights of a complete checkpoint into a network."""
    path = checkpoint / _FILE
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from error
    own = trained_tensors(network)
    if own.keys() != tensors.keys() or any(
        own[name].shape != tensor.shape for name, tensor in tensors.items()
    ):
        raise CheckpointError(f"{str(path)!r} holds other weights than are trained.")
    network.load_state_dict(tensors, strict=False)


def trained_tensors(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the trained weights by name, in the memory of the CPU."""
    return {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }
