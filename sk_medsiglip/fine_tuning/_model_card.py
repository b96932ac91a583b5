"""Documents beside saved weights: a model card, and the terms of their licence."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sk_medsiglip._version import __version__
from sk_medsiglip.encoder import Checkpoint

NOTICE = "NOTICE"
TERMS = "TERMS.md"
_CARD = "README.md"

# The licence of the model asks for this beside every copy of tuned weights.
_NOTICE = (
    "HAI-DEF is provided under and subject to the Health AI Developer Foundations "
    "Terms of Use found at "
    "https://developers.google.com/health-ai-developer-foundations/terms\n"
)

_TERMS = """\
# Terms of these weights

These weights were made by fine-tuning {base}. They are a modified version of it, or
the difference from it, and are not the files that Google published.

Their use and their distribution are subject to the Health AI Developer Foundations
Terms of Use: https://developers.google.com/health-ai-developer-foundations/terms
and to the prohibited-use policy that these name. Read them there; this file is not a
copy. Making the weights available for others to load or to query counts as
distribution. Whoever distributes them passes these terms on, keeps the file NOTICE
beside the weights, and says that they were changed.

Not a medical device. The output of these weights must not be used to diagnose or treat
anybody without the permission of the authorities in charge.
"""

_TEXT = """\
---
library_name: {library}
license: other
---
# Weights tuned from {base}

- **Base**: {base}, revision `{base_revision_}`
- **Fingerprint** of the tuned encoder: `{fingerprint_}`
- **Data**: {n_train_} training images, {n_validation} validation images; none of them
  is in this folder. Describe here where they come from, and who may use the weights.
- **Made by** sk-medsiglip {version}: {n_steps_} steps, weights of step {best_step_},
  {n_trained_:,} trained values
- **Licence**: {licence}

## Metrics
{metrics}

Those of the validation split describe images like the training images only.

## Limits
Not a medical device, and not validated for the diagnosis or treatment of patients. The
weights may do worse than the base on other images than those they were tuned on:
measure them on your own, by groups of patients, before you use them.

## Settings
{settings}
"""

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
    card = _TEXT.format(
        **{"n_train_": "an unknown number of", **learned},
        library="transformers" if is_merged else "peft",
        base=Path(model).name if is_folder else model,
        n_validation=len(learned["validation_rows_"]),
        version=__version__,
        licence="the terms of MedSigLIP: see NOTICE and TERMS.md in this folder"
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
    return {NOTICE: _NOTICE.encode(), TERMS: _TERMS.format(base=name).encode()}


def is_medsiglip(model: str, base: Checkpoint | None) -> bool:
    """Return whether a base is MedSigLIP, by its name or by its sizes."""
    sizes = base and (base.embedding_dim, base.image_size, base.patch_size)
    return "medsiglip" in Path(model).name.lower() or sizes == _MEDSIGLIP_SIZES
