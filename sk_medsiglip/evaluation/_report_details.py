"""Later sections of a report: thresholds, decisions, mistakes and origins."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sk_medsiglip._embeddings import is_matrix
from sk_medsiglip._splits import group_numbers
from sk_medsiglip._version import __version__
from sk_medsiglip.evaluation._answers import Question, ask, last_step, steps
from sk_medsiglip.evaluation._embedding_map import (
    groups_of,
    map_on_page,
    two_components,
)
from sk_medsiglip.evaluation._figures import estimates
from sk_medsiglip.evaluation._leaks import find_embedder
from sk_medsiglip.evaluation._mistakes_plot import find_mistakes, reading_of
from sk_medsiglip.evaluation._operating_point import choose_operating_point
from sk_medsiglip.evaluation._published import known_training_data, published_results
from sk_medsiglip.evaluation._report_material import Material, noted
from sk_medsiglip.evaluation._report_plot import draw_mistakes
from sk_medsiglip.evaluation._report_tables import count, spread

_PACKAGES = (
    *("scikit-learn", "numpy", "scipy", "pandas", "torch", "transformers"),
    *("openvino", "pillow", "pydicom", "matplotlib"),
)
#: Parameters of embedders and heads that affect the predictions.
_SETTINGS = (
    *("resize", "pad", "normalize", "dtype", "engine", "n_slices", "pooling"),
    *("grid", "pooled_row", "scoring", "templates"),
)
_N_LISTED = 10  # mistakes per label in a list without images
#: Fewest images that are worth a map, and most images of one, to limit the file.
_N_MAPPED = (10, 1000)
_N_MAPS = 4
_COUNTS = ("true_positives", "false_negatives", "false_positives", "true_negatives")
_RATES = ("sensitivity", "specificity")


def operating_points(material: Material, sensitivity: float) -> dict[str, Any] | None:
    """Return thresholds chosen on the tuning set, with their test set results."""
    tuning = material.part("tuning")
    if tuning is None or tuning.truth is None:
        return None
    n_warned = len(material.warned)
    points: list[dict[str, Any]] = []
    for name, one in material.estimators.items():
        rows = kind = None
        if hasattr(one, "predict"):
            asked = ask(name, one, tuning.X, tuning.truth)
            on_tuning = {question.label: question for question in asked}
            rows = [
                _point(material, name, test, on_tuning.get(test.label), sensitivity)
                for test in material.questions[name]
            ]
            kind = "score" if asked[0].probability is None else "probability"
        points.append({"name": name, "rows": rows, "kind": kind})
    warned = dict.fromkeys(map(str, material.warned[n_warned:]))
    return {"points": points, "warnings": list(warned)}


def _point(
    material: Material,
    name: str,
    test: Question,
    tuning: Question | None,
    sensitivity: float,
) -> list[Any]:
    """Choose a threshold on the tuning set and measure it on the test set."""
    if tuning is None or not tuning.ill.any():
        return [test.label, "none: no image with it", "0", *[""] * 5]
    part = material.part("tuning")
    assert part is not None  # the question comes from it
    n_patients = part.n_patients(tuning.rows[tuning.ill])
    of = "" if n_patients is None else f" of {n_patients:,} patients"
    with noted(material.warned):
        # A DataFrame, so that warnings name the label.
        (point,) = choose_operating_point(
            pd.DataFrame({tuning.label: tuning.ill.astype(float)}),
            tuning.risk[:, None],
            sensitivity=sensitivity,
            groups=_among(part.groups, tuning.rows),
        ).values()  # type: ignore[union-attr]
    material.thresholds[name, test.label] = point.threshold
    measured = point.report(
        test.ill,
        test.risk,
        groups=_among(material.test.groups, test.rows),
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
    chosen_on = f"{tuning.ill.sum():,}{of}"
    return [test.label, f"{point.threshold:.4g}", chosen_on] + [
        spread(*measured.loc[share, ["value", "low", "high"]]) for share in shown
    ]


def _among(groups: Any, rows: Any) -> Any:
    """Return the patients of some images, or None if patients were not given."""
    return None if groups is None else np.asarray(groups)[rows]


def decisions(
    material: Material, prevalence: float | None
) -> dict[str, list[list[Any]]]:
    """Return decisions at the thresholds for all images, subgroups and patients."""
    n = material.test.n_images
    patients = group_numbers(material.test.groups, n)
    members = {"all images": np.ones(n, bool)} | material.members
    values = [f"{one}@prevalence={prevalence}" for one in ("ppv", "npv") if prevalence]

    def cells(question: Question) -> list[Any]:
        once, wanted = np.ones((1, n), np.int32), (*_COUNTS, *_RATES, *values)
        found = estimates(question, once, wanted, patients)
        level = material.settings["level"]
        return [count(found[one].value) for one in _COUNTS] + [
            spread(found[one].value, *found[one].interval(level)[:2])
            for one in (*_RATES, *values)
        ]

    tables: dict[str, list[list[Any]]] = {}
    for (name, label), threshold in material.thresholds.items():
        asked = material.said_of(label)[name]
        yes = replace(asked, decision=asked.risk >= threshold)
        parts = {one: yes.among(chosen) for one, chosen in members.items()}
        if len(np.unique(patients)) < n:
            parts["patients"] = yes.of_patients(patients, "max")
        rows = [[label, part, *cells(one)] for part, one in parts.items()]
        tables.setdefault(name, []).extend(rows)
    return tables


def mistakes(
    material: Material, images: Any, n_shown: int
) -> list[dict[str, Any]] | None:
    """Return the worst mistakes of the first classifier, with images on request."""
    _, questions = next(iter(material.questions.items()))
    if any(question.probability is None for question in questions):
        return None
    reading = {} if material.embedder is None else reading_of(material.embedder)
    found = []
    for label in [None] if material.truth.kind == "classes" else material.labels:
        wrong, n_asked = find_mistakes(material.truth, questions, label)
        shown: dict[str, Any] = {"tiles": [], "rows": []}
        if n_shown and len(wrong):
            worst = wrong.head(n_shown)
            shown["tiles"] = draw_mistakes(worst, images, reading, material.names)
        else:
            shown["rows"] = [
                [material.names[one.row], one.true, one.predicted]
                + [f"{one.probability:.3f}"]
                for one in wrong.head(_N_LISTED).itertuples()
            ]
        found.append(
            {"label": label, "n_wrong": len(wrong), "n_asked": n_asked, **shown}
        )
    return found


def maps(material: Material, rows: Any) -> dict[str, dict[str, Any]]:
    """Return maps of the test images by title, at most four, and none of few images."""
    if not is_matrix(rows):
        return {}
    rows = np.asarray(rows, dtype=np.float64)
    shown = np.flatnonzero(np.isfinite(rows).all(axis=1))
    if len(shown) < _N_MAPPED[0]:
        return {}
    points, explained = two_components(rows[shown])
    if len(shown) > _N_MAPPED[1]:
        rng = np.random.default_rng(material.settings["random_state"])
        some = np.sort(rng.choice(len(shown), _N_MAPPED[1], replace=False))
        shown, points = shown[some], points[some]
    names = [material.names[row] for row in shown]
    found = {}
    for label in material.drawn[:_N_MAPS]:
        column = material.truth.columns()[shown, material.truth.place(label)]
        words = np.array([f"without {label}", f"with {label}"], dtype=object)
        values = np.full(len(shown), None, dtype=object)
        values[column >= 0] = words[column[column >= 0].astype(int)]
        found[f"Test images by {label}"] = map_on_page(
            points, explained, groups_of(values, len(shown)), names
        )
    return found


def trained_on() -> list[str]:
    """Return the names of the public data sets that MedSigLIP was trained on."""
    return known_training_data()["name"].tolist()


def published(material: Material, modality: str) -> dict[str, Any]:
    """Return Google's results with those for the same labels here."""
    theirs = published_results(modality)
    own = material.overall_rows
    own = own[(own["metric"] == "roc_auc") & own["estimator"].isin(material.estimators)]
    if {str(one).casefold() for one in material.labels} != set(
        theirs["label"].str.casefold()
    ) - {"macro"}:  # means over different labels cannot be compared
        own = own[own["label"] != "macro"]
    rows = []
    plain = own["label"].astype(str).str.casefold().str.replace("_", " ")
    for row in theirs.itertuples():
        found = own[plain == row.label.casefold()].set_index("estimator")
        if found.empty:
            continue
        how = row.estimator.removeprefix("MedSigLIP ").removesuffix(" (model card)")
        cells = [
            spread(*found.loc[name, ["value", "low", "high"]])
            if name in found.index
            else ""
            for name in material.estimators
        ]
        rows.append([row.label, how, f"{row.value:.3f}", *cells])
    source = theirs["source"].iloc[0]
    return {"rows": rows, "labels": theirs["label"].tolist(), "source": source}


def prompts(material: Material) -> dict[str, str | list[list[str]]]:
    """Return the prompts of zero-shot classifiers and prompt-anchored heads."""
    found: dict[str, str | list[list[str]]] = {}
    for name, one in material.estimators.items():
        given = getattr(last_step(one), "prompts", None)
        if isinstance(given, Mapping):
            found[name] = [[label, _words(texts)] for label, texts in given.items()]
        elif given is not None:
            found[name] = _words(given)
    return found


def models(material: Material) -> list[list[str]]:
    """Return the model, revision and settings of each classifier."""
    rows = [
        [name, type(step).__name__, *described]
        for name, one in material.estimators.items()
        for step in steps(one)
        if (described := _describe(step))
    ]
    maker = material.embedder
    if maker is not None and find_embedder(material.estimators.values()) is None:
        rows.insert(0, ["embeddings", type(maker).__name__, *_describe(maker)])
    return rows


def _describe(step: Any) -> list[str]:
    """Return the model, revision and settings of a step."""
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
    """Return the name of a model, for a folder without its path."""
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


def versions() -> Iterator[str]:
    """Yield the versions of the packages that were used."""
    yield f"sk-medsiglip {__version__}"
    yield f"Python {platform.python_version()}"
    for package in _PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    yield platform.system()
