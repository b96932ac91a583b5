"""Threshold for a required sensitivity or specificity."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta
from sklearn.utils import check_consistent_length

from sk_medsiglip._resampling import check_level
from sk_medsiglip._splits import group_numbers
from sk_medsiglip.evaluation._answers import Question
from sk_medsiglip.evaluation._figures import estimates
from sk_medsiglip.evaluation._known_labels import KnownLabels, check_labels_and_scores

#: Tolerance for rounding, so that 0.95 * 20 counts as 19.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class OperatingPoint:
    """Threshold and its performance on the images on which it was chosen.

    Parameters
    ----------
    threshold : float
        Threshold. A finding is predicted if ``score >= threshold``.
    target : (str, float)
        The target, such as ``("sensitivity", 0.95)``.
    sensitivity, specificity : float
        Performance on the images on which the threshold was chosen, which is too
        optimistic; NaN without any positive or negative image. Use :meth:`report` to
        measure it on other images.
    n_positive, n_negative : int
        Numbers of images on which the threshold was chosen.
    finding : object, default=None
        Name of the finding, if there are several.
    confidence : float, default=None
        Probability that this threshold reaches the target on new patients. With None
        the target is reached in the mean over thresholds. See :attr:`promise`.

    See Also
    --------
    choose_operating_point : Choose an operating point.
    """

    threshold: float
    target: tuple[str, float]
    sensitivity: float
    specificity: float
    n_positive: int
    n_negative: int
    finding: Any = None
    confidence: float | None = None

    @property
    def promise(self) -> str:
        """Sentence on the sensitivity or specificity to expect on new patients."""
        name, share = self.target
        sure, rest = "In the mean over such thresholds", "; this one may miss it"
        if self.confidence is not None:
            sure, rest = f"With confidence {self.confidence:g}", ""
        return (
            f"{sure}, the {name} on new patients like those on which it was chosen is "
            f"at least {share:g}{rest}."
        )

    def predict(self, y_score: ArrayLike) -> NDArray[np.int64]:
        """Return 1 if the score is at least the threshold, else 0.

        Parameters
        ----------
        y_score : array-like of shape (n_samples,)
            Scores of the same kind as those on which the threshold was chosen.

        Returns
        -------
        ndarray of shape (n_samples,)
            Predictions, 1 or 0.

        Raises
        ------
        ValueError
            If scores are not 1-D, or hold NaN.
        """
        scores = np.asarray(y_score, dtype=np.float64)
        if scores.ndim != 1 or np.isnan(scores).any():
            raise ValueError(
                "y_score must have shape (n_samples,) and hold no NaN, got shape "
                f"{scores.shape} with {int(np.isnan(scores).sum())} NaN."
            )
        return (scores >= self.threshold).astype(np.int64)

    def report(
        self,
        y_true: ArrayLike,
        y_score: ArrayLike,
        *,
        groups: ArrayLike | None = None,
        level: float = 0.95,
    ) -> pd.DataFrame:
        """Measure the performance of the threshold on other images.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            1 and 0. Images with NaN are left out.
        y_score : array-like of shape (n_samples,)
            Scores.
        groups : array-like of shape (n_samples,), default=None
            Patients. Intervals are Wilson's with the effective number of patients and
            Student's t distribution; a share of 0 or 1 has the exact bound of that
            number. Without ``groups`` each image counts as a patient, and intervals are
            too narrow if patients have several images.
        level : float, default=0.95
            Confidence level of the intervals.

        Returns
        -------
        DataFrame
            Rows ``sensitivity``, ``specificity``, ``ppv``, ``npv``, ``prevalence`` and
            ``flagged`` (the share of positive predictions). Columns ``value``, ``low``,
            ``high``, and ``n``, the number of images of which ``value`` is a share; it
            is NaN if there are none.

        Raises
        ------
        ValueError
            If ``y_true`` has several columns, or if lengths differ.
        """
        check_level(level)
        known = check_labels_and_scores(y_true, y_score)
        if known[0].name is not None:
            raise ValueError(
                "an operating point is for one finding: pass y_true and y_score of "
                f"shape (n_samples,), got {np.shape(y_true)}."
            )
        (finding,) = known
        check_consistent_length(y_true, groups)
        patients = group_numbers(groups, np.shape(y_true)[0])
        present, flagged = finding.present, finding.score >= self.threshold
        question = Question(None, finding.rows, present, finding.score, flagged, None)
        bases = {
            "sensitivity": present,
            "specificity": ~present,
            "ppv": flagged,
            "npv": ~flagged,
            "prevalence": np.ones_like(present),
            "flagged": np.ones_like(present),
        }
        once = np.ones((1, len(patients)), np.int32)
        found = estimates(question, once, tuple(bases), patients)
        rows = {
            name: (found[name].value, *found[name].interval(level)[:2], base.sum())
            for name, base in bases.items()
        }
        columns = ["value", "low", "high", "n"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def choose_operating_point(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    sensitivity: float | None = None,
    specificity: float | None = None,
    groups: ArrayLike | None = None,
    confidence: float | None = None,
) -> OperatingPoint | dict[Any, OperatingPoint]:
    """Choose the threshold for a required sensitivity or specificity on new patients.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_findings)
        1 and 0, NaN where a label is not known. A DataFrame names the findings.
    y_score : array-like in the same shape
        Scores that are higher if the finding is more likely, such as probabilities or
        logits.
    sensitivity : float, default=None
        Required sensitivity, above 0 and below 1. The result is the highest threshold
        that is expected to flag this share of the positive images of new patients.
    specificity : float, default=None
        Required specificity, above 0 and below 1. The result is the lowest threshold
        that is expected not to flag this share of the negative images of new patients.
        Exactly one of ``sensitivity`` and ``specificity`` must be given.
    groups : array-like of shape (n_samples,), default=None
        Patients. Each counts once, by the share of its images that are classified
        correctly. Without them every image counts as a patient, and the target may be
        missed if patients have several images.
    confidence : float, default=None
        Probability that this one threshold reaches the target, such as 0.9. By default,
        the target is reached in the mean only (see Notes).

    Returns
    -------
    OperatingPoint, or dict of finding to OperatingPoint
        The operating point; a dict if ``y_true`` has several columns.

    Raises
    ------
    ValueError
        If a finding has no positive image for a sensitivity, or no negative one for a
        specificity.

    Warns
    -----
    UserWarning
        If there are too few patients for the target; the message gives the number that
        is needed. The threshold is then infinite: every image is flagged for a
        sensitivity, and no image for a specificity.

    Notes
    -----
    There are two kinds of guarantee, both for patients like these:

    - By default, the target is reached in the *mean*: over all samples of patients from
      which a threshold could be chosen, the sensitivity on new patients averages at
      least the target. With ``n`` patients and one image each, ``floor((n + 1) * (1 -
      sensitivity))`` of them score at most the threshold, as in conformal prediction. A
      single threshold may miss the target slightly: 34 % did with 20 patients and a
      target of 0.95, and 45 % with 120.
    - With ``confidence=0.9`` nine in ten *thresholds* reach the target. This is a
      tolerance bound from the Beta distribution of an order statistic. It costs
      specificity and needs more patients: 45 instead of 19 for a sensitivity of 0.95.

    With ``groups`` the sensitivity is the mean over patients of the share of their
    images that are flagged, which is the probability to flag a random image of a random
    patient. For patients with several images the bound of ``confidence`` is Gaffke's
    bound for the mean of shares, with a Beta distribution in place of its simulation.

    The threshold is one of the given scores rather than a midpoint, and a score equal
    to it counts as positive. It is infinite if only flagging no image is specific
    enough.

    ``FixedThresholdClassifier`` of scikit-learn puts such a threshold into a
    classifier, with the same ``>=`` (see the example). In contrast,
    ``TunedThresholdClassifierCV`` maximises a score by cross-validation.

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
    for name, value in (*wanted.items(), ("confidence", confidence)):
        if value is not None and not 0 < value < 1:
            raise ValueError(
                f"{name} must be above 0 and below 1 (1 cannot be guaranteed), got "
                f"{value!r}."
            )
    check_consistent_length(y_true, groups)
    patients = group_numbers(groups, np.shape(y_true)[0])
    points = {
        one.name: _choose(one, patients[one.rows], target, share, confidence)
        for one in check_labels_and_scores(y_true, y_score)
    }
    return points[None] if None in points else points


def _choose(
    finding: KnownLabels,
    patients: NDArray[np.intp],
    target: str,
    share: float,
    confidence: float | None,
) -> OperatingPoint:
    present, score = finding.present, finding.score
    is_sensitivity = target == "sensitivity"
    kind, sign = ("positive", 1) if is_sensitivity else ("negative", -1)
    asked = present if is_sensitivity else ~present
    if not asked.any():
        raise ValueError(
            f"{finding.words} has no {kind} image, so the {target} is undefined: leave "
            "it out, or label more images."
        )
    found = _last_needed(sign * score[asked], patients[asked], share, confidence)
    threshold = sign * (-np.inf if found is None else found)
    if found is None:
        needed, sure = share / (1 - share), ""
        if confidence is not None:
            needed = np.log(1 - confidence) / np.log(share)
            sure = f" with confidence {confidence:g}"
        warnings.warn(
            f"{finding.words} has {len(np.unique(patients[asked]))} {kind} patients "
            f"(images, without groups). A threshold for a {target} of {share:g}{sure} "
            f"takes {ceil(needed - _ROUNDING)} or more: "
            f"{'every' if is_sensitivity else 'no'} image will be flagged.",
            UserWarning,
            stacklevel=3,
        )
    elif not is_sensitivity:
        threshold = score[score > threshold].min(initial=np.inf)
    flagged = score >= threshold
    n_positive = int(present.sum())
    n_negative = len(present) - n_positive
    return OperatingPoint(
        threshold=float(threshold),
        target=(target, float(share)),
        sensitivity=float(flagged[present].mean()) if n_positive else np.nan,
        specificity=float(1 - flagged[~present].mean()) if n_negative else np.nan,
        n_positive=n_positive,
        n_negative=n_negative,
        finding=finding.name,
        confidence=confidence,
    )


def _last_needed(
    score: NDArray[np.float64],
    patients: NDArray[np.intp],
    share: float,
    confidence: float | None,
) -> float | None:
    """Return the highest score that enough images reach, or None.

    Each patient counts by the share of its images that reach the score, and one
    patient without any is added. Their mean under weights from a flat Dirichlet
    distribution has, for one image per patient, the Beta distribution of the coverage
    of an order statistic. For several, a Beta distribution of the same mean and
    variance is used.
    """
    order = np.argsort(-score, kind="stable")
    _, member, sizes = np.unique(
        patients[order], return_inverse=True, return_counts=True
    )
    size = sizes[member]
    earlier = pd.Series(member).groupby(member).cumcount().to_numpy()
    n = len(sizes) + 1
    mean = np.cumsum(1 / size) / n
    enough = mean >= share - _ROUNDING
    if confidence is not None:
        square = np.cumsum((2 * earlier + 1) / size**2) / n
        total = mean * (1 - mean) * (n + 1) / (square - mean**2) - 1
        enough = beta.sf(share, mean * total, (1 - mean) * total) >= confidence
    return float(score[order][enough.argmax()]) if enough.any() else None
