"""``worst_slices``: subgroups in which a classifier does worse than elsewhere."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import chain, combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip._intervals import Estimate, area_estimate, holm, placements
from sk_medsiglip._labels import check_labels
from sk_medsiglip._resampling import check_level
from sk_medsiglip._splits import group_numbers
from sk_medsiglip.audit._metadata import (
    LEAST_PATIENTS,
    Column,
    as_table,
    read_columns,
)
from sk_medsiglip.audit._permutations import check_permutations, exchanges

#: Error probability of the test to which the column ``findable`` belongs.
_ALPHA = 0.05
_ROUNDING = 1e-9
_COLUMNS = [
    *("finding", "slice", "n_images", "n_patients", "n_positive"),
    *("auc", "auc_low", "auc_high", "auc_rest", "loss", "p_value", "findable"),
]


def worst_slices(
    y: ArrayLike,
    y_score: ArrayLike,
    metadata: Any,
    *,
    groups: ArrayLike | None = None,
    n_permutations: int = 499,
    level: float = 0.95,
    random_state: int = 0,
) -> pd.DataFrame:
    """List the subgroups in which a classifier ranks images worse than elsewhere.

    A slice is the images that share a level of one column of metadata, or levels of two
    columns. All slices are tested together: the p-value of a slice is the probability
    that the worst of all slices is as bad by chance.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_findings)
        Classes; or 1 and 0 for each finding, NaN where it is blank.
    y_score : array-like of shape (n_samples,), (n_samples, n_findings) or \
(n_samples, n_classes)
        Scores of images that the classifier did not learn from; higher means likelier.
        For two classes those of the second, and for more a column for each class in
        sorted order.
    metadata : DataFrame, or dict of columns
        A row for each image. Numbers and dates of more than eight values are cut at
        their quartiles; blanks are a level of their own. Levels of fewer than five
        patients are left out, and so are those beyond the 30 largest of a column.
    groups : array-like of shape (n_samples,), default=None
        Patients. By default, each image is a patient.
    n_permutations : int, default=499
        Number of permutations. The smallest p-value is ``1 / (n_permutations + 1)``.
    level : float, default=0.95
        Confidence level of the intervals.
    random_state : int, default=0
        Seed of the random number generator.

    Returns
    -------
    slices : DataFrame
        A row for each finding and slice that can be judged, the smallest p-value first
        and the clearest loss among equal ones; columns:

        - ``finding``: the name of the column of ``y``, or its number; for more than two
          classes, the class;
        - ``slice``: such as ``"site = C & view = lateral"``;
        - ``n_images``, ``n_patients``, ``n_positive``: the labelled images of the
          slice, their patients, and the images with the finding;
        - ``auc``, ``auc_low``, ``auc_high``: area under the ROC curve in the slice and
          its interval by patient;
        - ``auc_rest``: the area in all other images;
        - ``loss``: how much less often than on average the images of the slice are
          ranked rightly against all images (see the notes);
        - ``p_value``: adjusted for all slices of the finding and, by Holm's method, for
          the findings;
        - ``findable``: the loss that would be found in half of all samples of this
          size, at a p-value of .05 for the finding. Where it is large, a poor slice
          would go unseen.

        ``slices.attrs`` holds ``left_out``, the columns and levels that are left out
        and the reason; and ``unjudged``, the findings without a slice of five patients
        with and five without the finding.

    Raises
    ------
    ValueError
        If lengths differ, scores are not finite, all labels are blank, or no column of
        metadata has two levels of five patients.

    Notes
    -----
    The loss of an image with the finding is the share of images without it that have a
    higher score, and the reverse for the others; ties count half. The loss of a slice
    is the mean over its images with the finding plus the mean over those without it,
    less the same sum for all images. To first order it is the drop of the area in the
    slice, and varies less by chance, since images are compared with all others and not
    with the few of the slice.

    Under the hypothesis that is tested, metadata say nothing about scores once the
    label is known. So patients exchange their metadata with patients who carry the same
    labels, and images do so within the label. Losses are divided by their standard
    deviation over the permutations, and the largest of all slices is compared with its
    distribution (max-T, [1]_). A slice of which parts are worse and parts are better is
    not found, and neither is one whose scores are all shifted alike: look at its
    calibration.

    A slice of 8 % of patients with an area lower by .15 is rarely found among a few
    hundred patients: read ``findable`` before concluding that all is well.

    Cost: about half a second for 2,400 images and 150 slices, most of it intervals.

    References
    ----------
    .. [1] Westfall and Young, "Resampling-Based Multiple Testing", Wiley 1993.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_medsiglip.audit import worst_slices
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 600)
    >>> site = rng.choice(["A", "B", "C"], 600)
    >>> score = rng.normal(2 * y * (site != "C"))
    >>> found = worst_slices(y, score, {"site": site})
    >>> found[["slice", "p_value"]].head(1).round(3)
          slice  p_value
    0  site = C    0.002
    """
    check_level(level)
    check_permutations(n_permutations)
    findings = _read_findings(y, y_score)
    patient = group_numbers(groups, len(findings[0][1]))
    columns = read_columns(as_table(metadata, len(patient)), patient)
    return list_slices(findings, columns, patient, n_permutations, level, random_state)


def list_slices(
    findings: Iterable[tuple[Hashable, NDArray[np.float64], NDArray[np.float64]]],
    columns: list[Column],
    patient: NDArray[np.intp],
    n_permutations: int = 499,
    level: float = 0.95,
    random_state: int = 0,
) -> pd.DataFrame:
    """Return the table, from labels and scores of each finding by name."""
    usable = [column for column in columns if column.levels]
    tables, unjudged = [], []
    for name, label, scored in findings:
        known = np.flatnonzero(~np.isnan(label))
        # In an order of their own, so that results do not depend on the user's.
        codes = [column.code[known] for column in usable]
        known = known[np.lexsort((*codes, label[known], scored[known]))]
        images = _Images(
            label[known] == 1, scored[known], pd.factorize(patient[known])[0]
        )
        names, member, cells = _find_slices(usable, known, images)
        if not names:
            unjudged.append(name)
            continue
        rng = np.random.default_rng(random_state)
        table = _tabulate(images, member[:, cells], level)
        table |= _test(images, member, cells, n_permutations, rng)
        tables.append(
            pd.DataFrame({"finding": [name] * len(names), "slice": names, **table})
        )
    found = _join(tables)
    left_out = {column.name: column.note for column in columns if column.note}
    found.attrs = {"left_out": left_out, "unjudged": unjudged}
    return found


def _read_findings(
    y: Any, y_score: Any
) -> list[tuple[Hashable, NDArray[np.float64], NDArray[np.float64]]]:
    """Return the name, labels and scores of each finding, or of each of the classes."""
    labels = check_labels(worst_slices, y_score, y, unlabelled=True, blanks=True)
    score = np.asarray(y_score, dtype=np.float64)
    if score.ndim == 2 and score.shape[1] == 1:
        score = score[:, 0]
    target = labels.target.astype(np.float64)
    names: list[Hashable]
    if labels.classes is None:
        n_findings = target.shape[1]
        names = list(range(n_findings) if labels.names is None else labels.names)
    elif len(labels.classes) == 2:
        columns = getattr(y, "columns", [getattr(y, "name", None)])
        names = [0 if columns[0] is None else columns[0]]
        target = target.reshape(-1, 1)
        score = (
            score[:, 1:] if score.shape[1:] == (2,) else score.reshape(len(score), -1)
        )
    else:
        names = labels.classes.tolist()
        target = (labels.target[:, None] == np.arange(len(names))).astype(np.float64)
    if score.shape != target.shape:
        raise ValueError(
            f"y_score has shape {np.shape(y_score)}; y needs {target.shape[1]} "
            f"column(s) of scores, one for each of {names[:5]}."
        )
    if not np.isfinite(score[~np.isnan(target)]).all():
        raise ValueError(
            "y_score holds NaN or infinite values for labelled images: leave out the "
            "images that have no score."
        )
    if np.isnan(target).all():
        raise ValueError("y holds no label: every entry is blank.")
    return list(zip(names, target.T, score.T, strict=True))


class _Images(NamedTuple):
    """The labelled images of one finding."""

    ill: NDArray[np.bool_]
    score: NDArray[np.float64]
    patient: NDArray[np.intp]  # numbers from 0 on

    def auc(self, rows: NDArray[np.bool_]) -> Estimate:
        """Return the area under the ROC curve in some images."""
        n_patients = int(self.patient.max()) + 1
        own = self.ill[rows], self.score[rows], self.patient[rows]
        return area_estimate(*own, n_patients)


def _find_slices(
    columns: list[Column], known: NDArray[np.intp], images: _Images
) -> tuple[list[str], NDArray[np.bool_], NDArray[np.intp]]:
    """Return the names of slices, which cells belong to each, and images' cells.

    A cell is a combination of levels of all columns. Slices of the same images are one,
    named by the fewest columns; those of too few patients are left out.
    """
    codes = np.column_stack([column.code[known] for column in columns])
    combos, cells = np.unique(codes, axis=0, return_inverse=True)
    cells = cells.reshape(-1)
    simple = [
        [
            (f"{column.name} = {level}", combos[:, place] == code)
            for code, level in enumerate(column.levels)
        ]
        for place, column in enumerate(columns)
    ]
    candidates = list(chain.from_iterable(simple))
    for first, second in combinations(simple, 2):
        candidates += [
            (f"{a} & {b}", in_a & in_b) for a, in_a in first for b, in_b in second
        ]
    member = np.stack([inside for _, inside in candidates])
    enough = np.ones(len(member), dtype=bool)
    for side in (images.ill, ~images.ill):
        has = np.zeros((int(images.patient.max(initial=-1)) + 1, len(combos)), bool)
        has[images.patient[side], cells[side]] = True
        in_slice = has.astype(np.float32) @ member.T.astype(np.float32) > 0
        enough &= in_slice.sum(axis=0) >= LEAST_PATIENTS
    _, first_place = np.unique(member, axis=0, return_index=True)
    places = np.sort(first_place)
    places = places[enough[places]]
    return [candidates[place][0] for place in places], member[places], cells


def _tabulate(
    images: _Images, inside: NDArray[np.bool_], level: float
) -> dict[str, Any]:
    """Return sizes and areas of slices, ``(n_slices, n_images)``."""
    areas = [images.auc(rows) for rows in inside]
    bounds = [area.interval(level) for area in areas]
    return {
        "n_images": inside.sum(axis=1),
        "n_patients": [len(np.unique(images.patient[rows])) for rows in inside],
        "n_positive": inside[:, images.ill].sum(axis=1),
        "auc": [area.value for area in areas],
        "auc_low": [one.low for one in bounds],
        "auc_high": [one.high for one in bounds],
        "auc_rest": [images.auc(~rows).value for rows in inside],
    }


def _test(
    images: _Images,
    member: NDArray[np.bool_],
    cells: NDArray[np.intp],
    n_permutations: int,
    rng: np.random.Generator,
) -> dict[str, NDArray[np.float64]]:
    """Compare the loss of each slice with the largest when metadata are exchanged."""
    ill, n_cells = images.ill, member.shape[1]
    # Share of the other label's images that are ranked wrongly beside each image.
    loss = np.empty(len(ill))
    right_ill, right_well = placements(ill, images.score)
    loss[ill], loss[~ill] = 1 - right_ill, 1 - right_well
    sums = np.empty((2, n_permutations + 1, 2 * n_cells))  # losses, and their numbers
    draws = exchanges(images.patient, ill, n_permutations, rng)
    for draw, rows in enumerate(chain([np.arange(len(ill))], draws)):
        own = cells[rows] + n_cells * ill
        sums[0, draw] = np.bincount(own, loss, 2 * n_cells)
        sums[1, draw] = np.bincount(own, minlength=2 * n_cells)
    lost, counted = sums.reshape(2, -1, 2, n_cells) @ member.T.astype(np.float64)
    with np.errstate(invalid="ignore"):  # an exchanged slice may lack a label
        total = (lost / counted).sum(axis=1) - loss[ill].mean() - loss[~ill].mean()
    mean, spread = np.nanmean(total, axis=0), np.nanstd(total, axis=0)
    z = (total - mean) / np.maximum(spread, _ROUNDING)
    largest = np.nanmax(z, axis=1)
    return {
        "loss": total[0],
        "p_value": (largest[:, None] >= z[0] - _ROUNDING).mean(axis=0),
        "findable": np.quantile(largest, 1 - _ALPHA) * spread,
    }


def _join(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Join the tables of findings, with p-values adjusted for their number."""
    if not tables:
        return pd.DataFrame(columns=_COLUMNS)
    # Holm's method between findings: by the smallest p-value of each.
    smallest = np.array([table["p_value"].min() for table in tables])
    for table, factor in zip(tables, holm(smallest) / smallest, strict=True):
        table["p_value"] = np.minimum(1, table["p_value"] * factor)
        # Of equal p-values the one that is furthest from chance comes first.
        table["far"] = -table["loss"] / table["findable"]
    found = pd.concat(tables).sort_values(["p_value", "far"], kind="stable")
    return found[_COLUMNS].reset_index(drop=True)
