"""Documents beside saved weights: a model card, and the terms of their licence."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from sk_medsiglip._version import __version__
from sk_medsiglip.encoder import Checkpoint

NOTICE = "NOTICE"
TERMS = "TERMS.md"
_CARD = "README.md"

# Width, px a side and px a patch of MedSigLIP: no other published SigLIP has these.
_MEDSIGLIP_SIZES = (1152, 448, 14)

# Parameters of one run or machine, or described elsewhere in the card.
_NOT_SETTINGS = frozenset({"embedder", "resume", "run_dir", "verbose"})
_READING = ("resize", "pad", "intensity", "frame", "max_pixels")


def documents(
    base: Checkpoint | None,
    parameters: Mapping[str, Any],
    learned: Mapping[str, Any],
    *,
    is_merged: bool,
) -> dict[str, bytes]:
    """Return the model card, and for MedSigLIP its terms, by file name.

    The card holds no path of this machine and no text of the user's.
    """
    embedder = parameters["embedder"]
    model = os.fspath(embedder.model)
    settings = {k: v for k, v in parameters.items() if k not in _NOT_SETTINGS}
    settings |= {name: getattr(embedder, name) for name in _READING}
    terms = licence_files(model, base)
    history = learned["history_"]
    last = history[history["step"] <= learned["best_step_"]].ffill().iloc[-1].dropna()
    # Only the name of a folder.
    is_folder = Path(model).expanduser().is_dir()
    card = _template(_CARD).format(
        **{"n_train_": "an unknown number of", **learned},
        library="transformers" if is_merged else "peft",
        base=Path(model).name if is_folder else model,
        n_validation=len(learned["validation_rows_"]),
        version=__version__,
        licence=f"the terms of MedSigLIP: see {NOTICE} and {TERMS} in this folder"
        if terms
        else "that of the base",
        metrics="\n".join(
            f"- {name}: {value:.4g}"
            for name, value in last.items()
            if name.endswith(("loss", "auc"))
        ),
        settings="\n".join(f"- {key}: {_shown(one)}" for key, one in settings.items()),
    )
    return terms | {_CARD: card.encode()}


def _template(name: str) -> str:
    return (files(__package__) / "documents" / name).read_text("utf-8")


def _shown(value: object) -> str:
    """Return a setting as text, without texts and arrays of the user's."""
    plain = value is None or isinstance(value, bool | int | float | str)
    return f"`{value!r}`" if plain else f"a {type(value).__name__}"


def licence_files(model: str, base: Checkpoint | None) -> dict[str, bytes]:
    """Return the files that the licence asks for, if the base is MedSigLIP."""
    if not is_medsiglip(model, base):
        return {}
    # Not the folders of this machine.
    name = "google/medsiglip-448" if os.path.isabs(model) else model
    terms = _template(TERMS).format(base=name)
    return {NOTICE: _template(NOTICE).encode(), TERMS: terms.encode()}


def is_medsiglip(model: str, base: Checkpoint | None) -> bool:
    """Return whether a base is MedSigLIP, by its name or by its sizes."""
    sizes = base and (base.embedding_dim, base.image_size, base.patch_size)
    return "medsiglip" in Path(model).name.lower() or sizes == _MEDSIGLIP_SIZES
