"""``find_shortcuts``: metadata that could stand in for a finding."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from sklearn.linear_model import RidgeClassifier

from sk_medsiglip._intervals import holm
from sk_medsiglip.audit._answers import Answers, ask
from sk_medsiglip.audit._metadata import Column, as_table, read_columns
from sk_medsiglip.audit._pair_auc import auc_conflicting, auc_within
from sk_medsiglip.audit._permutations import exchanges, p_value
from sk_medsiglip.audit._ridge import (
    centred,
    deal_patients,
    explaining_rows,
    predict_out_of_folds,
)
from sk_medsiglip.audit._rows import Rows
from sk_medsiglip.heads import explain_head

#: Permutations for each column, so that Holm's method can reach .01.
_DRAWS_A_COLUMN = 200
_LEAST_DRAWS = 999
#: Elements of permuted targets that are held at once: 64 MB of float32.
_BLOCK = 2**24
_IDENTITY = "it stands for the patient or the row: no two patients share a value"

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
          of one label, by patients that were not learned from, the mean over levels;
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
        If lengths differ, all labels are blank, ``level`` is not between 0 and 1, or a
        label has one patient.

    See Also
    --------
    sk_medsiglip.heads.explain_head : Words for what a classifier looks at.

    Notes
    -----
    A column can be read if a ridge regression on the embeddings explains more of its
    levels than of exchanged ones; from rows and levels the mean of their label is taken
    away. Without that, every column that goes with a visible finding could be read
    through the finding. Patients with the same labels exchange their levels, and the
    regression is fitted again for each permutation; a permutation of a fitted one would
    find too much. Where all images of a patient share a level, the regression is on
    their mean, which shows a faint trace more clearly.

    A column that no two patients share a value of stands for the patient or the row and
    is not tested; levels of fewer than five patients are left out. Both are named in
    ``note``.

    The test sees what the model sees. On the demonstration rows, which are of a small
    model for trying things out, a strong change of the grey values is found with 400
    patients and a block of 8 px in most sets, a block of 4 px and a slight change are
    not. Finding nothing does not prove that nothing is there.

    Cost: one decomposition of a matrix of (n_features, n_features) and one product with
    ``n_permutations`` columns, for each column and finding, and one call of
    :func:`~sk_medsiglip.heads.fit_logistic_path`.

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
    answers = ask(find_shortcuts, X, y, groups)
    rows = answers.rows
    columns = read_columns(as_table(metadata, rows.n_given, rows.row), rows.patient)
    found = list_shortcuts(answers, columns, level, n_permutations, random_state)
    if prompts is not None:
        found["words"] = _words(answers, columns, found, prompts, model)
    return found


def list_shortcuts(
    answers: Answers,
    columns: list[Column],
    level: float = 0.01,
    n_permutations: int | None = None,
    random_state: int = 0,
) -> pd.DataFrame:
    """Return the table, from answers of classifiers out of folds."""
    if n_permutations is None:
        n_permutations = max(_LEAST_DRAWS, _DRAWS_A_COLUMN * len(columns))
    found = []
    for k, (finding, label, logits) in enumerate(answers.by_finding()):
        tests = [
            _test(answers.rows, column, label, logits, n_permutations, random_state)
            for column in columns
        ]
        table = pd.DataFrame(tests).reindex(columns=_COLUMNS)
        table["finding"] = pd.Series([finding] * len(table), dtype=object)
        larger = table[["p_association", "p_readable"]].max(axis=1, skipna=False)
        table["p_value"] = holm(larger.to_numpy(np.float64))
        table["shortcut"] = table["p_value"] <= level
        found.append(table.assign(_finding=k))
    result = pd.concat(found).sort_values(
        ["p_value", "auc_readable", "_finding", "column"],
        ascending=[True, False, True, True],
        kind="stable",
    )
    result = result.drop(columns="_finding").reset_index(drop=True)
    result["finding"] = result["finding"].infer_objects()
    result.attrs = {"notes": answers.rows.notes, "left_out": answers.left_out}
    return result


def _test(
    rows: Rows,
    column: Column,
    label: NDArray[np.float64],
    logits: NDArray[np.float64],
    n_permutations: int,
    random_state: int,
) -> dict[str, Any]:
    """Return the figures of one column and one finding, as far as they exist."""
    column = column.keep(~np.isnan(label), rows.patient)
    result: dict[str, Any] = {"column": column.name, "note": column.note, "n_levels": 0}
    if column.is_identity:
        result["note"] = _IDENTITY
    if column.is_identity or len(column.levels) < 2:
        return result
    kept = np.flatnonzero(column.code >= 0)
    X, ill, level = rows.X[kept], label[kept].astype(np.intp), column.code[kept]
    patient = np.unique(rows.patient[kept], return_inverse=True)[1]
    rng = np.random.default_rng(random_state)
    judged = ~np.isnan(logits[kept])
    asked, score, of = ill[judged], logits[kept][judged], level[judged]
    positives = np.bincount(level, ill) / max(ill.sum(), 1)
    negatives = np.bincount(level, 1 - ill) / max((1 - ill).sum(), 1)
    most = int((positives - negatives).argmax())
    return result | {
        "n_levels": len(column.levels),
        "p_association": _association_p_value(ill, level, patient, n_permutations, rng),
        "p_readable": _reading_p_value(X, ill, level, patient, n_permutations, rng),
        "auc_readable": _auc_readable(X, ill, level, patient),
        "auc": auc_within(asked, score, np.zeros_like(of)),
        "auc_within": auc_within(asked, score, of),
        "auc_conflicting": auc_conflicting(asked, score, of),
        "most": column.levels[most],
        "share_of_positives": float(positives[most]),
        "share_of_negatives": float(negatives[most]),
    }


def _association_p_value(
    ill: NDArray[np.intp],
    level: NDArray[np.intp],
    patient: NDArray[np.intp],
    n_draws: int,
    rng: np.random.Generator,
) -> float:
    """Return the p-value of the association between levels and labels, by patient.

    Labels and levels of a patient are means over the images. The statistic is the share
    of the variance of the labels that the levels explain.
    """
    size = np.bincount(patient)
    shares = np.column_stack(
        [np.bincount(patient, level == k) / size for k in range(level.max() + 1)]
    )
    means = np.bincount(patient, ill) / size
    left, lengths, _ = np.linalg.svd(shares - shares.mean(axis=0), full_matrices=False)
    axes = left[:, lengths > 1e-9 * max(lengths[0], 1e-300)]
    means -= means.mean()
    drawn = np.stack([rng.permutation(means) for _ in range(n_draws)])
    observed = float(((axes.T @ means) ** 2).sum())
    return p_value(observed, ((drawn @ axes) ** 2).sum(axis=1))


def _reading_p_value(
    X: NDArray[np.floating],
    ill: NDArray[np.intp],
    level: NDArray[np.intp],
    patient: NDArray[np.intp],
    n_draws: int,
    rng: np.random.Generator,
) -> float:
    """Return the p-value of reading the levels from the rows, given the label.

    The statistic is the share of variance that a ridge regression explains of the
    contrast of levels that it explains best. Images of a patient that share a level are
    averaged, since their mean shows the level more clearly.
    """
    _, first, unit = np.unique(
        2 * patient + ill, return_index=True, return_inverse=True
    )
    if (level == level[first][unit]).all():
        member = csr_array((np.ones(len(unit), X.dtype), (unit, np.arange(len(unit)))))
        X = (member @ X) / np.bincount(unit)[:, None].astype(X.dtype)
        ill, level, patient = ill[first], level[first], patient[first]
    explaining = explaining_rows(X, ill, int(patient.max()) + 1)
    each = np.arange(int(level.max()) + 1)[:, None]

    def explained(levels: NDArray[np.intp]) -> NDArray[np.floating]:
        """Return the statistic of some draws, ``(n_draws, n_rows)``."""
        target = (levels[:, None] == each).astype(explaining.dtype)
        sizes = np.maximum(target.sum(axis=2, keepdims=True), 1)
        told = (target @ explaining) / np.sqrt(sizes)
        return np.linalg.eigvalsh(told @ told.swapaxes(1, 2))[:, -1]

    draws = exchanges(patient, ill == 1, n_draws, rng)
    drawn = []
    while block := list(islice(draws, max(1, _BLOCK // (len(X) * len(each))))):
        drawn.append(explained(level[np.stack(block)]))
    return p_value(float(explained(level[None])[0]), np.concatenate(drawn))


def _auc_readable(
    X: NDArray[np.floating],
    ill: NDArray[np.intp],
    level: NDArray[np.intp],
    patient: NDArray[np.intp],
) -> float:
    """Return the mean AUC of reading each level out of folds, given the label."""
    kind = np.zeros(int(patient.max()) + 1, np.intp)
    kind[patient] = 2 * level + ill
    target = np.eye(int(level.max()) + 1, dtype=X.dtype)[level]
    spread = X.std(axis=0)
    scaled = X / np.where(spread > 0, spread, 1)
    predicted = predict_out_of_folds(
        centred(scaled, ill), centred(target, ill), deal_patients(kind, patient)
    )
    areas = [
        auc_within((level == one).astype(np.intp), predicted[:, one], ill)
        for one in range(target.shape[1])
    ]
    return float(np.mean(areas))


def _words(
    answers: Answers,
    columns: list[Column],
    found: pd.DataFrame,
    prompts: Sequence[str],
    model: str | os.PathLike[str],
) -> list[str]:
    """Return the prompt nearest to the direction of each level of each shortcut."""
    labels = {name: label for name, label, _ in answers.by_finding()}
    by_name = {column.name: column for column in columns}
    rows, words = answers.rows, []
    for one in found.itertuples():
        if not one.shortcut:
            words.append("")
            continue
        label = labels[one.finding]
        column = by_name[one.column].keep(~np.isnan(label), rows.patient)
        kept = np.flatnonzero(column.code >= 0)
        X = centred(rows.X[kept], label[kept].astype(np.intp))
        alpha = float((X * X).sum()) / X.shape[1]
        head = RidgeClassifier(alpha=alpha).fit(X, column.code[kept])
        nearest = explain_head(head, prompts, top=1, model=model)
        pairs = zip(nearest["class"], nearest["prompt"], strict=True)
        words.append("; ".join(f"{column.levels[k]}: {prompt}" for k, prompt in pairs))
    return words
