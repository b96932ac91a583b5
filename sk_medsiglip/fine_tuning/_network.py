"""The network that is trained: its loss, trainable weights and learning rates."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from sk_medsiglip._optional import import_optional
from sk_medsiglip.encoder import Checkpoint, load_network, pixel_scaling
from sk_medsiglip.exceptions import CheckpointError
from sk_medsiglip.fine_tuning._augmentation import apply_changes
from sk_medsiglip.fine_tuning._examples import Examples, positive_weights
from sk_medsiglip.fine_tuning._losses import (
    binary_loss,
    class_loss,
    gather_rows,
    keep_loss,
    pair_signs,
    sigmoid_pair_loss,
)
from sk_medsiglip.fine_tuning._settings import Settings
from sk_medsiglip.fine_tuning._texts import KeptScores

_NAMES = {"image": "vision_model", "text": "text_model"}
_LAYERS = {
    "attention": r"self_attn\.(q_proj|k_proj|v_proj|out_proj)",
    "all": r"(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.(fc1|fc2))",
}
_LOGIT = ("logit_scale", "logit_bias")

# The layers of a tower, and the embeddings before them.
_LAYER = re.compile(r"\b(vision_model|text_model)\.encoder\.layers\.(\d+)\.")
_BEFORE = re.compile(r"\b(embeddings)\b")

# Parameters other than vectors that are excluded from weight decay.
_NO_DECAY_NAMES = ("probe", *_LOGIT)

_FILE = "trained.safetensors"


def build_network(
    settings: Settings,
    examples: Examples,
    kept: KeptScores | None,
    checkpoint: Checkpoint,
    rows: NDArray[np.intp],
    *,
    bf16: bool,
) -> tuple[Network, Any]:
    """Load the checkpoint, and add low-rank matrices or a classifier."""
    siglip = low_rank = None
    running = settings.running_towers
    if running:
        # Frozen weights need no more precision than the products.
        halved = bf16 and settings.train == "lora"
        siglip = load_network(checkpoint, "bfloat16" if halved else "float32")
        low_rank = choose_trainable(siglip, settings)
        # Before a tower is dropped, since transformers accesses both.
        if settings.gradient_checkpointing:
            _compute_again(siglip)
        for tower in _NAMES.keys() - set(running):
            setattr(siglip, _NAMES[tower], torch.nn.Identity())
    network = Network(siglip, settings, examples.has_exclusive_classes)
    if settings.classifies and examples.labels is not None:
        network.add_classifier(checkpoint.embedding_dim, examples.labels.n_rows)
    factor, shift = pixel_scaling(checkpoint.folder)
    text_moves = "text" in running
    constants = {
        "factor": np.array(factor, np.float32).reshape(1, -1, 1, 1),
        "shift": np.array(shift, np.float32).reshape(1, -1, 1, 1),
        "weights": positive_weights(settings.pos_weight, examples, rows),
        "kept_tokens": examples.kept_token_ids if text_moves else None,
        "kept_vectors": None if kept is None or text_moves else kept.vectors,
    }
    for name, values in constants.items():
        tensor = None if values is None else torch.from_numpy(values)
        network.register_buffer(name, tensor, persistent=False)
    return network, low_rank


def _compute_again(siglip: Any) -> None:
    """Let layers recompute their outputs in the backward pass."""
    settings = {"use_reentrant": False}
    if hasattr(siglip, "activation_checkpointing_enable"):
        siglip.activation_checkpointing_enable(settings)
    else:  # older versions of transformers
        siglip.gradient_checkpointing_enable(settings)


class Network(torch.nn.Module):
    """Towers and classifier, whose ``forward`` returns the loss of a batch.

    The loss is computed inside, so that the wrapper that averages gradients over
    processes uses all trained weights in one call.
    """

    factor: torch.Tensor
    shift: torch.Tensor
    weights: torch.Tensor | None
    kept_tokens: torch.Tensor | None
    kept_vectors: torch.Tensor | None

    def __init__(self, siglip: Any, settings: Settings, several_classes: bool) -> None:
        super().__init__()
        self.siglip = siglip
        self.same_caption = settings.same_caption
        self.keep_weight = settings.keep_weight
        self.several_classes = several_classes
        self.classifier: torch.nn.Linear | None = None

    def add_classifier(self, width: int, n_outputs: int) -> None:
        """Add a linear layer of zeros, which starts from equal probabilities."""
        self.classifier = torch.nn.Linear(width, n_outputs)
        torch.nn.init.zeros_(self.classifier.weight)
        torch.nn.init.zeros_(self.classifier.bias)

    def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the loss of a batch of :class:`Collator`."""
        images = self._images(**batch)
        if self.classifier is None:
            loss = self._pairs_loss(images, **batch)
        else:
            logits = self.classifier(embedding_features(images))
            # Weighted by the share of the step's known labels in this pass.
            loss = self.class_loss(logits, batch["targets"]) * batch.get("share", 1.0)
        if "kept_scores" in batch:
            loss = loss + self.keep_weight * self._kept_loss(images, **batch)
        return {"loss": loss}

    def _pairs_loss(self, images: torch.Tensor, **batch: torch.Tensor) -> torch.Tensor:
        images, texts = self._directions(images, **batch)
        return self.pair_loss(images, gather_rows(texts), batch, gather_rows)

    def pair_loss(
        self,
        images: torch.Tensor,
        texts: torch.Tensor,
        batch: dict[str, torch.Tensor],
        gather: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Return the sigmoid loss, given a function that gathers rows of all texts."""
        signs = pair_signs(
            batch["rows"],
            gather(batch["rows"]),
            batch["true_texts"],
            batch["unknown_texts"],
            gather(batch["text_ids"]),
            gather(batch["image_ids"]),
            batch["image_ids"],
            self.same_caption,
        )
        return sigmoid_pair_loss(
            images, texts, self.siglip.logit_scale, self.siglip.logit_bias, signs
        )

    def _kept_loss(self, images: torch.Tensor, **batch: torch.Tensor) -> torch.Tensor:
        ids = batch["kept_ids"]
        if self.kept_vectors is not None:
            texts = self.kept_vectors[ids]
        else:
            assert self.kept_tokens is not None
            tower = self.siglip.text_model
            texts = tower(input_ids=self.kept_tokens[ids]).pooler_output
            texts = F.normalize(texts.float(), dim=-1)
        directions = F.normalize(images.float(), dim=-1)
        return keep_loss(
            directions @ (batch["kept_mix"] @ texts).T,
            batch["kept_scores"],
            batch["kept_spread"],
        )

    def encode(self, **batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the inputs of the loss: logits, or image and text vectors."""
        images = self._images(**batch)
        if self.classifier is not None:
            return self.classifier(embedding_features(images)), None
        return self._directions(images, **batch)

    def _images(self, **batch: torch.Tensor) -> torch.Tensor:
        """Return image vectors before normalisation."""
        if "image_vectors" in batch:
            return batch["image_vectors"]
        values = batch["pixels"].permute(0, 3, 1, 2).to(torch.float32)
        if "affine" in batch:
            values = apply_changes(values, batch["affine"], batch["tone"])
        values = values * self.factor - self.shift
        return self.siglip.vision_model(pixel_values=values).pooler_output

    def _directions(
        self, images: torch.Tensor, **batch: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the image vectors and the vectors of their texts, with unit length."""
        texts = batch.get("text_vectors")
        if texts is None:
            tower = self.siglip.text_model
            unique = tower(input_ids=batch["tokens"]).pooler_output
            texts = unique[batch["token_of"]]
        return F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)

    def n_known(self, targets: torch.Tensor) -> torch.Tensor:
        """Return the divisor of :meth:`class_loss`, the (weighted) number of labels."""
        if self.several_classes and self.weights is not None:
            return self.weights.to(targets.device)[targets].sum()
        return (~torch.isnan(targets)).sum().float()

    def class_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of the classifier's logits."""
        if self.several_classes:
            return class_loss(logits, targets, self.weights)
        if targets.ndim == 1:
            targets = targets[:, None]
        return binary_loss(logits, targets.float(), self.weights)


def embedding_features(vectors: torch.Tensor) -> torch.Tensor:
    """Return embeddings scaled to the length ``sqrt(width)``, for the classifier.

    The length of MedSigLIP's vectors carries little information, and without scaling
    each checkpoint would need its own learning rate.
    """
    return F.normalize(vectors.float(), dim=-1) * vectors.shape[-1] ** 0.5


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
    # Scale and bias are shared by both towers, so they are trained only with both.
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
        lora_alpha=2 * settings.lora_rank if alpha is None else alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=rf"({names})\.encoder\.layers\.\d+\.{layers}",
    )
    return get_peft_model(siglip, config)


def _train_last_blocks(tower: Any, name: str, n_blocks: int) -> None:
    layers = tower.encoder.layers
    if n_blocks > len(layers):
        raise ValueError(
            f"n_blocks={n_blocks}, but the {name} tower has {len(layers)} layers. Use "
            f"at most n_blocks={len(layers)}, or train='full'."
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
    """Return the trained weights in groups for the optimizer.

    The rate falls by ``layer_decay`` with each layer below the top, and the network's
    ``classifier`` has its own rate. Weight decay applies to matrices only.
    """
    # All layers of a tower are counted, since the trained ones may be the last few.
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
    """Return the number of layers above a weight, 0 for the head."""
    if found := _LAYER.search(name):
        return n_layers[found[1]] - int(found[2])
    if _BEFORE.search(name):
        tower = "vision_model" if "vision_model" in name else "text_model"
        return n_layers.get(tower, 0) + 1
    return 0


def save_trained(network: torch.nn.Module, checkpoint: Path) -> None:
    """Write the trained weights of a network, without those of the base."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    save_file(trained_tensors(network), checkpoint / _FILE)


def load_trained(network: torch.nn.Module, checkpoint: Path) -> None:
    """Load the trained weights of a complete checkpoint into a network."""
    path = checkpoint / _FILE
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from error
    own = trained_tensors(network)
    if own.keys() != tensors.keys() or any(
        own[name].shape != tensor.shape for name, tensor in tensors.items()
    ):
        raise CheckpointError(
            f"{str(path)!r} holds other weights than those that are trained. Delete "
            "the folder of the run to start again."
        )
    network.load_state_dict(tensors, strict=False)


def trained_tensors(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the trained weights by name, on the CPU."""
    return {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }
