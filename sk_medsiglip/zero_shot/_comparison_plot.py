"""``PromptComparisonDisplay``: a plot of the AUC of each prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sk_medsiglip._axes import new_axes
from sk_medsiglip._drawn_names import drawn
from sk_medsiglip.zero_shot._comparison import compare_prompts

_COLOURS = {"positive": "#c65d00", "negative": "#1f5fa8", "": "#1f5fa8"}
_SIGNS = {"positive": "+ ", "negative": "− ", "": "  "}
_ENSEMBLE, _WORSE = "#222222", "#b00020"
_HEIGHT_OF_A_ROW = 0.28  # inches
_WORDS = 58  # characters of a prompt that are shown


class PromptComparisonDisplay:
    """Plot of a table of :func:`compare_prompts` with one line per prompt.

    Dots are areas under the ROC curve, and bars are their intervals. The ensemble of a
    label comes first, with its interval as a band behind its prompts. The loss of the
    ensemble without each prompt stands at the right, in red if the ensemble is better
    without the prompt and the interval excludes 0.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`compare_prompts`.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    compare_prompts : Compute the table.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.zero_shot import PromptComparisonDisplay
    >>> phantoms = make_chest_phantoms(60, random_state=3)
    >>> X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    >>> display = PromptComparisonDisplay.from_prompts(
    ...     {"effusion": {"positive": ["pleural effusion", "a rib"],
    ...                   "negative": ["no pleural effusion"]}},
    ...     X, phantoms.target[:, 1], groups=phantoms.groups, model="demo",
    ... )
    >>> len(display.table)
    4
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table

    @classmethod
    def from_prompts(
        cls,
        prompts: Mapping[Any, Any],
        X: ArrayLike,
        y: ArrayLike,
        *,
        ax: Any = None,
        labels: Iterable[Any] | None = None,
        **compare_params: Any,
    ) -> Self:
        """Compare prompts and draw the result.

        Parameters
        ----------
        prompts, X, y
            Parameters of :func:`compare_prompts`.
        ax : matplotlib Axes, default=None
            Axes to draw on. By default, a new figure with room for all rows.
        labels : iterable, default=None
            Classes or findings to draw. By default, all of them.
        **compare_params
            Further parameters of :func:`compare_prompts`, such as ``groups`` and
            ``model``.

        Returns
        -------
        PromptComparisonDisplay
            The display, drawn.
        """
        table = compare_prompts(prompts, X, y, **compare_params)
        return cls(table).plot(ax=ax, labels=labels)

    def plot(self, ax: Any = None, *, labels: Iterable[Any] | None = None) -> Self:
        """Draw the table.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. By default, a new figure with room for all rows.
        labels : iterable, default=None
            Classes or findings to draw. By default, all of them.

        Returns
        -------
        PromptComparisonDisplay
            The display, drawn.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        ValueError
            If a label is not in the table.
        """
        if labels is not None:
            labels = [labels] if isinstance(labels, str) else list(labels)
        table = self.table if labels is None else self._chosen(labels)
        size = (9.5, 1.2 + _HEIGHT_OF_A_ROW * len(table))
        ax = new_axes(ax, size, "Drawing a comparison of prompts")
        ax.axvline(0.5, color="#9aa0a6", linewidth=0.8, linestyle=":")
        names = []
        for place, row in enumerate(table.itertuples()):
            if row.text:
                names.append(f"{_SIGNS[row.side]}{drawn(row.text, _WORDS)}")
                self._draw_prompt(ax, place, row)
            else:
                names.append(f"{drawn(row.label, _WORDS)}: all prompts")
                self._draw_ensemble(ax, place, row, len(_block(table, place)))
        ax.set_yticks(range(len(names)), names)
        for tick, text in zip(ax.get_yticklabels(), table["text"], strict=True):
            tick.set_fontweight("normal" if text else "bold")
        ax.set_ylim(len(names) - 0.4, -0.6)
        low = np.nanmin(table[["auc", "auc_low"]].to_numpy(), initial=0.5)
        ax.set_xlim(max(0.0, low - 0.03), 1.012)
        sides = "; + present, − absent" if (table["side"] != "").any() else ""
        ax.set_xlabel(f"area under the ROC curve (chance 0.5){sides}")
        over = {"transform": ax.transAxes, "va": "bottom", "fontsize": "small"}
        ax.text(1.01, 1.0, "loss without it", **over)
        for side in ("top", "right", "left"):
            ax.spines[side].set_visible(False)
        ax.tick_params(axis="y", length=0)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _chosen(self, labels: list[Any]) -> pd.DataFrame:
        unknown = [one for one in labels if one not in set(self.table["label"])]
        if unknown:
            raise ValueError(
                f"label {unknown[0]!r} is not in the table; it holds "
                f"{self.table['label'].unique().tolist()}."
            )
        return self.table[self.table["label"].isin(labels)]

    def _draw_ensemble(self, ax: Any, place: int, row: Any, n_rows: int) -> None:
        if not np.isnan(row.auc_low):
            ends = [place - 0.5, place + n_rows - 0.5]
            style = {"color": _ENSEMBLE, "alpha": 0.07, "linewidth": 0}
            ax.fill_betweenx(ends, row.auc_low, row.auc_high, **style)
        ax.plot([row.auc], [place], "D", color=_ENSEMBLE, markersize=6)
        if place:
            ax.axhline(place - 0.5, color="#d0d4d8", linewidth=0.8)

    def _draw_prompt(self, ax: Any, place: int, row: Any) -> None:
        colour = _COLOURS[row.side]
        ax.plot([row.auc_low, row.auc_high], [place, place], color=colour, alpha=0.5)
        ax.plot([row.auc], [place], "o", color=colour, markersize=5)
        if np.isnan(row.gain):
            return
        gain = f"{row.gain:+.3f}".replace("-0.000", "+0.000")
        colour = _WORSE if row.gain_high < 0 else _ENSEMBLE
        beside = {"transform": ax.get_yaxis_transform(), "va": "center"}
        ax.text(1.01, place, gain, fontsize="small", color=colour, **beside)


def _block(table: pd.DataFrame, place: int) -> range:
    """Return the rows of the label whose ensemble is in a given row."""
    heads = np.flatnonzero(table["text"] == "").tolist()
    after = [head for head in heads if head > place]
    return range(place, after[0] if after else len(table))
