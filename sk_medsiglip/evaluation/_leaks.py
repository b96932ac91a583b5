"""Patients and images that the test set shares with the training or tuning set."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import check_consistent_length

from sk_medsiglip._bags import bag_means, is_bags
from sk_medsiglip._embeddings import is_matrix
from sk_medsiglip._shared_groups import shared_groups, written_ids
from sk_medsiglip._splits import group_numbers
from sk_medsiglip.embedding import (
    MedSigLIPEmbedder,
    MedSigLIPPatchEmbedder,
    MedSigLIPVolumeEmbedder,
    plain_rows,
)
from sk_medsiglip.evaluation._answers import steps
from sk_medsiglip.exceptions import LeakageWarning
from sk_medsiglip.images import image_rows
from sk_medsiglip.model_selection import check_leakage

AnyEmbedder = MedSigLIPEmbedder | MedSigLIPVolumeEmbedder


@dataclass(frozen=True)
class Leak:
    """Number of patients or images that the test set shares with another part.

    ``n_found`` is None if they could not be compared. ``n_by_chance`` is the expected
    number of nearly identical images, and ``doubts`` are sentences on ids that could
    not be compared.
    """

    part: str
    kind: str
    n_found: int | None
    n_by_chance: float | None = None
    doubts: Sequence[str] = ()

    def __str__(self) -> str:
        """Return the count, and a remark if not all could be compared."""
        if self.n_found is None:
            return "not looked for"
        doubt = " found, but not all could be compared" if self.doubts else ""
        return f"{self.n_found:,}{doubt}"

    @property
    def warnings(self) -> list[str]:
        """The sentences to warn with."""
        said = list(self.doubts)
        advice = (
            "results are too optimistic. Split by patient and leave copies out; "
            "model_selection.check_leakage lists them."
        )
        if self.kind.startswith("nearly"):
            expected = f"an unknown number without patients of the {self.part} set"
            if self.n_by_chance is not None:
                expected = f"about {self.n_by_chance:,.0f}, as among other patients"
            advice = (
                f"by chance it would be {expected}. Results are too optimistic if "
                "these are copies: look at the pairs that "
                "model_selection.check_leakage lists."
            )
        if self.n_found:
            said.append(
                f"the {self.part} set and the test set share {self.kind} "
                f"({self.n_found:,} of the test set's): {advice}"
            )
        return said


def find_embedder(estimators: Iterable[Any]) -> AnyEmbedder | None:
    """Return the first embedder of images or studies in pipelines."""
    for step in (step for one in estimators for step in steps(one)):
        if isinstance(step, MedSigLIPPatchEmbedder):
            return step.embedder_  # its rows come from the same forward pass
        if isinstance(step, AnyEmbedder):
            return step
    return None


def is_embedded(X: Any, embedder: AnyEmbedder | None) -> bool:
    """Tell whether X holds rows or bags; ``embedder`` is that of the pipelines."""
    return is_matrix(X) or (embedder is None and is_bags(X))


def find_leaks(
    part: str,
    X: Any,
    groups: Any,
    other: Any,
    other_groups: Any,
    embedder: AnyEmbedder | None = None,
    *,
    name_ids: bool = True,
) -> list[Leak]:
    """Look for patients and images of the test set in another set.

    Data that were not given are None. Images are compared by the rows of the embedder,
    if there is one, and bags by their means. Doubts name patients only if ``name_ids``.
    """
    check_consistent_length(other, other_groups)
    n_found, doubts, here, there = None, [], "the test set", f"the {part} set"
    if groups is not None and other_groups is not None:
        shared = shared_groups(groups, other_groups)
        n_found = len(shared.shared)
        doubts = shared.doubts(here, there, name_ids=name_ids)
    elif other_groups is not None:
        doubts = [f"patients of {there} were not compared, since {here} has no groups."]
    same, near, by_chance = _compare(X, other, other_groups, embedder)
    return [
        Leak(part, "patients", n_found, doubts=doubts),
        Leak(part, "identical images", same),
        Leak(part, "nearly identical images", near, by_chance),
    ]


def warn_of_leaks(leaks: list[Leak]) -> None:
    """Warn of the leaks that were found, on behalf of the caller's caller."""
    for leak in leaks:
        for one in leak.warnings:
            warnings.warn(one, LeakageWarning, stacklevel=3)


def as_rows(X: Any, embedder: AnyEmbedder | None) -> Any:
    """Return one row per sample, or the images themselves without an embedder."""
    if embedder is not None and not is_matrix(X):
        X = plain_rows(embedder, X)
    return bag_means(X) if is_bags(X) else X


def count_copies(rows: Any) -> int | None:
    """Return the number of rows that equal another one, None for images."""
    if not is_matrix(rows):
        return None
    rows = np.asarray(rows)
    readable = rows[np.isfinite(rows).all(axis=1)]
    written = pd.Series([row.tobytes() for row in readable])
    return int(written.duplicated(keep=False).sum())


def _compare(
    X: Any, other: Any, other_groups: Any, embedder: AnyEmbedder | None
) -> tuple[int | None, int | None, float | None]:
    """Count images of the test set in another set: same, near, near by chance."""
    if other is None:
        return None, None, None
    if is_matrix(X) != is_matrix(other):
        raise ValueError(
            "embeddings cannot be compared with images: pass X, X_train and X_tune all "
            "as embeddings, or all as images."
        )
    X, other = as_rows(X, embedder), as_rows(other, embedder)
    if is_matrix(X):
        both: Any = np.vstack([np.asarray(other), np.asarray(X)])
    else:
        both = [*image_rows(other), *image_rows(X)]
    n_other = len(other)
    split = (np.arange(n_other), np.arange(n_other, len(both)))
    patients = None
    if other_groups is not None:
        # Each test row gets its own patient, since shared patients are counted apart.
        own = group_numbers(written_ids(other_groups))
        patients = np.append(own, -1 - np.arange(len(both) - n_other))
    pairs = check_leakage(both, patients, [split], max_rows=None)
    same = pairs.loc[pairs["kind"] == "same picture", "n_test"].sum()
    near = pairs.attrs["n_found"]["nearly the same"]
    # Without embeddings only identical images can be found.
    return int(same), near if is_matrix(X) else None, pairs.attrs["n_by_chance"]
