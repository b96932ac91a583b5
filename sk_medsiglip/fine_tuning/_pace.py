"""How far and how fast a run goes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sk_medsiglip.fine_tuning._fine_tuner import MedSigLIPFineTuner

__all__ = ["Pace", "pace_of"]

#: Where ``learning_rate="auto"`` starts: low-rank matrices begin at nothing and move
#: fast; whole weights have something to lose.
LEARNING_RATES = {"lora": 1e-3, "last_blocks": 5e-5, "head": 1e-3, "full": 1e-5}

#: A new classifier, which starts at nothing, moves at least this fast.
CLASSIFIER_RATE = 1e-3

#: Length to which the gradient of a step is cut.
MAX_GRADIENT = 1.0

#: Looks and checkpoints of a run, where nothing else is asked for: an epoch of a small
#: collection is a step or two.
MOST_LOOKS = 50

_SCHEDULES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant_with_warmup",
}


@dataclass(frozen=True)
class Pace:
    """Numbers of a run.

    Parameters
    ----------
    n_steps : int
        Steps of the optimizer in the whole run.
    steps_per_epoch : float
        As many pass all rows.
    batch_size : int
        Rows in a pass of one process.
    accumulate : int
        Passes in a step.
    learning_rate, classifier_rate : float
        Of what was trained before, and of a new classifier.
    schedule : str
        As transformers names it.
    warmup_steps : int
        In which the rate rises.
    weight_decay, layer_decay, max_gradient : float
        See :func:`parameter_groups`; length to which gradients are cut.
    check_every : int
        Steps between two looks at the validation split, and two checkpoints.
    patience : int or None
        Looks without a better loss after which to stop; None never does.
    """

    n_steps: int
    steps_per_epoch: float
    batch_size: int
    accumulate: int
    learning_rate: float
    classifier_rate: float
    schedule: str
    warmup_steps: int
    weight_decay: float
    layer_decay: float
    max_gradient: float
    check_every: int
    patience: int | None


def pace_of(tuner: MedSigLIPFineTuner, n_rows: int, n_processes: int) -> Pace:
    """Return the pace that the parameters ask for.

    Parameters
    ----------
    tuner : MedSigLIPFineTuner
    n_rows : int
        Training rows. Fewer than a batch make a smaller batch.
    n_processes : int
        Which share them.

    Returns
    -------
    Pace

    Raises
    ------
    ValueError
        If pairs would have nothing to be compared with.
    """
    batch = max(1, min(tuner.batch_size, n_rows // n_processes))
    if tuner.objective == "contrastive" and batch * n_processes < 2:
        raise ValueError(
            f"batch_size={tuner.batch_size} with {n_rows} training rows shows one pair "
            "at a time, and nothing to tell it from. Use batch_size=2 at least; 16 and "
            "more are better."
        )
    passes = max(1, n_rows // (batch * n_processes))
    n_steps = tuner.max_steps or math.ceil(tuner.epochs * passes / tuner.accumulate)
    auto = isinstance(tuner.learning_rate, str)
    rate = LEARNING_RATES[tuner.train] if auto else float(tuner.learning_rate)
    alone = tuner.train == "head"
    return Pace(
        n_steps=n_steps,
        steps_per_epoch=passes / tuner.accumulate,
        batch_size=batch,
        accumulate=tuner.accumulate,
        learning_rate=rate,
        classifier_rate=rate if alone else max(rate, CLASSIFIER_RATE),
        schedule=_SCHEDULES[tuner.schedule],
        warmup_steps=round(tuner.warmup * n_steps),
        weight_decay=tuner.weight_decay,
        layer_decay=tuner.layer_decay,
        max_gradient=MAX_GRADIENT,
        check_every=tuner.checkpoint_every
        or max(math.ceil(passes / tuner.accumulate), math.ceil(n_steps / MOST_LOOKS)),
        patience=tuner.patience,
    )
