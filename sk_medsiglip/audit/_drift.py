"""``drift_test``: whether a set of images differs from another one as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from sklearn.linear_model import RidgeClassifier

from sk_medsiglip._intervals import area_estimate
from sk_medsiglip._persistence import VersionedPickle
from sk_medsiglip._resampling import check_level
from sk_medsiglip._shared_groups import written_ids
from sk_medsiglip._splits import check_groups
from sk_medsiglip.audit._permutations import check_permutations
from sk_medsiglip.audit._ridge import (
    N_FOLDS,
    PENALTY,
    centred,
    deal_patients,
    explaining_rows,
    predict_out_of_folds,
)
from sk_medsiglip.audit._rows import Rows, check_rows

_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class DriftResult(VersionedPickle):
    """How a set of new images differs from a reference.

    Attributes
    ----------
    p_value : float
        The probability that two sets of the same kind of patients differ as much.
    auc : float
        Area under the ROC curve of classifiers that tell new images from those of the
        reference, and are asked about patients they have not learned from: .5 if the
        sets are alike, 1 if every image tells where it comes from.
    auc_low, auc_high : float
        Interval of ``auc`` by patient; NaN with fewer than two patients of a kind.
    moved : DataFrame
        The new images, those first that look least like the reference; columns ``row``,
        the row of ``X_new``, and ``score``, positive where the classifiers take the
        image for a new one.
    classifier : RidgeClassifier
        Fitted to all rows; class 1 is new. For words on what has changed pass it to
        :func:`~sk_medsiglip.heads.explain_head`.
    n_patients_reference, n_patients_new : int
        Numbers of patients.
    notes : list of str
        Sentences on rows that were left out, and on groups.
    """

    p_value: float
    auc: float
    auc_low: float
    auc_high: float
    moved: pd.DataFrame = field(repr=False)
    classifier: RidgeClassifier = field(repr=False)
    n_patients_reference: int
    n_patients_new: int
    notes: list[str]


def drift_test(
    X_reference: ArrayLike,
    X_new: ArrayLike,
    *,
    groups_reference: ArrayLike | None = None,
    groups_new: ArrayLike | None = None,
    n_permutations: int = 499,
    level: float = 0.95,
    random_state: int = 0,
) -> DriftResult:
    """Test whether new images differ from a reference, such as the training images.

    Parameters
    ----------
    X_reference : array-like of shape (n_reference, n_features)
        Embeddings of the reference. Rows of NaN, images that could not be read, are
        left out.
    X_new : array-like of shape (n_new, n_features)
        Embeddings of the new images by the same model.
    groups_reference, groups_new : array-like, default=None
        Patients of either. By default, each row is a patient. A patient of both sets is
        compared with itself; ids are compared as texts.
    n_permutations : int, default=499
        Number of permutations. The smallest p-value is ``1 / (n_permutations + 1)``.
    level : float, default=0.95
        Confidence level of the interval.
    random_state : int, default=0
        Seed of the random number generator.

    Returns
    -------
    result : DriftResult
        The p-value, the area under the ROC curve as effect size, and the images that
        moved most.

    Raises
    ------
    ValueError
        If widths or lengths differ, a set has fewer than two patients, or ``X`` holds
        bags or infinite values.

    See Also
    --------
    NoveltyGate : Whether a single image is unlike the training images.

    Notes
    -----
    The statistic is the share of the difference between the sets that a ridge
    regression on the rows explains, which is a regularised form of Hotelling's [1]_.
    Patients are permuted, and the regression is fitted anew to each permutation: all
    are targets of one decomposition. A patient of both sets has its two sides
    exchanged. So the error probability is the level of the test at any width. The
    penalty is chosen from the rows alone, so that the regression has .7 degrees of
    freedom a patient, at most.

    A small p-value says that the sets differ, not that a classifier fails on the new
    one; with many patients small differences are found, so look at ``auc``.

    Cost: one decomposition of a matrix of (n_features, n_features) and some products.

    References
    ----------
    .. [1] Chen, Paul, Prentice and Wang, "A Regularized Hotelling's T2 Test for Pathway
       Analysis in Proteomic Studies", Journal of the American Statistical Association
       106, 2011; by classifiers: Kim, Ramdas, Singh and Wasserman, "Classification
       accuracy as a proxy for two-sample testing", Annals of Statistics 49, 2021.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder
    >>> from sk_medsiglip.audit import drift_test
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> embedder = MedSigLIPEmbedder("demo")
    >>> before = make_chest_phantoms(60, random_state=0)
    >>> after = make_chest_phantoms(40, gamma=(1.6, 1.8), random_state=1)
    >>> result = drift_test(
    ...     embedder.transform(before.images), embedder.transform(after.images),
    ...     groups_new=after.groups,
    ... )
    >>> result.p_value < .01
    True
    """
    check_level(level)
    check_permutations(n_permutations)
    rows, is_new, row = _both(X_reference, X_new, groups_reference, groups_new)
    random = np.random.default_rng(random_state)
    p_value = _p_value(rows, is_new, n_permutations, random)
    X = centred(rows.X, np.zeros(len(rows.X), np.intp))
    scores = _out_of_fold(X, is_new, rows.patient)
    auc = area_estimate(is_new, scores, rows.patient, rows.n_patients)
    bounds = auc.interval(level)
    classifier = RidgeClassifier(alpha=PENALTY * float(X.var(axis=0).mean()) * len(X))
    moved = pd.DataFrame({"row": row[is_new], "score": scores[is_new]})
    moved = moved.sort_values(["score", "row"], ascending=[False, True])
    return DriftResult(
        p_value=p_value,
        auc=auc.value,
        auc_low=bounds.low,
        auc_high=bounds.high,
        moved=moved.reset_index(drop=True),
        classifier=classifier.fit(rows.X, is_new.astype(int)),
        n_patients_reference=len(np.unique(rows.patient[~is_new])),
        n_patients_new=len(np.unique(rows.patient[is_new])),
        notes=rows.notes,
    )


def _both(
    X_reference: Any, X_new: Any, groups_reference: Any, groups_new: Any
) -> tuple[Rows, NDArray[np.bool_], NDArray[np.intp]]:
    """Return the rows of both sets, which of them are new, and their own numbers."""
    sides, notes = [], []
    for given, groups, name in (
        (X_reference, groups_reference, "reference"),
        (X_new, groups_new, "new"),
    ):
        rows = check_rows(given, groups, "drift_test")
        if rows.n_patients < 2:
            raise ValueError(
                f"drift_test needs two patients or more of each set; the {name} one "
                f"has {rows.n_patients}. Pass more of its images."
            )
        ids = np.array([f"{name} row {one}" for one in rows.row], dtype=object)
        if groups is not None:
            ids = written_ids(check_groups(groups))[rows.row]
        sides.append((rows, ids))
        notes += [f"{name.capitalize()}: {note}" for note in rows.notes]
    (reference, _), (new, _) = sides
    if reference.X.shape[1] != new.X.shape[1]:
        raise ValueError(
            f"X_reference has {reference.X.shape[1]} columns and X_new has "
            f"{new.X.shape[1]}: embed both with the same model."
        )
    rows = Rows(
        X=np.vstack([reference.X, new.X]),
        row=np.arange(len(reference.X) + len(new.X)),
        patient=pd.factorize(np.concatenate([ids for _, ids in sides]))[0],
        n_given=reference.n_given + new.n_given,
        notes=notes,
    )
    return rows, rows.row >= len(reference.X), np.r_[reference.row, new.row]


def _p_value(
    rows: Rows,
    is_new: NDArray[np.bool_],
    n_permutations: int,
    random: np.random.Generator,
) -> float:
    """Compare what a ridge explains of the sets with permutations of patients."""
    patient, n_patients, n_rows = rows.patient, rows.n_patients, len(rows.X)
    has = _sides(is_new, patient)
    in_both = has[:, 0] & has[:, 1]
    # Images of a patient in both sets pull in two directions, which are exchanged.
    sign = np.where(in_both[patient] & ~is_new, -1.0, 1.0)
    by_patient = csr_array((sign, (patient, np.arange(n_rows))))
    one_stratum = np.zeros(n_rows, np.intp)
    sums = by_patient @ explaining_rows(rows.X, one_stratum, n_patients)
    side = np.where(has[:, 1], 1.0, -1.0)
    sides = np.empty((n_permutations + 1, n_patients))
    sides[0] = side
    for drawn in sides[1:]:
        drawn[~in_both] = random.permutation(side[~in_both])
        drawn[in_both] = random.choice([-1.0, 1.0], int(in_both.sum()))
    explained = ((sides @ sums) ** 2).sum(axis=1)
    mean = sides @ by_patient.sum(axis=1) / n_rows
    share = explained / np.maximum(1 - mean**2, _ROUNDING)
    return float((share >= share[0] * (1 - _ROUNDING)).mean())


def _out_of_fold(
    X: NDArray[np.floating], is_new: NDArray[np.bool_], patient: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return scores by ridges that did not learn from a row's patient."""
    has = _sides(is_new, patient)
    n_folds = min(N_FOLDS, *has.sum(axis=0).tolist())
    fold = deal_patients(has @ np.array([1, 2]), patient, n_folds)
    target = (is_new - is_new.mean()).astype(X.dtype)
    return predict_out_of_folds(X, target[:, None], fold)[:, 0].astype(np.float64)


def _sides(is_new: NDArray[np.bool_], patient: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return whether each patient has images in the reference, and new ones."""
    has = np.zeros((int(patient.max()) + 1, 2), dtype=bool)
    has[patient, is_new.astype(np.intp)] = True
    return has
