"""Findings of an audit in plain sentences that name neither patients nor files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

#: Shortcuts and slices that are described one by one.
_MOST_DESCRIBED = 5
#: Loss of an area under the ROC curve that is worth a sentence.
_CLEAR_LOSS = 0.01
#: The faults that each check looks for, in words.
NAMES = {
    "labels": "wrong labels",
    "disagreements": "patients with different labels",
    "copies": "copies",
    "unusual": "images unlike the others",
    "shortcuts": "shortcuts",
    "slices": "subgroups that are ranked worse",
}


def opening(n_images: int, n_patients: int | None) -> str:
    """Return the first sentence."""
    if n_patients is None:
        return (
            f"{_count(n_images, 'image was', 'images were')} audited. Patients were "
            "not given, so each image counts as a patient."
        )
    images = _count(n_images, "image", "images")
    patients = _count(n_patients, "patient", "patients")
    return f"{images} of {patients} were audited."


def on(check: str, table: pd.DataFrame, faults: pd.DataFrame) -> list[str]:
    """Return the sentences on one check."""
    return {
        "labels": _on_labels,
        "disagreements": _on_disagreements,
        "copies": _on_copies,
        "unusual": _on_unusual,
        "shortcuts": _on_shortcuts,
        "slices": _on_slices,
    }[check](table, faults)


def on_left_out(left_out: Mapping[str, str]) -> list[str]:
    """Return a sentence on each check that was not made."""
    return [
        f"{NAMES[check].capitalize()} were not looked for: {reason}."
        for check, reason in left_out.items()
    ]


def _on_labels(table: pd.DataFrame, faults: pd.DataFrame) -> list[str]:
    n_likely = table.attrs["n_likely"]
    total = sum(n_likely.values())
    labels = _count(sum(table.attrs["n_judged"].values()), "label", "labels")
    each = ""
    if total and len(n_likely) > 1:
        parts = [f"{_named(name)}: {n:,}" for name, n in n_likely.items() if n]
        each = f" ({', '.join(parts)})"
    looks = "look" if total > 1 else "looks"
    said = f"{f'{total:,}' if total else 'None'} of {labels} {looks} wrong{each}."
    if len(table) > total:
        further = len(table) - total
        said += f" For {further:,} more another label is likelier: look at them, too."
    left_out = table.attrs["left_out"].items()
    reasons = [f"{_named(name)} was not judged: {reason}." for name, reason in left_out]
    return [said, *reasons]


def _on_disagreements(table: pd.DataFrame, faults: pd.DataFrame) -> list[str]:
    if table.empty:
        return ["All images of a patient carry the same labels."]
    patients = _count(table["group"].nunique(), "patient has", "patients have")
    return [
        f"{patients} different labels on different images; if these are of one day, "
        "some are wrong."
    ]


def _on_copies(table: pd.DataFrame, faults: pd.DataFrame) -> list[str]:
    said = ["No picture is there twice under two patients or with two labels."]
    if len(faults):
        copies = _count(len(faults), "image is a copy", "images are copies")
        parts = [f"{int((~faults['same_label']).sum()):,} with another label"]
        if "same_group" in faults:
            n_others = int((~faults["same_group"]).sum())
            parts.insert(0, f"{n_others:,} under another patient")
        said = [f"{copies} of an earlier image, {' and '.join(parts)}."]
    if n_near := table.attrs["n_found"]["nearly the same"]:
        images = _count(n_near, "image is", "images are")
        other = "one of another patient" if "same_group" in table else "another one"
        said.append(
            f"{images} nearly the same as {other}, perhaps by chance: look at the "
            "pairs."
        )
    return said


def _on_unusual(table: pd.DataFrame, faults: pd.DataFrame) -> list[str]:
    if table.empty:
        return ["No image is very unlike the others."]
    images = _count(len(table), "image is", "images are")
    return [
        f"{images} very unlike the others, such as another body part or inverted grey "
        f"values; about {table.attrs['n_expected']:.1f} are expected by chance among "
        "as many."
    ]


def _on_shortcuts(table: pd.DataFrame, faults: pd.DataFrame) -> list[str]:
    if faults.empty:
        tested = int(table["p_value"].notna().groupby(table["column"]).any().sum())
        columns = _count(tested, "column", "columns")
        return [f"{columns} of metadata tested: none is a shortcut."]
    said = []
    for one in faults.head(_MOST_DESCRIBED).itertuples():
        sentence = (
            f"{one.column} can be read from the images, AUC {one.auc_readable:.2f} "
            f"among images with the same label, and goes with {_named(one.finding)}: "
            f"{one.share_of_positives:.0%} of the positives have {one.column} = "
            f"{one.most}, and {one.share_of_negatives:.0%} of the negatives."
        )
        if one.auc_conflicting < one.auc - _CLEAR_LOSS:
            sentence += (
                f" The AUC is {one.auc:.2f} over all, and {one.auc_conflicting:.2f} "
                "where the two conflict."
            )
        said.append(sentence)
    return said + _more(faults, "shortcut")


def _on_slices(table: pd.DataFrame, faults: pd.DataFrame) -> list[str]:
    if table.empty or faults.empty:
        slices = _count(len(table), "subgroup", "subgroups")
        said = f"None of {slices} is ranked worse than chance explains."
        if len(table):
            said += (
                f" In half of them a drop of the AUC below "
                f"{table['findable'].median():.2f} would mostly go unseen."
            )
        return [said]
    described = [
        f"Images with {one.slice} are ranked worse for {_named(one.finding)}: AUC "
        f"{one.auc:.2f} ({one.auc_low:.2f} to {one.auc_high:.2f}), and "
        f"{one.auc_rest:.2f} for the others."
        for one in faults.head(_MOST_DESCRIBED).itertuples()
    ]
    return described + _more(faults, "subgroup")


def _more(faults: pd.DataFrame, noun: str) -> list[str]:
    """Return a sentence on faults that are not described."""
    further = len(faults) - _MOST_DESCRIBED
    return [f"Further {noun}s: {further:,}."] if further > 0 else []


def _named(finding: Any) -> str:
    """Return the name of a finding; columns without names are numbered."""
    return finding if isinstance(finding, str) else f"finding {finding}"


def _count(n: int, one: str, several: str) -> str:
    """Return a number with its noun."""
    return f"{n:,} {one if n == 1 else several}"
