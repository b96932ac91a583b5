"""A threshold for a wanted sensitivity or specificity."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length

from sk_medsiglip._resampling import check_resampling
from sk_medsiglip._splits import group_numbers
from sk_medsiglip.evaluation._known_labels import KnownLabels, check_labels_and_scores
from sk_medsiglip.evaluation._rates import measure_decisions

__all__ = ["OperatingPoint", "choose_operating_point"]

#: 0.95 * 20 is 19, whatever the last digit says.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and what it did where it was chosen.

    Parameters
    ----------
    threshold : float
        A finding is said to be present where ``score >= threshold``.
    target : (str, float)
        What was asked for, such as ``("sensitivity", 0.95)``.
    sensitivity, specificity : float
        Measured on the images that chose the threshold, so they flatter; NaN without
        any positive or negative one. :meth:`report` measures on others.
    n_positive, n_negative : int
        Images that chose it.
    finding : object, default=None
        Name of the finding, of several.

    See Also
    --------
    choose_operating_point : Makes it.
    """

    threshold: float
    target: tuple[str, float]
    sensitivity: float
    specificity: float
    n_positive: int
    n_negative: int
    finding: Any = None

    def predict(self, y_score: ArrayLike) -> NDArray[np.int64]:
        """Return 1 where the score reaches the threshold, else 0.

        Parameters
        ----------
        y_score : array-like of shape (n_samples,)
            Scores of the kind that chose the threshold.

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        scores = np.asarray(y_score, dtype=np.float64)
        if scores.ndim != 1 or np.isnan(scores).any():
            raise ValueError(
                f"y_score must be (n_samples,) without NaN, got shape {scores.shape} "
                f"with {int(np.isnan(scores).sum())} NaN."
            )
        return (scores >= self.threshold).astype(np.int64)

    def report(
        self,
        y_true: ArrayLike,
        y_score: ArrayLike,
        *,
        groups: ArrayLike | None = None,
        n_bootstrap: int = 2000,
        level: float = 0.95,
        random_state: int | None = 0,
    ) -> pd.DataFrame:
        """Measure the threshold on images that did not choose it.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            1 and 0; images with NaN are left out.
        y_score : array-like of shape (n_samples,)
            Scores.
        groups : array-like of shape (n_samples,), default=None
            Patients. With them intervals are percentiles over patients drawn with
            replacement; a share of 0 or 1, which no resample changes, gets the exact
            interval of as many images as there are patients. Without them intervals
            are exact (Clopper and Pearson), and too narrow if patients have several
            images.
        n_bootstrap : int, default=2000
            Resamples; without effect if ``groups`` is None.
        level : float, default=0.95
            Of the intervals.
        random_state : int or None, default=0
            Of the resamples.

        Returns
        -------
        DataFrame
            Rows ``sensitivity``, ``specificity``, ``ppv``, ``npv``, ``prevalence`` and
            ``flagged`` (the share said to be present); columns ``value``, ``low``,
            ``high``, and ``n``, the images that it is a share of. NaN if there are
            none.
        """
        check_resampling(n_bootstrap, level)
        known = check_labels_and_scores(y_true, y_score)
        if known[0].name is not None:
            raise ValueError(
                "an operating point is of one finding: pass y_true and y_score of "
                f"shape (n_samples,), got {np.shape(y_true)}."
            )
        (finding,) = known
        check_consistent_length(y_true, groups)
        return measure_decisions(
            finding.present,
            finding.score >= self.threshold,
            None if groups is None else group_numbers(groups)[finding.rows],
            n_bootstrap=n_bootstrap,
            level=level,
            random_state=random_state,
        )


def choose_operating_point(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    sensitivity: float | None = None,
    specificity: float | None = None,
    groups: ArrayLike | None = None,
) -> OperatingPoint | dict[Any, OperatingPoint]:
    """Choose the threshold for a wanted sensitivity or specificity.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_findings)
        1 and 0, NaN where a label is not known. A DataFrame names the findings.
    y_score : array-like in the same shape
        Any numbers that are higher where the finding is likelier: probabilities,
        logits.
    sensitivity : float, default=None
        Take the highest threshold that finds at least this share of the positive
        images.
    specificity : float, default=None
        Take the lowest threshold that spares at least this share of the negative
        images. Exactly one of the two is given.
    groups : array-like of shape (n_samples,), default=None
        Patients: counted in place of images when judging whether there are enough.
        Images with and without ``groups`` give the same threshold.

    Returns
    -------
    OperatingPoint, or dict of finding to OperatingPoint
        A dict if ``y_true`` has several columns.

    Raises
    ------
    ValueError
        If a finding has no image of the kind asked about.

    Warns
    -----
    UserWarning
        If fewer than ``1 / (1 - share)`` patients are of that kind: 0.95 of 5 is all
        of them, and the threshold is that of the single worst score.

    Notes
    -----
    The threshold is a score of these images, not halfway between two: a score equal to
    it counts as present. It is infinite where only flagging nothing is specific enough.

    scikit-learn puts such a threshold into a classifier, with the same ``>=``:
    ``FixedThresholdClassifier``, in the example. ``TunedThresholdClassifierCV``
    instead maximises one score by cross-validation.

    Examples
    --------
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.model_selection import FixedThresholdClassifier
    >>> from sk_medsiglip import MedSigLIPEmbedder, ZeroShotClassifier
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.evaluation import choose_operating_point
    >>> phantoms = make_chest_phantoms(100, random_state=0)
    >>> X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    >>> y = phantoms.target[:, 1]
    >>> clf = ZeroShotClassifier(
    ...     {"effusion": {"positive": "pleural effusion",
    ...                   "negative": "no pleural effusion"}},
    ...     model="demo",
    ... ).fit(X)
    >>> scores = clf.predict_proba(X)[:, 1]
    >>> point = choose_operating_point(y, scores, sensitivity=0.9)
    >>> point.sensitivity >= 0.9
    True
    >>> fixed = FixedThresholdClassifier(
    ...     FrozenEstimator(clf),
    ...     threshold=point.threshold,
    ...     response_method="predict_proba",
    ... ).fit(X, y)
    >>> bool((fixed.predict(X) == point.predict(scores)).all())
    True
    """
    wanted = {
        name: share
        for name, share in [("sensitivity", sensitivity), ("specificity", specificity)]
        if share is not None
    }
    if len(wanted) != 1:
        raise ValueError(
            "give exactly one of sensitivity and specificity, such as "
            f"sensitivity=0.95; got sensitivity={sensitivity!r} and "
            f"specificity={specificity!r}."
        )
    ((target, share),) = wanted.items()
    if not 0 < share <= 1:
        raise ValueError(f"{target} must be above 0 and at most 1, got {share!r}.")
    check_consistent_length(y_true, groups)
    patients = None if groups is None else group_numbers(groups)
    points = {}
    for one in check_labels_and_scores(y_true, y_score):
        of_kind = one.present if target == "sensitivity" else ~one.present
        who = one.rows if patients is None else patients[one.rows]
        _warn_of_few(one, target, share, len(np.unique(who[of_kind])))
        points[one.name] = _choose(one, target, share)
    return points[None] if None in points else points


def _choose(finding: KnownLabels, target: str, share: float) -> OperatingPoint:
    present, score = finding.present, finding.score
    n_positive = int(present.sum())
    n_negative = len(present) - n_positive
    if target == "sensitivity":
        needed = max(1, ceil(share * n_positive - _ROUNDING))
        threshold = np.sort(score[present])[n_positive - needed]
    else:
        needed = max(1, ceil(share * n_negative - _ROUNDING))
        above = score[score > np.sort(score[~present])[needed - 1]]
        threshold = above.min(initial=np.inf)
    flagged = score >= threshold
    return OperatingPoint(
        threshold=float(threshold),
        target=(target, float(share)),
        sensitivity=float(flagged[present].mean()) if n_positive else np.nan,
        specificity=float(1 - flagged[~present].mean()) if n_negative else np.nan,
        n_positive=n_positive,
        n_negative=n_negative,
        finding=finding.name,
    )


def _warn_of_few(finding: KnownLabels, target: str, share: float, n: int) -> None:
    kind = "positive" if target == "sensitivity" else "negative"
    if not n:
        raise ValueError(
            f"{finding.words} has no {kind} image, so no threshold has a {target}: "
            "leave it out, or label more."
        )
    if floor((1 - share) * n + _ROUNDING) < 1 and share < 1:
        warnings.warn(
            f"{finding.words} has {n} {kind} patients (images, without groups): a "
            f"{target} of {share:g} is all of them, and the threshold the worst of "
            f"their scores. Take {ceil(1 / (1 - share) - _ROUNDING)} or more.",
            UserWarning,
            stacklevel=3,
        )
