"""Metrics of a report, as rows of its tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from math import nan
from typing import Any, NamedTuple

import numpy as np

from sk_medsiglip._page import Picture
from sk_medsiglip.evaluation._answers import last_step
from sk_medsiglip.evaluation._report_material import Material
from sk_medsiglip.evaluation._report_plot import (
    draw_curves,
    draw_forest,
    draw_reliability,
)
from sk_medsiglip.evaluation._style import metric_name
from sk_medsiglip.exceptions import LeakageWarning, UnreadableImageWarning

#: Attributes that a fitted estimator has only if it was tuned on data.
_TUNED = {
    "scores_": "penalty of {} was chosen by cross-validation",
    "best_params_": "settings of {} were chosen by cross-validation",
    "best_prompts_": "prompts of {} were chosen by cross-validation",
    "best_threshold_": "threshold of {} was chosen by cross-validation",
    "calibrated_classifiers_": "probabilities of {} were calibrated",
    "temperature_": "temperature of {} was fitted",
}


class Cell(NamedTuple):
    """A value, and the lines below it: its interval and its p-value."""

    value: str
    below: list[str]


def spread(
    value: float, low: float, high: float, *, signed: bool = False, p_value: float = nan
) -> Cell:
    """Return a value with its interval and p-value, if there are any."""
    if np.isnan(value):
        return Cell("not defined", [])
    form = "+.3f" if signed else ".3f"
    below = [] if np.isnan(low) else [f"{low:{form}} to {high:{form}}"]
    if not np.isnan(p_value):
        below.append("p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}")
    return Cell(f"{value:{form}}", below)


def count(n: Any) -> str:
    """Return a formatted count, or an empty string for NaN."""
    return "" if n is None or np.isnan(n) else f"{int(n):,}"


def summary(material: Material) -> list[list[Any]]:
    """Return the first metric over all labels, one row per classifier."""
    label = material.overall
    of = material.overall_rows
    of = of[(of["metric"] == material.metrics[0]) & (of["label"] == label)]
    return [
        [row.estimator, label, spread(row.value, row.low, row.high), count(row.n)]
        for row in of[of["estimator"].isin(list(material.estimators))].itertuples()
    ]


def leakage(material: Material) -> list[Warning]:
    """Return the warnings of leakage."""
    return [one for one in material.warned if isinstance(one, LeakageWarning)]


def remarks(material: Material) -> list[str]:
    """Return the remarks and warnings for the summary, except leakage."""
    others = [
        _without_paths(one)
        for one in material.warned
        if isinstance(one, UserWarning) and not isinstance(one, LeakageWarning)
    ]
    return [*material.remarks, *dict.fromkeys(others)]


def tuned(material: Material) -> Iterator[str]:
    """Yield sentences on settings that were tuned on data."""
    tuning, training = material.part("tuning"), material.part("training")
    if tuning is not None and material.thresholds:
        yield f"Thresholds were chosen on the tuning set, {tuning.size}."
    where = ", whose number is not known here"
    if training is not None:
        where = f", {training.size}"
    for name, one in material.estimators.items():
        last = last_step(one)
        said = [how for attribute, how in _TUNED.items() if hasattr(last, attribute)]
        if hasattr(last, "get_params"):
            for key, value in last.get_params(deep=False).items():
                if isinstance(value, str) and value == "cv":
                    said.append(f"{key} of {{}} was chosen by cross-validation")
        for how in said:
            yield f"The {how.format(name)} on its training images{where}."


def figures(material: Material) -> dict[str, list[list[Any]]]:
    """Return the metrics of each classifier, one row per label."""
    return {name: list(_rows(material, name)) for name in material.estimators}


def differences(material: Material) -> dict[str, list[list[Any]]]:
    """Return the differences of each pair of classifiers, one row per label."""
    pairs = [f"{a} - {b}" for a, b in combinations(material.estimators, 2)]
    return {pair: list(_rows(material, pair, signed=True)) for pair in pairs}


def curves(material: Material) -> list[Picture]:
    """Draw ROC and precision-recall curves of the labels."""
    return _drawn(material, draw_curves)


def reliability(material: Material) -> list[Picture]:
    """Draw reliability and decision curves of the labels."""
    return _drawn(material, draw_reliability, material.without_probabilities)


def subgroups(material: Material) -> dict[str, Any]:
    """Return plots and tables of subgroups, or an empty dict without subgroups."""
    of = material.table
    every = [one for one in of["subgroup"].unique() if one != "all"]
    if not every:
        return {}
    # Not the calibration error, which is always large for few images.
    first = next((m for m in material.metrics if m != "ece"), material.metrics[0])
    metrics = [m for m in dict.fromkeys((first, "brier")) if m in material.metrics]
    known = of.set_index(["estimator", "label", "metric", "subgroup"]).sort_index()
    labels = list(dict.fromkeys([material.overall, *material.labels]))
    tables: dict[str, Any] = {name: [] for name in material.estimators}
    for name, rows in tables.items():
        for label in labels:
            for level in [one for one in every if not one.endswith(" - rest")]:
                first_row = known.loc[(name, label, metrics[0], level)]
                row = [label, level, *map(count, first_row[["n", "n_positive"]])]
                for metric in metrics:
                    one = known.loc[(name, label, metric, level)]
                    row.append(spread(one["value"], one["low"], one["high"]))
                    at = (name, label, metric, f"{level} - rest")
                    row.append(_gap(known.loc[at]) if at in known.index else "")
                rows.append(row)
    return {
        "forests": [draw_forest(of, one, material.overall) for one in metrics],
        "head": [w for one in metrics for w in (metric_name(one), "minus the others")],
        "tables": tables,
        "given": not all(one.startswith("patients (") for one in every),
    }


def _drawn(material: Material, draw: Any, without: Sequence[str] = ()) -> list[Picture]:
    y, sampling = material.test.y, material.sampling
    each = (draw(material.said_of(one, without), y, sampling) for one in material.drawn)
    return [picture for pictures in each for picture in pictures]


def _rows(material: Material, name: str, *, signed: bool = False) -> Iterator[Any]:
    """Yield the metrics of one estimator: one row per label, one column per metric."""
    of = material.overall_rows
    for label, own in of[of["estimator"] == name].groupby("label", sort=False):
        by_metric = own.set_index("metric")
        n = "" if label in ("macro", "micro") else count(own["n_positive"].iloc[0])
        yield [label, *([] if signed else [n])] + [
            _gap(by_metric.loc[metric])
            if signed
            else spread(*by_metric.loc[metric, ["value", "low", "high"]])
            for metric in material.metrics
        ]


def _gap(row: Any) -> Cell:
    bounds = row["value"], row["low"], row["high"]
    return spread(*bounds, signed=True, p_value=row["p_holm"])


def _without_paths(warning: Warning) -> str:
    """Return a warning's text, unless it names a file, which may name a patient."""
    if isinstance(warning, UnreadableImageWarning):
        return "Images that could not be read were left out; a warning named them."
    said = str(warning)
    if re.search(r"[\w.]*[/\\][\w.]+[/\\.]", said):
        return f"There was a warning about a file ({type(warning).__name__})."
    return said
