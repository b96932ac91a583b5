"""The network of a run: the checkpoint's towers, prepared for what is to be trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sk_medsiglip.encoder import Checkpoint, load_network, pixel_scaling
from sk_medsiglip.fine_tuning._choices import needed_towers, trained_towers
from sk_medsiglip.fine_tuning._kept import Kept
from sk_medsiglip.fine_tuning._material import Material, positive_weights
from sk_medsiglip.fine_tuning._network import Keeping, Network, Scaling, Weighting
from sk_medsiglip.fine_tuning._trainable import LowRank, choose_trainable

if TYPE_CHECKING:
    from sk_medsiglip.fine_tuning._fine_tuner import MedSigLIPFineTuner

__all__ = ["build_network"]


def build_network(
    tuner: MedSigLIPFineTuner,
    material: Material,
    kept: Kept | None,
    checkpoint: Checkpoint,
    rows: NDArray[np.intp],
    *,
    bf16: bool,
) -> tuple[Network, Any]:
    """Load the checkpoint and put on it what is trained.

    Parameters
    ----------
    tuner : MedSigLIPFineTuner
    material : Material
    kept : Kept or None
        What is to stay as it is.
    checkpoint : Checkpoint
    rows : ndarray of int
        Training rows.
    bf16 : bool
        Whether products are computed in bfloat16.

    Returns
    -------
    network : Network
    low_rank : peft.PeftModel or None
        What holds the adapter.
    """
    siglip = low_rank = None
    if needed_towers(tuner):
        # Weights that no step changes need no more digits than products have.
        halved = bf16 and tuner.train == "lora"
        siglip = load_network(checkpoint, "bfloat16" if halved else "float32")
        low_rank = _prepare(siglip, tuner)
    weighting, n_outputs = _weighting(tuner, material, rows)
    network = Network(
        siglip,
        Scaling(*pixel_scaling(checkpoint.folder)),
        checkpoint.embedding_dim,
        n_outputs,
        weighting,
        _keeping(tuner, material, kept),
    )
    return network, low_rank


def _keeping(
    tuner: MedSigLIPFineTuner, material: Material, kept: Kept | None
) -> Keeping | None:
    if kept is None:
        return None
    moves = "text" in needed_towers(tuner)
    return Keeping(
        tuner.keep_weight,
        tokens=torch.from_numpy(material.kept_token_ids) if moves else None,
        vectors=None if moves else torch.from_numpy(kept.vectors),
    )


def _prepare(siglip: Any, tuner: MedSigLIPFineTuner) -> Any:
    alpha = tuner.lora_alpha
    low_rank = choose_trainable(
        siglip,
        tuner.train,
        trained_towers(tuner),
        tuner.n_blocks,
        LowRank(
            tuner.lora_rank,
            2 * tuner.lora_rank if alpha is None else alpha,
            tuner.lora_dropout,
            tuner.lora_layers,
        ),
    )
    # First, since transformers looks into both towers.
    if tuner.gradient_checkpointing:
        _compute_again(siglip)
    # A tower whose vectors are known is not carried along.
    for tower, name in (("image", "vision_model"), ("text", "text_model")):
        if tower not in needed_towers(tuner):
            setattr(siglip, name, torch.nn.Identity())
    return low_rank


def _compute_again(siglip: Any) -> None:
    """Let layers compute on the way back what they do not keep."""
    settings = {"use_reentrant": False}
    if hasattr(siglip, "activation_checkpointing_enable"):
        siglip.activation_checkpointing_enable(settings)
    else:  # its name before
        siglip.gradient_checkpointing_enable(settings)


def _weighting(
    tuner: MedSigLIPFineTuner, material: Material, rows: NDArray[np.intp]
) -> tuple[Weighting, int]:
    """Return how answers count, and how many the classifier gives."""
    labels = material.labels
    if tuner.objective != "classification" or labels is None:
        return Weighting(tuner.same_caption), 0
    weights = positive_weights(tuner.pos_weight, labels, rows)
    return (
        Weighting(
            several_classes=labels.classes is not None and labels.n_rows > 1,
            weights=None if weights is None else torch.from_numpy(weights),
        ),
        labels.n_rows,
    )
