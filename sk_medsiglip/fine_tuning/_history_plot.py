"""Plot of the losses of a run."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sk_medsiglip._axes import new_axes

# From the palette of Okabe and Ito, which suits colour-blind readers.
_TRAINING, _VALIDATION, _BEST = "#999999", "#0072B2", "#D55E00"

# Share of all steps over which the training loss is averaged.
_SMOOTHED = 0.05


def plot_history(history: pd.DataFrame, best_step: int, ax: Any = None) -> Any:
    """Plot the losses of a run, and the step whose weights were kept."""
    ax = new_axes(ax, (7, 4), "Drawing the history")
    step, loss = history["step"], history["loss"]
    ax.plot(step, loss, color=_TRAINING, linewidth=0.8, alpha=0.6)
    window = max(1, round(_SMOOTHED * len(loss)))
    smooth = loss.rolling(window, min_periods=1).mean()
    ax.plot(step, smooth, color=_TRAINING, linewidth=2, label="training loss")
    if "validation_loss" in history:
        judged = history.dropna(subset=["validation_loss"])
        ax.plot(
            judged["step"],
            judged["validation_loss"],
            color=_VALIDATION,
            marker="o",
            label="validation loss",
        )
        ax.axvline(best_step, color=_BEST, linestyle="--", label="weights kept")
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    last = history.iloc[-1]
    share = float(last["epoch"] / last["step"])
    both_ways = (lambda step: step * share), (lambda epoch: epoch / share)
    ax.secondary_xaxis("top", functions=both_ways).set_xlabel("epoch")
    return ax
