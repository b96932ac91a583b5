"""The model card that ``save`` and ``merge`` put beside weights: ``README.md``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sk_medsiglip._version import __version__

if TYPE_CHECKING:
    from sk_medsiglip.fine_tuning._fine_tuner import MedSigLIPFineTuner

__all__ = ["CARD", "model_card"]

CARD = "README.md"

# Of this machine or this run, or told elsewhere in the card.
_NOT_SETTINGS = frozenset(
    {"cache", "device", "model", "n_jobs", "resume", "revision", "run_dir", "verbose"}
)

_TEXT = """\
---
library_name: {library}
license: other
---
# Weights tuned from {base}

- **Base**: {base}, revision `{base_revision}`
- **Fingerprint** of the tuned encoder: `{fingerprint}`
- **Data**: {n_train} training images, {n_validation} validation images; none of them
  is in this folder. Describe here where they come from, and who may use the weights.
- **Made by** sk-medsiglip {version}: {n_steps} steps, weights of step {best_step},
  {n_trained} trained values
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


def model_card(tuner: MedSigLIPFineTuner, *, is_merged: bool, has_terms: bool) -> str:
    """Return the card of a fitted fine-tuner; no path of this machine is in it.

    Parameters
    ----------
    tuner : MedSigLIPFineTuner
        Fitted.
    is_merged : bool
        Whether the folder holds whole weights that plain transformers opens.
    has_terms : bool
        Whether the terms of MedSigLIP lie beside it.

    Returns
    -------
    str
    """
    settings = tuner.get_params(deep=False).items()
    history = tuner.history_
    last = history[history["step"] <= tuner.best_step_].ffill().iloc[-1].dropna()
    return _TEXT.format(
        library="transformers" if is_merged else "peft",
        # Of a folder its name alone.
        base=Path(os.fspath(tuner.model)).name
        if Path(tuner.model).expanduser().is_dir()
        else os.fspath(tuner.model),
        base_revision=tuner.base_revision_,
        fingerprint=tuner.fingerprint_,
        n_train=getattr(tuner, "n_train_", "an unknown number of"),
        n_validation=len(tuner.validation_rows_),
        version=__version__,
        n_steps=tuner.n_steps_,
        best_step=tuner.best_step_,
        n_trained=f"{tuner.n_trained_:,}",
        licence="the terms of MedSigLIP: see NOTICE and TERMS.md in this folder"
        if has_terms
        else "that of the base",
        metrics="\n".join(
            f"- {name}: {value:.4g}"
            for name, value in last.items()
            if name.endswith(("loss", "auc"))
        ),
        settings="\n".join(
            f"- {key}: {_shown(value)}"
            for key, value in settings
            if key not in _NOT_SETTINGS
        ),
    )


def _shown(value: object) -> str:
    """Return a setting as text; texts and arrays of the user's are not copied."""
    plain = value is None or isinstance(value, bool | int | float | str)
    return f"`{value!r}`" if plain else f"a {type(value).__name__}"
