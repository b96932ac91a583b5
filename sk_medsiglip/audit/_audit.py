"""``audit``: every check of a data set in one call."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import pandas as pd
from numpy.typing import ArrayLike

from sk_medsiglip._embeddings import is_matrix
from sk_medsiglip._progress import progress_bar
from sk_medsiglip.audit._answers import ask
from sk_medsiglip.audit._copies import find_copies
from sk_medsiglip.audit._label_issues import find_disagreements, list_issues
from sk_medsiglip.audit._metadata import Column, as_table, read_columns
from sk_medsiglip.audit._result import Audit
from sk_medsiglip.audit._rows import check_rows
from sk_medsiglip.audit._shortcuts import list_shortcuts
from sk_medsiglip.audit._slices import list_slices
from sk_medsiglip.audit._unusual import find_unusual
from sk_medsiglip.embedding import MedSigLIPEmbedder, plain_rows

_WITHOUT_METADATA = "metadata were not given"
_WITHOUT_GROUPS = "groups (patients) were not given"


def audit(
    X: Any,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    metadata: Any = None,
    embedder: MedSigLIPEmbedder | str | os.PathLike[str] | None = None,
    cv: Any = 5,
    random_state: int = 0,
    verbose: int | bool = 0,
) -> Audit:
    """Look for what is wrong with a data set, before anybody trains on it.

    Wrong labels, copies, metadata that could stand in for a finding, subgroups that are
    ranked worse, and images unlike the others: each check is a function or an estimator
    of its own, and this one runs them all.

    Parameters
    ----------
    X : collection of n_samples images, or array-like of shape (n_samples, n_features)
        Images as :class:`~sk_medsiglip.MedSigLIPEmbedder` takes them, or their
        embeddings. Rows of NaN, images that could not be read, are left out. For bags,
        pass the means of their instances.
    y : array-like of shape (n_samples,) or (n_samples, n_findings)
        Labels: classes; or 1 and 0 for each finding, NaN where it is blank. The columns
        of a DataFrame name the findings.
    groups : array-like of shape (n_samples,), default=None
        Patients. Without them each image counts as a patient, and where patients have
        several images, labels are judged too kindly and p-values are too small.
    metadata : DataFrame or dict of columns, default=None
        A row for each image: scanner, site, view, age, sex. Without them, shortcuts and
        subgroups are not looked for.
    embedder : MedSigLIPEmbedder, str or path, default=None
        Embeds the images in ``X``, or names the model that does; by default,
        :class:`~sk_medsiglip.MedSigLIPEmbedder` as it is. One with ``on_error="nan"``
        leaves out images that cannot be read.
    cv : int, splitter or iterable, default=5
        Folds by patient, for the classifiers that judge labels and subgroups.
    random_state : int, default=0
        Seed of the permutations.
    verbose : int, default=0
        Over 0 shows a progress bar.

    Returns
    -------
    Audit
        The tables of all checks, a summary in sentences, and a page.

    Raises
    ------
    ValueError
        If lengths differ, all labels are blank, no label has two patients, or no column
        of metadata has two levels.
    ImageReadError
        If an image cannot be read and the embedder has ``on_error="raise"``.

    See Also
    --------
    find_label_issues, find_disagreements, find_copies, find_shortcuts, worst_slices,
    NoveltyGate

    Notes
    -----
    A check that cannot be made, for example without metadata, is listed in
    ``Audit.left_out`` with the reason. Images whose embeddings are stored need no model
    pass.

    An audit that finds nothing does not prove that nothing is wrong: it sees what the
    embeddings show and what the metadata name.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder
    >>> from sk_medsiglip.audit import audit
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> phantoms = make_chest_phantoms(150, random_state=0)
    >>> y = phantoms.target[:, 0].copy()  # cardiomegaly
    >>> y[[20, 70]] = 1 - y[[20, 70]]
    >>> found = audit(
    ...     phantoms.images, y, groups=phantoms.groups, embedder="demo")
    >>> sorted(found.label_issues["row"].head(2).tolist())
    [20, 70]
    >>> found.left_out["shortcuts"]
    'metadata were not given'
    """
    images = None if is_matrix(X) else X
    if images is not None:
        X = plain_rows(_as_embedder(embedder), images)
    rows = check_rows(X, groups, "audit")
    left_out: dict[str, str] = {}
    columns: list[Column] = []
    if metadata is None:
        left_out |= dict.fromkeys(("shortcuts", "slices"), _WITHOUT_METADATA)
    else:  # raises for metadata that cannot be used, before the longer checks
        columns = read_columns(as_table(metadata, rows.n_given, rows.row), rows.patient)
    if groups is None:
        left_out["disagreements"] = _WITHOUT_GROUPS
    answers = cache(lambda: ask(audit, X, y, groups, cv))
    checks: dict[str, Callable[[], pd.DataFrame]] = {
        "labels": lambda: list_issues(answers(), groups),
        "disagreements": lambda: find_disagreements(y, groups),  # type: ignore[arg-type]
        "copies": lambda: find_copies(X, y, groups=groups),
        "unusual": lambda: find_unusual(rows, groups),
        "shortcuts": lambda: list_shortcuts(
            answers(), columns, random_state=random_state
        ),
        "slices": lambda: list_slices(
            answers().by_finding(), columns, rows.patient, random_state=random_state
        ),
    }
    tables: dict[str, pd.DataFrame] = {}
    with progress_bar(
        len(checks), desc="Audit", unit="check", verbose=int(verbose)
    ) as bar:
        for name, check in checks.items():
            if name not in left_out:
                tables[name] = check()
                if reason := tables[name].attrs.get("not_tested"):
                    left_out[name] = reason
            bar.update()
    return Audit(
        tables=tables,
        left_out=left_out,
        n_images=rows.n_given,
        n_patients=None if groups is None else rows.n_patients,
        notes=list(rows.notes),
        images=images,
    )


def _as_embedder(embedder: Any) -> Any:
    """Return the embedder of images, a new one for the name of a model."""
    if embedder is None:
        return MedSigLIPEmbedder()
    if isinstance(embedder, str | os.PathLike):
        return MedSigLIPEmbedder(embedder)
    return embedder
