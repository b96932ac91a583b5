"""The pictures of a report: displays drawn into data URIs."""

from __future__ import annotations

import io
import warnings
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from sklearn.utils import check_consistent_length

from sk_medsiglip._optional import import_optional
from sk_medsiglip.evaluation._curve_band_plot import (
    PrecisionRecallBandDisplay,
    RocBandDisplay,
)
from sk_medsiglip.evaluation._figures import Question
from sk_medsiglip.evaluation._net_benefit_plot import DecisionCurveDisplay
from sk_medsiglip.evaluation._reliability_plot import ReliabilityDisplay
from sk_medsiglip.evaluation._report_html import Html, figure
from sk_medsiglip.evaluation._subgroup_plot import SubgroupForestDisplay
from sk_medsiglip.images import image_rows, read_image

__all__ = [
    "check_drawing",
    "draw_curves",
    "draw_forest",
    "draw_mistakes",
    "draw_reliability",
]

_CURVES = {
    "ROC curve": (RocBandDisplay, "AUC"),
    "Precision-recall curve": (PrecisionRecallBandDisplay, "average precision"),
}
#: Texts stay texts, in whatever script.
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "report"}
_SIDE = 256  # pixels of a tile


def check_drawing() -> None:
    """Raise before hours of work if there is nothing to draw with."""
    import_optional("matplotlib", extra="plot", purpose="A report's pictures")


def draw_curves(
    questions: Mapping[str, Question], y: Any, sampling: dict[str, Any]
) -> list[Html]:
    """Return the ROC and the precision-recall curves of a label, all estimators in one.

    Parameters
    ----------
    questions : dict
        What each estimator says of the label.
    y : array-like
        Labels of the test set.
    sampling : dict
        groups, n_bootstrap, level and random_state.

    Returns
    -------
    list of Html
    """
    drawn = []
    label = next(iter(questions.values())).label
    for title, (display, area) in _CURVES.items():
        areas = []
        with _drawing((4.4, 4.6)) as sheet:
            for name, one in questions.items():
                curve = display.from_estimator(
                    one, y, y, name=name, ax=sheet.ax, **sampling
                ).curve
                low, high, _ = curve.area_interval
                areas.append(f"{name} {curve.area:.3f} ({low:.3f} to {high:.3f})")
        alt = f"{title} of {label}. {area}: {'; '.join(areas)}."
        drawn.append(figure(sheet.source, alt, f"{title}: {label}"))
    return drawn


def draw_reliability(
    questions: Mapping[str, Question], y: Any, sampling: dict[str, Any]
) -> list[Html]:
    """Return the reliability of each estimator for a label, and their decision curves.

    Parameters
    ----------
    questions, y, sampling
        As :func:`draw_curves` takes them.

    Returns
    -------
    list of Html
    """
    drawn = []
    settings = {key: sampling[key] for key in ("groups", "level")}
    for name, one in questions.items():
        with _drawing((4.4, 5.2)) as sheet:
            display = ReliabilityDisplay.from_estimator(
                one, y, y, name=name, ax=sheet.ax, **settings
            )
        line = display.points_[1].get_label().replace("\n", ", ")
        alt = f"Reliability for {one.label}. {line}."
        drawn.append(figure(sheet.source, alt, f"Reliability: {one.label}, {name}"))
    said = []
    with _drawing((5.4, 4.2)) as sheet:
        for name, one in questions.items():
            curve = DecisionCurveDisplay.from_estimator(
                one, y, y, name=name, ax=sheet.ax, **settings
            )
            at = curve.table.query("strategy == 'model' and threshold == 0.1")["value"]
            said.append(f"{name} {100 * at.item():.1f}")
    for one in list(questions.values())[:1]:
        alt = f"Net benefit for {one.label} per 100, at a threshold of 10%: "
        title = f"Decision curve: {one.label}"
        drawn.append(figure(sheet.source, f"{alt}{', '.join(said)}.", title))
    return drawn


def draw_forest(table: pd.DataFrame, metric: str, label: Any, title: str) -> Html:
    """Return a figure of all subgroups, as a forest.

    Parameters
    ----------
    table : DataFrame
        What :func:`evaluate` gave.
    metric, label
        Which rows.
    title : str
        Of the metric, in words.

    Returns
    -------
    Html
    """
    chosen = table["metric"].eq(metric) & table["label"].eq(label)
    n_lines = (~table[chosen]["subgroup"].str.endswith(" - rest")).sum()
    with _drawing((5.4, 1.3 + 0.3 * min(n_lines, 80))) as sheet:
        display = SubgroupForestDisplay(table).plot(
            sheet.ax, metric=metric, label=label
        )
    lines = "; ".join(
        f"{row.estimator}, {row.subgroup}: {row.value:.3f} ({row.low:.3f} to "
        f"{row.high:.3f})"
        for row in display.drawn_.itertuples()
    )
    alt = f"{title} of {label} by subgroup. {lines}."
    return figure(
        sheet.source, alt, f"{title} of {label} by subgroup; dotted lines: everybody"
    )


def draw_mistakes(
    mistakes: pd.DataFrame, images: Any, reading: dict[str, Any], names: Sequence[str]
) -> list[Html]:
    """Return the images that an estimator is most wrong about.

    Parameters
    ----------
    mistakes : DataFrame
        From :func:`find_mistakes`, those to be shown.
    images : collection of n_samples images
        Those of the test set.
    reading : dict
        Parameters of :func:`~sk_medsiglip.images.read_image`.
    names : sequence of str
        What each sample is called.

    Returns
    -------
    list of Html
    """
    sources = image_rows(images)
    check_consistent_length(sources, names)
    return [
        figure(
            _photograph(read_image(sources[row.row], **reading)),
            f"Image {names[row.row]}.",
            f"{names[row.row]}: is {row.true}, was called {row.predicted}; "
            f"probability of what it is {row.probability:.2f}",
        )
        for row in mistakes.itertuples()
    ]


class _Sheet:
    """Axes to draw on, and the picture once they are drawn."""

    def __init__(self, size: tuple[float, float]) -> None:
        from matplotlib.figure import Figure

        # Not pyplot's: nothing is kept, and no window or backend is asked for.
        self._figure = Figure(figsize=size, layout="constrained")
        self.ax = self._figure.subplots()
        self.source = ""

    def finish(self) -> None:
        written = io.BytesIO()
        unsaid = {"Date": None, "Creator": None}
        self._figure.savefig(written, format="svg", metadata=unsaid)
        self.source = _data_uri("image/svg+xml", written.getvalue())


@contextmanager
def _drawing(size: tuple[float, float]) -> Iterator[_Sheet]:
    matplotlib = import_optional("matplotlib", extra="plot", purpose="A report")
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The browser has fonts for what matplotlib's own font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        sheet = _Sheet(size)
        yield sheet
        sheet.finish()


def _photograph(picture: NDArray[Any]) -> str:
    written = io.BytesIO()
    image = Image.fromarray(np.asarray(picture))
    image.thumbnail((_SIDE, _SIDE))
    image.save(written, format="PNG")
    return _data_uri("image/png", written.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode('ascii')}"
