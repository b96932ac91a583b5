"""``worst_slices``: subgroups in which a classifier does worse than elsewhere."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip._intervals import area_estimate, holm, placements
from sk_medsiglip._labels import check_labels
from sk_medsiglip._resampling import check_level
from sk_medsiglip._splits import group_numbers
from sk_medsiglip._validation import Integral
from sk_medsiglip.audit._exchange import Exchange
from sk_medsiglip.audit._metadata import LEAST_PATIENTS, Column, read_metadata

#: Error probability of the test to which the column ``findable`` belongs.
_ALPHA = 0.05
_ROUNDING = 1e-9


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
    _check_settings(n_permutations, level)
    labels = check_labels(worst_slices, y_score, y, unlabelled=True, blanks=True)
    names, target, score = _questions(labels, y, y_score)
    patient = group_numbers(groups, len(target))
    columns, left_out = read_metadata(metadata, patient)
    tables, p_values, unjudged = [], [], []
    for name, ill, scored in zip(names, target.T, score.T, strict=True):
        known = np.flatnonzero(~np.isnan(ill))
        # In an order of their own, so that results do not depend on the user's.
        codes = [column.code[known] for column in columns]
        known = known[np.lexsort((*codes, ill[known], scored[known]))]
        question = _Question(
            name, ill[known] == 1, scored[known], pd.factorize(patient[known])[0]
        )
        cells, slices = _find_slices(columns, known, question)
        if not slices:
            unjudged.append(name)
            continue
        tested = _test(question, cells, slices, n_permutations, random_state)
        tables.append(_tabulate(question, cells, slices, tested, level))
        p_values.append(tested.p_value)
    found = _join(tables, p_values)
    found.attrs = {"left_out": left_out, "unjudged": unjudged}
    return found


@dataclass(frozen=True, eq=False)
class _Question:
    """The labelled images of one finding."""

    name: Hashable
    ill: NDArray[np.bool_]
    score: NDArray[np.float64]
    patient: NDArray[np.intp]  # numbers from 0 on

    @property
    def loss(self) -> NDArray[np.float64]:
        """Share of the other label's images that are ranked wrongly beside each."""
        wrong = np.empty(len(self.ill))
        right_ill, right_well = placements(self.ill, self.score)
        wrong[self.ill], wrong[~self.ill] = 1 - right_ill, 1 - right_well
        return wrong


@dataclass(frozen=True, eq=False)
class _Slice:
    """Images that share a level of one column, or levels of two."""

    name: str
    cells: NDArray[np.bool_]  # (n_cells,), the combinations of levels that belong to it


@dataclass(frozen=True, eq=False)
class _Tested:
    """Losses of slices and what is known of their distribution."""

    loss: NDArray[np.float64]
    p_value: NDArray[np.float64]  # adjusted for all slices
    findable: NDArray[np.float64]


def _check_settings(n_permutations: Any, level: Any) -> None:
    """Raise if the number of permutations or the level of intervals is invalid."""
    check_level(level)
    whole = isinstance(n_permutations, Integral) and n_permutations is not True
    if not whole or n_permutations < 19:
        raise ValueError(
            "n_permutations must be a whole number of at least 19, since fewer reach "
            f"no p-value of .05; got {n_permutations!r}."
        )


def _questions(
    labels: Any, y: Any, y_score: Any
) -> tuple[list[Hashable], NDArray[np.float64], NDArray[np.float64]]:
    """Return names, labels and scores, a column for each finding or class."""
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
    return names, target, score


def _find_slices(
    columns: list[Column], known: NDArray[np.intp], question: _Question
) -> tuple[NDArray[np.intp], list[_Slice]]:
    """Return the cell of each image, and the slices of cells that can be judged.

    A cell is a combination of levels of all columns. Slices of the same images are one,
    named by the fewest columns.
    """
    codes = np.column_stack([column.code[known] for column in columns])
    combos, cells = np.unique(codes, axis=0, return_inverse=True)
    cells = cells.reshape(-1)
    simple = [
        [
            _Slice(f"{column.name} = {level}", combos[:, place] == code)
            for code, level in enumerate(column.levels)
        ]
        for place, column in enumerate(columns)
    ]
    candidates = [one for of_column in simple for one in of_column]
    for first, second in combinations(simple, 2):
        candidates += [
            _Slice(f"{a.name} & {b.name}", a.cells & b.cells)
            for a in first
            for b in second
        ]
    counts = _patients_by_cell(cells, question, len(combos))
    slices: dict[bytes, _Slice] = {}
    for one in candidates:
        key = one.cells.tobytes()
        if key not in slices and all(
            np.count_nonzero(of_label[:, one.cells].any(axis=1)) >= LEAST_PATIENTS
            for of_label in counts
        ):
            slices[key] = one
    return cells, list(slices.values())


def _patients_by_cell(
    cells: NDArray[np.intp], question: _Question, n_cells: int
) -> list[NDArray[np.bool_]]:
    """Return which patients have images in a cell, with the finding and without."""
    shape = question.patient.max(initial=-1) + 1, n_cells
    found = []
    for side in (question.ill, ~question.ill):
        has = np.zeros(shape, dtype=bool)
        has[question.patient[side], cells[side]] = True
        found.append(has)
    return found


def _test(
    question: _Question,
    cells: NDArray[np.intp],
    slices: list[_Slice],
    n_permutations: int,
    random_state: int,
) -> _Tested:
    """Compare the loss of each slice with the largest when metadata are exchanged."""
    member = np.stack([one.cells for one in slices]).astype(np.float64)
    loss = question.loss
    rng = np.random.default_rng(random_state)
    exchange = Exchange(question.patient, question.ill, cells, rng)
    total = np.zeros((n_permutations + 1, len(slices)))
    for side in (question.ill, ~question.ill):
        total -= loss[side].mean()
    sums = np.zeros((2, 2, n_permutations + 1, member.shape[1]))
    for draw in range(n_permutations + 1):
        drawn = exchange.cells() if draw else cells
        for place, side in enumerate((question.ill, ~question.ill)):
            own = drawn[side]
            sums[place, 0, draw] = np.bincount(own, loss[side], member.shape[1])
            sums[place, 1, draw] = np.bincount(own, minlength=member.shape[1])
    with np.errstate(invalid="ignore"):  # a permuted slice may lack a label
        for lost, counted in sums:
            total += (lost @ member.T) / (counted @ member.T)
    mean, spread = np.nanmean(total, axis=0), np.nanstd(total, axis=0)
    z = (total - mean) / np.maximum(spread, _ROUNDING)
    largest = np.nanmax(z, axis=1)
    at_least = largest[:, None] >= z[0] - _ROUNDING
    threshold = np.quantile(largest, 1 - _ALPHA)
    return _Tested(total[0], at_least.mean(axis=0), threshold * spread)


def _tabulate(
    question: _Question,
    cells: NDArray[np.intp],
    slices: list[_Slice],
    tested: _Tested,
    level: float,
) -> pd.DataFrame:
    """Return the table of one finding, its p-values apart."""
    records = []
    for place, one in enumerate(slices):
        inside = one.cells[cells]
        auc = _area(question, inside)
        bounds = auc.interval(level)
        records.append(
            {
                "finding": question.name,
                "slice": one.name,
                "n_images": int(inside.sum()),
                "n_patients": len(np.unique(question.patient[inside])),
                "n_positive": int(question.ill[inside].sum()),
                "auc": auc.value,
                "auc_low": bounds.low,
                "auc_high": bounds.high,
                "auc_rest": _area(question, ~inside).value,
                "loss": tested.loss[place],
                "findable": tested.findable[place],
            }
        )
    return pd.DataFrame(records)


def _area(question: _Question, rows: NDArray[np.bool_]) -> Any:
    """Return the area under the ROC curve in some images."""
    patient, n_patients = question.patient[rows], question.patient.max() + 1
    return area_estimate(question.ill[rows], question.score[rows], patient, n_patients)


def _join(tables: list[pd.DataFrame], p_values: list[NDArray[np.float64]]) -> Any:
    """Join the tables of findings, with p-values adjusted for their number."""
    names = ["n_images", "n_patients", "n_positive", "auc", "auc_low", "auc_high"]
    names = ["finding", "slice", *names, "auc_rest", "loss", "p_value", "findable"]
    if not tables:
        return pd.DataFrame(columns=names)
    # Holm's method between findings: by the smallest p-value of each.
    smallest = np.array([one.min() for one in p_values])
    factor = holm(smallest) / smallest
    for table, p_value, more in zip(tables, p_values, factor, strict=True):
        table["p_value"] = np.minimum(1, p_value * more)
    found = pd.concat(tables)[names]
    # Of equal p-values the one that is furthest from chance comes first.
    found["far"] = -found["loss"] / found["findable"]
    found = found.sort_values(["p_value", "far"], kind="stable").drop(columns="far")
    return found.reset_index(drop=True)
