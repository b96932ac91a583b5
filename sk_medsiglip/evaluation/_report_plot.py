"""Images of a report: displays drawn as data URIs."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
from sklearn.utils import check_consistent_length

from sk_medsiglip._optional import import_optional
from sk_medsiglip._page import Picture, data_uri, photograph
from sk_medsiglip.evaluation._answers import Question
from sk_medsiglip.evaluation._curve_band_plot import (
    PrecisionRecallBandDisplay,
    RocBandDisplay,
)
from sk_medsiglip.evaluation._judged import REST
from sk_medsiglip.evaluation._net_benefit_plot import DecisionCurveDisplay
from sk_medsiglip.evaluation._reliability_plot import ReliabilityDisplay
from sk_medsiglip.evaluation._style import metric_name
from sk_medsiglip.evaluation._subgroup_plot import SubgroupForestDisplay
from sk_medsiglip.images import image_rows, read_image

_CURVES = {
    "ROC curve": (RocBandDisplay, "AUC"),
    "Precision-recall curve": (PrecisionRecallBandDisplay, "average precision"),
}
#: Text is stored as text, so that the browser can draw any script.
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "report"}


def check_drawing() -> None:
    """Raise if matplotlib is not installed."""
    import_optional("matplotlib", extra="plot", purpose="Drawing a report")


def draw_curves(
    questions: Mapping[str, Question], y: Any, sampling: dict[str, Any]
) -> list[Picture]:
    """Draw the ROC and precision-recall curves of a label for all estimators."""
    drawn = []
    label = next(iter(questions.values())).label
    for title, (display, area) in _CURVES.items():
        areas = []
        with _drawing((4.4, 4.6)) as (ax, svg):
            for name, one in questions.items():
                curve = display.from_estimator(
                    one, y, y, name=name, ax=ax, **sampling
                ).curve
                low, high, _ = curve.area_interval
                areas.append(f"{name} {curve.area:.3f} ({low:.3f} to {high:.3f})")
        alt = f"{title} of {label}. {area}: {'; '.join(areas)}."
        drawn.append(Picture(data_uri(svg.getvalue()), alt, f"{title}: {label}"))
    return drawn


def draw_reliability(
    questions: Mapping[str, Question], y: Any, sampling: dict[str, Any]
) -> list[Picture]:
    """Draw the reliability of each estimator for a label, and their decision curves."""
    drawn, said, label = [], [], None
    settings = {key: sampling[key] for key in ("groups", "level")}
    for name, one in questions.items():
        label = one.label
        with _drawing((4.4, 5.2)) as (ax, svg):
            display = ReliabilityDisplay.from_estimator(
                one, y, y, name=name, ax=ax, **settings
            )
        line = display.points_[1].get_label().replace("\n", ", ")
        alt = f"Reliability for {label}. {line}."
        drawn.append(
            Picture(data_uri(svg.getvalue()), alt, f"Reliability: {label}, {name}")
        )
    if not drawn:
        return []
    with _drawing((5.4, 4.2)) as (ax, svg):
        for name, one in questions.items():
            curve = DecisionCurveDisplay.from_estimator(
                one, y, y, name=name, ax=ax, **settings
            )
            at = curve.table.query("strategy == 'model' and threshold == 0.1")["value"]
            said.append(f"{name} {100 * at.item():.1f}")
    alt = f"Net benefit for {label} per 100, at a threshold of 10%: {', '.join(said)}."
    return [*drawn, Picture(data_uri(svg.getvalue()), alt, f"Decision curve: {label}")]


def draw_forest(table: pd.DataFrame, metric: str, label: Any) -> Picture:
    """Draw one metric of all subgroups as a forest plot."""
    title = f"{metric_name(metric)} of {label} by subgroup"
    chosen = table["metric"].eq(metric) & table["label"].eq(label)
    n_lines = (~table[chosen]["subgroup"].str.endswith(REST)).sum()
    with _drawing((5.4, 1.3 + 0.3 * min(n_lines, 80))) as (ax, svg):
        display = SubgroupForestDisplay(table).plot(ax, metric=metric, label=label)
    lines = "; ".join(
        f"{row.estimator}, {row.subgroup}: {row.value:.3f} ({row.low:.3f} to "
        f"{row.high:.3f})"
        for row in display.drawn_.itertuples()
    )
    return Picture(
        data_uri(svg.getvalue()),
        f"{title}. {lines}.",
        f"{title}; dotted lines: all images",
    )


def draw_mistakes(
    mistakes: pd.DataFrame, images: Any, reading: dict[str, Any], names: Sequence[str]
) -> list[Picture]:
    """Return the images of the worst mistakes."""
    sources = image_rows(images)
    check_consistent_length(sources, names)
    return [
        Picture(
            photograph(read_image(sources[row.row], **reading)),
            f"Image {names[row.row]}.",
            f"{names[row.row]}: is {row.true}, was called {row.predicted}; "
            f"probability of the true label {row.probability:.2f}",
        )
        for row in mistakes.itertuples()
    ]


@contextmanager
def _drawing(size: tuple[float, float]) -> Iterator[tuple[Any, io.BytesIO]]:
    """Yield axes to draw on, and the buffer that holds the image afterwards."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE), warnings.catch_warnings():
        # The browser has fonts for characters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        # Without pyplot, which would keep the figure and select a backend.
        figure = Figure(figsize=size, layout="constrained")
        written = io.BytesIO()
        yield figure.subplots(), written
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
