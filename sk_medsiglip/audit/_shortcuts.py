"""``find_shortcuts``: metadata that could stand in for a finding."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import RidgeClassifier

from sk_medsiglip._intervals import holm
from sk_medsiglip._labels import Labels
from sk_medsiglip._splits import make_folds
from sk_medsiglip.audit._column_tests import p_association, read_levels
from sk_medsiglip.audit._metadata_columns import MetadataColumn, read_columns
from sk_medsiglip.audit._pair_auc import auc_conflicting, auc_within
from sk_medsiglip.audit._questions import (
    Questions,
    deal,
    out_of_fold_logits,
    read_questions,
)
from sk_medsiglip.audit._ridge import centred
from sk_medsiglip.audit._rows import Rows, check_rows
from sk_medsiglip.heads import explain_head

#: Permutations for each column, so that Holm's method can reach .01.
DRAWS_A_COLUMN = 200
LEAST_DRAWS = 999
#: Ten read a faint trace better than five.
N_FOLDS = 10

_COLUMNS = [
    *("finding", "column", "n_levels", "p_association", "p_readable", "p_value"),
    *("shortcut", "auc_readable", "auc", "auc_within", "auc_conflicting", "most"),
    *("share_of_positives", "share_of_negatives", "note"),
]


def find_shortcuts(
    X: ArrayLike,
    y: ArrayLike,
    metadata: Any,
    *,
    groups: ArrayLike | None = None,
    level: float = 0.01,
    n_permutations: int | None = None,
    prompts: Sequence[str] | None = None,
    model: str | os.PathLike[str] = "google/medsiglip-448",
    random_state: int = 0,
) -> pd.DataFrame:
    """Test which columns of metadata a classifier could use in place of a finding.

    A column, such as the scanner, is a shortcut if it goes with the label *and* can be
    read from the embeddings of images with the same label. A classifier can then answer
    by the scanner, and fails where scanners and patients are matched differently.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Embeddings. Rows of NaN, images that could not be read, are left out.
    y : array-like of shape (n_samples,) or (n_samples, n_findings)
        Labels: classes; or 1 and 0 for each finding, NaN where it is blank. Each of
        more than two classes is compared with all others.
    metadata : DataFrame, dict or array of n_samples rows
        Columns to test. Numbers and dates with more than eight distinct values are cut
        at their quartiles; all other values are levels, and so is a blank.
    groups : array-like of shape (n_samples,), default=None
        Patients, whose metadata are permuted together. Without them, each image is a
        patient, and several images of a patient make p-values too small.
    level : float, default=0.01
        Rate of false alarms, over all columns of a finding.
    n_permutations : int, default=None
        Number of permutations. By default, 999, or 200 for each column where that is
        more. Below ``n_columns / level`` no column can be a shortcut.
    prompts : sequence of str, default=None
        Texts, one of which may describe the metadata. Adds the column ``words``.
    model : str or path, default="google/medsiglip-448"
        The model that embedded the images, whose text tower reads ``prompts``.
    random_state : int, default=0
        Seed of the permutations.

    Returns
    -------
    shortcuts : DataFrame
        One row for each finding and column, the smallest p-value first:

        - ``finding``, ``column``: names;
        - ``n_levels``: levels that were tested;
        - ``p_association``: whether the column goes with the label, by patient;
        - ``p_readable``: whether it can be read from the embeddings, given the label;
        - ``p_value``: the larger of the two, adjusted for the number of columns by
          Holm's method;
        - ``shortcut``: whether that is at most ``level``;
        - ``auc_readable``: area under the ROC curve of reading the column among images
          of one label, the mean over levels;
        - ``auc``: area under the ROC curve of the finding, out of folds;
        - ``auc_within``: the same within levels of the column;
        - ``auc_conflicting``: the same for pairs of a positive and a negative whose
          levels suggest the opposite, such as a positive without a mark and a negative
          with it: what to expect where the mark misleads;
        - ``most``: the level with the largest excess of positives;
          ``share_of_positives`` and ``share_of_negatives``: how many of them it holds;
        - ``note``: levels that were left out, or why the column was not tested; its
          figures are NaN then;
        - ``words``: the prompt nearest to each level of a shortcut, if ``prompts`` are
          passed.

        ``shortcuts.attrs["notes"]`` holds sentences on rows and groups, and
        ``shortcuts.attrs["left_out"]`` the findings that cannot be tested.

    Raises
    ------
    ValueError
        If lengths differ, all labels are blank, ``level`` is no share, or a label has
        one patient.

    See Also
    --------
    sk_medsiglip.heads.explain_head : Words for what a classifier looks at.

    Notes
    -----
    A column is read by ridge regression out of folds by patient, on rows and levels
    from which the mean of their label is taken away. Without that, every column that
    goes with a visible finding could be read through the finding. Patients with the
    same labels are permuted, and the regression is fitted again for each permutation;
    a permutation of a fitted one would find too much.

    A column that no two patients share a value of stands for the patient or the row and
    is not tested; levels of fewer than five patients are left out. Both are named in
    ``note``.

    The test sees what the model sees. On the demonstration rows, which are of a small
    model for trying things out, a strong change of the grey values is found with 400
    patients and a block of 8 px in most sets, a block of 4 px and a slight change are
    not. Finding nothing is no proof that nothing is there.

    Cost: ``n_permutations`` columns in three products with ``X`` for each column and
    finding, and one call of :func:`~sk_medsiglip.heads.fit_logistic_path`.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_medsiglip import MedSigLIPEmbedder
    >>> from sk_medsiglip.audit import find_shortcuts
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> phantoms = make_chest_phantoms(120, views_per_patient=1, random_state=0)
    >>> y = phantoms.target[:, 1]  # effusion
    >>> dark = np.arange(120) % 5 != 0
    >>> portable = np.where(dark, y, 1 - y)  # for four of five, the label
    >>> images = phantoms.images.copy()
    >>> images[portable == 1] //= 2
    >>> X = MedSigLIPEmbedder("demo").transform(images)
    >>> found = find_shortcuts(X, y, {"portable": portable, "row": np.arange(120)})
    >>> found[["column", "shortcut"]]
         column  shortcut
    0  portable      True
    1       row     False
    """
    if not 0 < level < 1:
        raise ValueError(f"level is a rate between 0 and 1, such as 0.01; got {level}.")
    rows = check_rows(X, groups, "find_shortcuts")
    columns = read_columns(metadata, rows)
    questions = read_questions(find_shortcuts, X, y, rows)
    questions, folds = deal(rows, questions, 5, groups)
    logits = out_of_fold_logits(rows, questions, folds)
    if n_permutations is None:
        n_permutations = max(LEAST_DRAWS, DRAWS_A_COLUMN * len(columns))
    found = []
    for k, (finding, label) in enumerate(_findings(questions)):
        tests = [
            _test(rows, column, label, logits[:, k], n_permutations, random_state)
            for column in columns
        ]
        table = pd.DataFrame(tests).reindex(columns=_COLUMNS)
        table["finding"] = pd.Series([finding] * len(table), dtype=object)
        table["column"] = [one.name for one in columns]
        larger = table[["p_association", "p_readable"]].max(axis=1, skipna=False)
        table["p_value"] = holm(larger.to_numpy(np.float64))
        table["shortcut"] = table["p_value"] <= level
        if prompts is not None:
            table["words"] = [
                _words(rows, column, label, prompts, model) if is_one else ""
                for column, is_one in zip(columns, table["shortcut"], strict=True)
            ]
        found.append(table.assign(_finding=k))
    result = pd.concat(found).sort_values(
        ["p_value", "auc_readable", "_finding", "column"],
        ascending=[True, False, True, True],
        kind="stable",
    )
    result = result.drop(columns="_finding").reset_index(drop=True)
    result["finding"] = result["finding"].infer_objects()
    result.attrs = {"notes": rows.notes, "left_out": questions.left_out}
    return result


def _findings(questions: Questions) -> list[tuple[Hashable, NDArray[np.float64]]]:
    """Return names and labels of 1, 0 and NaN; each of several classes by itself."""
    if questions.is_exclusive:
        place = questions.target[:, 0]
        values = questions.values.tolist()
        return [(one, (place == k).astype(float)) for k, one in enumerate(values)]
    return list(zip(questions.names, questions.target.T, strict=True))


def _test(
    rows: Rows,
    column: MetadataColumn,
    label: NDArray[np.float64],
    logits: NDArray[np.float64],
    n_permutations: int,
    random_state: int,
) -> dict[str, Any]:
    """Return the figures of one column and one finding, those that can be had."""
    kept, level, names, note = column.usable(label, rows.patient)
    result: dict[str, Any] = {"n_levels": len(names), "note": note}
    if len(names) < 2:
        return result
    patient = np.unique(rows.patient[kept], return_inverse=True)[1]
    ill = label[kept].astype(np.intp)
    folds = make_folds(Labels(np.array([0, 1]), ill), N_FOLDS, patient, rows.X[kept])
    if folds is None:
        result["note"] = f"{note} A label has fewer than two patients here.".strip()
        return result
    rng = np.random.default_rng(random_state)
    result["p_association"] = p_association(ill, level, patient, n_permutations, rng)
    result["p_readable"], result["auc_readable"] = read_levels(
        rows.X[kept], ill, level, patient, folds, n_permutations, rng
    )
    score = logits[kept]
    judged = ~np.isnan(score)
    ill, level, score = ill[judged], level[judged], score[judged]
    result["auc"] = auc_within(ill, score, np.zeros_like(level))
    result["auc_within"] = auc_within(ill, score, level)
    result["auc_conflicting"] = auc_conflicting(ill, score, level)
    positives = np.bincount(level, ill) / max(ill.sum(), 1)
    negatives = np.bincount(level, 1 - ill) / max((1 - ill).sum(), 1)
    most = int((positives - negatives).argmax())
    result["most"] = names[most]
    result["share_of_positives"] = float(positives[most])
    result["share_of_negatives"] = float(negatives[most])
    return result


def _words(
    rows: Rows,
    column: MetadataColumn,
    label: NDArray[np.float64],
    prompts: Sequence[str],
    model: str | os.PathLike[str],
) -> str:
    """Return the prompt nearest to the direction of each level, given the label."""
    kept, level, names, _ = column.usable(label, rows.patient)
    X = centred(rows.X[kept], label[kept].astype(np.intp))
    alpha = float((X * X).sum()) / X.shape[1]
    head = RidgeClassifier(alpha=alpha).fit(X, level)
    nearest = explain_head(head, prompts, top=1, model=model)
    pairs = zip(nearest["class"], nearest["prompt"], strict=True)
    return "; ".join(f"{names[one]}: {prompt}" for one, prompt in pairs)
