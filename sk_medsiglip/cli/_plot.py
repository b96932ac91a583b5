"""The picture at the end of the main job; the only file here that draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._drawn_names import drawn, drawn_lines
from sk_medsiglip._optional import import_optional

__all__ = ["Example", "Overview", "draw_overview"]

_PROMPTS, _LABELS, _TRUE = "#c65d00", "#1f5fa8", "#2d7d46"
_GREY = "#9aa0a6"
_MAX_BARS = 8


@dataclass(frozen=True)
class Example:
    """One image to show.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3), uint8
        The image.
    title : str
        Above it.
    truth : tuple of bool
        Whether each name is true of it.
    probabilities : ndarray
        Zero-shot, one a name.
    """

    pixels: NDArray[np.uint8]
    title: str
    truth: tuple[bool, ...] = ()
    probabilities: NDArray[Any] | tuple[float, ...] = ()


@dataclass(frozen=True)
class Overview:
    """Everything that the picture shows.

    Parameters
    ----------
    names : sequence of str
        Findings or classes.
    examples : sequence of Example
        Held-out images with zero-shot probabilities.
    zero_shot_auc : float
        Macro AUC of the prompts on held-out patients.
    curve : sequence of (int, float, float)
        Labels, mean AUC and standard deviation over the draws.
    sentence : str
        The query.
    nearest : sequence of Example
        Images nearest to it.
    notice : str
        What must be said about the model.
    title : str
        Of the whole picture.
    """

    names: Sequence[str]
    examples: Sequence[Example]
    zero_shot_auc: float
    curve: Sequence[tuple[int, float, float]]
    sentence: str
    nearest: Sequence[Example]
    notice: str
    title: str


def draw_overview(overview: Overview, file: Path) -> None:
    """Draw the overview into a PNG file.

    Parameters
    ----------
    overview : Overview
        What to show.
    file : pathlib.Path
        Where to.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    figures = import_optional(
        "matplotlib.figure", extra="plot", purpose="The picture of all results"
    )
    # A Figure of its own, not pyplot's: no window system is needed or touched.
    figure = figures.Figure(figsize=(13, 8.6), layout="constrained")
    figure.suptitle(
        drawn(overview.title, 100), fontsize=15, fontweight="bold", x=0.01, ha="left"
    )
    top, bottom, foot = figure.subfigures(3, 1, height_ratios=[1.12, 1, 0.05])
    _draw_examples(top, overview)
    left, right = bottom.subfigures(1, 2, width_ratios=[0.8, 1])
    _draw_curve(left, overview)
    _draw_nearest(right, overview)
    foot.text(
        0.01, 0.5, drawn(overview.notice, 200), fontsize=9, color="#8a1c1c", va="center"
    )
    figure.savefig(file, dpi=110)


def _draw_examples(part: Any, overview: Overview) -> None:
    part.suptitle(
        "Zero-shot: probabilities from prompts alone (green: true of the image)",
        fontsize=11,
        x=0.01,
        ha="left",
    )
    axes = part.subplots(
        2, len(overview.examples), height_ratios=[1.5, 1], squeeze=False
    )
    for column, example in enumerate(overview.examples):
        _show(axes[0, column], example)
        _draw_bars(axes[1, column], example, overview.names, label_names=column == 0)


def _draw_bars(
    ax: Any, example: Example, names: Sequence[str], *, label_names: bool
) -> None:
    values = np.asarray(example.probabilities)
    shown = np.sort(np.argsort(-values, kind="stable")[:_MAX_BARS])
    # The same names in every column are written once.
    written = label_names or len(names) > _MAX_BARS
    colours = [_TRUE if example.truth[i] else _GREY for i in shown]
    ax.barh(range(len(shown)), values[shown], color=colours, height=0.7)
    for place, i in enumerate(shown):
        # Beside a short bar, inside a long one.
        inside = values[i] > 0.8
        ax.text(
            values[i] + (-0.02 if inside else 0.02),
            place,
            f"{values[i]:.2f}",
            fontsize=7.5,
            va="center",
            ha="right" if inside else "left",
            color="white" if inside else "#444444",
        )
    ax.set(xlim=(0, 1), xticks=[0, 0.5, 1], ylim=(len(shown) - 0.4, -0.6))
    labels = [drawn(names[i].replace("_", " "), 24) if written else "" for i in shown]
    ax.set_yticks(range(len(shown)), labels, fontsize=9)
    for tick, i in zip(ax.get_yticklabels(), shown, strict=True):
        if example.truth[i]:
            tick.set_color(_TRUE)
    ax.tick_params(axis="x", labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)


def _draw_curve(part: Any, overview: Overview) -> None:
    ax = part.subplots()
    ax.axhline(
        overview.zero_shot_auc,
        color=_PROMPTS,
        linestyle="--",
        label=f"zero-shot, no labels: {overview.zero_shot_auc:.3f}",
    )
    if overview.curve:
        labels, means, spreads = map(np.array, zip(*overview.curve, strict=True))
        ax.errorbar(
            labels,
            means,
            yerr=spreads,
            color=_LABELS,
            marker="o",
            capsize=3,
            label="logistic regression on embeddings",
        )
        for x, mean in zip(labels, means, strict=True):
            ax.annotate(
                f"{mean:.3f}",
                (x, mean),
                xytext=(8, -12),
                textcoords="offset points",
                fontsize=9,
                color=_LABELS,
            )
        ax.set_xscale("log", base=2)
        ax.set_xticks(labels, [f"{n:,}" for n in labels])
        ax.minorticks_off()
        ax.margins(x=0.12)
    ax.set_xlabel("labelled images")
    ax.set_ylabel("AUC on held-out images")
    ax.set_title("How many labels beat the prompts?", loc="left", fontsize=11)
    ax.legend(loc="lower right", fontsize=9, frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#e6e6e6")


def _draw_nearest(part: Any, overview: Overview) -> None:
    part.suptitle(
        f'Nearest images to "{drawn(overview.sentence)}"',
        fontsize=11,
        x=0.01,
        ha="left",
    )
    axes = part.subplots(1, len(overview.nearest), squeeze=False)
    for ax, example in zip(axes[0], overview.nearest, strict=True):
        _show(ax, example)


def _show(ax: Any, example: Example) -> None:
    ax.imshow(example.pixels, interpolation="bilinear")
    lines = [drawn_lines(line, 26) for line in example.title.split("\n")]
    ax.set_title("\n".join(lines), fontsize=9)
    ax.axis("off")
