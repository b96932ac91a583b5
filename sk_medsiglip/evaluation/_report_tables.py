"""The figures of a report, as tables and pictures."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np
import pandas as pd

from sk_medsiglip.evaluation._metric_names import metric_name
from sk_medsiglip.evaluation._report_html import (
    Html,
    box,
    element,
    join,
    paragraph,
    pictures,
    table,
    terms,
)
from sk_medsiglip.evaluation._report_material import Material
from sk_medsiglip.evaluation._report_plot import (
    draw_curves,
    draw_forest,
    draw_reliability,
)

__all__ = [
    "calibration",
    "count",
    "curves",
    "differences",
    "figures",
    "level_of",
    "overall_rows",
    "spread",
    "subgroups",
]

#: Labels of which curves are drawn: more would be a file of many megabytes.
_MAX_DRAWN = 20
_MEANINGS = {
    "roc_auc": "Area under the ROC curve: how often an image with the label scores "
    "above one without. 0.5 is chance, 1 is best.",
    "average_precision": "Area under the precision-recall curve. A random classifier "
    "scores the prevalence of the label.",
    "balanced_accuracy": "Mean of sensitivity and specificity of what is predicted; of "
    "several classes under macro the mean sensitivity.",
    "f1": "Harmonic mean of precision and sensitivity of what is predicted.",
    "brier": "Mean squared distance between probability and truth. 0 is best.",
    "calibration_slope": "1 is right. Below 1, probabilities are too extreme: too near "
    "0 and 1; above 1, too timid.",
    "calibration_intercept": "0 is right. Above 0 the label is more frequent than the "
    "probabilities say, below 0 rarer.",
    "ece": "Expected calibration error, 15 bins: mean distance between a probability "
    "and how often it comes true. 0 is best; larger of fewer images.",
}


def figures(material: Material) -> Html:
    """Return the figures of every classifier, a row a label."""
    content = [
        _wide_table(material, name, f"{name}: figures with {level_of(material)}")
        for name in material.estimators
    ]
    undefined = int(overall_rows(material)["n_undefined"].max())
    if undefined:
        content.append(
            paragraph(
                f"In up to {undefined:,} of {material.settings['n_bootstrap']:,} "
                "resamples a figure was not defined, such as an area where nobody has "
                "the label; they are in no interval."
            )
        )
    explained = [(metric_name(metric), _meaning(metric)) for metric in material.metrics]
    if len(material.labels) > 1:
        explained += [
            ("macro", "Mean of the labels."),
            ("micro", "The answers for all labels pooled."),
        ]
    return join(*content, element("h3", "What they mean"), terms(explained))


def differences(material: Material) -> Html:
    """Return by how much each pair of classifiers differs."""
    names = list(material.estimators)
    if len(names) < 2:
        return Html()
    pairs = [f"{a} - {b}" for i, a in enumerate(names) for b in names[i + 1 :]]
    tables = (
        _wide_table(material, pair, f"{pair}, with {level_of(material)}", signed=True)
        for pair in pairs
    )
    return join(
        *tables,
        paragraph(
            "Both are judged on the same images, so differences are paired: "
            "intervals of the figures themselves may overlap where that of the "
            "difference leaves out 0. p is two-sided and corrected for the number "
            "of comparisons by Holm's method."
        ),
    )


def curves(material: Material) -> Html:
    """Return ROC and precision-recall curves of every label."""
    drawn: list[Html] = []
    for label in _drawn_labels(material):
        asked = material.said_of(label)
        drawn += draw_curves(asked, material.test.y, material.sampling)
    return join(pictures(drawn), _not_drawn(material))


def calibration(material: Material) -> Html:
    """Return whether what is said to be likely happens as often, and pays to act on."""
    without = [
        name
        for name, asked in material.questions.items()
        if any(one.probability is None for one in asked)
    ]
    content: list[Any] = [
        paragraph(
            "On the diagonal, 30% of the images that were given a probability of 0.3 "
            "have the label. Bars are intervals; the histogram counts images. At "
            "another prevalence the points move, even of a classifier that is well "
            "calibrated here."
        )
    ]
    content += [
        box(f"{name} gives scores, no probabilities: nothing to calibrate.")
        for name in without
    ]
    drawn: list[Html] = []
    for label in _drawn_labels(material):
        asked = material.said_of(label, but=without)
        drawn += draw_reliability(asked, material.test.y, material.sampling)
    content.append(
        paragraph(
            "Decision curves: a threshold of 10% is the choice of someone for whom one "
            "missed finding weighs as much as nine needless actions. A classifier is "
            "of use where it lies above both treating all and treating none."
        )
    )
    return join(*content, pictures(drawn), _not_drawn(material))


def subgroups(material: Material) -> Html:
    """Return for whom the classifiers work, and for whom less."""
    of = material.table
    every = [one for one in of["subgroup"].unique() if one != "all"]
    unknown = box(
        "No subgroups were given: nothing is known of whether it works as well for "
        "everybody, such as by sex, age, scanner or site."
    )
    if not every:
        return unknown
    # Not the calibration error: of few images it is large, whatever they are of.
    first = next((m for m in material.metrics if m != "ece"), material.metrics[0])
    metrics = [m for m in dict.fromkeys((first, "brier")) if m in material.metrics]
    forests = (
        draw_forest(of, metric, material.overall, metric_name(metric))
        for metric in metrics
    )
    content: list[Any] = [pictures(forests, "wide")]
    levels = [one for one in every if not one.endswith(" - rest")]
    known = of.set_index(["estimator", "label", "metric", "subgroup"]).sort_index()
    labels = list(dict.fromkeys([material.overall, *material.labels]))
    for name in material.estimators:
        rows = []
        for label in labels:
            for level in levels:
                first = known.loc[(name, label, metrics[0], level)]
                row = [label, level, count(first["n"]), count(first["n_positive"])]
                for metric in metrics:
                    one = known.loc[(name, label, metric, level)]
                    row.append(spread(one["value"], one["low"], one["high"]))
                    at = (name, label, metric, f"{level} - rest")
                    row.append(_gap(known.loc[at]) if at in known.index else "")
                rows.append(row)
        head = ["Label", "Subgroup", "Images", "With it"]
        for metric in metrics:
            head += [metric_name(metric), "minus the others"]
        content.append(table(f"{name} by subgroup", head, rows, n_words=2))
    content.append(
        paragraph(
            "Of gaps p tells whether images with the same label are alike in the "
            "subgroup and outside: patients with the same labels change places. It is "
            "corrected by Holm's method for all gaps of the table; without p there are "
            "too few patients to say. With ten patients in a subgroup, an AUC of 0.80 "
            "against 0.95 is found in one of three cases, so that no gap found is not "
            "no gap. The interval is another computation, and may disagree with p. "
            "Images without a value are in no subgroup. Rows "
            '"patients (max)" are of whole patients, by their highest score.'
        )
    )
    if all(one.startswith("patients (") for one in every):
        content.append(unknown)
    return join(*content)


def spread(
    value: float, low: float, high: float, *, signed: bool = False, p_value: float = nan
) -> Html:
    """Return a figure, and below it its interval and p-value."""
    if np.isnan(value):
        return Html("not defined")
    form = "+.3f" if signed else ".3f"
    below = [] if np.isnan(low) else [f"{low:{form}} to {high:{form}}"]
    if not np.isnan(p_value):
        below.append("p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}")
    lines = (element("span", f" {one}", class_="interval") for one in below)
    return join(f"{value:{form}}", *lines)


def _wide_table(
    material: Material, name: str, caption: str, *, signed: bool = False
) -> Html:
    """Return one estimator's figures: a row a label, a column a metric."""
    of = overall_rows(material)
    of = of[of["estimator"] == name]
    rows = []
    for label in of["label"].unique():
        own = of[of["label"] == label].set_index("metric")
        first = own.iloc[0]
        n = "" if label in ("macro", "micro") else count(first["n_positive"])
        cells = [
            _gap(own.loc[metric])
            if signed
            else spread(*own.loc[metric, ["value", "low", "high"]])
            for metric in material.metrics
        ]
        rows.append([label, *([] if signed else [n]), *cells])
    head = ["Label", *([] if signed else ["Images with it"])]
    return table(caption, [*head, *map(metric_name, material.metrics)], rows)


def _gap(row: Any) -> Html:
    bounds = row["value"], row["low"], row["high"]
    return spread(*bounds, signed=True, p_value=row["p_holm"])


def _meaning(metric: str) -> str:
    if "@" in metric:
        wanted, _, at = metric.partition("@")
        kind, _, level = at.partition("=")
        return (
            f"Best {wanted} where {kind} is at least {level}. The threshold is picked "
            "on the test set itself: a point of the curve, not a promise."
        )
    return _MEANINGS.get(metric, "Of what is predicted.")


def overall_rows(material: Material) -> pd.DataFrame:
    """Return the figures of everybody, without subgroups."""
    return material.table[material.table["subgroup"] == "all"]


def _drawn_labels(material: Material) -> list[Any]:
    return [one for one in material.labels if material.drawable(one)][:_MAX_DRAWN]


def _not_drawn(material: Material) -> Html:
    left = len(material.labels) - len(_drawn_labels(material))
    if not left:
        return Html()
    return paragraph(
        f"Not drawn: {left} labels, past the first {_MAX_DRAWN} or with images of one "
        "kind only."
    )


def level_of(material: Material) -> str:
    """Return what intervals are called."""
    return f"{material.settings['level']:.0%} intervals"


def count(n: Any) -> str:
    """Return a number of images, in words."""
    return "" if n is None or np.isnan(n) else f"{int(n):,}"
