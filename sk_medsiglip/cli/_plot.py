"""The figure of ``demo``, drawn without pyplot, so that no window is opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sk_medsiglip._drawn_names import drawn_lines
from sk_medsiglip._optional import import_optional
from sk_medsiglip.evaluation import LabelEfficiencyDisplay
from sk_medsiglip.retrieval import RetrievalDisplay

if TYPE_CHECKING:
    import pandas as pd


def draw_overview(
    curve: pd.DataFrame, hits: pd.DataFrame, sentence: str, notice: str, file: Path
) -> None:
    """Draw labels against prompts, and the images nearest to a sentence."""
    figures = import_optional(
        "matplotlib.figure", extra="plot", purpose="Drawing the overview and the report"
    )
    figure = figures.Figure(figsize=(10.4, 8), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=[1.6, 1])
    LabelEfficiencyDisplay(curve, scoring="roc_auc").plot(top)
    # Five images of two inches, the size for which the text of the display is set.
    RetrievalDisplay.from_hits(hits, query=sentence, label="labels", ax=bottom)
    figure.supxlabel(drawn_lines(notice, 130), fontsize=9, color="#8a1c1c")
    figure.savefig(file, dpi=110)
