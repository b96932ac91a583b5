"""The parts of a report, one function a part."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sk_medsiglip.evaluation._metric_names import metric_name
from sk_medsiglip.evaluation._published import known_training_data
from sk_medsiglip.evaluation._report_html import (
    Html,
    box,
    element,
    join,
    paragraph,
    table,
)
from sk_medsiglip.evaluation._report_material import Material, steps
from sk_medsiglip.evaluation._report_tables import count, level_of, overall_rows, spread
from sk_medsiglip.exceptions import LeakageWarning, UnreadableImageWarning

__all__ = ["BLANKS", "data", "heading", "intended_use", "leakage", "summary"]

#: What only people can say: a name for ``notes``, the term, and what to write.
BLANKS = {
    "intended_use": ("Intended use", "what decision it informs, whose, and where"),
    "out_of_scope": ("Not to be used for", "other anatomy, devices, ages, settings"),
    "population": ("Who the images are of", "sites, years, scanners, who is missing"),
    "reference": ("Where the labels come from", "readers, reports or tests, by whom"),
    "limits": ("Known limits", "where it fails, what was not tested"),
    "oversight": ("Who checks its output", "which reader, and how errors come back"),
    "contact": ("Who answers for this report", "name, role, date"),
}


_COUNTED = ["Label", "Images with it", "Without", "Not known", "Patients with it"]


def heading(material: Material) -> Html:
    """Return what stands under the title."""
    n_patients = material.test.n_patients()
    patients = "" if n_patients is None else f" of {n_patients:,} patients"
    demo = box(
        element("strong", "A demonstration, not MedSigLIP. "),
        "The images went through the small demonstration checkpoint, which was trained "
        "on drawings. These figures say nothing of MedSigLIP, nor of patients.",
        kind="bad",
    )
    return join(
        demo if material.is_demo else "",
        paragraph(
            element("strong", "Not a medical device, not for clinical use."),
            " Figures of one test set are no claim about other hospitals, scanners "
            "or patients.",
        ),
        paragraph(
            f"{', '.join(material.estimators)}, on {material.test.n_images:,} test "
            f"images{patients}."
        ),
    )


def summary(material: Material) -> Html:
    """Return the figure that speaks for all, and what to know before believing it."""
    metric, label = material.metrics[0], material.overall
    of = overall_rows(material)
    of = of[(of["metric"] == metric) & (of["label"] == label)]
    rows = [
        [row.estimator, label, spread(row.value, row.low, row.high), count(row.n)]
        for row in of[of["estimator"].isin(list(material.estimators))].itertuples()
    ]
    leaks = [one for one in material.warned if isinstance(one, LeakageWarning)]
    others = [
        one
        for one in material.warned
        if isinstance(one, UserWarning) and not isinstance(one, LeakageWarning)
    ]
    said = dict.fromkeys(map(_without_paths, others))
    return join(
        table(
            f"{metric_name(metric)}, with {level_of(material)}",
            ["Classifier", "Label", metric_name(metric), "Images"],
            rows,
            n_words=2,
        ),
        *(box(element("strong", "Leakage. "), one, kind="bad") for one in leaks),
        *(box(one) for one in [*material.remarks, *said]),
        paragraph(_how_sure(material)),
    )


def intended_use(notes: Mapping[str, str]) -> Html:
    """Return what only people can say, or marked blanks for it."""
    content = []
    for name, (term, question) in BLANKS.items():
        said = paragraph(notes[name]) if notes.get(name) else _blank(question)
        content.append(element("div", element("h3", term), said))
    for name in [name for name in notes if name not in BLANKS]:
        said = paragraph(notes[name])
        content.append(element("div", element("h3", name), said))
    return element("div", *content, class_="blanks")


def data(material: Material, described: str | None) -> Html:
    """Return how many images, patients and labels there are, part by part."""
    parts = [material.test, *material.others]
    rows = []
    for part in parts:
        patients = count(part.n_patients()) or "not given"
        rows.append([part.name, count(part.n_images), patients])
    content = [
        paragraph(described)
        if described
        else _blank("where the test images come from"),
        table("Parts of the data", ["Part", "Images", "Patients"], rows),
        paragraph(copies(material)),
        *map(paragraph, tuned(material)),
    ]
    for part in parts:
        if part.truth is None:
            continue
        counted = []
        for name in part.truth.names:
            *images, patients_with = part.counts(name)
            with_it = "" if patients_with is None else count(patients_with)
            counted.append([name, *map(count, images), with_it or "not given"])
        content.append(table(f"Labels of the {part.name} set", _COUNTED, counted))
    if material.truth.kind == "findings":
        content.append(
            paragraph(
                "Where a label is not known, the image counts for the others only."
            )
        )
    return join(*content)


def copies(material: Material) -> str:
    """Return how many test images are copies of another, as a sentence."""
    n = material.test.n_images
    if material.n_copies is None:
        return "Whether test images are copies of each other was not looked for."
    if not material.n_copies:
        return f"None of the {n:,} test images is a copy of another test image."
    return (
        f"{material.n_copies:,} of the {n:,} test images are copies of another test "
        "image. None of them was left out, so that each counts."
    )


#: Attributes that a fitted estimator has only where data chose something.
_TUNED = {
    "scores_": "penalty of {} was chosen by cross-validation",
    "best_params_": "settings of {} were chosen by cross-validation",
    "best_prompts_": "prompts of {} were chosen by cross-validation",
    "best_threshold_": "threshold of {} was chosen by cross-validation",
    "calibrated_classifiers_": "probabilities of {} were calibrated",
    "temperature_": "temperature of {} was fitted",
}


def tuned(material: Material) -> Iterator[str]:
    """Yield sentences on what was tuned, and on how many images and patients."""
    tuning, training = material.part("tuning"), material.part("training")
    if tuning is not None and material.thresholds:
        yield f"Thresholds were chosen on the tuning set, {tuning.size}."
    where = "; their number is not known here"
    if training is not None:
        where = f", {training.size}"
    for name, one in material.estimators.items():
        last = steps(one)[-1]
        said = [how for attribute, how in _TUNED.items() if hasattr(last, attribute)]
        if hasattr(last, "get_params"):
            for key, value in last.get_params(deep=False).items():
                if isinstance(value, str) and value == "cv":
                    said.append(f"{key} of {{}} was chosen by cross-validation")
        for how in said:
            yield f"The {how.format(name)} on its training images{where}."


def leakage(material: Material) -> Html:
    """Return what was looked for on both sides, and found."""
    content = []
    rows = [[leak.part, leak.kind, str(leak)] for leak in material.leaks]
    if rows:
        head = ["Part", "What is on both sides", "How many in the test set"]
        title = "Test set compared with other parts"
        content.append(table(title, head, rows, n_words=2))
    if material.part("training") is None:
        content.append(
            box(
                "The training set was not given, so nobody looked whether patients or "
                "pictures of the test set were learned from."
            )
        )
    content += [
        box(one, kind="bad")
        for one in material.warned
        if isinstance(one, LeakageWarning)
    ]
    names = ", ".join(known_training_data()["name"])
    content.append(
        paragraph(
            f"MedSigLIP itself was trained on public sets ({names}) and on others that "
            "were not named: images of these are no test of it, which no comparison of "
            "files can show."
        )
    )
    return join(*content)


def _without_paths(warning: Warning) -> str:
    """Return what a warning says, unless it names a file: that may name a patient."""
    if isinstance(warning, UnreadableImageWarning):
        return "Images that could not be read were left out; the program named them."
    said = str(warning)
    if re.search(r"[\w.]*[/\\][\w.]+[/\\.]", said):
        return f"The program warned of a file ({type(warning).__name__})."
    return said


def _blank(question: str) -> Html:
    return box(element("strong", "To be filled in: "), question, kind="blank")


def _how_sure(material: Material) -> str:
    if material.test.groups is None:
        return (
            "Intervals take each image for a patient, since patients were not given: "
            "they are too narrow if any has several."
        )
    return "Intervals count patients, not images."
