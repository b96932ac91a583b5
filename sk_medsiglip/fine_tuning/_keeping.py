"""From a trained network to files."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save, save_file

from sk_medsiglip.encoder import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    TUNED_WEIGHTS,
    Checkpoint,
)
from sk_medsiglip.fine_tuning._adapter_files import (
    Tuned,
    adapters_folder,
    base_name,
    notices,
    store_adapter,
    write_files,
)
from sk_medsiglip.fine_tuning._choices import trained_towers
from sk_medsiglip.fine_tuning._network import Network
from sk_medsiglip.fine_tuning._processes import Processes

if TYPE_CHECKING:
    from sk_medsiglip.fine_tuning._fine_tuner import MedSigLIPFineTuner

__all__ = ["keep_tuned"]


def keep_tuned(
    tuner: MedSigLIPFineTuner,
    network: Network,
    low_rank: Any,
    checkpoint: Checkpoint,
    processes: Processes,
) -> Tuned | None:
    """Keep the tuned weights: in memory if they are an adapter, else on disk.

    Parameters
    ----------
    tuner : MedSigLIPFineTuner
    network : Network
        After training.
    low_rank : peft.PeftModel or None
        What holds its adapter.
    checkpoint : Checkpoint
        The base.
    processes : Processes
        Of which the first writes whole weights.

    Returns
    -------
    Tuned or None
        None where the encoder stayed as it was.
    """
    if not trained_towers(tuner):
        return None
    root = adapters_folder(tuner.cache)
    new = Tuned("", base_name(tuner.model), checkpoint.revision, None, None)
    beside = notices(new.base_model, checkpoint)
    if low_rank is not None:
        files = _adapter_files(low_rank, new) | beside
        fingerprint, _ = store_adapter(root, partial(write_files, files=files), new)
        return Tuned(fingerprint, new.base_model, new.base_revision, files, None)

    def write_whole(folder: Path) -> None:
        tensors = {
            name.removeprefix("siglip."): parameter.detach().cpu().contiguous()
            for name, parameter in network.named_parameters()
            if parameter.requires_grad and not name.startswith("classifier.")
        }
        save_file(tensors, folder / TUNED_WEIGHTS)
        write_files(folder, beside)

    stored = ("", "")
    if processes.is_first:
        fingerprint, home = store_adapter(root, write_whole, new)
        stored = fingerprint, str(home)
    fingerprint, place = processes.share(stored)
    return Tuned(fingerprint, new.base_model, new.base_revision, None, place)


def _adapter_files(low_rank: Any, new: Tuned) -> dict[str, bytes]:
    """Return the files that peft would write."""
    from peft import get_peft_model_state_dict

    tensors = {
        name: tensor.detach().float().cpu().contiguous()
        for name, tensor in get_peft_model_state_dict(low_rank).items()
    }
    config = low_rank.peft_config["default"].to_dict()
    config.update(
        base_model_name_or_path=new.base_model,
        revision=new.base_revision,
        inference_mode=True,
    )
    # Its sets become lists in an order that is the same tomorrow.
    text = json.dumps(config, indent=1, sort_keys=True, default=sorted)
    return {ADAPTER_WEIGHTS: save(tensors), ADAPTER_CONFIG: text.encode()}
