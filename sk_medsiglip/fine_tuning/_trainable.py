"""Which weights are trained, and how fast each of them moves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sk_medsiglip._optional import import_optional

__all__ = ["TRAIN", "TOWERS", "LowRank", "choose_trainable", "parameter_groups"]

TRAIN = ("lora", "last_blocks", "head", "full")
TOWERS = ("both", "image", "text")

_NAMES = {"image": "vision_model", "text": "text_model"}
_LAYERS = {
    "attention": r"self_attn\.(q_proj|k_proj|v_proj|out_proj)",
    "all": r"(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.(fc1|fc2))",
}
_LOGIT = ("logit_scale", "logit_bias")

# What comes before and after the layers of a tower.
_BEFORE = re.compile(r"\b(embeddings)\b")
_LAYER = re.compile(r"\b(vision_model|text_model)\.encoder\.layers\.(\d+)\.")

# Weight decay pulls matrices to zero; what is a vector has no reason to be small.
_NO_DECAY_NAMES = ("probe", *_LOGIT)


@dataclass(frozen=True)
class LowRank:
    """Settings of low-rank adaptation.

    Parameters
    ----------
    rank : int
        Of the added matrices.
    alpha : float
        They are multiplied by ``alpha / rank``.
    dropout : float
        Share of their inputs that is left out in training.
    layers : {"attention", "all"}
        Which linear layers of each block get one.
    """

    rank: int
    alpha: float
    dropout: float
    layers: str


def choose_trainable(
    siglip: Any, train: str, towers: Sequence[str], n_blocks: int, low_rank: LowRank
) -> Any:
    """Set which weights of a network are trained.

    Parameters
    ----------
    siglip : transformers.SiglipModel
        None of whose weights is trained so far. Low-rank matrices are put into it.
    train : {"lora", "last_blocks", "head", "full"}
        "head" is each tower's head: the attention pooling, the text projection.
        "last_blocks" is that, the last ``n_blocks`` layers and the norm after them.
    towers : sequence of {"image", "text"}
        Which. None at all trains nothing.
    n_blocks : int
        For "last_blocks".
    low_rank : LowRank
        For "lora".

    Returns
    -------
    peft.PeftModel or None
        What holds the adapter, for "lora".

    Raises
    ------
    MissingDependencyError
        If peft is not installed.
    ValueError
        If there are fewer layers than ``n_blocks``.
    """
    if not towers:
        return None
    if train == "lora":
        return _add_low_rank(siglip, towers, low_rank)
    for tower in towers:
        _train_tower(getattr(siglip, _NAMES[tower]), tower, train, n_blocks)
    # Both towers' vectors meet in the scale and the bias.
    for name in _LOGIT if set(towers) == {"image", "text"} else ():
        getattr(siglip, name).requires_grad_(True)
    return None


def _add_low_rank(siglip: Any, towers: Sequence[str], low_rank: LowRank) -> Any:
    import_optional("peft", extra="finetune", purpose="train='lora'")
    from peft import LoraConfig, get_peft_model

    names = "|".join(_NAMES[tower] for tower in towers)
    config = LoraConfig(
        r=low_rank.rank,
        lora_alpha=low_rank.alpha,  # type: ignore[arg-type]
        lora_dropout=low_rank.dropout,
        target_modules=rf"({names})\.encoder\.layers\.\d+\.{_LAYERS[low_rank.layers]}",
    )
    return get_peft_model(siglip, config)


def _train_tower(tower: Any, name: str, train: str, n_blocks: int) -> None:
    if train == "full":
        tower.requires_grad_(True)
        return
    if getattr(tower, "head", None) is not None:
        tower.head.requires_grad_(True)
    if train == "head":
        return
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
    """Return what the optimizer takes: trained weights by how fast they move.

    Parameters
    ----------
    network : torch.nn.Module
        Whose ``classifier``, where there is one, is the new layer on top.
    learning_rate : float
        Of what is nearest to the top.
    classifier_rate : float
        Of the new layer.
    weight_decay : float
        Of matrices; norms, biases and single values have none.
    layer_decay : float
        Factor on the learning rate for each layer further down.

    Returns
    -------
    list of dict
        With ``params``, ``lr`` and ``weight_decay``.
    """
    named = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    # Of the whole tower, trained or not: the top is the top.
    n_layers = _n_layers(name for name, _ in network.named_parameters())
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in named:
        rate = learning_rate * layer_decay ** _below_top(name, n_layers)
        if name.startswith("classifier."):
            rate = classifier_rate
        plain = parameter.ndim < 2 or name.rpartition(".")[2] in _NO_DECAY_NAMES
        groups.setdefault((rate, 0.0 if plain else weight_decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _n_layers(names: Any) -> dict[str, int]:
    count: dict[str, int] = {}
    for name in names:
        if found := _LAYER.search(name):
            tower, number = found[1], int(found[2])
            count[tower] = max(count.get(tower, 0), number + 1)
    return count


def _below_top(name: str, n_layers: dict[str, int]) -> int:
    """Return how many layers lie above a weight; the head is the top."""
    if found := _LAYER.search(name):
        return n_layers[found[1]] - int(found[2])
    if _BEFORE.search(name):
        tower = "vision_model" if "vision_model" in name else "text_model"
        return n_layers.get(tower, 0) + 1
    return 0
