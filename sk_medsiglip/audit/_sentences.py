"""What an audit found, in plain sentences that name neither patients nor files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

#: Shortcuts and slices that are described one by one.
_MOST_DESCRIBED = 5
#: Loss of an area under the ROC curve that is worth a sentence.
_CLEAR_LOSS = 0.01
#: What each check looks for, in words.
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
            f"{count(n_images, 'image')} were audited. Patients were not given, so "
            "each image counts as a patient."
        )
    return f"{count(n_images, 'image')} of {count(n_patients, 'patient')} were audited."


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


def count(n: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _on_labels(table: pd.DataFrame, faults: pd.DataFrame) -> list[str]:
    n_judged = sum(table.attrs["n_judged"].values())
    n_likely = {name: n for name, n in table.attrs["n_likely"].items() if n}
    total = sum(n_likely.values())
    said = f"None of {count(n_judged, 'label')} looks wrong."
    if total:
        each = ""
        if len(table.attrs["n_likely"]) > 1:
            parts = [f"{_named(name)}: {n:,}" for name, n in n_likely.items()]
            each = f" ({', '.join(parts)})"
        looks = "looks" if total == 1 else "look"
        said = f"{total:,} of {count(n_judged, 'label')} {looks} wrong{each}."
    further = len(table) - total
    if further > 0:
        said += f" For {further:,} more another label is likelier: look at them, too."
    left_out = table.attrs["left_out"].items()
    return [
        said,
        *(f"{_named(name)} was not judged: {reason}." for name, reason in left_out),
    ]


def _on_disagreements(table: pd.DataFrame, faults: pd.DataFrame) -> list[str]:
    if table.empty:
        return ["All images of a patient carry the same labels."]
    n_patients = table["group"].nunique()
    return [
        f"{count(n_patients, 'patient')} {'has' if n_patients == 1 else 'have'} "
        "different labels on different images; "
        "if these are of one day, some are wrong."
    ]


def _on_copies(table: pd.DataFrame, faults: pd.DataFrame) -> list[str]:
    said = ["No picture is there twice under two patients or with two labels."]
    if len(faults):
        parts = []
        if "same_group" in faults:
            parts.append(
                f"{int((~faults['same_group']).sum()):,} under another patient"
            )
        parts.append(f"{int((~faults['same_label']).sum()):,} with another label")
        are = "is a copy" if len(faults) == 1 else "are copies"
        said = [
            f"{count(len(faults), 'image')} {are} of an earlier image, "
            f"{' and '.join(parts)}."
        ]
    if n_near := table.attrs["n_found"]["nearly the same"]:
        others = "one of another patient" if "same_group" in table else "another one"
        are = "is" if n_near == 1 else "are"
        said.append(
            f"{count(n_near, 'image')} {are} nearly the same as {others}, perhaps by "
            "chance: look at the pairs."
        )
    return said


def _on_unusual(table: pd.DataFrame, faults: pd.DataFrame) -> list[str]:
    if table.empty:
        return ["No image is very unlike the others."]
    are = "image is" if len(table) == 1 else "images are"
    return [
        f"{len(table):,} {are} very unlike the others, such as another body part or "
        "inverted grey values."
    ]


def _on_shortcuts(table: pd.DataFrame, faults: pd.DataFrame) -> list[str]:
    if faults.empty:
        tested = int(table["p_value"].notna().groupby(table["column"]).any().sum())
        return [f"{count(tested, 'column')} of metadata tested: none is a shortcut."]
    said = []
    for one in faults.head(_MOST_DESCRIBED).itertuples():
        sentence = (
            f"{one.column} can be read from the images, AUC {one.auc_readable:.2f} "
            f"among images with the same label, and goes with "
            f"{_named(one.finding)}: "
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
    said: list[Any] = []
    if faults.empty:
        said = [
            f"None of {count(len(table), 'subgroup')} is ranked worse than chance "
            "explains."
        ]
        if len(table):
            findable = table["findable"].median()
            said[0] += (
                f" In half of them a drop of the AUC below {findable:.2f} would mostly "
                "go unseen."
            )
        return said
    for one in faults.head(_MOST_DESCRIBED).itertuples():
        said.append(
            f"Images with {one.slice} are ranked worse for {_named(one.finding)}: AUC "
            f"{one.auc:.2f} ({one.auc_low:.2f} to {one.auc_high:.2f}), and "
            f"{one.auc_rest:.2f} for the others."
        )
    return said + _more(faults, "subgroup")


def _more(faults: pd.DataFrame, noun: str) -> list[str]:
    """Return a sentence on faults that are not described."""
    further = len(faults) - _MOST_DESCRIBED
    return [f"There are {count(further, f'more {noun}')}."] if further > 0 else []


def _named(finding: Any) -> str:
    """Return the name of a finding; columns without names are numbered."""
    return finding if isinstance(finding, str) else f"finding {finding}"
