"""``find_label_issues``: labels that look wrong, and patients with different labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.utils.validation import check_consistent_length

from sk_medsiglip._splits import check_groups, one_column
from sk_medsiglip.audit._answers import Answers, ask


def find_label_issues(
    X: ArrayLike,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    images: Sequence[Any] | None = None,
    estimator: Any = None,
    cv: Any = 5,
) -> pd.DataFrame:
    """List the labels that look wrong, the worst first.

    Classifiers that did not learn from a patient judge the labels of the patient's
    images. A label is listed where they find another one likelier.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Embeddings. Rows of NaN, images that could not be read, are left out.
    y : array-like of shape (n_samples,) or (n_samples, n_findings)
        Labels to be judged: classes; or 1 and 0 for each finding, NaN where it is
        blank. Blanks are not judged.
    groups : array-like of shape (n_samples,), default=None
        Patients, whom the folds keep whole. Without them, each image is a patient, and
        a wrong label that all images of a patient share is learned as if it were
        right.
    images : sequence of n_samples objects, default=None
        Images or their paths, for a column ``image`` of the table.
    estimator : classifier, default=None
        A classifier of scikit-learn with ``predict_proba``. It is fitted to each
        finding in each fold. None is logistic regression whose penalty is chosen by the
        same folds, all of them solved together.
    cv : int, splitter or iterable, default=5
        Folds. A number is stratified for each finding, keeps patients together, and
        shrinks to the number of patients of the rarest label.

    Returns
    -------
    issues : DataFrame
        Empty if no label looks wrong. A row of it is a label; columns:

        - ``row``: the row of ``X``;
        - ``finding``: the name of the column of ``y``, or its number;
        - ``given``: the label in ``y``;
        - ``suggested``: the label that is likelier;
        - ``score``: the probability of the label that is given, the lowest first;
        - ``group``: the patient, if ``groups`` is passed;
        - ``image``: the image, if ``images`` is passed.

        ``issues.attrs`` holds ``n_likely``, the number of labels of each finding that
        are as sure as a typical image of the suggested label (see the notes);
        ``n_judged``, the number of labels that were judged; ``left_out``, the findings
        that cannot be judged, with the reason; and ``notes``, sentences on rows and
        groups.

    Raises
    ------
    ValueError
        If lengths differ, all labels are blank, or no label has two patients.
    TypeError
        If the estimator has no ``predict_proba``.

    See Also
    --------
    find_disagreements : Patients whose images carry different labels.

    Notes
    -----
    The score is the self-confidence of confident learning [1]_: for a finding with two
    values its other scores rank labels in the same order. Images of one patient that
    carry the same label share the mean of their logits, which finds more labels that
    are wrong in all images of a patient. A label counts as likely wrong if the
    suggested label is at least as probable as it is, in the mean, for the images that
    carry it, which is the rule of [1]_.

    A label may be listed because it is hard, not because it is wrong: look at the
    image. Where the classifiers are poor, so is the list, and labels that are wrong in
    a systematic way (every image of one site) are learned and not found.

    The penalty is chosen by the folds that judge. One of eight values, chosen for all
    rows together, cannot adapt to the label of a single row, so nested folds would
    cost five times as much and change nothing.

    Cost: one call of :func:`~sk_medsiglip.heads.fit_logistic_path` with six penalties;
    two weaker ones are tried only for findings whose loss still falls.

    References
    ----------
    .. [1] Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in
       Dataset Labels", Journal of Artificial Intelligence Research 70, 2021.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder
    >>> from sk_medsiglip.audit import find_label_issues
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> phantoms = make_chest_phantoms(150, random_state=0)
    >>> X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    >>> y = phantoms.target[:, 0].copy()  # cardiomegaly
    >>> y[[20, 70]] = 1 - y[[20, 70]]
    >>> issues = find_label_issues(X, y, groups=phantoms.groups)
    >>> sorted(issues["row"].head(2).tolist())
    [20, 70]
    """
    if images is not None:
        check_consistent_length(X, images)
    answers = ask(find_label_issues, X, y, groups, cv, estimator)
    issues = list_issues(answers, groups)
    if images is not None:
        listed = list(images)  # a column of a table would be asked by its index
        shown = [listed[row] for row in issues["row"]]
        issues["image"] = pd.Series(shown, dtype=object)
    return issues


def list_issues(answers: Answers, groups: Any) -> pd.DataFrame:
    """Return the labels that look wrong, from answers of classifiers."""
    parts, n_likely, n_judged = [], {}, {}
    for k, name in enumerate(answers.names):
        judged, given, proba = _probabilities(answers, k)
        suggested = proba.argmax(axis=1)
        each = np.arange(len(judged))
        typical = np.ones(len(answers.values))
        for value in np.unique(given):
            typical[value] = proba[given == value, value].mean()
        differs = suggested != given
        likely = differs & (proba[each, suggested] >= typical[suggested])
        n_likely[name], n_judged[name] = int(likely.sum()), len(judged)
        part = {
            "row": answers.rows.row[judged],
            "finding": pd.Series([name] * len(judged), dtype=object),
            "given": answers.values[given],
            "suggested": answers.values[suggested],
            "score": proba[each, given],
            "_finding": k,
        }
        parts.append(pd.DataFrame(part)[differs])
    issues = pd.concat(parts).sort_values(["score", "row", "_finding"], kind="stable")
    issues = issues.drop(columns="_finding").reset_index(drop=True)
    issues["finding"] = issues["finding"].infer_objects()
    if groups is not None:
        issues["group"] = one_column(groups)[issues["row"]]
    issues.attrs = {
        "n_likely": n_likely,
        "n_judged": n_judged,
        "left_out": answers.left_out,
        "notes": answers.rows.notes,
    }
    return issues


def _probabilities(
    answers: Answers, k: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return the rows that are judged, their labels, and probabilities of all values.

    Images of a patient that carry the same label share the mean of their logits.
    """
    target = answers.target[:, k]
    logits = answers.logits if answers.is_exclusive else answers.logits[:, [k]]
    judged = np.flatnonzero(~np.isnan(target) & ~np.isnan(logits[:, 0]))
    given = target[judged].astype(np.intp)
    unit = answers.rows.patient[judged] * len(answers.values) + given
    shared = pd.DataFrame(logits[judged]).groupby(unit).transform("mean").to_numpy()
    if not answers.is_exclusive:
        shared = np.hstack([np.zeros_like(shared), shared])
    return judged, given, softmax(shared, axis=1)


def find_disagreements(y: ArrayLike, groups: ArrayLike) -> pd.DataFrame:
    """List the patients whose images carry different labels.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_findings)
        Labels: of one of several classes, or 1 and 0 for each finding. Blanks (NaN,
        None or NA) disagree with nothing.
    groups : array-like of shape (n_samples,)
        Patients.

    Returns
    -------
    disagreements : DataFrame
        Empty if the images of every patient agree. A row of it is a patient and a
        finding, those with the smallest minority first; columns:

        - ``group``: the patient;
        - ``finding``: the name of the column of ``y``, or its number;
        - ``n_rows``: the number of labelled images of the patient;
        - ``n_minority``: the number of them without the patient's most frequent label;
        - ``labels``: a dict from each label to its rows of ``y``.

    Raises
    ------
    ValueError
        If lengths differ or a group is missing.

    Notes
    -----
    A disagreement need not be an error: findings come and go between two visits, and a
    lateral view may show what a frontal one hides. Where all images of a patient are of
    one day, it mostly is one, and this list then finds what no classifier finds as
    well.

    Examples
    --------
    >>> from sk_medsiglip.audit import find_disagreements
    >>> found = find_disagreements([1, 1, 0, 0, 0], ["a", "a", "a", "b", "b"])
    >>> found[["group", "n_rows", "n_minority"]]
      group  n_rows  n_minority
    0     a       3           1
    >>> found["labels"][0]
    {0: [2], 1: [0, 1]}
    """
    table = y.to_frame() if isinstance(y, pd.Series) else pd.DataFrame(y)
    patients = check_groups(groups, len(table))
    found = []
    for name, labels in table.items():
        known = np.flatnonzero(labels.notna())
        own = pd.DataFrame({"group": patients[known], "row": known})
        own["label"] = labels.to_numpy()[known]
        differs = own.groupby("group")["label"].transform("nunique") > 1
        for patient, part in own[differs].groupby("group"):
            rows = part.groupby("label")["row"].apply(list).to_dict()
            found.append(
                {
                    "group": patient,
                    "finding": name,
                    "n_rows": len(part),
                    "n_minority": len(part) - max(map(len, rows.values())),
                    "labels": rows,
                }
            )
    columns = ["group", "finding", "n_rows", "n_minority", "labels"]
    frame = pd.DataFrame(found, columns=columns)
    return frame.sort_values("n_minority", kind="stable").reset_index(drop=True)
