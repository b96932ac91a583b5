"""The later parts of a report: thresholds, mistakes, published figures, origins."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sk_medsiglip._version import __version__
from sk_medsiglip.evaluation._figures import Question
from sk_medsiglip.evaluation._mistakes_plot import find_mistakes
from sk_medsiglip.evaluation._operating_point import choose_operating_point
from sk_medsiglip.evaluation._published import published_results
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
from sk_medsiglip.evaluation._report_material import Material, noted, steps
from sk_medsiglip.evaluation._report_plot import draw_mistakes
from sk_medsiglip.evaluation._report_tables import spread

__all__ = [
    "mistakes",
    "operating_points",
    "origins",
    "probability_or_score",
    "prompts",
    "published",
]

_PACKAGES = (
    *("scikit-learn", "numpy", "scipy", "pandas", "torch", "transformers"),
    *("openvino", "pillow", "pydicom", "matplotlib"),
)
#: Of embedders and heads, what decides about their answers.
_SETTINGS = (
    *("resize", "pad", "normalize", "dtype", "engine", "n_slices", "pooling"),
    *("scoring", "templates"),
)
_N_LISTED = 10  # mistakes of a label, without pictures


def operating_points(material: Material, sensitivity: float) -> Html:
    """Return thresholds chosen on the tuning set, and what they do on the test set."""
    tuning = material.part("tuning")
    if tuning is None or tuning.truth is None:
        return box(
            "No threshold was chosen. A threshold for a wanted sensitivity has to be "
            "chosen on images that are not the test set's: give a tuning set."
        )
    content: list[Any] = [
        paragraph(
            "Each threshold is the highest, chosen on the tuning set, that promises a "
            f"sensitivity of {sensitivity:.0%} on new patients like those: in the mean "
            "over such thresholds, so that a single one may miss it. The figures here "
            "are of the test set."
        )
    ]
    n_warned = len(material.warned)
    for name, one in material.estimators.items():
        if not hasattr(one, "ask_anew"):
            content.append(
                box(f"{name} was given as scores of the test set: nothing to tune.")
            )
            continue
        asked = one.ask_anew(name, tuning.X, tuning.truth)
        on_tuning = {question.label: question for question in asked}
        rows = [
            _point(material, name, question, on_tuning.get(question.label), sensitivity)
            for question in material.questions[name]
        ]
        head = ["Label", "Threshold", "Tuning images with it", "Sensitivity"]
        head += ["Specificity", "PPV", "NPV", "Share flagged"]
        kind = "probability" if asked[0].probability is not None else "score"
        content.append(
            table(f"{name}: present if the {kind} reaches the threshold", head, rows)
        )
    content += [box(one) for one in dict.fromkeys(map(str, material.warned[n_warned:]))]
    content.append(
        paragraph("PPV and NPV hold for the test set's share of images with the label.")
    )
    return join(*content)


def _point(
    material: Material,
    name: str,
    test: Question,
    tuning: Question | None,
    sensitivity: float,
) -> list[Any]:
    if tuning is None or not tuning.ill.any():
        return [test.label, "none: no image with it", "0", *[""] * 5]
    part = material.part("tuning")
    patients = None if part is None else part.groups
    chosen_on = f"{tuning.ill.sum():,}"
    if patients is not None:
        with_it = pd.unique(np.asarray(patients)[tuning.rows[tuning.ill]])
        chosen_on += f" of {len(with_it):,} patients"
    with noted(material.warned):
        # As a table, so that warnings name the label.
        (point,) = choose_operating_point(
            pd.DataFrame({tuning.label: tuning.ill.astype(float)}),
            probability_or_score(tuning)[:, None],
            sensitivity=sensitivity,
            groups=None if patients is None else np.asarray(patients)[tuning.rows],
        ).values()  # type: ignore[union-attr]
    material.thresholds[name, test.label] = point.threshold
    groups = material.test.groups
    measured = point.report(
        test.ill,
        probability_or_score(test),
        groups=None if groups is None else np.asarray(groups)[test.rows],
        level=material.settings["level"],
    )
    shown = ("sensitivity", "specificity", "ppv", "npv", "flagged")
    reached, low, high = measured.loc["sensitivity", ["value", "low", "high"]]
    if reached < sensitivity:
        sure = "" if high < sensitivity else ", which may be chance"
        material.remarks.append(
            f"The threshold of {name} for {test.label} was chosen for a sensitivity of "
            f"{sensitivity:.0%} on the tuning set. On the test set it reaches "
            f"{reached:.1%} ({low:.1%} to {high:.1%}): it misses its target{sure}."
        )
    return [
        test.label,
        f"{point.threshold:.4g}",
        chosen_on,
        *(spread(*measured.loc[share, ["value", "low", "high"]]) for share in shown),
    ]


def probability_or_score(question: Question) -> Any:
    """Return probabilities, which users can compare with a threshold, or scores."""
    return question.score if question.probability is None else question.probability


def mistakes(material: Material, images: Any, n_shown: int) -> Html:
    """Return what the first classifier is most wrong about; pictures only if asked."""
    name, questions = next(iter(material.questions.items()))
    if any(question.probability is None for question in questions):
        return box(f"{name} gives no probabilities, so none of its mistakes is worst.")
    content: list[Any] = [
        paragraph(
            f"Where {name} held what is true for least likely. Look before you tune: "
            "some may be wrong labels, or other kinds of image. Rows are those of the "
            "test set, from 0."
        )
    ]
    if n_shown:
        content.insert(
            0,
            box(
                element("strong", "This file holds pictures of patients. "),
                "Keep it where these images themselves may be kept, and pass it on to "
                "nobody who may not see them.",
                kind="bad",
            ),
        )
    reading = {}
    if material.embedder is not None:  # read as it reads them
        names = ("intensity", "frame", "max_pixels")
        reading = {one: getattr(material.embedder, one) for one in names}
    for label in [None] if material.truth.kind == "classes" else material.labels:
        wrong, n_asked = find_mistakes(material.truth, questions, label)
        title = f"{len(wrong):,} of {n_asked:,} wrong"
        title = title if label is None else f"{label}: {title}"
        if not len(wrong):
            content.append(paragraph(f"{title}."))
        elif n_shown:
            tiles = draw_mistakes(wrong.head(n_shown), images, reading, material.names)
            content += [element("h3", title), pictures(tiles, "tiles")]
        else:
            rows = [
                [material.names[one.row], one.true, one.predicted]
                + [f"{one.probability:.3f}"]
                for one in wrong.head(_N_LISTED).itertuples()
            ]
            head = ["Image", "Is", "Was called", "Probability of what it is"]
            content.append(table(f"{title}; the worst", head, rows, n_words=3))
    return join(*content)


def published(material: Material, modality: str | None) -> Html:
    """Return Google's figures beside those of the same name; nothing unless asked."""
    if modality is None:
        return Html()
    theirs = published_results(modality)
    own = material.table
    own = own[(own["metric"] == "roc_auc") & (own["subgroup"] == "all")]
    own = own[own["estimator"].isin(list(material.estimators))]
    if {str(one).casefold() for one in material.labels} != set(
        theirs["label"].str.casefold()
    ) - {"macro"}:  # a mean of other labels is another figure
        own = own[own["label"] != "macro"]
    rows = []
    plain = own["label"].astype(str).str.casefold().str.replace("_", " ")
    for row in theirs.itertuples():
        found = own[plain == row.label.casefold()].set_index("estimator")
        if found.empty:
            continue
        cells = [
            spread(*found.loc[name, ["value", "low", "high"]])
            if name in found.index
            else ""
            for name in material.estimators
        ]
        how = row.estimator.removeprefix("MedSigLIP ").removesuffix(" (model card)")
        rows.append([row.label, how, f"{row.value:.3f}", *cells])
    if not rows:
        return box(
            f"Nothing can be compared: none of the labels here is one of those that "
            f"Google published for {modality}: {', '.join(theirs['label'])}."
        )
    head = ["Label", "Google's method", "Google's AUC"]
    head += [f"{name}, here" for name in material.estimators]
    title = f"Published AUC, {modality}, beside this test set's"
    return join(
        box(
            "The published figures are Google's, measured by Google on Google's "
            "test sets, without intervals. None was measured here. The method may "
            "be another one, and other images, labels and prevalence make other "
            "figures: the difference is not the worth of a classifier."
        ),
        table(title, head, rows, n_words=2),
        paragraph(f"Source: {theirs['source'].iloc[0]}"),
    )


def prompts(material: Material) -> Html:
    """Return the texts that zero-shot classifiers and heads start from, if any."""
    content = []
    for name, one in material.estimators.items():
        given = getattr(steps(one)[-1], "prompts", None)
        if given is None:
            continue
        if not isinstance(given, Mapping):
            content += [element("h3", name), paragraph(_words(given))]
            continue
        rows = [[label, _words(texts)] for label, texts in given.items()]
        content.append(table(f"Prompts of {name}", ["Label", "Texts"], rows, n_words=2))
    return join(*content)


def origins(material: Material, command: str | None) -> Html:
    """Return what made this report: models, revisions, versions, when and how."""
    models = [
        [name, type(step).__name__, *described]
        for name, one in material.estimators.items()
        for step in steps(one)
        if (described := _describe(step))
    ]
    if (maker := material.embedder) is not None:
        kind = type(maker).__name__
        if all(row[1] != kind for row in models):  # not one of a pipeline's
            models.insert(0, ["embeddings", kind, *_describe(maker)])
    now = datetime.now(UTC)
    settings = material.settings
    made = [
        ("When", f"{now:%Y-%m-%d %H:%M} UTC"),
        ("Command", element("code", command) if command else "from Python"),
        (
            "Intervals",
            f"{settings['level']:.0%}, by patient; where they take resamples, "
            f"{settings['n_bootstrap']:,}, random_state={settings['random_state']}",
        ),
        ("Versions", ", ".join(_versions())),
    ]
    head = ["Classifier", "Step", "Model", "Revision", "Settings"]
    return join(
        table("What each classifier is made of", head, models, n_words=len(head))
        if models
        else paragraph("Scores were given; what made them is not known here."),
        terms(made),
    )


def _describe(step: Any) -> list[str]:
    """Return model, revision and settings of a step."""
    if not hasattr(step, "get_params"):
        return []
    given = step.get_params()
    inner = {key.removeprefix("embedder__"): value for key, value in given.items()}
    model, revision = inner.get("model"), inner.get("revision")
    revision = getattr(step, "revision_", revision)
    settings = [
        f"{key}={_words(inner[key])}"
        for key in _SETTINGS
        if inner.get(key) not in (None, False)
    ]
    return [_name(model), _name(revision), ", ".join(settings)]


def _name(value: Any) -> str:
    """Return a model's name; of a folder the last part, which tells no machine."""
    if value is None:
        return ""
    text = str(value)
    return Path(text).name if Path(text).is_absolute() else text


def _words(texts: Any) -> str:
    """Return prompts in one line."""
    if isinstance(texts, Mapping):
        if set(texts) == {"positive", "negative"}:
            return "; ".join(f"{key}: {_words(value)}" for key, value in texts.items())
        return " | ".join(
            f"{text} (weight {weight:g})" for text, weight in texts.items()
        )
    if isinstance(texts, list | tuple):
        return " | ".join(map(str, texts))
    return str(texts)


def _versions() -> Iterator[str]:
    yield f"sk-medsiglip {__version__}"
    yield f"Python {platform.python_version()}"
    for package in _PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    yield platform.system()
